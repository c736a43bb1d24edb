//! Lets a bounded number of log lines through, so that a hostile peer cannot fill the disk with them.

use std::cell::Cell;

/// Counts down the lines of the current second.
#[derive(Debug)]
pub(crate) struct LogGate {
    lines_per_second: u32,
    left: Cell<u32>,
    suppressed: Cell<u64>,
}

impl LogGate {
    pub(crate) fn new(lines_per_second: u32) -> Self {
        Self { lines_per_second, left: Cell::new(lines_per_second), suppressed: Cell::new(0) }
    }

    /// Whether one more line may be written.
    pub(crate) fn pass(&self) -> bool {
        let left = self.left.get();
        if left == 0 {
            self.suppressed.set(self.suppressed.get() + 1);
            return false;
        }
        self.left.set(left - 1);
        true
    }

    /// Begins another second; says how many lines the last one kept back.
    pub(crate) fn refill(&self) -> u64 {
        self.left.set(self.lines_per_second);
        self.suppressed.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_beyond_the_bound_are_counted_until_the_next_second() {
        let gate = LogGate::new(2);
        assert_eq!([gate.pass(), gate.pass(), gate.pass(), gate.pass()], [true, true, false, false]);
        assert_eq!(gate.refill(), 2);
        assert!(gate.pass());
        assert_eq!(gate.refill(), 0);
    }
}
