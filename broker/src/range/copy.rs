//! Copying between members: a source answers what a learner, or a member that is reconciled, asks; and a range looks up
//! points of its own log for its machine. Each answer is a task of its own, and remembers nothing.

use std::rc::Rc;

use minikafka_core::chain::ChainMember;
use minikafka_core::chain::peer::{CopyOutcome, CopyPurpose, PeerBody, SegmentCursor, SegmentItem, SegmentPart};
use minikafka_core::chain::replica::Input;
use minikafka_core::limits::{COPIES_ANSWERED_MAX, COPY_BYTES_MAX};
use minikafka_core::{CopyId, Epoch, ErrorCode, LogIndex, LogPoint};
use minikafka_storage::disk::Disk;
use minikafka_storage::{ReadError, SharedSlice};

use super::{Range, entries};
use crate::peers::Room;

type Outcome = CopyOutcome<SharedSlice>;

impl<D: Disk> Range<D> {
    /// Answers a copy request; `to` must be this very process with this very disk.
    pub(super) fn answer_copy(
        self: &Rc<Self>,
        (epoch, purpose): (Epoch, CopyPurpose),
        (copy, from, to): (CopyId, ChainMember, ChainMember),
        (after, until): (LogPoint, LogIndex),
        segment: Option<SegmentCursor>,
    ) {
        let answer = move |range: &Self, outcome, room| {
            range.say_with(&from, epoch, PeerBody::CopyReply { copy, outcome }, room);
        };
        if to != self.shared.me {
            return answer(self, Outcome::Refused { code: ErrorCode::Stale }, Room::default());
        }
        if self.copies_answered.get() >= COPIES_ANSWERED_MAX {
            return answer(self, Outcome::Refused { code: ErrorCode::Overloaded }, Room::default());
        }
        self.copies_answered.set(self.copies_answered.get() + 1);
        let range = self.clone();
        self.shared.disk.spawn(async move {
            let has_turn = purpose != CopyPurpose::Learn || range.copy_turn().await;
            let (outcome, room) = if has_turn {
                let room = range.shared.peers.room(&from, COPY_BYTES_MAX as u64).await;
                (range.copy(epoch, purpose, (after, until), segment).await, room)
            } else {
                (Outcome::Refused { code: ErrorCode::Throttled }, Room::default())
            };
            if has_turn && purpose == CopyPurpose::Learn {
                range.shared.copy_pace.answered(entries::copied_bytes(&outcome));
            }
            range.copies_answered.set(range.copies_answered.get() - 1);
            answer(&range, outcome, room);
        });
    }

    /// Waits until a learner may be answered. False: that would take too long.
    async fn copy_turn(&self) -> bool {
        let wait = self.shared.copy_pace.turn(self.shared.clock.monotonic_ns());
        if let Some(wait) = wait.filter(|wait| !wait.is_zero()) {
            self.shared.disk.sleep(wait).await;
        }
        wait.is_some()
    }

    async fn copy(
        &self,
        epoch: Epoch,
        purpose: CopyPurpose,
        (after, until): (LogPoint, LogIndex),
        segment: Option<SegmentCursor>,
    ) -> Outcome {
        let limit = match self.replica.borrow().copy_limit(epoch, purpose) {
            Ok(limit) => limit,
            Err(code) => return Outcome::Refused { code },
        };
        let copied = async {
            let last = limit.min(until);
            if purpose == CopyPurpose::Mend
                && let Some(end) = self.freed_behind(after.index).await?
            {
                let items = vec![SegmentItem::Freed(end)];
                return Ok(Outcome::Segment { limit, part: SegmentPart { start: after, end, at: after, items } });
            }
            if let Some(cursor) = segment
                && let Some(part) = self.log.offer_segment(after, cursor, last, COPY_BYTES_MAX).await?
            {
                return Ok(Outcome::Segment { limit, part });
            }
            match self.point(after.index).await? {
                Some(point) if point == after => {}
                None if after.index <= self.log.end().index => return Ok(Outcome::Gone { limit }),
                _ => return Ok(Outcome::Disagreed { limit }),
            }
            if last <= after.index {
                return Ok(Outcome::Agreed { limit, entries: Vec::new() });
            }
            let runs = self.log.read_index(after.index.next(), COPY_BYTES_MAX).await?;
            match entries::up_to(runs, last) {
                (_, None) => Ok(Outcome::Gone { limit }),
                (entries, Some(_)) => Ok(Outcome::Agreed { limit, entries }),
            }
        };
        copied.await.unwrap_or_else(|error: ReadError| {
            // The log said so when damage was found; who asks again and again is no news.
            tracing::debug!(range = %self.key, %error, "cannot be copied from here");
            match error {
                ReadError::Freed { .. } | ReadError::Dropped { .. } => Outcome::Gone { limit },
                _ => Outcome::Refused { code: ErrorCode::DataDamaged },
            }
        })
    }

    /// The point up to which everything behind an index was freed here. Who mends its log takes that for dead, and sees
    /// whether what comes then follows.
    async fn freed_behind(&self, index: LogIndex) -> Result<Option<LogPoint>, ReadError> {
        match self.log.read_index(index.next(), 1).await {
            Err(ReadError::Freed { run }) => Ok(Some(run.borders()[1])),
            Err(ReadError::Dropped { first, .. }) => self.log.point_at(LogIndex(first.0 - 1)).await,
            Err(error @ ReadError::Disk(_)) => Err(error),
            Ok(_) | Err(ReadError::Damaged(_)) => Ok(None),
        }
    }

    /// The log's point at an index. All logs agree before their first entry.
    async fn point(&self, index: LogIndex) -> Result<Option<LogPoint>, ReadError> {
        if index == LogPoint::START.index {
            return Ok(Some(LogPoint::START));
        }
        self.log.point_at(index).await
    }

    /// Reads a point for the machine.
    pub(super) fn read_point(self: &Rc<Self>, index: LogIndex) {
        let range = self.clone();
        self.shared.disk.spawn(async move {
            let point = range.point(index).await.unwrap_or_else(|error| {
                tracing::error!(range = %range.key, entry = %index, %error, "cannot read a point of the own log");
                None
            });
            range.drive(Input::PointRead { index, point });
        });
    }
}
