//! Real time: finds what began after something higher was known, in n log n.
//!
//! Promises of this form are many: offsets, epochs and committed ends only grow from what is known to what begins then.

use crate::history::Time;

/// Something with a value that took from `invoked` until it was `known`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub invoked: Time,
    pub known: Time,
    pub value: u64,
    /// Whose it is, for whoever asks.
    pub item: u32,
}

/// Every span that began after another with a higher value was known, with the highest such.
pub(super) fn overtaken(spans: &[Span], mut tell: impl FnMut(&Span, &Span)) {
    let mut by_invoked: Vec<&Span> = spans.iter().filter(|span| span.invoked > 0).collect();
    if by_invoked.is_empty() {
        return;
    }
    by_invoked.sort_by_key(|span| span.invoked);
    let mut by_known: Vec<&Span> = spans.iter().collect();
    by_known.sort_by_key(|span| span.known);
    let mut known = by_known.into_iter().peekable();
    let mut highest: Option<&Span> = None;
    for span in by_invoked {
        while let Some(earlier) = known.next_if(|earlier| earlier.known < span.invoked) {
            if highest.is_none_or(|highest| earlier.value > highest.value) {
                highest = Some(earlier);
            }
        }
        if let Some(highest) = highest.filter(|highest| highest.value > span.value) {
            tell(span, highest);
        }
    }
}
