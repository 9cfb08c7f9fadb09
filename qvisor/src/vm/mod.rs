//! The machines, seen from the host: loading QKernel and entering it.

pub mod process;
