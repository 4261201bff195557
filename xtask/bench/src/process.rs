//! What processes have used, as the kernel counts it.

use std::{collections::BTreeMap, fs, time::Duration};

/// The kernel's unit of CPU time towards programs, on every architecture that Linux runs servers on.
const TICKS: u64 = 100;

/// A process and all that descend from it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Family(pub(crate) u32);

impl Family {
    /// The first process of a program that descends from another.
    pub(crate) fn below(ancestor: u32, program: &str) -> Option<Self> {
        let name = |id: &u32| fs::read_to_string(format!("/proc/{id}/comm")).is_ok_and(|comm| comm.trim() == program);
        Self(ancestor).members().into_iter().find(name).map(Self)
    }

    /// CPU time of all of them, user's and system's, since they began; what has ended and was waited for included.
    ///
    /// From `stat`: it covers threads that have ended, and is the scheduler's exact sum, in steps of 10 ms.
    pub(crate) fn cpu(self) -> Duration {
        let ticks: u64 = self.members().into_iter().filter_map(ticks).sum();
        Duration::from_millis(ticks * 1000 / TICKS)
    }

    /// Resident memory of all of them in bytes, what they share counted once.
    pub(crate) fn memory(self) -> u64 {
        self.members().into_iter().filter_map(proportional).sum()
    }

    fn members(self) -> Vec<u32> {
        let parents = parents();
        let mut members = vec![self.0];
        let mut next = 0;
        while let Some(parent) = members.get(next).copied() {
            members.extend(parents.iter().filter(|(_, of)| **of == parent).map(|(child, _)| *child));
            next += 1;
        }
        members
    }
}

/// The parents of all processes.
fn parents() -> BTreeMap<u32, u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.filter_map(|id| Some((id, fields(id)?.get(1)?.parse().ok()?))).collect()
}

/// What `stat` says after the name of the program, which may contain anything.
fn fields(id: u32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    Some(stat.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
}

/// utime, stime, and those of children that were waited for.
fn ticks(id: u32) -> Option<u64> {
    let fields = fields(id)?;
    fields.get(11..15)?.iter().map(|field| field.parse::<u64>().ok()).sum()
}

fn proportional(id: u32) -> Option<u64> {
    // Of a process that hides its memory only root is told what it shares.
    kib(&format!("/proc/{id}/smaps_rollup"), "Pss:").or_else(|| kib(&format!("/proc/{id}/status"), "VmRSS:"))
}

fn kib(file: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let kib: u64 = text.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB")?.parse().ok())?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, id};

    use tokencache_testkit::ChildGuard;

    use super::*;

    #[test]
    fn a_family_has_its_children_and_what_they_use() {
        let mut shell = Command::new("sh");
        let mut busy = ChildGuard::spawn(shell.args(["-c", "while :; do :; done & wait"])).expect("sh starts");
        let family = Family(busy.child().id());
        let used = Family(id());
        while family.cpu() < Duration::from_millis(50) {
            std::thread::yield_now();
        }
        assert!(family.members().len() > 1, "the shell waits, and its child is busy");
        assert!(used.cpu() >= family.cpu() && used.memory() > family.memory());
        // The shell would leave its child behind.
        for id in family.members() {
            Command::new("kill").args(["-KILL", &id.to_string()]).status().expect("kill runs");
        }
    }
}
