//! What is stored, as all readers together saw it, laid out for the judges: sorted lists and one slot per attempt.

use std::collections::BTreeMap;

use crate::history::{History, TIME_UNTOLD, Time};

/// Of a read that brought no record that may be there: it takes its offset all the same.
pub(super) const NO_RECORD: u32 = u32::MAX;

/// A record as a session got it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub partition: u32,
    pub offset: u64,
    /// Its attempt, or [`NO_RECORD`].
    pub number: u32,
    /// Which session.
    pub session: u32,
    /// When it was there.
    pub at: Time,
}

pub(super) struct View<'h> {
    pub history: &'h History,
    /// By partition and offset; what was read there first comes first.
    pub seen: Vec<Seen>,
    /// Per attempt: the lowest offset at which it was read.
    pub places: Vec<Option<u64>>,
    /// Per attempt: since when it is known to be stored.
    pub known_since: Vec<Time>,
    /// Further places of attempts, sorted.
    pub further_places: Vec<(u32, u64)>,
    /// Attempts by partition, producer and sequence.
    pub by_producer: Vec<u32>,
    log_starts: BTreeMap<u32, u64>,
}

impl<'h> View<'h> {
    /// `seen` is in the order of sessions, and within each as it came.
    pub fn new(history: &'h History, mut seen: Vec<Seen>) -> Self {
        seen.sort_by_key(|seen| (seen.partition, seen.offset));
        let mut places = vec![None; history.attempts.len()];
        let mut known_since: Vec<Time> = history.attempts.iter().map(acknowledged_since).collect();
        let mut further_places = Vec::new();
        for read in seen.iter().filter(|read| read.number != NO_RECORD) {
            let number = read.number as usize;
            known_since[number] = known_since[number].min(read.at);
            match places[number] {
                None => places[number] = Some(read.offset),
                Some(place) if place != read.offset => further_places.push((read.number, read.offset)),
                Some(_) => {}
            }
        }
        further_places.sort_unstable();
        further_places.dedup();
        let mut by_producer: Vec<u32> = (0u32..).take(history.attempts.len()).collect();
        by_producer.sort_by_key(|&number| {
            let record = history.attempts[number as usize].record;
            (record.partition, record.producer, record.sequence)
        });
        let log_starts = told_log_starts(history);
        Self { history, seen, places, known_since, further_places, by_producer, log_starts }
    }

    /// The highest log start that was ever told of a partition.
    pub fn log_start(&self, partition: u32) -> u64 {
        self.log_starts.get(&partition).copied().unwrap_or(0)
    }

    /// Where a record is: where it was read, or else where it was acknowledged.
    pub fn place(&self, number: u32) -> Option<u64> {
        let number = number as usize;
        self.places[number].or(self.history.attempts[number].answer.outcome.offset())
    }

    /// The attempts of one partition.
    pub fn attempts_of(&self, partition: u32) -> &[u32] {
        let partition_of = |number: &u32| self.history.attempts[*number as usize].record.partition;
        let begin = self.by_producer.partition_point(|number| partition_of(number) < partition);
        let end = self.by_producer.partition_point(|number| partition_of(number) <= partition);
        &self.by_producer[begin..end]
    }

    /// What was read of one partition.
    pub fn seen_of(&self, partition: u32) -> &[Seen] {
        let begin = self.seen.partition_point(|seen| seen.partition < partition);
        let end = self.seen.partition_point(|seen| seen.partition <= partition);
        &self.seen[begin..end]
    }
}

fn acknowledged_since(attempt: &crate::history::Attempt) -> Time {
    if attempt.answer.outcome.is_acknowledged() { attempt.answer.returned } else { TIME_UNTOLD }
}

fn told_log_starts(history: &History) -> BTreeMap<u32, u64> {
    let mut starts = history.log_starts.clone();
    for session in &history.sessions {
        if let Some(start) = session.polls.iter().filter_map(|poll| poll.log_start).max() {
            let highest = starts.entry(session.partition).or_default();
            *highest = start.max(*highest);
        }
    }
    starts
}
