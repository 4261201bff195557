//! What the process costs, under the names that all exporters of Prometheus use: from /proc, when somebody scrapes.

use std::{fmt, fs, time::Duration};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};
use rustix::{
    process::{Resource, getrlimit},
    time::{ClockId, clock_gettime},
};

use crate::time::Timestamp;

/// Looks at this process.
#[derive(Debug)]
pub struct Process {
    started_at: Timestamp,
}

impl Process {
    /// Of a process that began at this time.
    #[must_use]
    pub fn new(started_at: Timestamp) -> Self {
        Self { started_at }
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let cpu = ConstCounter::new(cpu_time().as_secs_f64());
        let help = "CPU time that the process has used, in user and system mode.";
        cpu.encode(encoder.encode_descriptor("process_cpu_seconds", help, None, MetricType::Counter)?)?;
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let kibibytes = |field| status_field(&status, field).map(|kibibytes| kibibytes * 1024);
        let gauges = [
            ("process_resident_memory_bytes", "Memory that the process holds.", kibibytes("VmRSS")),
            ("process_virtual_memory_bytes", "Memory that the process has reserved.", kibibytes("VmSize")),
            ("process_threads", "Threads of the process.", status_field(&status, "Threads")),
            ("process_open_fds", "File descriptors that are open.", open_files()),
            ("process_max_fds", "File descriptors that may be open.", getrlimit(Resource::Nofile).current),
        ];
        for (name, help, value) in gauges {
            // What the system does not tell is left out: a wrong number is worse than none.
            let Some(value) = value else { continue };
            ConstGauge::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        #[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 are far below 2^53")]
        let started_at = ConstGauge::new(self.started_at.as_millis() as f64 / 1000.0);
        let help = "When the process began, in seconds since 1970.";
        started_at.encode(encoder.encode_descriptor("process_start_time_seconds", help, None, MetricType::Gauge)?)
    }
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or_default(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// How many descriptors are open, without the one that looks.
fn open_files() -> Option<u64> {
    let open = fs::read_dir("/proc/self/fd").ok()?.count();
    u64::try_from(open).ok()?.checked_sub(1)
}

/// The number in a line of /proc/self/status.
fn status_field(status: &str, field: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    value.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_names() {
        let status = "VmRSSx:\t1 kB\nVmRSS:\t  123 kB\nThreads:\t7\n";
        assert_eq!(status_field(status, "VmRSS"), Some(123));
        assert_eq!(status_field(status, "Threads"), Some(7));
        assert_eq!(status_field(status, "Vm"), None);
    }

    #[test]
    fn one_more_open_file_is_counted() {
        // Other tests of this binary open and close files meanwhile.
        let found = (0..100).any(|_| {
            let before = open_files().unwrap();
            let file = fs::File::open("/proc/self/status").unwrap();
            let after = open_files().unwrap();
            drop(file);
            after == before + 1
        });
        assert!(found);
    }
}
