//! Which core a thread runs on, and how much of it the thread took.

use std::io;
use std::time::Duration;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

use crate::error::{Doing, Result};

/// Pins the calling thread, and every thread and process that it starts from now on, to one core.
pub fn pin(cpu: usize) -> Result<()> {
    if cpu >= CpuSet::MAX_CPU {
        return Err(io::Error::from(io::ErrorKind::InvalidInput)).doing(|| format!("pinning to core {cpu}"));
    }
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).doing(|| format!("pinning to core {cpu}"))
}

/// Runs `work` pinned to a core, or as it is; afterwards the thread may run where it could before.
pub fn pinned<T>(cpu: Option<usize>, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let Some(cpu) = cpu else { return work() };
    let before = sched_getaffinity(None).doing(|| "asking for the thread's cores".to_owned())?;
    pin(cpu)?;
    let result = work();
    sched_setaffinity(None, &before).doing(|| "giving the thread its cores back".to_owned())?;
    result
}

/// The core at this place among those that the process may use, the last one if there are fewer.
pub fn core_at(place: usize) -> usize {
    let Ok(allowed) = sched_getaffinity(None) else { return 0 };
    let cores = (0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu)).take(place + 1);
    cores.last().unwrap_or(0)
}

/// Processor time of the calling thread.
pub fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_pinned_and_freed_again() {
        let before = sched_getaffinity(None).expect("a thread has cores");
        let cpu = (0..CpuSet::MAX_CPU).find(|&cpu| before.is_set(cpu)).expect("it runs on one of them");
        let inside = pinned(Some(cpu), || Ok(sched_getaffinity(None).expect("a thread has cores"))).unwrap();
        assert_eq!((inside.count(), inside.is_set(cpu)), (1, true));
        assert_eq!(sched_getaffinity(None).expect("a thread has cores"), before);
        assert!(pin(CpuSet::MAX_CPU).is_err());
        assert_eq!(core_at(0), cpu);
        assert!(before.is_set(core_at(1)) && before.is_set(core_at(1_000_000)));
    }
}
