//! Dropping a log to begin it anew, empty: for a learner that cannot go on from what it has.
//!
//! The files go newest first, each durably before the next, so that what a crash leaves is the beginning of a log, with an
//! older marker at most. Numbers of segments and flushes go on, so nothing old is ever taken for new.

use std::rc::Rc;

use super::state::{Inner, State};
use crate::disk::Disk;
use crate::error::LogError;

impl<D: Disk> Inner<D> {
    pub async fn start_over(self: &Rc<Self>) -> Result<(), LogError> {
        self.settle().await?;
        self.stop_freeing().await;
        let (segments, next) = {
            let mut state = self.state.borrow_mut();
            let fresh = State {
                last_segment_number: state.last_segment_number,
                last_flush_number: state.last_flush_number,
                durable_flush_number: state.durable_flush_number,
                stopped: true,
                ..State::empty()
            };
            let before = std::mem::replace(&mut *state, fresh);
            (before.segments, before.next)
        };
        if let Some(next) = next {
            self.give_back_prepared(next).await?;
        }
        for file in segments.into_iter().rev().map(|segment| segment.file) {
            self.give_back(file).await?;
        }
        self.state.borrow_mut().stopped = false;
        Ok(())
    }
}
