//! How much memory the container has, uses and could get: the host's cgroup tells, and the machine where there is no limit.

use super::host_text::{cgroup, cgroup_number, string, value};
use crate::task::table;
use alloc::string::String;
use hal::host::SystemGroup::Proc;

/// Figures in KiB, as `meminfo` names them.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)]
pub struct Figures {
    pub total: u64,
    pub free: u64,
    pub available: u64,
    pub buffers: u64,
    pub cached: u64,
    pub anon: u64,
    pub shmem: u64,
    pub mapped: u64,
    pub active_anon: u64,
    pub inactive_anon: u64,
    pub active_file: u64,
    pub inactive_file: u64,
    pub dirty: u64,
    pub slab: u64,
    pub swap_total: u64,
    pub swap_free: u64,
}

/// Shown when the container has no limit and the machine tells nothing.
const UNKNOWN_KIB: u64 = 16 << 20;

/// Bytes in use by the container, if the host tells: version 2's name, then version 1's.
pub fn cgroup_usage() -> Option<u64> {
    cgroup_number("memory.current").or_else(|| cgroup_number("memory.usage_in_bytes"))
}

/// The most bytes it ever used.
pub fn cgroup_peak() -> Option<u64> {
    cgroup_number("memory.peak").or_else(|| cgroup_number("memory.max_usage_in_bytes"))
}

/// The kinds of a container's memory, bytes, by version 2's names.
pub struct CgroupStat(String);

impl CgroupStat {
    /// Asks the host.
    pub fn read() -> Option<Self> {
        cgroup("memory.stat").map(Self)
    }
    /// Whether these are version 2's words already.
    pub fn text_v2(&self) -> Option<&str> {
        value(&self.0, "anon").map(|_| self.0.as_str())
    }
    /// A figure, bytes.
    pub fn get(&self, name: &str) -> u64 {
        let v1 = match name {
            "anon" => "total_rss",
            "file" => "total_cache",
            "shmem" => "total_shmem",
            "file_mapped" => "total_mapped_file",
            "file_dirty" => "total_dirty",
            "active_anon" => "total_active_anon",
            "inactive_anon" => "total_inactive_anon",
            "active_file" => "total_active_file",
            "inactive_file" => "total_inactive_file",
            "unevictable" => "total_unevictable",
            "pgfault" => "total_pgfault",
            "pgmajfault" => "total_pgmajfault",
            other => other,
        };
        value(&self.0, name)
            .filter(|_| self.text_v2().is_some())
            .or_else(|| value(&self.0, v1))
            .unwrap_or(0)
    }
}

/// All figures.
pub fn figures() -> Figures {
    let host = string(&None, Proc, "meminfo");
    let of_host = |name: &str| host.as_deref().and_then(|h| value(h, name)).unwrap_or(0);
    let machine = match of_host("MemTotal") {
        0 => UNKNOWN_KIB,
        n => n,
    };
    let limit = crate::container::current().memory_limit() >> 10;
    if limit >= machine && host.is_some() {
        return Figures {
            total: machine,
            free: of_host("MemFree"),
            available: of_host("MemAvailable"),
            buffers: of_host("Buffers"),
            cached: of_host("Cached"),
            anon: of_host("AnonPages"),
            shmem: of_host("Shmem"),
            mapped: of_host("Mapped"),
            active_anon: of_host("Active(anon)"),
            inactive_anon: of_host("Inactive(anon)"),
            active_file: of_host("Active(file)"),
            inactive_file: of_host("Inactive(file)"),
            dirty: of_host("Dirty"),
            slab: of_host("Slab"),
            swap_total: of_host("SwapTotal"),
            swap_free: of_host("SwapFree"),
        };
    }
    let total = limit.min(machine);
    let usage = cgroup_usage().unwrap_or_else(table::resident_estimate) >> 10;
    let free = total.saturating_sub(usage);
    let stat = CgroupStat::read();
    let kib = |name: &str| stat.as_ref().map_or(0, |s| s.get(name)) >> 10;
    let (active_file, inactive_file) = (kib("active_file"), kib("inactive_file"));
    Figures {
        total,
        free,
        // What only caches files would be given up.
        available: (free + active_file + inactive_file).min(total),
        buffers: 0,
        cached: kib("file"),
        anon: kib("anon"),
        shmem: kib("shmem"),
        mapped: kib("file_mapped"),
        active_anon: kib("active_anon"),
        inactive_anon: kib("inactive_anon"),
        active_file,
        inactive_file,
        dirty: kib("file_dirty"),
        slab: kib("slab"),
        swap_total: 0,
        swap_free: 0,
    }
}
