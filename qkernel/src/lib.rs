//! QKernel: Quark's guest kernel with the Linux system-call ABI.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod container;
pub mod control;
pub mod fs;
pub mod ipc;
pub mod kernel;
pub mod loader;
mod metrics;
pub mod mm;
pub mod net;
pub mod ns;
pub mod sched;
pub mod seccomp;
pub mod signal;
pub mod syscall;
pub mod task;
pub mod time;
pub mod trace;

/// Entry points for the machines.
pub static HOOKS: hal::boot::Hooks = hal::boot::Hooks {
    start,
    trap: syscall::dispatch::trap,
    call_site: mm::calls::call_site,
};

/// Brings the kernel up on the boot thread.
fn start() {
    let up = time::timers::start().and_then(|()| {
        hal::thread::spawn("control", None, hal::thread::NewSpace::Kernel, control::serve).map(|_| ())
    });
    if let Err(e) = up {
        log::error!("the kernel's own threads cannot be started: {e}");
        hal::thread::power_off(70, "the kernel's own threads cannot be started");
    }
}

#[cfg(test)]
pub(crate) mod tests {
    /// Boots the fake machine for tests that need BootInfo.
    pub(crate) fn boot() {
        static HOOKS: hal::boot::Hooks = hal::boot::Hooks {
            start: || {},
            trap: |_, _| {},
            call_site: |_, _| {},
        };
        hal::fake::boot(&HOOKS);
    }
}
