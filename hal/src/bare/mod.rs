//! The bare machine (`kvm`): QKernel in guest ring 0 / EL1.

mod absent;
pub(crate) mod space;
pub(crate) mod thread;

/// Implements the contract on bare machines.
pub(crate) struct Bare;

/// Brings the machine up. `sound`: the boot page is of this ABI version.
pub(crate) fn start(_sound: bool) -> ! {
    panic!("the bare machine is not built yet")
}

/// What a waiting processor must look at meanwhile (shootdown requests).
pub(crate) fn poll_while_spinning() {}
