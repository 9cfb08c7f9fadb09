//! What Quark's host side (QVisor) and guest kernel (QKernel) agree on.
//!
//! Plain data only: no padding, no pointers, no `usize`, no Rust enum on the wire. Whatever crosses the
//! boundary is copied once, then checked with the `TryFrom`/`decode` functions here, then used.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod addr;
pub mod boot;
pub mod control;
pub mod errno;
pub mod qcall;
pub mod ring;
pub mod wire;

pub use addr::{PAGE_SHIFT, PAGE_SIZE, PAGE_SIZE_USIZE, PhysAddr, VirtAddr};
pub use errno::Errno;
