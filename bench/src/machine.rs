//! What the figures were made on.

use std::fs;

use serde::Serialize;

use crate::loopback;

/// The machine, as far as it can be seen from inside.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Name of the processor.
    pub processor: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Release of the kernel.
    pub kernel: String,
    /// TCP's congestion control unless a program chooses another: BBR paces what a broker sends over the loopback.
    pub congestion_control: String,
    /// Release of this program.
    pub version: &'static str,
    /// Whether it was built with optimisations.
    pub optimised: bool,
}

impl Machine {
    /// Asks the system.
    pub fn examine() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |line: &str| line.split_once(':').map(|(_, value)| value.trim().to_owned());
        let processor = cpuinfo.lines().find(|line| line.starts_with("model name")).and_then(field);
        let info = rustix::system::sysinfo();
        Self {
            processor: processor.unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: info.totalram as u64 * u64::from(info.mem_unit),
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            congestion_control: loopback::congestion_control(),
            version: env!("CARGO_PKG_VERSION"),
            optimised: !cfg!(debug_assertions),
        }
    }
}
