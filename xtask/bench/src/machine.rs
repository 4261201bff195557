//! The machine: what it is, and which core whom belongs to.

use std::fs;

use anyhow::{Context as _, Result};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Which cores there are for whom.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cores {
    /// The server under load.
    pub(crate) server: usize,
    /// The generator, and the upstream of the broker.
    pub(crate) generator: usize,
}

impl Cores {
    /// The first and the last that this process may use.
    pub(crate) fn find() -> Result<Self> {
        let allowed = sched_getaffinity(None).context("cannot tell which cores there are")?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
        let server = cores.next().context("there is no core")?;
        Ok(Self { server, generator: cores.next_back().unwrap_or(server) })
    }

    /// Whether the generator takes its time from the server.
    pub(crate) fn shared(self) -> bool {
        self.server == self.generator
    }
}

/// Keeps this thread, and what it starts, on one core.
pub(crate) fn pin(core: usize) -> Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores).with_context(|| format!("cannot move to core {core}"))
}

/// The machine for people: no name that tells whose it is.
pub(crate) fn describe() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = info.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(':')).map_or("unknown", |(_, value)| value.trim()).to_owned()
    };
    let cores = info.lines().filter(|line| line.starts_with("processor")).count();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib: u64 = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse().ok())
        .unwrap_or(0);
    let (model, family, number) = (field("model name"), field("cpu family"), field("model\t"));
    format!(
        "{model} (family {family}, model {number}), {cores} cores, {} GiB{}, Linux {}",
        (kib + (1 << 19)) >> 20,
        free_memory(),
        kernel.trim()
    )
}

/// What a virtual machine does with what it has free. If its hypervisor takes that back, whoever grows waits until it has
/// handed over each page anew: 4 ms were seen for 2 MiB, and 0.3 ms for memory that the machine had.
fn free_memory() -> &'static str {
    // Of so many pages, as a power of two, and of no fewer; the kernel has no more than this in one piece.
    const MOST: i32 = 10;
    let order = fs::read_to_string("/sys/module/page_reporting/parameters/page_reporting_order");
    match order.ok().and_then(|order| order.trim().parse::<i32>().ok()) {
        Some(order) if order <= MOST => ", whose free memory goes back to its hypervisor",
        Some(_) => ", whose free memory is kept from its hypervisor",
        None => "",
    }
}
