//! The broker: QVisor's host side does what the sandbox's own rights do not reach, one request at a time per channel. A
//! container's service is asked the same way, over a channel of its own.

use super::super::sys;
use crate::boot;
use crate::contract::Clock;
use crate::host::{Handle, Owner};
use crate::sync::{Once, SpinLock};
use crate::uapi::{general as g, net};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use qlib::Errno;
use qlib::boot::MAX_CHANNELS;
use qlib::qcall::{HandleId, MAX_PAYLOAD, Op, Reply, Request as Header};
use zerocopy::{FromZeros, IntoBytes};

/// A request.
#[derive(Clone, Copy)]
pub(super) struct Request<'a> {
    /// What is asked.
    pub op: Op,
    /// The object.
    pub handle: Handle,
    /// A second object.
    pub handle2: Handle,
    /// See [`Op`].
    pub args: [u64; 6],
    /// The payload in two parts.
    pub payload: [&'a [u8]; 2],
}

impl Request<'_> {
    /// Asks nothing.
    pub(super) const NONE: Self = Self {
        op: Op::Nop,
        handle: Handle::NONE,
        handle2: Handle::NONE,
        args: [0; 6],
        payload: [b"", b""],
    };
}

/// An answer.
pub(super) struct Answer {
    /// A new handle, if one came along.
    pub handle: Option<Handle>,
    /// Bytes of reply data.
    pub len: usize,
}

/// The channels; each lock is held while its request is out. A waiter sleeps in the host, as the lock does.
static CHANNELS: [SpinLock<()>; MAX_CHANNELS] = [const { SpinLock::new(()) }; MAX_CHANNELS];
/// As [`CHANNELS`], for the services, whose channels are descriptors like others: some may share a lock.
static SERVICES: [SpinLock<()>; 64] = [const { SpinLock::new(()) }; 64];
/// A service that has not answered after this time does not.
const SERVICE_NS: u64 = 10_000_000_000;
static NEXT: AtomicU32 = AtomicU32::new(0);
static TAG: AtomicU64 = AtomicU64::new(1);

pub(super) fn count() -> usize {
    boot::info().channel_fds.iter().take_while(|fd| **fd >= 0).count()
}

/// User and group that the host gives to what this sandbox makes itself.
fn own() -> Owner {
    static OWN: Once<Owner> = Once::new();
    *OWN.call_once(|| Owner {
        uid: sys::plain(g::__NR_geteuid, []).unwrap_or(0) as u32,
        gid: sys::plain(g::__NR_getegid, []).unwrap_or(0) as u32,
    })
}

/// Whether only the broker can make something for `owner`.
pub(super) fn must_own(owner: Owner) -> bool {
    owner != own() && count() > 0
}

/// `direct`, or the broker's answer where the host forbids the sandbox to do it by itself.
pub(super) fn or<R>(direct: Result<R, Errno>, ask: impl FnOnce() -> Result<R, Errno>) -> Result<R, Errno> {
    match direct {
        Err(e) if (e == Errno::EPERM || e == Errno::EACCES) && count() > 0 => match ask() {
            // A broker that does not serve this leaves the host's word.
            Err(Errno::ENOSYS) => Err(e),
            r => r,
        },
        r => r,
    }
}

/// Sends a request and waits for its answer, whose data goes to `reply`.
pub(super) fn call(request: &Request<'_>, reply: &mut [u8]) -> Result<Answer, Errno> {
    let n = count();
    if n == 0 {
        return Err(Errno::ENOSYS);
    }
    let first = NEXT.fetch_add(1, Ordering::Relaxed) as usize;
    let free = (0..n)
        .map(|i| (first + i) % n)
        .find_map(|i| CHANNELS[i].try_lock().map(|guard| (i, guard)));
    let (index, _guard) = match free {
        Some(f) => f,
        None => (first % n, CHANNELS[first % n].lock()),
    };
    exchange(boot::info().channel_fds[index], None, request, reply)
}

/// Has the container's `service` make an object; [`Handle::NONE`] = the broker.
pub(super) fn make(service: Handle, request: &Request<'_>) -> Result<Handle, Errno> {
    if service == Handle::NONE {
        return call(request, &mut [])?.handle.ok_or(Errno::EIO);
    }
    let _guard = SERVICES[service.0 as usize % SERVICES.len()].lock();
    let deadline = super::super::Process::monotonic_ns().saturating_add(SERVICE_NS);
    let answer = exchange(service.0 as i32, Some(deadline), request, &mut [])?;
    answer.handle.ok_or(Errno::EIO)
}

/// Sends a request over `fd`, whose lock the caller holds, and waits for the answer until `deadline`.
fn exchange(
    fd: i32,
    deadline: Option<u64>,
    request: &Request<'_>,
    reply: &mut [u8],
) -> Result<Answer, Errno> {
    let payload = request.payload[0].len() + request.payload[1].len();
    if payload > MAX_PAYLOAD {
        return Err(Errno::E2BIG);
    }
    let tag = TAG.fetch_add(1, Ordering::Relaxed);
    let header = Header {
        tag,
        op: request.op as u32,
        data_len: payload as u32,
        handle: request.handle,
        handle2: request.handle2,
        args: request.args,
        data_addr: 0,
        reply_cap: reply.len() as u32,
        reserved: 0,
    };
    send(fd, deadline, &header, request)?;
    loop {
        match receive(fd, deadline, tag, reply)? {
            Some(answer) => return Ok(answer),
            // An answer that somebody no longer waited for.
            None if deadline.is_some() => {}
            None => return Err(gone(Errno::EPROTO)),
        }
    }
}

/// Room for two descriptors in a control message: header of 16 bytes, then the descriptors, padded to 8.
#[repr(C, align(8))]
struct Rights {
    len: u64,
    level: u32,
    kind: u32,
    fds: [i32; 2],
}

fn send(fd: i32, deadline: Option<u64>, header: &Header, request: &Request<'_>) -> Result<(), Errno> {
    let mut iov = [
        [header.as_bytes().as_ptr() as u64, size_of::<Header>() as u64],
        [
            request.payload[0].as_ptr() as u64,
            request.payload[0].len() as u64,
        ],
        [
            request.payload[1].as_ptr() as u64,
            request.payload[1].len() as u64,
        ],
    ];
    let mut rights = Rights {
        len: 0,
        level: net::SOL_SOCKET,
        kind: net::SCM_RIGHTS,
        fds: [0; 2],
    };
    let mut n = 0;
    for h in [request.handle, request.handle2] {
        if h != HandleId::NONE {
            rights.fds[n] = h.0 as i32;
            n += 1;
        }
    }
    rights.len = 16 + 4 * n as u64;
    let control = if n == 0 {
        (0, 0)
    } else {
        (&raw mut rights as u64, rights.len.next_multiple_of(8))
    };
    let message = [
        0,
        0,
        iov.as_mut_ptr() as u64,
        iov.len() as u64,
        control.0,
        control.1,
        0,
    ];
    loop {
        let flags = net::MSG_NOSIGNAL | patience(deadline);
        let args = [fd as u64, message.as_ptr() as u64, flags as u64];
        // SAFETY: the host reads a msghdr and what it points at, all of which outlive the call.
        match unsafe { sys::call(g::__NR_sendmsg, args) } {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => wait(fd, g::POLLOUT, deadline)?,
            Err(e) => return Err(gone(e)),
        }
    }
}

/// MSG_DONTWAIT where there is a deadline: what waits then is [`wait`].
fn patience(deadline: Option<u64>) -> u32 {
    if deadline.is_some() { net::MSG_DONTWAIT } else { 0 }
}

fn wait(fd: i32, events: u32, deadline: Option<u64>) -> Result<(), Errno> {
    if deadline.is_some_and(|d| super::super::Process::monotonic_ns() >= d) {
        return Err(gone(Errno::ETIMEDOUT));
    }
    super::ready::block(fd, events as u16, deadline);
    Ok(())
}

/// Receives the answer to `tag`; `None` = it was another's.
fn receive(fd: i32, deadline: Option<u64>, tag: u64, data: &mut [u8]) -> Result<Option<Answer>, Errno> {
    let mut reply = Reply::new_zeroed();
    let mut rights = Rights {
        len: 0,
        level: 0,
        kind: 0,
        fds: [-1; 2],
    };
    let iov = [
        [&raw mut reply as u64, size_of::<Reply>() as u64],
        [data.as_mut_ptr() as u64, data.len() as u64],
    ];
    let got = loop {
        let room = size_of::<Rights>() as u64;
        let mut message = [
            0,
            0,
            iov.as_ptr() as u64,
            iov.len() as u64,
            &raw mut rights as u64,
            room,
            0,
        ];
        let args = [
            fd as u64,
            message.as_mut_ptr() as u64,
            (net::MSG_CMSG_CLOEXEC | patience(deadline)) as u64,
        ];
        // SAFETY: the host writes a msghdr and what it points at, all of which outlive the call.
        match unsafe { sys::call(g::__NR_recvmsg, args) } {
            Ok(n) => {
                if message[5] < 20 {
                    rights.len = 0;
                }
                break n as usize;
            }
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => wait(fd, g::POLLIN, deadline)?,
            Err(e) => return Err(gone(e)),
        }
    };
    if got < size_of::<Reply>() {
        return Err(gone(Errno::EPROTO));
    }
    let passed = rights.len >= 20 && rights.level == net::SOL_SOCKET && rights.kind == net::SCM_RIGHTS;
    let handle = (passed && rights.fds[0] >= 0).then_some(HandleId(rights.fds[0] as u64));
    let result = Errno::from_ret(reply.result);
    if let Some(h) = handle
        && (result.is_err() || reply.tag != tag)
    {
        super::io::close(h);
    }
    if reply.tag != tag {
        return Ok(None);
    }
    result?;
    let len = (reply.data_len as usize).min(got - size_of::<Reply>());
    Ok(Some(Answer { handle, len }))
}

/// A channel that fails means the host side, or the container's process, ends: an input/output error for whoever asked.
fn gone(e: Errno) -> Errno {
    log::error!("broker channel: {e}");
    Errno::EIO
}
