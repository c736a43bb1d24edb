//! Order within a partition: of each producer, and of what was known before something else was sent.

use super::precedence::{Span, overtaken};
use super::view::View;
use crate::Anomaly;

pub(super) fn judge(view: &View<'_>, found: &mut Vec<Anomaly>) {
    let record = |number: u32| view.history.attempts[number as usize].record;
    let partition = |number: u32| record(number).partition;
    let placed: Vec<(u32, u64)> =
        view.by_producer.iter().filter_map(|&number| Some((number, view.place(number)?))).collect();
    // Neighbours in the order of sending are enough: a list that falls somewhere falls between two of them.
    for pair in placed.windows(2) {
        let [(earlier, earlier_place), (later, later_place)] = [pair[0], pair[1]];
        let same = (partition(earlier), record(earlier).producer) == (partition(later), record(later).producer);
        if same && later_place < earlier_place {
            found.push(Anomaly::Reordered { record: record(earlier), after: record(later) });
        }
    }
    for of_partition in placed.chunk_by(|a, b| partition(a.0) == partition(b.0)) {
        judge_real_time(view, of_partition, found);
    }
}

fn judge_real_time(view: &View<'_>, placed: &[(u32, u64)], found: &mut Vec<Anomaly>) {
    let span = |&(number, place): &(u32, u64)| Span {
        invoked: view.history.attempts[number as usize].invoked,
        known: view.known_since[number as usize],
        value: place,
        item: number,
    };
    let spans: Vec<Span> = placed.iter().map(span).collect();
    overtaken(&spans, |later, known| {
        let [record, known_record] = [later, known].map(|span| view.history.attempts[span.item as usize].record);
        // Of one producer this is told as its own order already.
        if record.producer != known_record.producer {
            found.push(Anomaly::Overtook {
                record,
                offset: later.value,
                invoked: later.invoked,
                known: known_record,
                known_offset: known.value,
                known_since: known.known,
            });
        }
    });
}
