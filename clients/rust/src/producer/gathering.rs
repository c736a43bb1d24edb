//! The records of one partition that are not on their way yet: the batch that is being filled, and those that are full.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use minikafka_core::Partition;
use minikafka_core::batch::{BatchBuildError, BatchBuilder, RecordRef};
use minikafka_core::limits;

use super::delivery::Completion;
use super::sealing::Recycler;
use super::unresolved::{Ticket, Unresolved};
use crate::error::{Error, Result};

/// A batch that is being filled, or waits to be sealed.
#[derive(Debug)]
pub(super) struct OpenBatch {
    pub builder: BatchBuilder,
    pub completion: Arc<Completion>,
    pub ticket: Ticket,
    pub opened_at: Instant,
    /// Bytes of the producer's memory that its records hold.
    pub charged_bytes: usize,
}

/// See the module's description. Lives behind one lock per partition.
#[derive(Debug, Default)]
pub(super) struct Gathering {
    open: Option<OpenBatch>,
    full: VecDeque<OpenBatch>,
    /// The sender has been told that there is something to look at.
    is_announced: bool,
}

/// What a batch is made of and bounded by.
#[derive(Debug)]
pub(super) struct BatchSource<'a> {
    pub partition: Partition,
    /// A batch does not grow beyond this, except for a single record.
    pub batch_bytes_max: u32,
    /// No body may be larger.
    pub body_bytes_max: u32,
    pub unresolved: &'a Unresolved,
    pub recycler: &'a Recycler,
}

/// Where a record went.
#[derive(Debug)]
pub(super) struct Gathered {
    pub completion: Arc<Completion>,
    pub relative: u32,
    /// The sender must be told: a batch was opened or has become full.
    pub announce: bool,
    /// Body bytes of the batches that have become full.
    pub full_bytes: usize,
}

impl Gathering {
    /// Takes a record.
    ///
    /// # Errors
    /// [`Error::RecordTooLarge`] or [`Error::InvalidRecord`]; then nothing has changed.
    pub(super) fn push(&mut self, record: RecordRef<'_>, charge: usize, source: &BatchSource<'_>) -> Result<Gathered> {
        let mut full_bytes = 0;
        if let Some(open) = self.open.take_if(|open| !open.builder.would_fit(&record, source.batch_bytes_max)) {
            full_bytes += open.builder.body_bytes();
            self.full.push_back(open);
        }
        let mut announce = full_bytes > 0;
        let relative = match &mut self.open {
            Some(open) => open.builder.push(record).map_err(|error| refused(&record, &error))?,
            None => {
                self.open = Some(open_with(record, source)?);
                announce = true;
                0
            }
        };
        let open = self.open.as_mut().expect("a batch is open, the record is in it");
        open.charged_bytes += charge;
        let completion = open.completion.clone();
        if open.builder.body_bytes() >= source.batch_bytes_max as usize {
            full_bytes += open.builder.body_bytes();
            self.full.extend(self.open.take());
            announce = true;
        }
        announce &= !self.is_announced;
        self.is_announced |= announce;
        Ok(Gathered { completion, relative, announce, full_bytes })
    }

    /// The sender is looking now: what comes later must be announced again.
    pub(super) fn looked_at(&mut self) {
        self.is_announced = false;
    }

    /// The next full batch.
    pub(super) fn take_full(&mut self) -> Option<OpenBatch> {
        self.full.pop_front()
    }

    /// The next full batch, or else the one that is being filled if `is_due` says so. Under one lock: a batch that
    /// becomes full must not be overtaken by the one that is opened behind it.
    pub(super) fn take_next(&mut self, is_due: impl FnOnce(&OpenBatch) -> bool) -> Option<OpenBatch> {
        self.full.pop_front().or_else(|| self.open.take_if(|open| is_due(open)))
    }

    /// When the batch that is being filled was opened.
    pub(super) fn opened_at(&self) -> Option<Instant> {
        self.open.as_ref().map(|open| open.opened_at)
    }
}

/// A batch whose first record may be larger than batches should become.
fn open_with(record: RecordRef<'_>, source: &BatchSource<'_>) -> Result<OpenBatch> {
    let mut builder = source.recycler.builder();
    builder.push(record).map_err(|error| refused(&record, &error))?;
    if builder.body_bytes() > source.body_bytes_max as usize {
        let overhead = builder.body_bytes() - record.record_bytes();
        let bytes_max = u64::from(source.body_bytes_max).saturating_sub(overhead as u64);
        return Err(Error::RecordTooLarge { bytes: record.record_bytes() as u64, bytes_max });
    }
    Ok(OpenBatch {
        builder,
        completion: Completion::new(source.partition),
        ticket: source.unresolved.open(),
        opened_at: Instant::now(),
        charged_bytes: 0,
    })
}

fn refused(record: &RecordRef<'_>, error: &BatchBuildError) -> Error {
    match error {
        BatchBuildError::RecordBytes(bytes) => {
            Error::RecordTooLarge { bytes: *bytes as u64, bytes_max: limits::RECORD_BYTES_MAX.into() }
        }
        // Full cannot be: `would_fit` was asked, or the batch is empty. As an error it is at least not a panic.
        BatchBuildError::RecordHeaders(_) | BatchBuildError::Full => {
            Error::InvalidRecord { reason: format!("{error} (record of {} bytes)", record.record_bytes()).into() }
        }
    }
}

#[cfg(test)]
mod tests {
    use minikafka_core::Timestamp;

    use super::*;

    fn with_source<T>(run: impl FnOnce(&mut Gathering, &BatchSource<'_>) -> T) -> T {
        let unresolved = Unresolved::default();
        let source = BatchSource {
            partition: Partition(3),
            batch_bytes_max: 2000,
            body_bytes_max: 4000,
            unresolved: &unresolved,
            recycler: &Recycler::new(2000),
        };
        run(&mut Gathering::default(), &source)
    }

    fn record(value: &[u8]) -> RecordRef<'_> {
        RecordRef { value: Some(value), ..RecordRef::at(Timestamp(5)) }
    }

    #[test]
    fn announces_a_new_batch_once_and_a_full_one_again_after_a_look() {
        with_source(|gathering, source| {
            let push = |gathering: &mut Gathering| gathering.push(record(&[1; 900]), 1, source).expect("it fits");
            assert!(push(gathering).announce);
            assert!(!push(gathering).announce);
            assert!(!push(gathering).announce, "the sender is on its way already");
            gathering.looked_at();
            assert!(!push(gathering).announce);
            assert!(push(gathering).announce, "the second batch is full");
            assert_eq!(gathering.take_full().map(|full| full.builder.record_count()), Some(2));
            assert_eq!(gathering.take_full().map(|full| full.builder.record_count()), Some(2));
            assert_eq!(gathering.take_next(|_| true).map(|open| open.charged_bytes), Some(1));
        });
    }

    #[test]
    fn a_large_record_goes_alone_and_one_over_the_limit_does_not_go() {
        with_source(|gathering, source| {
            gathering.push(record(&[1; 10]), 1, source).expect("it fits");
            gathering.push(record(&[1; 3000]), 1, source).expect("it fits alone");
            assert_eq!(gathering.take_full().map(|full| full.builder.record_count()), Some(1));
            assert_eq!(gathering.take_full().map(|full| full.builder.record_count()), Some(1));
            let error = gathering.push(record(&[1; 4000]), 1, source).expect_err("too large for the topic");
            assert!(matches!(error, Error::RecordTooLarge { bytes: 4000, bytes_max: 3000.. }), "{error}");
            assert!(gathering.opened_at().is_none());
        });
    }
    /// Found by the end-to-end test: the sender looked for full batches, one became full, and the sender then took the
    /// batch that had been opened behind it. Records were stored out of order.
    #[test]
    fn a_full_batch_is_not_overtaken_by_the_one_behind_it() {
        with_source(|gathering, source| {
            (0..3).for_each(|number| drop(gathering.push(record(&[number; 900]), 1, source)));
            let counts = [2, 1].map(Some);
            let taken = counts.map(|_| gathering.take_next(|_| true).map(|batch| batch.builder.record_count()));
            assert_eq!(taken, counts);
        });
    }
}
