//! The process machine: QKernel mapped into every process of the sandbox, entered by trapped system calls.
//!
//! The region (kernel image, heap, kernel stacks) is MAP_SHARED at one address in every host process of the sandbox, so
//! the kernel is an ordinary SMP kernel whose processors are host threads.

mod clock;
pub(crate) mod futex;
mod handover;
mod host;
mod sites;
mod space;
mod stack;
mod sys;
mod threads;
mod traps;
mod user;
mod zygote;

pub use zygote::Nursery;

/// Implements the contract on the process machine.
pub(crate) struct Process;

/// Exit code of a sandbox that the machine itself gives up (EX_OSERR).
const FAULT_CODE: i32 = 71;

/// Brings the machine up. `sound`: the boot page is of this ABI version.
pub(crate) fn start(sound: bool) -> ! {
    zygote::run(sound)
}
