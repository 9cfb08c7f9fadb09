//! QKernel: Quark's guest kernel with the Linux system-call ABI.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod fs;
pub mod ipc;
pub mod mm;
pub mod net;
pub mod sched;
pub mod signal;
pub mod syscall;
pub mod task;
pub mod time;

#[cfg(test)]
pub(crate) mod tests {
    /// Boots the fake machine for tests that need BootInfo.
    pub(crate) fn boot() {
        static HOOKS: hal::boot::Hooks = hal::boot::Hooks {
            start: || {},
            trap: |_, _| {},
        };
        hal::fake::boot(&HOOKS);
    }
}
