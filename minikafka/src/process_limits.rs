//! What the system lets this process have: raised as far as it may be, at start.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// A limit of this process; none: unlimited.
pub type Limit = Option<u64>;

/// Limits that matter here, as they are now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessLimits {
    /// Bytes that may be pinned in memory; io_uring's registered buffers count.
    pub memlock: Limit,
    /// Files and sockets open at once.
    pub nofile: Limit,
}

/// Raises the soft limits to the hard ones, and locked memory altogether where the process is allowed to. Returns what
/// came of it: what cannot be raised is judged by the doctor, not here.
pub fn raise() -> ProcessLimits {
    // Only a privileged process may raise its own hard limit; for others this changes nothing.
    let unlimited = Rlimit { current: None, maximum: None };
    if setrlimit(Resource::Memlock, unlimited).is_err() {
        raise_to_hard(Resource::Memlock);
    }
    raise_to_hard(Resource::Nofile);
    current()
}

/// The limits as they are.
pub fn current() -> ProcessLimits {
    ProcessLimits { memlock: getrlimit(Resource::Memlock).current, nofile: getrlimit(Resource::Nofile).current }
}

fn raise_to_hard(resource: Resource) {
    let limit = getrlimit(resource);
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(resource, Rlimit { current: limit.maximum, maximum: limit.maximum })
    {
        tracing::debug!(?resource, %error, "the soft limit stays as it is");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raising_never_lowers() {
        let before = current();
        let after = raise();
        let at_least =
            |after: Limit, before: Limit| after.is_none() || before.is_some_and(|before| after >= Some(before));
        assert!(
            at_least(after.memlock, before.memlock) && at_least(after.nofile, before.nofile),
            "{before:?} {after:?}"
        );
        assert_eq!(raise(), after);
    }
}
