//! The container's own cgroup, as version 2 shows it to a cgroup namespace: limits and usage, to be read.
//! Source: Linux `Documentation/admin-guide/cgroup-v2.rst`.

use crate::fs::inode::InodeRef;
use crate::fs::proc::ident::total_cpu_ns;
use crate::fs::pseudo::{Text, Tree, new_dev_of};
use crate::kernel;
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
    let m = kernel::memory();
    m.total - m.free
}

fn current() -> Shown {
    Ok(format!("{}\n", used()).into_bytes())
}

fn memory_stat() -> Shown {
    let mut t = Text::new();
    put!(t, "anon {}\n", used());
    for name in [
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
    ] {
        put!(t, "{name} 0\n");
    }
    put!(t, "active_anon {}\n", used());
    for name in [
        "inactive_file",
        "active_file",
        "unevictable",
        "slab_reclaimable",
        "slab_unreclaimable",
        "slab",
        "pgfault",
        "pgmajfault",
    ] {
        put!(t, "{name} 0\n");
    }
    Ok(t.finish())
}

fn cpu_stat() -> Shown {
    let (user, system) = total_cpu_ns();
    let us = |ns: u64| ns / 1000;
    Ok(format!(
        "usage_usec {}\nuser_usec {}\nsystem_usec {}\nnr_periods 0\nnr_throttled 0\nthrottled_usec 0\n",
        us(user + system),
        us(user),
        us(system)
    )
    .into_bytes())
}

fn processes() -> Shown {
    let mut t = Text::new();
    for p in table::processes() {
        put!(t, "{}\n", p.pid);
    }
    Ok(t.finish())
}

fn threads() -> Shown {
    let mut t = Text::new();
    for p in table::processes() {
        let tasks = p.tasks.lock().clone();
        for task in tasks {
            put!(t, "{}\n", task.tid());
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
    // A quota becomes a number of CPUs before the guest boots.
    t.text("cpu.idle", "0\n");
    t.text("cpu.max", "max 100000\n");
    t.text("cpu.max.burst", "0\n");
    t.text("cpu.pressure", IDLE);
    t.file("cpu.stat", cpu_stat);
    t.text("cpu.weight", "100\n");
    t.text("cpu.weight.nice", "0\n");
    t.file("cpuset.cpus", cpu_list);
    t.file("cpuset.cpus.effective", cpu_list);
    t.text("cpuset.cpus.partition", "member\n");
    t.text("cpuset.mems", "0\n");
    t.text("cpuset.mems.effective", "0\n");
    t.text("io.pressure", IDLE);
    t.text("io.stat", "");
    t.file("memory.current", current);
    t.text(
        "memory.events",
        "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0\n",
    );
    t.text(
        "memory.events.local",
        "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0\n",
    );
    t.text("memory.high", "max\n");
    t.text("memory.low", "0\n");
    t.file("memory.max", || {
        let v = boot::info().memory_limit;
        limit(if v == u64::MAX { v } else { v & !(PAGE_SIZE - 1) })
    });
    t.text("memory.min", "0\n");
    t.text("memory.oom.group", "0\n");
    t.file("memory.peak", current);
    t.text("memory.pressure", IDLE);
    t.file("memory.stat", memory_stat);
    t.text("memory.swap.current", "0\n");
    t.text("memory.swap.events", "high 0\nmax 0\nfail 0\n");
    t.text("memory.swap.high", "max\n");
    t.text("memory.swap.max", "0\n");
    t.file("pids.current", || {
        Ok(format!("{}\n", table::task_count()).into_bytes())
    });
    t.text("pids.events", "max 0\n");
    t.file("pids.max", || limit(boot::info().pids_limit));
    t.file("pids.peak", || {
        Ok(format!("{}\n", table::task_count()).into_bytes())
    });
    t.finish()
}
