//! Options and device control of unix sockets.

use super::{Phase, UnixSocket};
use crate::net::options::{SOL_SOCKET, so};
use crate::net::{family, kind};
use crate::ns::pid;
use crate::syscall::Ctx;
use alloc::vec::Vec;
use hal::uapi::ioctl::{FIONREAD, TIOCOUTQ};
use hal::user::UserPtr;
use qlib::Errno;

/// Smallest SO_SNDBUF and SO_RCVBUF.
const MIN_SEND: usize = 4608;
const MIN_RECEIVE: usize = 2304;

impl UnixSocket {
    pub(super) fn do_get_option(
        &self,
        _ctx: &mut Ctx<'_>,
        level: u32,
        name: u32,
        room: usize,
    ) -> Result<Vec<u8>, Errno> {
        if level != SOL_SOCKET {
            return Err(Errno::EOPNOTSUPP);
        }
        let mut s = self.state.lock();
        let value = match name {
            so::TYPE => self.kind,
            so::DOMAIN => family::UNIX,
            so::PROTOCOL => 0,
            so::ERROR => s.error.take().map_or(0, |e| e.0 as u32),
            so::ACCEPTCONN => u32::from(matches!(s.phase, Phase::Listening { .. })),
            so::SNDBUF => s.send_buffer as u32,
            so::RCVBUF => s.receive_buffer as u32,
            so::PASSCRED => u32::from(s.pass_cred),
            so::RCVLOWAT => 1,
            so::REUSEADDR
            | so::REUSEPORT
            | so::KEEPALIVE
            | so::BROADCAST
            | so::DEBUG
            | so::DONTROUTE
            | so::OOBINLINE
            | so::PRIORITY
            | so::TIMESTAMP => 0,
            so::LINGER => return Ok(alloc::vec![0; 8]),
            so::PEERCRED => {
                let c = s.peer_cred.as_ref();
                // Without a peer: pid 0 and nobody, as Linux.
                let (pid, uid, gid) = c.map_or((0, u32::MAX, u32::MAX), |c| {
                    let (uid, gid) = crate::ns::shown_owner(c.uid, c.gid);
                    (c.pid.shown(&pid::current()), uid, gid)
                });
                return Ok([pid, uid, gid].iter().flat_map(|v| v.to_ne_bytes()).collect());
            }
            so::PEERGROUPS => {
                if s.peer_cred.is_none() {
                    return Err(Errno::ENODATA);
                }
                if s.peer_groups.len() * 4 > room {
                    return Err(Errno::ERANGE);
                }
                return Ok(s
                    .peer_groups
                    .iter()
                    .flat_map(|g| crate::ns::shown_owner(0, *g).1.to_ne_bytes())
                    .collect());
            }
            _ => return Err(Errno::ENOPROTOOPT),
        };
        Ok(value.to_ne_bytes().to_vec())
    }

    pub(super) fn do_set_option(&self, level: u32, name: u32, value: &[u8]) -> Result<(), Errno> {
        if level != SOL_SOCKET {
            return Err(Errno::EOPNOTSUPP);
        }
        let Some(Ok(v)) = value.get(..4).map(|b| b.try_into().map(u32::from_ne_bytes)) else {
            return Err(Errno::EINVAL);
        };
        let mut s = self.state.lock();
        // Linux doubles what is asked for, for its own bookkeeping, and bounds it first.
        let sized = |min: usize| ((v as usize).min(super::DEFAULT_BUFFER) * 2).max(min);
        match name {
            so::PASSCRED => s.pass_cred = v != 0,
            so::SNDBUF | so::SNDBUFFORCE => s.send_buffer = sized(MIN_SEND),
            so::RCVBUF | so::RCVBUFFORCE => s.receive_buffer = sized(MIN_RECEIVE),
            so::REUSEADDR
            | so::KEEPALIVE
            | so::BROADCAST
            | so::DONTROUTE
            | so::OOBINLINE
            | so::PRIORITY
            | so::LINGER
            | so::RCVLOWAT
            | so::TIMESTAMP
            | so::DEBUG => {}
            so::REUSEPORT => return Err(Errno::EOPNOTSUPP),
            _ => return Err(Errno::ENOPROTOOPT),
        }
        Ok(())
    }

    pub(super) fn do_ioctl(&self, request: u32, arg: u64) -> Result<u64, Errno> {
        let n = match request {
            FIONREAD => {
                let s = self.state.lock();
                if matches!(s.phase, Phase::Listening { .. }) {
                    return Err(Errno::EINVAL);
                }
                match self.kind {
                    kind::STREAM => s.inbox.bytes(),
                    _ => s.inbox.front().map_or(0, |m| m.data.len()),
                }
            }
            TIOCOUTQ => match self.peer() {
                Some(p) => p.state.lock().inbox.bytes(),
                None => 0,
            },
            _ => return Err(Errno::ENOTTY),
        };
        UserPtr::<i32>::new(arg).write(&(n as i32))?;
        Ok(0)
    }
}
