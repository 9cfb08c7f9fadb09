//! The host's futex, shared between the processes of the sandbox.

use super::sys;
use crate::uapi::general as g;
use core::sync::atomic::AtomicU32;

/// Sleeps while `*word == value`, until woken or until the deadline (monotonic ns). May return early.
pub(crate) fn wait(word: &AtomicU32, value: u32, deadline_ns: Option<u64>) {
    let deadline = deadline_ns.map(sys::timespec);
    let at = deadline.as_ref().map_or(0, |t| t as *const _ as u64);
    let args = [
        word.as_ptr() as u64,
        g::FUTEX_WAIT_BITSET as u64,
        value as u64,
        at,
        0,
        u32::MAX as u64,
    ];
    // SAFETY: the word and the deadline outlive the call.
    let _ = unsafe { sys::call(g::__NR_futex, args) };
}

/// Wakes up to `n` sleepers.
pub(crate) fn wake(word: &AtomicU32, n: u32) {
    let args = [word.as_ptr() as u64, g::FUTEX_WAKE as u64, n as u64];
    // SAFETY: the host only looks at the word's address.
    let _ = unsafe { sys::call(g::__NR_futex, args) };
}
