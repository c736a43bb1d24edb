//! Requests in flight on one connection: read, but not yet answered.

use std::cell::Cell;

/// What a window admits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WindowBounds {
    pub(crate) requests_max: u32,
    pub(crate) bytes_max: u64,
}

/// Counts requests and their bytes between being read and being answered.
#[derive(Debug, Default)]
pub(crate) struct Window {
    requests: Cell<u32>,
    bytes: Cell<u64>,
}

impl Window {
    /// Whether a request of so many bytes may enter. One always may when nothing is in flight.
    pub(crate) fn admits(&self, bytes: u64, bounds: WindowBounds) -> bool {
        let requests = self.requests.get();
        requests == 0 || (requests < bounds.requests_max && self.bytes.get() + bytes <= bounds.bytes_max)
    }

    pub(crate) fn enter(&self, bytes: u64) {
        self.requests.set(self.requests.get() + 1);
        self.bytes.set(self.bytes.get() + bytes);
    }

    pub(crate) fn leave(&self, bytes: u64) {
        assert!(self.requests.get() > 0 && self.bytes.get() >= bytes, "a request leaves a window it never entered");
        self.requests.set(self.requests.get() - 1);
        self.bytes.set(self.bytes.get() - bytes);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.requests.get() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_bounds_hold_and_a_single_large_request_passes() {
        let bounds = WindowBounds { requests_max: 2, bytes_max: 100 };
        let window = Window::default();
        assert!(window.admits(1_000, bounds), "nothing is in flight");
        window.enter(60);
        assert!(window.admits(40, bounds));
        assert!(!window.admits(41, bounds));
        window.enter(1);
        assert!(!window.admits(1, bounds), "two are in flight");
        window.leave(60);
        assert!(window.admits(99, bounds));
        window.leave(1);
        assert!(window.is_empty());
    }
}
