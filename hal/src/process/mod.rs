//! The process machine: QKernel mapped into every process of the sandbox, entered by trapped system calls.

mod absent;
pub(crate) mod futex;

/// Implements the contract on the process machine.
pub(crate) struct Process;

/// Brings the machine up. `sound`: the boot page is of this ABI version.
pub(crate) fn start(_sound: bool) -> ! {
    panic!("the process machine is not built yet")
}
