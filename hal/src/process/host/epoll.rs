//! epoll instances of the host: they watch host objects for QKernel's own instances.

use super::super::threads::HOST_WAIT;
use super::super::{stack, sys};
use super::done;
use crate::host::{Handle, HostEvent};
use crate::uapi::general as g;
use core::sync::atomic::Ordering;
use qlib::Errno;
use qlib::qcall::HandleId;

/// Events taken in one call.
const BATCH: usize = 64;

pub(super) fn create() -> Result<Handle, Errno> {
    sys::plain(g::__NR_epoll_create1, [g::EPOLL_CLOEXEC as u64]).map(HandleId)
}

pub(super) fn ctl(epoll: Handle, op: u32, h: Handle, events: u32, data: u64) -> Result<(), Errno> {
    let event = g::epoll_event { events, data };
    // SAFETY: the host reads the event.
    done(unsafe {
        sys::call(
            g::__NR_epoll_ctl,
            [epoll.0, op as u64, h.0, &raw const event as u64],
        )
    })
}

/// `epoll_pwait2` with a timeout (`None` = for ever) and a signal mask (`None` = as it is).
fn pwait(
    epoll: Handle,
    out: &mut [HostEvent],
    timeout_ns: Option<u64>,
    mask: Option<u64>,
) -> Result<usize, Errno> {
    let mut events = [g::epoll_event { events: 0, data: 0 }; BATCH];
    let room = out.len().min(BATCH);
    let timeout = timeout_ns.map(sys::timespec);
    let timeout = timeout.as_ref().map_or(0, |t| t as *const _ as u64);
    let mask = mask.as_ref().map_or(0, |m| m as *const _ as u64);
    let args = [epoll.0, events.as_mut_ptr() as u64, room as u64, timeout, mask, 8];
    // SAFETY: the host writes at most `room` events and reads timeout and mask; all outlive the call.
    let n = unsafe { sys::call(g::__NR_epoll_pwait2, args) }? as usize;
    for (o, e) in out.iter_mut().zip(&events[..n]) {
        *o = HostEvent {
            events: e.events,
            data: e.data,
        };
    }
    Ok(n)
}

pub(super) fn wait(epoll: Handle, out: &mut [HostEvent], deadline_ns: Option<u64>) -> Result<usize, Errno> {
    if deadline_ns == Some(0) {
        return pwait(epoll, out, Some(0), None);
    }
    let me = stack::with(|h| h.thread.as_ref().map(|t| &raw const **t));
    let Some(me) = me else {
        return pwait(epoll, out, Some(0), None);
    };
    // SAFETY: the header keeps the thread alive while it runs.
    let me = unsafe { &*me };
    let timeout =
        deadline_ns.map(|d| d.saturating_sub(<super::Process as crate::contract::Clock>::monotonic_ns()));
    let _kicks = super::ready::hold_kicks();
    me.mode.fetch_or(HOST_WAIT, Ordering::SeqCst);
    // As in `ready::wait`: from here on a token is followed by the kick signal.
    let result = if me.park.swap(0, Ordering::SeqCst) != 0 {
        pwait(epoll, out, Some(0), None)
    } else {
        let open = sys::KERNEL_MASK & !(1 << (sys::KICK - 1));
        pwait(epoll, out, timeout, Some(open))
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
