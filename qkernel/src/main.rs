//! The QKernel image: the portable kernel in `lib.rs`, entered by the HAL.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

hal::kernel_entry!(qkernel::HOOKS);

#[cfg(not(target_os = "none"))]
fn main() {
    // The image exists only for the guest's own target; on the host this binary says so.
    println!("qkernel: build it for x86_64-unknown-none or aarch64-unknown-none-softfloat");
}
