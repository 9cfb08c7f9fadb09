//! Host system calls.

use crate::native::hosted;
use crate::uapi::general as g;
use core::sync::atomic::{AtomicI32, Ordering};
use qlib::Errno;

/// The signal that makes a thread trap: SIGRTMIN + 8, which no host library of ours uses.
pub(super) const KICK: u32 = 40;
/// Signals that stay blocked in kernel mode: the kick, and SIGCHLD, which the zygote waits for.
pub(super) const KERNEL_MASK: u64 = 1 << (KICK - 1) | 1 << (g::SIGCHLD - 1);

/// Flags of a thread in the calling process.
pub(super) const THREAD_FLAGS: u64 =
    (g::CLONE_VM | g::CLONE_FS | g::CLONE_FILES | g::CLONE_SIGHAND | g::CLONE_THREAD | g::CLONE_SYSVSEM)
        as u64;
/// Flags of a process that is a child of the caller.
pub(super) const PROCESS_FLAGS: u64 = (g::CLONE_FILES | g::SIGCHLD) as u64;
/// Flags of a process that is a child of the caller's parent, the zygote.
pub(super) const FORK_FLAGS: u64 = PROCESS_FLAGS | g::CLONE_PARENT as u64;

/// Process id of the zygote.
pub(super) static ZYGOTE: AtomicI32 = AtomicI32::new(0);

/// Issues a host call.
///
/// # Safety
/// The arguments must be fit for `nr`: pointers valid for what the host does with them.
#[inline]
pub(super) unsafe fn call<const N: usize>(nr: u32, args: [u64; N]) -> Result<u64, Errno> {
    let mut a = [0; 6];
    a[..N].copy_from_slice(&args);
    // SAFETY: the caller vouches for the arguments.
    Errno::from_ret(unsafe { hosted::syscall(nr, a) })
}

/// Issues a host call none of whose arguments is a pointer to kernel memory, and which neither maps nor unmaps any:
/// app addresses are the host's to check.
#[inline]
pub(super) fn plain<const N: usize>(nr: u32, args: [u64; N]) -> Result<u64, Errno> {
    // SAFETY: by the rule above the kernel's memory stays as it is.
    unsafe { call(nr, args) }
}

pub(super) fn gettid() -> i32 {
    plain(g::__NR_gettid, []).unwrap_or(0) as i32
}

pub(super) fn getpid() -> i32 {
    plain(g::__NR_getpid, []).unwrap_or(0) as i32
}

/// Sends the kick signal to a thread; one that has ended is no error.
pub(super) fn send_kick(pid: i32, tid: i32) {
    if pid > 0 && tid > 0 {
        let _ = plain(g::__NR_tgkill, [pid as u64, tid as u64, KICK as u64]);
    }
}

/// Blocks or unblocks the kick signal.
pub(super) fn block_kicks(block: bool) {
    let how = if block { g::SIG_BLOCK } else { g::SIG_UNBLOCK };
    let mask = 1u64 << (KICK - 1);
    // SAFETY: the host reads the mask.
    let _ = unsafe { call(g::__NR_rt_sigprocmask, [how as u64, &raw const mask as u64, 0, 8]) };
}

/// Ends the calling process; when it is the zygote, the whole sandbox.
pub(super) fn exit_group(code: i32) -> ! {
    loop {
        let _ = plain(g::__NR_exit_group, [code as u64]);
    }
}

/// Whether the calling process is the zygote, where kernel threads live.
pub(super) fn in_zygote(host_pid: i32) -> bool {
    host_pid == ZYGOTE.load(Ordering::Relaxed)
}

/// A host `timespec`.
pub(super) fn timespec(ns: u64) -> g::__kernel_timespec {
    g::__kernel_timespec {
        tv_sec: (ns / 1_000_000_000) as i64,
        tv_nsec: (ns % 1_000_000_000) as i64,
    }
}
