//! How long one direction of a connection may keep the shard busy before other connections get their turn.
//!
//! Yielding would not be enough: as long as a task is ready, the executor looks for completed I/O only when its
//! preemption timer runs out (100 ms by default), so a connection that always has input would keep all others
//! waiting that long. A timer that is due at once makes the task wait for one round of I/O without any sleep.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use glommio::timer::Timer;
use minikafka_core::limits;

/// Over before the executor has looked at its I/O once, but not before the timer is set.
const PAUSE: Duration = Duration::from_micros(1);
/// What handling a frame costs, whatever its size, in the currency of bytes.
pub(crate) const FRAME_COST_BYTES: usize = 1 << 10;

/// Counts down the bytes of a turn.
pub(crate) struct Turn {
    left: usize,
    pause: Option<Timer>,
}

impl Default for Turn {
    fn default() -> Self {
        Self { left: limits::CONNECTION_TURN_BYTES_MAX as usize, pause: None }
    }
}

impl Turn {
    /// Uses up part of the turn.
    pub(crate) fn spend(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(bytes);
    }

    /// Ready while the turn lasts, and again after a round of I/O.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.left > 0 {
            return Poll::Ready(());
        }
        let pause = self.pause.get_or_insert_with(|| Timer::new(PAUSE));
        let over = Pin::new(pause).poll(context);
        if over.is_ready() {
            *self = Self::default();
        }
        over.map(|_| ())
    }
}
