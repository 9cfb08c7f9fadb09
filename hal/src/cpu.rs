//! What the CPUs are, for people.

use alloc::string::String;

/// The lines of `/proc/cpuinfo` for CPU `cpu` of `count`, as if all were the one this runs on.
pub fn describe(cpu: u32, count: u32) -> String {
    let info = crate::boot::info();
    crate::native::cpuinfo::describe(cpu, count, info.counter_hz, info.hwcap)
}
