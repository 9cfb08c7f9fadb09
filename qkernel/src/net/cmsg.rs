//! Control messages. Source: `cmsg(3)`, Linux `net/core/scm.c`.

use super::{Control, msg};
use crate::fs::anon;
use crate::task::Task;
use alloc::vec::Vec;
use hal::user::UserSlice;
use qlib::Errno;

/// SOL_SOCKET.
pub const SOL_SOCKET: u32 = 1;
/// SCM_RIGHTS.
pub const SCM_RIGHTS: u32 = 1;
/// SCM_CREDENTIALS.
pub const SCM_CREDENTIALS: u32 = 2;
/// `sizeof(struct cmsghdr)`.
const HEADER: usize = 16;
/// Descriptors in one message at most (SCM_MAX_FD).
pub const MAX_RIGHTS: usize = 253;

/// One control message.
#[derive(Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// Protocol.
    pub level: u32,
    /// Type.
    pub kind: u32,
    /// Contents.
    pub data: &'a [u8],
}

fn align(n: usize) -> usize {
    (n + 7) & !7
}

fn word(b: &[u8]) -> u32 {
    u32::from_ne_bytes([b[0], b[1], b[2], b[3]])
}

/// Takes an app's control buffer apart.
///
/// # Errors
/// EINVAL when a length does not fit.
pub fn parse(control: &[u8]) -> Result<Vec<Message<'_>>, Errno> {
    let mut out = Vec::new();
    let mut at = 0;
    while control.len() - at >= HEADER {
        let b = &control[at..];
        let len = u64::from(word(b)) | u64::from(word(&b[4..])) << 32;
        if len < HEADER as u64 || len > b.len() as u64 {
            return Err(Errno::EINVAL);
        }
        let len = len as usize;
        out.push(Message {
            level: word(&b[8..]),
            kind: word(&b[12..]),
            data: &b[HEADER..len],
        });
        at = (at + align(len)).min(control.len());
    }
    Ok(out)
}

/// Builds one control message without the padding behind it.
pub fn build(level: u32, kind: u32, data: &[u8]) -> Vec<u8> {
    let mut v = Vec::with_capacity(HEADER + data.len());
    v.extend_from_slice(&((HEADER + data.len()) as u64).to_ne_bytes());
    v.extend_from_slice(&level.to_ne_bytes());
    v.extend_from_slice(&kind.to_ne_bytes());
    v.extend_from_slice(data);
    v
}

/// Fills an app's control buffer.
struct Writer {
    left: UserSlice,
    used: usize,
    truncated: bool,
}

impl Writer {
    fn put(&mut self, message: &[u8]) -> Result<(), Errno> {
        if self.left.len() < HEADER {
            self.truncated = true;
            return Ok(());
        }
        let mut message = message.to_vec();
        if self.left.len() < message.len() {
            self.truncated = true;
            message.truncate(self.left.len());
            let len = message.len() as u64;
            message[..8].copy_from_slice(&len.to_ne_bytes());
        }
        self.left.write(&message)?;
        let step = align(message.len()).min(self.left.len());
        self.left = self.left.skip(step);
        self.used += step;
        Ok(())
    }
}

/// Hands received control data to the app: files get descriptors, as many as fit. Returns bytes used and MSG_CTRUNC.
///
/// # Errors
/// EFAULT.
pub fn deliver(
    task: &Task,
    control: Control,
    buffer: UserSlice,
    close_on_exec: bool,
) -> Result<(usize, u32), Errno> {
    let mut w = Writer {
        left: buffer,
        used: 0,
        truncated: false,
    };
    if !control.raw.is_empty() {
        let n = control.raw.len().min(w.left.len());
        w.left.write(&control.raw[..n])?;
        w.left = w.left.skip(n);
        w.used += n;
        w.truncated |= n < control.raw.len();
    }
    if let Some(c) = control.cred {
        let mut data = [0u8; 12];
        data[..4].copy_from_slice(&c.pid.shown(task.pid_ns()).to_ne_bytes());
        let (uid, gid) = crate::ns::shown_owner(c.uid, c.gid);
        data[4..8].copy_from_slice(&uid.to_ne_bytes());
        data[8..].copy_from_slice(&gid.to_ne_bytes());
        w.put(&build(SOL_SOCKET, SCM_CREDENTIALS, &data))?;
    }
    if !control.rights.is_empty() {
        let fit = w.left.len().saturating_sub(HEADER) / 4;
        let mut fds = Vec::new();
        w.truncated |= fit < control.rights.len();
        for file in control.rights.into_iter().take(fit) {
            match anon::install(task, file, close_on_exec) {
                Ok(fd) => fds.extend_from_slice(&fd.0.to_ne_bytes()),
                Err(_) => {
                    w.truncated = true;
                    break;
                }
            }
        }
        if !fds.is_empty() {
            w.put(&build(SOL_SOCKET, SCM_RIGHTS, &fds))?;
        }
    }
    Ok((w.used, if w.truncated { msg::CTRUNC } else { 0 }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_built_can_be_parsed() {
        let mut b = build(1, 1, &[1, 2, 3, 4, 5]);
        b.resize(24, 0);
        b.extend(build(41, 50, &[9; 8]));
        let m = parse(&b).unwrap();
        assert_eq!(m.len(), 2);
        assert_eq!((m[0].level, m[0].kind, m[0].data), (1, 1, &[1, 2, 3, 4, 5][..]));
        assert_eq!((m[1].level, m[1].kind, m[1].data), (41, 50, &[9; 8][..]));
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(b in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&b);
        }

        #[test]
        fn hostile_lengths_never_panic(len in any::<u64>(), rest in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut b = len.to_ne_bytes().to_vec();
            b.extend(rest);
            let _ = parse(&b);
        }
    }
}
