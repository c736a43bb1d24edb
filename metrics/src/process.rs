//! The process as the kernel sees it: processor time, memory, files. Named as Prometheus names them everywhere; crate
//! `prometheus` collects them.

use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;

use crate::exposition::Exposition;

crate::definitions! { PROCESS:
    counter CPU_SECONDS "process_cpu_seconds_total" [] "Total user and system CPU time spent in seconds.";
    gauge OPEN_FDS "process_open_fds" [] "Number of open file descriptors.";
    gauge MAX_FDS "process_max_fds" [] "Maximum number of open file descriptors.";
    gauge VIRTUAL_MEMORY "process_virtual_memory_bytes" [] "Virtual memory size in bytes.";
    gauge RESIDENT_MEMORY "process_resident_memory_bytes" [] "Resident memory size in bytes.";
    gauge START_TIME "process_start_time_seconds" [] "Start time of the process since unix epoch in seconds.";
    gauge THREADS "process_threads" [] "Number of OS threads in the process.";
}

/// Figures of this process.
pub fn process() -> Exposition {
    let mut exposition = Exposition::default();
    exposition.add_foreign(ProcessCollector::for_self().collect());
    exposition
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::Definition;

    #[test]
    fn what_is_defined_is_what_the_crate_tells() {
        let text = process().text();
        for Definition { name, help, .. } in PROCESS {
            assert!(text.contains(&format!("# HELP {name} {help}\n")), "{name} in\n{text}");
        }
        assert_eq!(text.matches("# TYPE ").count(), PROCESS.len(), "{text}");
    }
}
