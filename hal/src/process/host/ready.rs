//! Readiness of handles.

use super::super::threads::HOST_WAIT;
use super::super::{stack, sys};
use crate::host::{Handle, PollItem};
use crate::uapi::general as g;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use qlib::Errno;

/// Items handled without the heap.
const FEW: usize = 16;

/// Runs `f` on the host's `pollfd`s of `items`, and copies the answers back.
fn with_fds(
    items: &mut [PollItem],
    f: impl FnOnce(&mut [g::pollfd]) -> Result<u64, Errno>,
) -> Result<usize, Errno> {
    let item = |i: &PollItem| g::pollfd {
        fd: i.handle.0 as i32,
        events: i.events as i16,
        revents: 0,
    };
    let mut few = [g::pollfd {
        fd: -1,
        events: 0,
        revents: 0,
    }; FEW];
    let mut many = Vec::new();
    let fds = if items.len() <= FEW {
        for (fd, i) in few.iter_mut().zip(items.iter()) {
            *fd = item(i);
        }
        &mut few[..items.len()]
    } else {
        many.extend(items.iter().map(item));
        &mut many[..]
    };
    let n = f(fds);
    for (fd, i) in fds.iter().zip(items) {
        i.revents = if n.is_ok() { fd.revents as u16 } else { 0 };
    }
    n.map(|n| n as usize)
}

/// `ppoll` with a timeout (`None` = for ever) and a signal mask (`None` = as it is).
fn ppoll(fds: &mut [g::pollfd], timeout_ns: Option<u64>, mask: Option<u64>) -> Result<u64, Errno> {
    let timeout = timeout_ns.map(sys::timespec);
    let timeout = timeout.as_ref().map_or(0, |t| t as *const _ as u64);
    let mask = mask.as_ref().map_or(0, |m| m as *const _ as u64);
    // SAFETY: the host reads and writes the pollfds and reads timeout and mask; all outlive the call. It may write
    // the time left into the timeout, which is this function's own.
    unsafe {
        sys::call(
            g::__NR_ppoll,
            [fds.as_mut_ptr() as u64, fds.len() as u64, timeout, mask, 8],
        )
    }
}

/// `ppoll` that does not wait. A kick may cut even that short in a thread that came by the call gate.
fn look(fds: &mut [g::pollfd]) -> Result<u64, Errno> {
    loop {
        match ppoll(fds, Some(0), None) {
            Err(Errno::EINTR) => {}
            r => return r,
        }
    }
}

pub(super) fn now(items: &mut [PollItem]) -> Result<usize, Errno> {
    with_fds(items, look)
}

/// Whether one handle is ready; an error or a hang-up counts.
pub(super) fn is_ready(h: Handle, events: u16) -> Result<bool, Errno> {
    let mut fds = [g::pollfd {
        fd: h.0 as i32,
        events: events as i16,
        revents: 0,
    }];
    look(&mut fds).map(|n| n > 0)
}

/// Sleeps until a descriptor of the machine's own is ready, or for a while: until the deadline, or a signal.
pub(super) fn block(fd: i32, events: u16, deadline_ns: Option<u64>) {
    let mut fds = [g::pollfd {
        fd,
        events: events as i16,
        revents: 0,
    }];
    let _ = ppoll(&mut fds, timeout(deadline_ns), None);
}

/// The time left until a deadline, ns.
fn timeout(deadline_ns: Option<u64>) -> Option<u64> {
    deadline_ns.map(|d| d.saturating_sub(<super::Process as crate::contract::Clock>::monotonic_ns()))
}

/// Kicks are blocked while it lives, as they are all along in a thread that came by a trap.
pub(super) struct HeldKicks(bool);

/// Blocks kicks in a thread that came by the call gate.
pub(super) fn hold_kicks() -> HeldKicks {
    let by_gate = stack::with(|h| h.by_gate);
    if by_gate {
        sys::block_kicks(true);
    }
    HeldKicks(by_gate)
}

impl Drop for HeldKicks {
    fn drop(&mut self) {
        if self.0 {
            sys::block_kicks(false);
        }
    }
}

pub(super) fn wait(items: &mut [PollItem], deadline_ns: Option<u64>) -> Result<usize, Errno> {
    let me = stack::with(|h| h.thread.as_ref().map(|t| &raw const **t));
    let Some(me) = me else { return now(items) };
    // SAFETY: the header keeps the thread alive while it runs.
    let me = unsafe { &*me };
    let _kicks = hold_kicks();
    me.mode.fetch_or(HOST_WAIT, Ordering::SeqCst);
    // From here on a token is followed by the kick signal, which stays pending until the host opens the mask.
    let result = if me.park.swap(0, Ordering::SeqCst) != 0 {
        now(items)
    } else {
        let open = sys::KERNEL_MASK & !(1 << (sys::KICK - 1));
        with_fds(items, |fds| ppoll(fds, timeout(deadline_ns), Some(open)))
    };
    me.mode.fetch_and(!HOST_WAIT, Ordering::SeqCst);
    match result {
        Err(Errno::EINTR) => {
            me.park.store(0, Ordering::SeqCst);
            Ok(0)
        }
        r => r,
    }
}
