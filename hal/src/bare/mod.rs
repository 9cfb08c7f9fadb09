//! The bare machine (`kvm`): QKernel in guest ring 0 / EL1.

pub(crate) mod space;
pub(crate) mod thread;
