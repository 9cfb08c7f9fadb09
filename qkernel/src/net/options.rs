//! Socket options every kind answers the same way: the timeouts, which the kernel keeps itself.

use super::file::SocketFile;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use qlib::Errno;

/// SOL_SOCKET.
pub const SOL_SOCKET: u32 = 1;
/// Names at [`SOL_SOCKET`].
#[allow(missing_docs)]
pub mod so {
    pub const DEBUG: u32 = 1;
    pub const REUSEADDR: u32 = 2;
    pub const TYPE: u32 = 3;
    pub const ERROR: u32 = 4;
    pub const DONTROUTE: u32 = 5;
    pub const BROADCAST: u32 = 6;
    pub const SNDBUF: u32 = 7;
    pub const RCVBUF: u32 = 8;
    pub const KEEPALIVE: u32 = 9;
    pub const OOBINLINE: u32 = 10;
    pub const PRIORITY: u32 = 12;
    pub const LINGER: u32 = 13;
    pub const REUSEPORT: u32 = 15;
    pub const PASSCRED: u32 = 16;
    pub const PEERCRED: u32 = 17;
    pub const RCVLOWAT: u32 = 18;
    pub const RCVTIMEO_OLD: u32 = 20;
    pub const SNDTIMEO_OLD: u32 = 21;
    pub const ATTACH_FILTER: u32 = 26;
    pub const TIMESTAMP: u32 = 29;
    pub const ACCEPTCONN: u32 = 30;
    pub const SNDBUFFORCE: u32 = 32;
    pub const RCVBUFFORCE: u32 = 33;
    pub const PROTOCOL: u32 = 38;
    pub const DOMAIN: u32 = 39;
    pub const ATTACH_BPF: u32 = 50;
    pub const ATTACH_REUSEPORT_CBPF: u32 = 51;
    pub const ATTACH_REUSEPORT_EBPF: u32 = 52;
    pub const PEERGROUPS: u32 = 59;
    pub const RCVTIMEO_NEW: u32 = 66;
    pub const SNDTIMEO_NEW: u32 = 67;
}

fn timeout(file: &SocketFile, name: u32) -> Option<&AtomicU64> {
    match name {
        so::RCVTIMEO_OLD | so::RCVTIMEO_NEW => Some(&file.receive_timeout_ns),
        so::SNDTIMEO_OLD | so::SNDTIMEO_NEW => Some(&file.send_timeout_ns),
        _ => None,
    }
}

/// Answers an option the kernel keeps; `None` = ask the socket.
pub fn get(file: &SocketFile, level: u32, name: u32) -> Option<Vec<u8>> {
    let t = (level == SOL_SOCKET).then(|| timeout(file, name)).flatten()?;
    let ns = t.load(Ordering::Relaxed);
    let mut v = Vec::with_capacity(16);
    v.extend_from_slice(&((ns / 1_000_000_000) as i64).to_ne_bytes());
    v.extend_from_slice(&((ns % 1_000_000_000 / 1000) as i64).to_ne_bytes());
    Some(v)
}

/// Sets an option the kernel keeps; `None` = it is the socket's.
pub fn set(file: &SocketFile, level: u32, name: u32, value: &[u8]) -> Option<Result<(), Errno>> {
    let t = (level == SOL_SOCKET).then(|| timeout(file, name)).flatten()?;
    let Some((Ok(s), Ok(us))) = value.get(..16).map(|v| {
        (
            v[..8].try_into().map(i64::from_ne_bytes),
            v[8..].try_into().map(i64::from_ne_bytes),
        )
    }) else {
        return Some(Err(Errno::EINVAL));
    };
    if !(0..1_000_000).contains(&us) {
        return Some(Err(Errno::EDOM));
    }
    // A negative time is one that has passed already, as Linux takes it.
    let ns = match s {
        s if s < 0 => 1,
        s => (s as u64)
            .saturating_mul(1_000_000_000)
            .saturating_add(us as u64 * 1000),
    };
    t.store(ns, Ordering::Relaxed);
    Some(Ok(()))
}

/// Options that carry pointers or programs and are refused.
pub fn is_refused(level: u32, name: u32) -> bool {
    level == SOL_SOCKET
        && matches!(
            name,
            so::ATTACH_FILTER | so::ATTACH_BPF | so::ATTACH_REUSEPORT_CBPF | so::ATTACH_REUSEPORT_EBPF
        )
}
