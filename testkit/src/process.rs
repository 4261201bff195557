//! Processes and ports of a test, which end with it.

use std::{
    io,
    net::{Ipv4Addr, TcpListener},
    process::{Child, Command, Stdio, id},
    sync::atomic::{AtomicU16, Ordering},
    thread,
    time::Duration,
};

const POLL: Duration = Duration::from_millis(20);

/// Below the ports that the kernel hands out by itself.
const STEADY: std::ops::Range<u16> = 20_000..32_000;

/// How many steady ports this process has given out.
static GIVEN: AtomicU16 = AtomicU16::new(0);

/// A TCP port that nobody listens on at 127.0.0.1. Somebody may take it before the caller does: a server that can bind
/// port 0 itself should.
///
/// # Errors
///
/// If the loopback interface has no port left.
pub fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// TCP ports that nobody listens on at 127.0.0.1, and that the kernel gives to nobody: a server that is down for a while
/// finds its own again.
///
/// # Errors
///
/// If there are not so many.
pub fn steady_ports(count: usize) -> io::Result<Vec<u16>> {
    let span = STEADY.end - STEADY.start;
    // Processes that run at the same time begin at different places, and each gives no port twice.
    let begin = u16::try_from(id().wrapping_mul(61) % u32::from(span)).unwrap_or_default();
    let mut ports = vec![];
    while ports.len() < count {
        let given = GIVEN.fetch_add(1, Ordering::Relaxed);
        if given >= span {
            return Err(io::Error::other(format!("there are no {count} free ports")));
        }
        let port = STEADY.start + (begin + given) % span;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            ports.push(port);
        }
    }
    Ok(ports)
}

/// A child process that ends, at the latest, when this is dropped: SIGTERM first, SIGKILL after a grace.
///
/// Dropping blocks for as long as the child takes, at most the grace.
#[derive(Debug)]
pub struct ChildGuard {
    child: Child,
    grace: Duration,
}

impl ChildGuard {
    /// Starts a child that has 5 s to end once it is told to.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub fn spawn(command: &mut Command) -> io::Result<Self> {
        Ok(Self { child: command.spawn()?, grace: Duration::from_secs(5) })
    }

    /// The same child with another grace.
    #[must_use]
    pub fn with_grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// The child: to take its pipes, to wait for it.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Sends SIGHUP. Does nothing if the child has ended.
    pub fn hang_up(&mut self) {
        self.signal("-HUP");
    }

    /// Sends SIGTERM. Does nothing if the child has ended.
    pub fn terminate(&mut self) {
        self.signal("-TERM");
    }

    fn signal(&mut self, signal: &str) {
        // An ended child that was not waited for keeps its id, and one that was is not signalled: no other process is hit.
        if matches!(self.child.try_wait(), Ok(None)) {
            let id = self.child.id().to_string();
            let quiet = Command::new("kill").args([signal, &id]).stderr(Stdio::null()).status();
            if !quiet.is_ok_and(|status| status.success()) {
                let _ = self.child.kill();
            }
        }
    }
}

impl Drop for ChildGuard {
    fn drop(&mut self) {
        self.terminate();
        let mut left = self.grace;
        while matches!(self.child.try_wait(), Ok(None)) {
            if left.is_zero() {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            thread::sleep(POLL);
            left = left.saturating_sub(POLL);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read as _, path::Path};

    use super::*;

    fn exists(id: u32) -> bool {
        Path::new(&format!("/proc/{id}")).exists()
    }

    #[test]
    fn a_steady_port_is_given_once_and_can_be_listened_on() {
        let mut ports = steady_ports(5).expect("ports");
        ports.extend(steady_ports(5).expect("more ports"));
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 10);
        assert!(ports.iter().all(|port| STEADY.contains(port)));
    }

    #[test]
    fn a_dropped_guard_ends_its_child() {
        let mut guard = ChildGuard::spawn(Command::new("sleep").arg("600")).expect("sleep starts");
        let id = guard.child().id();
        assert!(exists(id));
        drop(guard);
        assert!(!exists(id));
    }

    #[test]
    fn a_child_that_ignores_sigterm_is_killed() {
        let script = "trap '' TERM; echo ready; while :; do sleep 0.1; done";
        let mut command = Command::new("sh");
        let mut guard =
            ChildGuard::spawn(command.args(["-c", script]).stdout(Stdio::piped())).expect("sh starts").with_grace(POLL);
        let mut ready = [0; 5];
        guard.child().stdout.take().expect("a pipe").read_exact(&mut ready).expect("it says that it is ready");
        let id = guard.child().id();
        drop(guard);
        assert!(!exists(id));
    }
}
