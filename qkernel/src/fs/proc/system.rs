//! Files of `/proc` about the whole system.

use super::ident::{TICK_NS, total_cpu_ns, version};
use super::load;
use super::memory::{Figures, figures};
use super::stat::running;
use crate::fs::pseudo::{Text, Tree};
use crate::ns::pid;
use crate::put;
use crate::task::table;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use qlib::Errno;

/// Adds them.
pub(super) fn fill(t: &mut Tree) {
    t.file("buddyinfo", || Ok(Vec::new()));
    t.dir("bus", |_| {});
    t.text(
        "cgroups",
        "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpuset\t0\t1\t1\ncpu\t0\t1\t1\nmemory\t0\t1\t1\npids\t0\t1\t1\n",
    );
    t.text("cmdline", "quark\n");
    t.text("consoles", "");
    t.file("cpuinfo", cpuinfo);
    t.text("crypto", "");
    t.text(
        "devices",
        "Character devices:\n  1 mem\n  5 /dev/tty\n  5 /dev/console\n  5 /dev/ptmx\n136 pts\n\nBlock devices:\n",
    );
    t.text("diskstats", "");
    t.dir("driver", |_| {});
    t.text("execdomains", "0-0\tLinux           \t[kernel]\n");
    t.text(
        "filesystems",
        "nodev\tsysfs\nnodev\ttmpfs\nnodev\tproc\nnodev\tcgroup2\nnodev\tdevtmpfs\nnodev\tdevpts\nnodev\tmqueue\nnodev\toverlay\n",
    );
    t.dir("fs", |_| {});
    t.file("interrupts", interrupts);
    t.text("iomem", "");
    t.text("ioports", "");
    t.dir("irq", |_| {});
    t.file("kmsg", || Err(Errno::EPERM));
    t.file("loadavg", loadavg);
    t.text("locks", "");
    t.file("meminfo", || Ok(meminfo(&figures())));
    t.text("misc", "");
    t.text("modules", "");
    t.link("mounts", "self/mounts");
    t.link("net", "self/net");
    t.text("partitions", "");
    t.dir("pressure", |p| {
        const IDLE: &str = "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n";
        p.text("cpu", IDLE).text("io", IDLE).text("memory", IDLE);
    });
    t.file("softirqs", softirqs);
    t.file("stat", stat);
    t.text("swaps", "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n");
    t.dir("sysvipc", super::sysvipc::fill);
    t.dir("tty", |d| {
        d.text(
            "drivers",
            "/dev/tty             /dev/tty        5       0 system:/dev/tty\n/dev/console         /dev/console    5       1 system:console\n/dev/ptmx            /dev/ptmx       5       2 system\npty_slave            /dev/pts      136 0-1048575 pty:slave\npty_master           /dev/ptm      128 0-1048575 pty:master\n",
        );
        d.text("ldiscs", "n_tty       0\n");
    });
    t.file("uptime", uptime);
    t.file("version", || Ok(version()));
    t.file("vmstat", || Ok(vmstat(&figures())));
    t.file("zoneinfo", || Ok(Vec::new()));
}

fn cpuinfo() -> Result<Vec<u8>, Errno> {
    let mut t = Text::new();
    for cpu in 0..hal::boot::cpus() {
        let text = hal::cpu::describe(cpu, hal::boot::cpus());
        t.bytes(text.as_bytes());
        put!(t, "\n");
    }
    Ok(t.finish())
}

fn interrupts() -> Result<Vec<u8>, Errno> {
    let mut t = Text::new();
    put!(t, "    ");
    for cpu in 0..hal::boot::cpus() {
        put!(t, "       CPU{cpu:<4}");
    }
    put!(t, "\n");
    Ok(t.finish())
}

fn softirqs() -> Result<Vec<u8>, Errno> {
    let mut t = Text::new();
    put!(t, "                    ");
    for cpu in 0..hal::boot::cpus() {
        put!(t, "CPU{cpu:<8}");
    }
    put!(t, "\n");
    for name in [
        "HI", "TIMER", "NET_TX", "NET_RX", "BLOCK", "IRQ_POLL", "TASKLET", "SCHED", "HRTIMER", "RCU",
    ] {
        put!(t, "{name:>12}:");
        for _ in 0..hal::boot::cpus() {
            put!(t, " {:>10}", 0);
        }
        put!(t, "\n");
    }
    Ok(t.finish())
}

fn loadavg() -> Result<Vec<u8>, Errno> {
    let mut t = Text::new();
    for a in load::averages() {
        // Rounded to hundredths.
        let a = a + load::ONE / 200;
        put!(
            t,
            "{}.{:02} ",
            a >> load::SHIFT,
            (a & (load::ONE - 1)) * 100 >> load::SHIFT
        );
    }
    put!(
        t,
        "{}/{} {}\n",
        running(),
        table::task_count(),
        pid::current().last()
    );
    Ok(t.finish())
}

/// The largest idle time shown so far, ns.
static IDLE_SHOWN: AtomicU64 = AtomicU64::new(0);

fn uptime() -> Result<Vec<u8>, Errno> {
    let now = hal::clock::monotonic_ns();
    let (user, system) = total_cpu_ns();
    let idle = (now * u64::from(hal::boot::cpus())).saturating_sub(user + system);
    // What tasks use is told in steps, idle time never goes back.
    let idle = idle.max(IDLE_SHOWN.fetch_max(idle, Ordering::Relaxed));
    Ok(uptime_text(now, idle))
}

fn uptime_text(up_ns: u64, idle_ns: u64) -> Vec<u8> {
    let part = |ns: u64| (ns / 1_000_000_000, ns / 10_000_000 % 100);
    let ((us, uc), (is, ic)) = (part(up_ns), part(idle_ns));
    alloc::format!("{us}.{uc:02} {is}.{ic:02}\n").into_bytes()
}

fn stat() -> Result<Vec<u8>, Errno> {
    let now = hal::clock::monotonic_ns();
    let cpus = hal::boot::cpus();
    let (user, system) = total_cpu_ns();
    let btime = hal::clock::realtime_ns().saturating_sub(now) / 1_000_000_000;
    let line = |t: &mut Text, name: &str, n: u64, share: u64| {
        let (u, s) = (user / share / TICK_NS, system / share / TICK_NS);
        let idle = (now * n / TICK_NS).saturating_sub(u + s);
        put!(t, "{name} {u} 0 {s} {idle} 0 0 0 0 0 0\n");
    };
    let mut t = Text::new();
    line(&mut t, "cpu ", u64::from(cpus), 1);
    for cpu in 0..cpus {
        // Which CPU time was spent on is not known: it is shown as spread evenly.
        line(&mut t, &alloc::format!("cpu{cpu}"), 1, u64::from(cpus));
    }
    put!(
        t,
        "intr 0\nctxt 0\nbtime {btime}\nprocesses {}\n",
        table::last_id()
    );
    put!(t, "procs_running {}\nprocs_blocked 0\n", running());
    put!(t, "softirq 0 0 0 0 0 0 0 0 0 0 0\n");
    Ok(t.finish())
}

fn meminfo(m: &Figures) -> Vec<u8> {
    let mut t = Text::new();
    for (name, kib) in [
        ("MemTotal", m.total),
        ("MemFree", m.free),
        ("MemAvailable", m.available),
        ("Buffers", m.buffers),
        ("Cached", m.cached),
        ("SwapCached", 0),
        ("Active", m.active_anon + m.active_file),
        ("Inactive", m.inactive_anon + m.inactive_file),
        ("Active(anon)", m.active_anon),
        ("Inactive(anon)", m.inactive_anon),
        ("Active(file)", m.active_file),
        ("Inactive(file)", m.inactive_file),
        ("Unevictable", 0),
        ("Mlocked", 0),
        ("SwapTotal", m.swap_total),
        ("SwapFree", m.swap_free),
        ("Zswap", 0),
        ("Zswapped", 0),
        ("Dirty", m.dirty),
        ("Writeback", 0),
        ("AnonPages", m.anon),
        ("Mapped", m.mapped),
        ("Shmem", m.shmem),
        ("KReclaimable", 0),
        ("Slab", m.slab),
        ("SReclaimable", 0),
        ("SUnreclaim", m.slab),
        ("KernelStack", table::task_count() as u64 * 16),
        ("PageTables", 0),
        ("SecPageTables", 0),
        ("NFS_Unstable", 0),
        ("Bounce", 0),
        ("WritebackTmp", 0),
        ("CommitLimit", m.total),
        ("Committed_AS", m.anon + m.shmem),
        ("VmallocTotal", 34_359_738_367),
        ("VmallocUsed", 0),
        ("VmallocChunk", 0),
        ("Percpu", 0),
        ("AnonHugePages", 0),
        ("ShmemHugePages", 0),
        ("ShmemPmdMapped", 0),
        ("FileHugePages", 0),
        ("FilePmdMapped", 0),
    ] {
        let label = alloc::format!("{name}:");
        put!(t, "{label:<15} {kib:>8} kB\n");
    }
    for name in [
        "HugePages_Total",
        "HugePages_Free",
        "HugePages_Rsvd",
        "HugePages_Surp",
    ] {
        put!(t, "{name}:       0\n");
    }
    put!(t, "Hugepagesize:       2048 kB\nHugetlb:               0 kB\n");
    t.finish()
}

fn vmstat(m: &Figures) -> Vec<u8> {
    let mut t = Text::new();
    for (name, v) in [
        ("nr_free_pages", m.free / 4),
        ("nr_inactive_anon", m.inactive_anon / 4),
        ("nr_active_anon", m.active_anon / 4),
        ("nr_inactive_file", m.inactive_file / 4),
        ("nr_active_file", m.active_file / 4),
        ("nr_unevictable", 0),
        ("nr_mlock", 0),
        ("nr_anon_pages", m.anon / 4),
        ("nr_mapped", m.mapped / 4),
        ("nr_file_pages", (m.cached + m.buffers) / 4),
        ("nr_dirty", m.dirty / 4),
        ("nr_writeback", 0),
        ("nr_shmem", m.shmem / 4),
        ("pgpgin", 0),
        ("pgpgout", 0),
        ("pswpin", 0),
        ("pswpout", 0),
        ("pgfault", 0),
        ("pgmajfault", 0),
        ("oom_kill", crate::container::current().oom_kills()),
    ] {
        put!(t, "{name} {v}\n");
    }
    t.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;

    #[test]
    fn meminfo_has_the_columns_tools_parse() {
        let text = String::from_utf8(meminfo(&Figures {
            total: 2_097_152,
            free: 1_048_576,
            available: 1_048_576,
            ..Figures::default()
        }))
        .unwrap();
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("MemTotal:        2097152 kB"));
        assert_eq!(lines.next(), Some("MemFree:         1048576 kB"));
        assert_eq!(lines.next(), Some("MemAvailable:    1048576 kB"));
        assert!(text.contains("VmallocTotal:   34359738367 kB\n"));
        assert!(text.ends_with("Hugepagesize:       2048 kB\nHugetlb:               0 kB\n"));
    }

    #[test]
    fn uptime_is_in_hundredths() {
        assert_eq!(uptime_text(12_345_678_901, 990_000_000), b"12.34 0.99\n");
    }
}
