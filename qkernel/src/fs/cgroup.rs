//! The container's own cgroup, as version 2 shows it to a cgroup namespace: limits and usage, to be read.
//! Source: Linux `Documentation/admin-guide/cgroup-v2.rst`.

use crate::container;
use crate::fs::inode::InodeRef;
use crate::fs::proc::host_text::{cgroup, cgroup_number, value};
use crate::fs::proc::ident::total_cpu_ns;
use crate::fs::proc::memory::{self, CgroupStat};
use crate::fs::pseudo::{Text, Tree, new_dev_of};
use crate::put;
use crate::task::table;
use alloc::format;
use alloc::vec::Vec;
use hal::boot;
use qlib::{Errno, PAGE_SIZE};

/// CGROUP2_SUPER_MAGIC.
const MAGIC: u64 = 0x6367_7270;

type Shown = Result<Vec<u8>, Errno>;

fn limit(v: u64) -> Shown {
    Ok(match v {
        u64::MAX => b"max\n".to_vec(),
        v => format!("{v}\n").into_bytes(),
    })
}

fn used() -> u64 {
    memory::cgroup_usage().unwrap_or_else(table::resident_estimate)
}

fn current() -> Shown {
    Ok(format!("{}\n", used()).into_bytes())
}

fn peak() -> Shown {
    let peak = memory::cgroup_peak().unwrap_or_else(used);
    Ok(format!("{peak}\n").into_bytes())
}

fn memory_stat() -> Shown {
    let stat = CgroupStat::read();
    if let Some(text) = stat.as_ref().and_then(CgroupStat::text_v2) {
        return Ok(text.as_bytes().to_vec());
    }
    let mut t = Text::new();
    for name in [
        "anon",
        "file",
        "kernel",
        "kernel_stack",
        "pagetables",
        "percpu",
        "sock",
        "vmalloc",
        "shmem",
        "file_mapped",
        "file_dirty",
        "file_writeback",
        "swapcached",
        "anon_thp",
        "file_thp",
        "shmem_thp",
        "inactive_anon",
        "active_anon",
        "inactive_file",
        "active_file",
        "unevictable",
        "slab_reclaimable",
        "slab_unreclaimable",
        "slab",
        "pgfault",
        "pgmajfault",
    ] {
        let v = stat.as_ref().map_or(0, |s| s.get(name));
        put!(t, "{name} {v}\n");
    }
    Ok(t.finish())
}

fn memory_events() -> Shown {
    let n = container::current().oom_kills();
    Ok(format!("low 0\nhigh 0\nmax {n}\noom {n}\noom_kill {n}\noom_group_kill 0\n").into_bytes())
}

/// The quota: version 2's file, or version 1's two.
fn cpu_max() -> Shown {
    if let Some(text) = cgroup("cpu.max") {
        return Ok(text.into_bytes());
    }
    let period = cgroup_number("cpu.cfs_period_us").unwrap_or(100_000);
    Ok(match cgroup_number("cpu.cfs_quota_us") {
        Some(quota) => format!("{quota} {period}\n"),
        // No quota is -1 there.
        None => format!("max {period}\n"),
    }
    .into_bytes())
}

/// The weight. Version 1's shares are converted as the OCI runtimes do: 2…262144 to 1…10000.
fn cpu_weight() -> Shown {
    if let Some(text) = cgroup("cpu.weight") {
        return Ok(text.into_bytes());
    }
    let weight = match cgroup_number("cpu.shares") {
        Some(shares) if shares != 1024 => 1 + shares.saturating_sub(2).min(262_142) * 9999 / 262_142,
        _ => 100,
    };
    Ok(format!("{weight}\n").into_bytes())
}

fn cpu_stat() -> Shown {
    let (user, system) = total_cpu_ns();
    let us = |ns: u64| ns / 1000;
    let mut t = Text::new();
    put!(
        t,
        "usage_usec {}\nuser_usec {}\nsystem_usec {}\n",
        us(user + system),
        us(user),
        us(system)
    );
    let host = cgroup("cpu.stat").unwrap_or_default();
    let told = |name: &str| value(&host, name).unwrap_or(0);
    let throttled = value(&host, "throttled_usec").unwrap_or_else(|| us(told("throttled_time")));
    put!(
        t,
        "nr_periods {}\nnr_throttled {}\nthrottled_usec {throttled}\n",
        told("nr_periods"),
        told("nr_throttled")
    );
    Ok(t.finish())
}

fn processes() -> Shown {
    let mut t = Text::new();
    // Who is not to be seen from the reader's pid namespace shows as 0.
    let ns = crate::ns::pid::current();
    for p in container::current().processes() {
        put!(t, "{}\n", p.numbers.shown(&ns));
    }
    Ok(t.finish())
}

fn threads() -> Shown {
    let mut t = Text::new();
    // Who is not to be seen from the reader's pid namespace shows as 0.
    let ns = crate::ns::pid::current();
    for p in container::current().processes() {
        let tasks = p.tasks.lock().clone();
        for task in tasks {
            put!(t, "{}\n", task.tid_in(&ns));
        }
    }
    Ok(t.finish())
}

fn cpu_list() -> Shown {
    let list = crate::fs::proc::cpu_sets::cpu_list(boot::cpus());
    Ok(format!("{list}\n").into_bytes())
}

/// The root of a cgroup file system for a mount.
pub fn new_root() -> InodeRef {
    const IDLE: &str =
        "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n";
    let mut t = Tree::new(new_dev_of(MAGIC));
    t.text("cgroup.controllers", "cpuset cpu memory pids\n");
    t.text("cgroup.events", "populated 1\nfrozen 0\n");
    t.text("cgroup.freeze", "0\n");
    t.text("cgroup.max.depth", "0\n");
    t.text("cgroup.max.descendants", "0\n");
    t.text("cgroup.pressure", "1\n");
    t.file("cgroup.procs", processes);
    t.text("cgroup.stat", "nr_descendants 0\nnr_dying_descendants 0\n");
    t.text("cgroup.subtree_control", "\n");
    t.file("cgroup.threads", threads);
    t.text("cgroup.type", "domain\n");
    t.text("cpu.idle", "0\n");
    t.file("cpu.max", cpu_max);
    t.text("cpu.max.burst", "0\n");
    t.text("cpu.pressure", IDLE);
    t.file("cpu.stat", cpu_stat);
    t.file("cpu.weight", cpu_weight);
    t.text("cpu.weight.nice", "0\n");
    t.file("cpuset.cpus", cpu_list);
    t.file("cpuset.cpus.effective", cpu_list);
    t.text("cpuset.cpus.partition", "member\n");
    t.text("cpuset.mems", "0\n");
    t.text("cpuset.mems.effective", "0\n");
    t.text("io.pressure", IDLE);
    t.text("io.stat", "");
    t.file("memory.current", current);
    t.file("memory.events", memory_events);
    t.file("memory.events.local", memory_events);
    t.text("memory.high", "max\n");
    t.text("memory.low", "0\n");
    t.file("memory.max", || {
        let v = container::current().memory_limit();
        limit(if v == u64::MAX { v } else { v & !(PAGE_SIZE - 1) })
    });
    t.text("memory.min", "0\n");
    t.text("memory.oom.group", "0\n");
    t.file("memory.peak", peak);
    t.text("memory.pressure", IDLE);
    t.file("memory.stat", memory_stat);
    t.text("memory.swap.current", "0\n");
    t.text("memory.swap.events", "high 0\nmax 0\nfail 0\n");
    t.text("memory.swap.high", "max\n");
    t.text("memory.swap.max", "0\n");
    t.file("pids.current", || {
        Ok(format!("{}\n", container::current().tasks()).into_bytes())
    });
    t.text("pids.events", "max 0\n");
    t.file("pids.max", || limit(container::current().pids_limit()));
    t.file("pids.peak", || {
        Ok(format!("{}\n", container::current().tasks()).into_bytes())
    });
    t.finish()
}
