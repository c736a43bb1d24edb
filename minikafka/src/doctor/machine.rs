//! Kernel, io_uring, limits, clock.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::time::{SystemTime, UNIX_EPOCH};

use super::Check;
use crate::process_limits::Limit;
use crate::quantity;

/// First kernel with everything that glommio asks of io_uring.
const KERNEL_MIN: (u32, u32) = (5, 8);
/// The reactor refuses to start below this.
const MEMLOCK_BYTES_MIN: u64 = 512 << 10;
/// Registered buffers of one shard and its rings fit.
const MEMLOCK_BYTES_GOOD: u64 = 64 << 20;
/// Segment files, sockets of clients, and the reactor's own.
const NOFILE_MIN: u64 = 1024;
/// Every connection that one shard allows, and its files.
const NOFILE_GOOD: u64 = 16_384;
/// 2026-01-01: this release is younger, so no clock is right that shows less.
const CLOCK_SECONDS_MIN: u64 = 1_767_225_600;

pub fn kernel() -> Check {
    let name = "kernel";
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    match version(&release) {
        Some(found) if found >= KERNEL_MIN => Check::ok(name, format!("Linux {release}")),
        _ => Check::missing(name, format!("Linux {release}"), "Use Linux 5.8 or later: io_uring needs it."),
    }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Sets a small ring up, which is what a sandbox or a setting forbids.
pub fn io_uring() -> Check {
    let name = "io_uring";
    match set_up_ring() {
        Ok(()) => Check::ok(name, "a ring can be set up"),
        Err(error) => Check::missing(name, format!("setting a ring up failed: {error}"), advice_on_ring(&error)),
    }
}

fn set_up_ring() -> io::Result<()> {
    // `struct io_uring_params` of <linux/io_uring.h>: 120 bytes, all zero asks for the defaults.
    let mut params = [0u32; 30];
    // SAFETY: the kernel writes at most `struct io_uring_params` to the pointer, whose 120 bytes outlive the call, and
    // keeps no reference to them.
    let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 4, params.as_mut_ptr()) };
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call above returned this descriptor just now, and nothing else owns it.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
    Ok(())
}

fn advice_on_ring(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::ENOSYS) => "This kernel or sandbox has no io_uring: use Linux 5.8 or later, outside of gVisor.",
        Some(libc::EPERM | libc::EACCES) => {
            "Set `sysctl kernel.io_uring_disabled=0`; in a container, allow io_uring_setup, io_uring_enter and \
             io_uring_register in its seccomp profile (Docker: --security-opt seccomp=unconfined)."
        }
        Some(libc::ENOMEM) => "Raise the limit of locked memory (ulimit -l), which rings count against.",
        _ => "See the kernel's log (dmesg).",
    }
}

pub fn locked_memory(limit: Limit) -> Check {
    let name = "locked memory";
    let fix = "Raise it: LimitMEMLOCK=infinity in the systemd unit, `ulimit -l unlimited` in the shell, \
               --ulimit memlock=-1 for Docker.";
    match limit {
        None => Check::ok(name, "unlimited"),
        Some(bytes) if bytes < MEMLOCK_BYTES_MIN => Check::missing(name, quantity::show_bytes(bytes), fix),
        Some(bytes) if bytes < MEMLOCK_BYTES_GOOD => {
            let found =
                format!("{}: I/O buffers stay unregistered, which costs speed only", quantity::show_bytes(bytes));
            Check::warning(name, found, fix)
        }
        Some(bytes) => Check::ok(name, quantity::show_bytes(bytes)),
    }
}

pub fn open_files(limit: Limit) -> Check {
    let name = "open files";
    let fix = "Raise it: LimitNOFILE=1048576 in the systemd unit, `ulimit -n 65536` in the shell, \
               --ulimit nofile=65536 for Docker.";
    match limit {
        None => Check::ok(name, "unlimited"),
        Some(count) if count < NOFILE_MIN => Check::missing(name, count.to_string(), fix),
        Some(count) if count < NOFILE_GOOD => {
            Check::warning(name, format!("{count}: fewer connections than a shard would allow"), fix)
        }
        Some(count) => Check::ok(name, count.to_string()),
    }
}

/// A clock that is wrong by years would make retention delete what it should keep.
pub fn clock() -> Check {
    let name = "clock";
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    if seconds < CLOCK_SECONDS_MIN {
        let found = format!("{seconds} s since 1970, before this release was made");
        return Check::missing(name, found, "Set the clock and keep it synchronised (chrony, systemd-timesyncd).");
    }
    Check::ok(name, format!("{seconds} s since 1970"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn kernels_are_compared_by_number() {
        assert_eq!(version("5.10.0-28-amd64"), Some((5, 10)));
        assert_eq!(version("6.1-rc3"), Some((6, 1)));
        assert_eq!(version("mainline"), None);
        assert!(version("5.10").unwrap() > KERNEL_MIN && version("5.4.0").unwrap() < KERNEL_MIN);
    }

    #[test]
    fn limits_are_judged_at_their_edges() {
        assert_eq!(locked_memory(Some(MEMLOCK_BYTES_MIN - 1)).verdict, Verdict::Missing);
        assert_eq!(locked_memory(Some(MEMLOCK_BYTES_MIN)).verdict, Verdict::Warning);
        assert_eq!(locked_memory(None).verdict, Verdict::Ok);
        assert_eq!(open_files(Some(NOFILE_MIN - 1)).verdict, Verdict::Missing);
        assert_eq!(open_files(Some(NOFILE_GOOD)).verdict, Verdict::Ok);
    }

    #[test]
    fn a_forbidden_ring_is_explained() {
        assert!(advice_on_ring(&io::Error::from_raw_os_error(libc::EPERM)).contains("seccomp"));
        assert!(advice_on_ring(&io::Error::from_raw_os_error(libc::ENOSYS)).contains("5.8"));
    }
}
