//! What the disk is: how it caches, and which core it interrupts.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// A block device as the kernel describes it; empty where it does not.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Device {
    /// Its name, such as `vda`.
    pub name: String,
    /// `write back` is a volatile cache, which only a flush or FUA makes durable; `write through` is none.
    pub write_cache: String,
    /// Whether a single write can be forced through the cache: `1` or `0`.
    pub fua: String,
    /// The I/O scheduler in use.
    pub scheduler: String,
    /// How often each core took its interrupts: line of `/proc/interrupts`, counts by core.
    pub interrupts: Vec<(String, Vec<u64>)>,
}

impl Device {
    /// The device that holds `dir`.
    pub fn examine(dir: &Path) -> Self {
        let Some(block) = block_dir(dir) else { return Self::default() };
        let queue = |file: &str| {
            fs::read_to_string(block.join("queue").join(file)).map(|text| text.trim().to_owned()).unwrap_or_default()
        };
        let scheduler = queue("scheduler");
        let chosen = scheduler.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
        let scheduler = chosen.map_or(scheduler.clone(), |(chosen, _)| chosen.to_owned());
        let name = block.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let driver = fs::canonicalize(block.join("device")).ok();
        let driver = driver.and_then(|path| path.file_name().map(|name| name.to_string_lossy().into_owned()));
        let table = fs::read_to_string("/proc/interrupts").unwrap_or_default();
        let interrupts = interrupts(&table, &[driver.as_deref().unwrap_or(&name), &name]);
        Self { name, write_cache: queue("write_cache"), fua: queue("fua"), scheduler, interrupts }
    }

    /// The core that takes most of its interrupts.
    pub fn interrupt_core(&self) -> Option<usize> {
        let cores = self.interrupts.iter().map(|(_, counts)| counts.len()).max()?;
        let of_core = |core: usize| self.interrupts.iter().filter_map(|(_, counts)| counts.get(core)).sum::<u64>();
        (0..cores).max_by_key(|&core| of_core(core)).filter(|&core| of_core(core) > 0)
    }
}

/// The device's directory in `/sys`; a partition's is its disk's.
fn block_dir(dir: &Path) -> Option<PathBuf> {
    let device = fs::metadata(dir).ok()?.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let block = fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()?;
    [block.clone(), block.parent()?.to_owned()].into_iter().find(|block| block.join("queue").is_dir())
}

/// The lines of `/proc/interrupts` whose last word begins with one of these names.
fn interrupts(table: &str, names: &[&str]) -> Vec<(String, Vec<u64>)> {
    let cores = table.lines().next().map_or(0, |line| line.split_whitespace().count());
    let mut found = Vec::new();
    for line in table.lines().skip(1) {
        let mut words = line.split_whitespace().skip(1);
        let counts: Vec<u64> = words.by_ref().take(cores).map_while(|word| word.parse().ok()).collect();
        let Some(last) = words.last() else { continue };
        let belongs =
            |name: &str| last.strip_prefix(name).is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()));
        if counts.len() == cores && counts.iter().any(|&count| count > 0) && names.iter().any(|name| belongs(name)) {
            found.push((last.to_owned(), counts));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interrupts_of_the_device_and_of_no_other() {
        let table = "           CPU0       CPU1
 35:          0          1  PCI-MSIX-0000:00:02.0   0-edge      virtio1-config
 36:          5    3702783  PCI-MSIX-0000:00:02.0   1-edge      virtio1-req.0
 37:          9          0  PCI-MSIX-0000:00:03.0   1-edge      virtio12-req.0
NMI:          0          0   Non-maskable interrupts
ERR:          0
";
        let interrupts = interrupts(table, &["virtio1"]);
        assert_eq!(
            interrupts.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
            ["virtio1-config", "virtio1-req.0"]
        );
        let device = Device { interrupts, ..Device::default() };
        assert_eq!(device.interrupt_core(), Some(1));
        assert_eq!(Device::default().interrupt_core(), None);
    }
}
