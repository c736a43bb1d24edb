//! Waiting longer after each failure.

use std::time::Duration;

use minikafka_core::limits;

/// Doubles from [`limits::BACKGROUND_RETRY_MS_MIN`] to [`limits::BACKGROUND_RETRY_MS_MAX`], with jitter, so that those
/// who failed together do not come back together.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Waits after one more failure.
    pub(crate) async fn wait(&mut self) {
        tokio::time::sleep(self.next()).await;
    }

    /// How long to wait after one more failure.
    pub(crate) fn next(&mut self) -> Duration {
        let doubled = limits::BACKGROUND_RETRY_MS_MIN << self.failures.min(16);
        self.failures = self.failures.saturating_add(1);
        let bounded = Duration::from_millis(doubled.min(limits::BACKGROUND_RETRY_MS_MAX));
        bounded.mul_f64(rand::random_range(0.5..=1.0))
    }

    /// It worked.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}
