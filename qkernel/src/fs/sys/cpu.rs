//! `/sys/devices/system/cpu` and `node`: every CPU is a core of its own in one package and one node.

use crate::fs::proc::cpu_sets::{cpu_list, cpu_mask, cpu_mask_of};
use crate::fs::pseudo::{Text, Tree};
use crate::put;
use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;
use hal::boot::cpus;
use qlib::Errno;

fn list() -> Result<Vec<u8>, Errno> {
    Ok(format!("{}\n", cpu_list(cpus())).into_bytes())
}

fn mask() -> Result<Vec<u8>, Errno> {
    Ok(format!("{}\n", cpu_mask(cpus())).into_bytes())
}

/// A name that lives as long as the tree, which is as long as the kernel; one per CPU.
fn name_of(cpu: u32) -> &'static str {
    Box::leak(format!("cpu{cpu}").into_boxed_str())
}

fn names() -> &'static [&'static str] {
    static NAMES: hal::sync::Once<Vec<&'static str>> = hal::sync::Once::new();
    NAMES.call_once(|| (0..cpus()).map(name_of).collect())
}

/// `bus/cpu/devices`.
pub(super) fn links(t: &mut Tree) {
    for name in names() {
        let name = *name;
        t.link_to(name, move || {
            format!("../../../devices/system/cpu/{name}").into_bytes()
        });
    }
}

/// `devices/system/cpu`.
pub(super) fn fill(t: &mut Tree) {
    for (cpu, name) in names().iter().enumerate() {
        t.dir(name, |c| one(c, cpu as u32));
    }
    t.dir("cpufreq", |_| {});
    t.dir("cpuidle", |_| {});
    t.text("isolated", "\n");
    t.text("kernel_max", "8191\n");
    t.text("nohz_full", "\n");
    t.text("offline", "\n");
    t.file("online", list);
    t.file("possible", list);
    t.file("present", list);
    t.dir("smt", |s| {
        s.text("active", "0\n").text("control", "notsupported\n");
    });
    t.dir("vulnerabilities", |_| {});
}

fn one(t: &mut Tree, cpu: u32) {
    if cpu > 0 {
        t.text("online", "1\n");
    }
    t.dir("topology", |t| {
        let own = move || Ok(format!("{}\n", cpu_mask_of(cpu, cpus())).into_bytes());
        let number = move || Ok(format!("{cpu}\n").into_bytes());
        t.text("cluster_id", "-1\n");
        t.file("core_cpus", own).file("core_cpus_list", number);
        t.file("core_id", number);
        t.file("core_siblings", mask).file("core_siblings_list", list);
        t.file("die_cpus", mask).file("die_cpus_list", list);
        t.text("die_id", "0\n");
        t.file("package_cpus", mask).file("package_cpus_list", list);
        t.text("physical_package_id", "0\n");
        t.file("thread_siblings", own)
            .file("thread_siblings_list", number);
    });
}

/// `devices/system/node`.
pub(super) fn nodes(t: &mut Tree) {
    t.text("has_cpu", "0\n")
        .text("has_memory", "0\n")
        .text("has_normal_memory", "0\n");
    t.dir("node0", |n| {
        for name in names() {
            let name = *name;
            n.link_to(name, move || format!("../../cpu/{name}").into_bytes());
        }
        n.file("cpulist", list).file("cpumap", mask);
        n.text("distance", "10\n");
        n.file("meminfo", || {
            let m = crate::fs::proc::memory::figures();
            let (total, free) = (m.total, m.free);
            let mut t = Text::new();
            put!(t, "Node 0 MemTotal:       {total:>8} kB\n");
            put!(t, "Node 0 MemFree:        {free:>8} kB\n");
            put!(t, "Node 0 MemUsed:        {:>8} kB\n", total.saturating_sub(free));
            Ok(t.finish())
        });
        n.text(
            "numastat",
            "numa_hit 0\nnuma_miss 0\nnuma_foreign 0\ninterleave_hit 0\nlocal_node 0\nother_node 0\n",
        );
    });
    t.text("online", "0\n").text("possible", "0\n");
}
