//! Processes by id and start time, so that who did not start them can look after them, and nobody signals a stranger who got
//! an old id.

use std::fs::{self, File, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

/// Between two looks at something that takes a while.
pub const LOOK_INTERVAL: Duration = Duration::from_millis(2);
/// SIGKILL takes no longer, even when much memory is to be given back.
const END_DEADLINE: Duration = Duration::from_secs(30);

/// A process of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    pid: i32,
    /// Ticks since the boot, as `/proc` tells.
    started: u64,
}

impl Running {
    /// Starts a command that lives on when this process ends. What it prints goes to `printed`, from the beginning; what it
    /// logs goes to the end of `log`.
    pub fn start(command: &mut Command, printed: &Path, log: &Path) -> Result<Self> {
        let log = OpenOptions::new().create(true).append(true).open(log).with_context(|| log.display().to_string())?;
        let printed = File::create(printed).with_context(|| printed.display().to_string())?;
        // A group of its own: Ctrl-C is for the one who looks after it.
        command.stdin(Stdio::null()).stdout(printed).stderr(log).process_group(0);
        let child = command.spawn().with_context(|| format!("starting {command:?}"))?;
        let pid = i32::try_from(child.id()).context("process ids fit")?;
        let (_, started) = state_of(pid).context("a process that was just started is in /proc")?;
        Ok(Self { pid, started })
    }

    /// Its process id.
    pub fn pid(self) -> i32 {
        self.pid
    }

    /// Whether it is still there. One that ended is forgotten by the system, if it was this process's child.
    pub fn is_running(self) -> bool {
        match state_of(self.pid) {
            Some((state, started)) if started == self.started && state == 'Z' => {
                let mut status = 0;
                // SAFETY: `waitpid` writes one integer, which is ours; it refuses who is not our child.
                unsafe { libc::waitpid(self.pid, &raw mut status, libc::WNOHANG) };
                false
            }
            Some((_, started)) => started == self.started,
            None => false,
        }
    }

    /// Whether it stands still by SIGSTOP.
    pub fn is_paused(self) -> bool {
        matches!(state_of(self.pid), Some(('T', started)) if started == self.started)
    }

    /// Sends it a signal, if it is there.
    pub fn signal(self, signal: i32) -> Result<()> {
        if self.is_running() {
            // SAFETY: `kill` takes no memory. The process was there an instant ago, with this start time.
            let sent = unsafe { libc::kill(self.pid, signal) };
            let error = std::io::Error::last_os_error();
            let gone = error.raw_os_error() == Some(libc::ESRCH);
            ensure!(sent == 0 || gone, "kill {}: {error}", self.pid);
        }
        Ok(())
    }

    /// SIGKILL, and waits until nothing is left of it.
    pub fn kill(self) -> Result<()> {
        self.signal(libc::SIGKILL)?;
        ensure!(self.ends_within(END_DEADLINE), "process {} was killed and does not end", self.pid);
        Ok(())
    }

    /// Waits for its end; false: it is still there.
    pub fn ends_within(self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        while self.is_running() {
            if Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
        true
    }
}

/// State and start time, as `/proc/PID/stat` has them behind a name in parentheses that may hold anything.
fn state_of(pid: i32) -> Option<(char, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    let state = fields.next()?.chars().next()?;
    // State is the third field, the start time the 22nd.
    Some((state, fields.nth(18)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_followed_from_start_to_end() {
        let directory = tempfile::tempdir().unwrap();
        let (printed, log) = (directory.path().join("printed"), directory.path().join("log"));
        let running = Running::start(Command::new("sleep").arg("600"), &printed, &log).unwrap();
        assert!(running.is_running());
        let stranger = Running { started: running.started + 1, ..running };
        assert!(!stranger.is_running(), "another process had this id");
        stranger.signal(libc::SIGKILL).unwrap();
        assert!(running.is_running(), "a stranger is not signalled");
        running.signal(libc::SIGSTOP).unwrap();
        while !running.is_paused() {
            std::thread::sleep(LOOK_INTERVAL);
        }
        running.kill().unwrap();
        assert!(!running.is_running());
        assert_eq!(
            state_of(running.pid()).filter(|(_, started)| *started == running.started),
            None,
            "no zombie is left"
        );
    }
}
