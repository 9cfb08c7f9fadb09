//! A kernel that tests the machine it runs on: threads, address spaces, traps, faults, kicks, FP state, host files.
//! It powers off with 0, or with 1 and the reason in the log.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() {
    println!("machine_test: build it for the guest's own target");
}

#[cfg(target_os = "none")]
extern crate alloc;
#[cfg(target_os = "none")]
mod aarch64;
#[cfg(target_os = "none")]
mod app;
#[cfg(target_os = "none")]
mod cases;
#[cfg(target_os = "none")]
mod protections;
#[cfg(target_os = "none")]
mod reads;
#[cfg(target_os = "none")]
mod x86_64;
#[cfg(target_os = "none")]
mod native {
    //! Of the two, only that of the build's architecture holds anything.
    #[allow(unused_imports)]
    pub use super::{aarch64::*, x86_64::*};
}
#[cfg(target_os = "none")]
hal::kernel_entry!(hal::boot::Hooks {
    start: cases::run,
    trap: app::trap,
    call_site: |_, _| {}
});
