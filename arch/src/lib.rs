//! Quark's architectures. Both modules have the same file names and the same public items.
//!
//! The data half compiles on every target: register files, signal frames, page-table entries, boot plans.
//! The machine half (entry assembly, traps, user-memory access, timers) compiles only for the guest on its own
//! architecture.
#![no_std]

extern crate alloc;

pub mod aarch64;
pub mod boot;
pub mod signal;
pub mod sysno;
pub mod table;
pub mod trap;
pub mod vdso;
pub mod x86_64;
