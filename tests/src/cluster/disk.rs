//! Disks of brokers that are small, fill up, or are slow.
//!
//! Small: an ext4 file system in a sparse file behind a loop device. Slow: the kernel throttles what the process reads and
//! writes at the device (control groups, version 1 `blkio` or version 2 `io`). Both need root.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// Of a small disk; nearly all of it is never written to.
const IMAGE_BYTES: u64 = 3 << 30;
/// Who was just killed may still be letting go of a disk or a group, for so many looks.
const LOOKS: u32 = 100;
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// Where version 1 and version 2 throttle.
const BLKIO: &str = "/sys/fs/cgroup/blkio";
const UNIFIED: &str = "/sys/fs/cgroup";

/// A file system of its own, mounted somewhere.
#[derive(Debug)]
pub struct SmallDisk {
    mount: PathBuf,
}

impl SmallDisk {
    /// Makes one in the file `image`, and mounts it. Fails, and says why, where this machine or this user cannot.
    pub fn make(image: &Path, mount: &Path) -> Result<Self> {
        File::create(image)?.set_len(IMAGE_BYTES)?;
        fs::create_dir_all(mount)?;
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(image)).context("making a file system")?;
        let mut command = Command::new("mount");
        run(command.args(["-o", "loop"]).arg(image).arg(mount)).context("root and a loop device are needed")?;
        Ok(Self::at(mount))
    }

    /// The one that is mounted here.
    pub fn at(mount: &Path) -> Self {
        Self { mount: mount.to_owned() }
    }

    /// Bytes that are free.
    pub fn free_bytes(&self) -> Result<u64> {
        let text = run(Command::new("df").args(["--block-size=1", "--output=avail"]).arg(&self.mount))?;
        Ok(text.lines().last().context("a line of df")?.trim().parse()?)
    }

    /// Takes space until so much is free.
    pub fn add_ballast(&self, free: u64) -> Result<()> {
        let bytes = self.free_bytes()?.saturating_sub(free);
        ensure!(bytes > 0, "only {} bytes are free as it is", self.free_bytes()?);
        run(Command::new("fallocate").args(["-l", &bytes.to_string()]).arg(self.ballast())).map(drop)
    }

    /// Gives back what [`Self::add_ballast`] took.
    pub fn drop_ballast(&self) -> Result<()> {
        fs::remove_file(self.ballast()).context("the ballast")
    }

    fn ballast(&self) -> PathBuf {
        self.mount.join("ballast")
    }

    /// Takes it away; its processes have ended.
    pub fn unmount(&self) -> Result<()> {
        patiently(|| run(Command::new("umount").arg(&self.mount)).map(drop))
    }
}

/// Why nobody can have a small disk here, if nobody can.
pub fn small_disk_refusal() -> Option<&'static str> {
    // SAFETY: it takes nothing and cannot fail.
    let is_root = unsafe { libc::geteuid() } == 0;
    let can = is_root && Path::new("/dev/loop-control").exists();
    (!can).then_some("needs root and loop devices")
}

/// Why disks cannot be throttled here, if they cannot.
pub fn throttle_refusal() -> Option<&'static str> {
    let can = Path::new(BLKIO).join("cgroup.procs").exists() || unified_has_io();
    let is_root = fs::OpenOptions::new()
        .write(true)
        .open(if is_version_1() { BLKIO } else { UNIFIED }.to_owned() + "/cgroup.procs");
    match (can, is_root) {
        (true, Ok(_)) => None,
        _ => Some("needs root and control groups that throttle disks (blkio or io)"),
    }
}

/// What a process and the device below `path` exchange is bounded to so many bytes a second in either direction; the group that does it is
/// called `name`.
pub fn throttle(name: &str, pid: i32, path: &Path, bytes_per_second: u64) -> Result<()> {
    let device = device_below(path)?;
    let group = group(name);
    if !is_version_1() {
        fs::write(Path::new(UNIFIED).join("cgroup.subtree_control"), "+io").context("letting groups throttle")?;
    }
    fs::create_dir_all(&group).with_context(|| group.display().to_string())?;
    let set = |file: &str, value: String| {
        fs::write(group.join(file), value).with_context(|| group.join(file).display().to_string())
    };
    if is_version_1() {
        set("blkio.throttle.write_bps_device", format!("{device} {bytes_per_second}"))?;
        set("blkio.throttle.read_bps_device", format!("{device} {bytes_per_second}"))?;
    } else {
        set("io.max", format!("{device} rbps={bytes_per_second} wbps={bytes_per_second}"))?;
    }
    set("cgroup.procs", pid.to_string())
}

/// As fast as ever: the group is empty and gone.
pub fn release(name: &str) -> Result<()> {
    let group = group(name);
    if !group.exists() {
        return Ok(());
    }
    let root = if is_version_1() { BLKIO } else { UNIFIED };
    for pid in fs::read_to_string(group.join("cgroup.procs"))?.lines() {
        // Who has ended meanwhile need not be moved.
        let _ = fs::write(Path::new(root).join("cgroup.procs"), pid);
    }
    patiently(|| fs::remove_dir(&group).with_context(|| group.display().to_string()))
}

fn group(name: &str) -> PathBuf {
    Path::new(if is_version_1() { BLKIO } else { UNIFIED }).join(name)
}

fn is_version_1() -> bool {
    Path::new(BLKIO).join("cgroup.procs").exists()
}

fn unified_has_io() -> bool {
    let controllers = fs::read_to_string(Path::new(UNIFIED).join("cgroup.controllers")).unwrap_or_default();
    controllers.split_whitespace().any(|name| name == "io")
}

/// `major:minor` of the whole disk: partitions cannot be throttled.
fn device_below(path: &Path) -> Result<String> {
    let device = fs::metadata(path)?.dev();
    let number = format!("{}:{}", libc::major(device), libc::minor(device));
    let here = fs::canonicalize(format!("/sys/dev/block/{number}"))
        .with_context(|| format!("{} is on no block device", path.display()))?;
    if !here.join("partition").exists() {
        return Ok(number);
    }
    let disk = here.parent().context("a partition is of a disk")?;
    Ok(fs::read_to_string(disk.join("dev"))?.trim().to_owned())
}

fn patiently(attempt: impl Fn() -> Result<()>) -> Result<()> {
    for _ in 1..LOOKS {
        if attempt().is_ok() {
            return Ok(());
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
    attempt()
}

fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
