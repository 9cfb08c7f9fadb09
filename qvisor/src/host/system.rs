//! The host's texts about the sandbox: tables of its network namespace, its cgroup's figures, the machine's memory.
//!
//! The directories are opened before the host side leaves the host's root. A guest names a text of the lists below and gets
//! it opened for reading; it never gets a directory, from which a path would lead to the rest of the host.

use super::{Call, Served, errno, path};
use qlib::Errno;
use qlib::qcall::SystemGroup;
use rustix::fd::{AsRawFd, OwnedFd, RawFd};
use rustix::fs::{Mode, OFlags};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

const NET: &[&str] = &[
    "arp",
    "dev",
    "dev_mcast",
    "fib_trie",
    "fib_triestat",
    "icmp",
    "icmp6",
    "if_inet6",
    "igmp",
    "igmp6",
    "ipv6_route",
    "mcfilter",
    "netlink",
    "netstat",
    "packet",
    "protocols",
    "ptype",
    "raw",
    "raw6",
    "route",
    "rt6_stats",
    "snmp",
    "snmp6",
    "sockstat",
    "sockstat6",
    "tcp",
    "tcp6",
    "udp",
    "udp6",
    "udplite",
    "udplite6",
];
const PROC: &[&str] = &["meminfo"];
const CGROUP: &[&str] = &[
    "cpu.cfs_period_us",
    "cpu.cfs_quota_us",
    "cpu.max",
    "cpu.shares",
    "cpu.stat",
    "cpu.weight",
    "cpuacct.usage_sys",
    "cpuacct.usage_user",
    "io.stat",
    "memory.current",
    "memory.max_usage_in_bytes",
    "memory.peak",
    "memory.stat",
    "memory.usage_in_bytes",
];

/// The directories the texts lie in.
struct Sources {
    net: Option<OwnedFd>,
    proc: Option<OwnedFd>,
    cgroup: Vec<OwnedFd>,
}

static SOURCES: OnceLock<Sources> = OnceLock::new();

fn directory(path: &Path) -> Option<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).ok()
}

/// Opens the directories; called in the container's network namespace and with the host's root. What cannot be opened is not
/// served.
pub fn open(cgroups: &[PathBuf]) {
    let sources = Sources {
        net: directory(Path::new("/proc/self/net")),
        proc: directory(Path::new("/proc")),
        cgroup: cgroups.iter().filter_map(|p| directory(p)).collect(),
    };
    let _ = SOURCES.set(sources);
}

/// The descriptors, for a process that keeps only those it names.
pub fn descriptors() -> Vec<RawFd> {
    let Some(s) = SOURCES.get() else { return Vec::new() };
    let all = s.net.iter().chain(&s.proc).chain(&s.cgroup);
    all.map(AsRawFd::as_raw_fd).collect()
}

fn is_served(group: SystemGroup, name: &str) -> bool {
    let tuning = |n: &str| {
        let parts: Vec<&str> = n.split('/').collect();
        let plain = |p: &str| {
            p.bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
        };
        parts.len() >= 4
            && parts.starts_with(&["sys", "net"])
            && parts.iter().all(|p| !p.is_empty() && plain(p))
    };
    match group {
        SystemGroup::Net => NET.contains(&name),
        SystemGroup::Proc => PROC.contains(&name) || tuning(name),
        SystemGroup::Cgroup => CGROUP.contains(&name),
    }
}

pub(super) fn serve_open(c: &mut Call<'_>) -> Served {
    let group = SystemGroup::try_from(c.arg(0))?;
    let name = std::str::from_utf8(c.payload).map_err(|_| Errno::EINVAL)?;
    if !is_served(group, name) {
        return Err(Errno::ENOENT);
    }
    let sources = SOURCES.get().ok_or(Errno::ENOENT)?;
    let places: Vec<&OwnedFd> = match group {
        SystemGroup::Net => sources.net.iter().collect(),
        SystemGroup::Proc => sources.proc.iter().collect(),
        SystemGroup::Cgroup => sources.cgroup.iter().collect(),
    };
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let mut error = Errno::ENOENT;
    for place in places {
        match rustix::fs::openat2(place, name, flags, Mode::empty(), path::RESOLVE) {
            Ok(fd) => return c.give(fd),
            Err(e) => error = errno(e),
        }
    }
    Err(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_listed_names_are_served() {
        assert!(is_served(SystemGroup::Net, "tcp6"));
        assert!(is_served(SystemGroup::Proc, "sys/net/core/somaxconn"));
        for name in [
            "",
            "..",
            "../stat",
            "tcp/..",
            "self/mem",
            "sys/kernel/hostname",
            "sys/net/../kernel/x",
            "sys/net//x",
            "kcore",
        ] {
            for group in [SystemGroup::Net, SystemGroup::Proc, SystemGroup::Cgroup] {
                assert!(!is_served(group, name), "{name}");
            }
        }
    }
}
