//! The fake machine of `cargo test`: host threads, address spaces that are maps of bytes, a scripted app.

mod host;
mod space;
mod threads;

pub use space::{FakeSpace, with_space};
pub(crate) use threads::ThreadState;

/// Implements the contract on any host.
pub struct Fake;

/// Sets up a fake sandbox once per test process: BootInfo with 2 CPUs and no limits.
pub fn boot(hooks: &'static crate::boot::Hooks) {
    use zerocopy::FromZeros;
    let mut info = qlib::boot::BootInfo::new_zeroed();
    info.magic = qlib::boot::BOOT_MAGIC;
    info.machine = qlib::boot::MachineKind::Process as u32;
    info.cpus = 2;
    info.memory_limit = u64::MAX;
    info.pids_limit = u64::MAX;
    // Outside the fake machine's user range.
    info.image = qlib::boot::Range {
        start: 1 << 47,
        end: (1 << 47) + 4096,
    };
    crate::boot::init(info, hooks);
}
