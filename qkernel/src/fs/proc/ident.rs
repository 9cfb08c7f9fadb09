//! What the kernel says of itself and of the container.

use crate::kernel;
use crate::task::{Process, exit::account, process::Usage, table};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

/// Clock ticks per second in `/proc` (USER_HZ).
pub const HZ: u64 = 100;
/// Nanoseconds of a tick.
pub const TICK_NS: u64 = 1_000_000_000 / HZ;

/// What a process used when last looked at, its ended tasks included.
pub fn usage(p: &Process) -> Usage {
    if let Some(me) = crate::task::current()
        && core::ptr::eq(&raw const *me.process, p)
    {
        account(&me);
    }
    let mut sum = *p.usage.lock();
    for t in p.tasks.lock().iter() {
        sum.add(&t.usage());
    }
    sum
}

/// CPU time as the host counts it for the container's cgroup, by version 2's names or version 1's.
fn cgroup_cpu_ns() -> Option<(u64, u64)> {
    use super::host_text::{cgroup, cgroup_number, value};
    let stat = cgroup("cpu.stat")?;
    if let (Some(user), Some(system)) = (value(&stat, "user_usec"), value(&stat, "system_usec")) {
        return Some((user * 1000, system * 1000));
    }
    Some((
        cgroup_number("cpuacct.usage_user")?,
        cgroup_number("cpuacct.usage_sys")?,
    ))
}

fn own_cpu_ns() -> (u64, u64) {
    let mut sum = (0, 0);
    for p in table::processes() {
        let mut u = usage(&p);
        if p.pid == 1 {
            let c = p.child_usage.lock();
            u.user_ns += c.user_ns;
            u.system_ns += c.system_ns;
        }
        sum.0 += u.user_ns;
        sum.1 += u.system_ns;
    }
    sum
}

/// CPU time of the calling task's whole container, ns: user, system; the kernel's own sums where the host counts none. Never goes back.
pub fn total_cpu_ns() -> (u64, u64) {
    let shown = &crate::ns::current().cgroup.shown_cpu_ns;
    let sum = cgroup_cpu_ns().unwrap_or_else(own_cpu_ns);
    let top = |i: usize, v: u64| shown[i].fetch_max(v, Ordering::Relaxed).max(v);
    (top(0, sum.0), top(1, sum.1))
}

/// The line of `/proc/version`.
pub fn version() -> Vec<u8> {
    let (release, version) = (kernel::RELEASE, kernel::VERSION);
    format!("Linux version {release} (quark@quark) (rustc, LLD) {version}\n").into_bytes()
}

/// A random UUID (version 4) as text.
pub fn uuid() -> String {
    let mut b = [0; 16];
    hal::clock::random(&mut b);
    b[6] = b[6] & 0x0f | 0x40;
    b[8] = b[8] & 0x3f | 0x80;
    uuid_text(&b)
}

/// The boot id: the same for as long as the sandbox lives.
pub fn boot_id() -> String {
    let mut b = hal::boot::info().generation;
    b[6] = b[6] & 0x0f | 0x40;
    b[8] = b[8] & 0x3f | 0x80;
    uuid_text(&b)
}

fn uuid_text(b: &[u8; 16]) -> String {
    let mut s = String::new();
    for (i, byte) in b.iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            s.push('-');
        }
        s.push_str(&format!("{byte:02x}"));
    }
    s
}
