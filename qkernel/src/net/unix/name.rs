//! Names of unix sockets: abstract ones, and those bound to an inode.

use super::UnixSocket;
use crate::net::family;
use crate::ns::net::NetNs;
use crate::task::Task;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};
use hal::sync::SpinLock;
use qlib::Errno;

/// Size of `sun_path`.
const PATH_MAX: usize = 108;

/// What a bound socket is found by.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Address {
    /// The number of the network, and the bytes of `sun_path`, the leading NUL included.
    Abstract(u64, Vec<u8>),
    /// Device and number of the inode.
    Inode(u64, u64),
}

/// A name a socket is bound to.
pub struct Name {
    /// As the app gave it: `sun_path`.
    path: Vec<u8>,
    pub(super) address: Address,
}

static BOUND: SpinLock<BTreeMap<Address, Weak<UnixSocket>>> = SpinLock::new(BTreeMap::new());

impl Name {
    /// The address of a socket without a name.
    pub fn unnamed() -> Vec<u8> {
        (family::UNIX as u16).to_ne_bytes().to_vec()
    }
    /// As `struct sockaddr_un`.
    pub fn to_sockaddr(&self) -> Vec<u8> {
        let mut v = Self::unnamed();
        v.extend_from_slice(&self.path);
        if matches!(self.address, Address::Inode(..)) {
            v.push(0);
        }
        v
    }
    /// The path as `/proc/net/unix` shows it.
    pub fn path(&self) -> &[u8] {
        &self.path
    }
}

/// `sun_path` of an address.
fn path_of(addr: &[u8]) -> Result<&[u8], Errno> {
    if addr.len() < 2 || addr.len() > 2 + PATH_MAX {
        return Err(Errno::EINVAL);
    }
    if u16::from_ne_bytes([addr[0], addr[1]]) as u32 != family::UNIX {
        return Err(Errno::EINVAL);
    }
    Ok(&addr[2..])
}

/// A path without its NUL and what follows.
fn cut(path: &[u8]) -> &[u8] {
    let end = path.iter().position(|b| *b == 0).unwrap_or(path.len());
    &path[..end]
}

/// Finds the socket an address names in `net`; inodes are known everywhere.
///
/// # Errors
/// ECONNREFUSED when nobody is bound there, EPROTOTYPE for another type, and those of path resolution.
pub(super) fn find(net: &NetNs, addr: &[u8], kind: u32) -> Result<Arc<UnixSocket>, Errno> {
    let path = path_of(addr)?;
    let key = match path.first() {
        None => return Err(Errno::ECONNREFUSED),
        Some(0) => Address::Abstract(net.id.0, path.to_vec()),
        Some(_) => {
            let task = crate::task::current().ok_or(Errno::ECONNREFUSED)?;
            super::path::lookup(&task, cut(path))?
        }
    };
    let found = BOUND.lock().get(&key).and_then(Weak::upgrade);
    let socket = found.ok_or(Errno::ECONNREFUSED)?;
    if socket.kind != kind {
        return Err(Errno::EPROTOTYPE);
    }
    Ok(socket)
}

/// Registers a name.
fn claim(address: Address, path: Vec<u8>, socket: &UnixSocket) -> Result<Arc<Name>, Errno> {
    let mut bound = BOUND.lock();
    if bound.get(&address).is_some_and(|w| w.strong_count() > 0) {
        return Err(Errno::EADDRINUSE);
    }
    bound.insert(address.clone(), socket.me.clone());
    Ok(Arc::new(Name { path, address }))
}

/// Forgets a name at the end of its socket.
pub(super) fn release(name: &Name) {
    BOUND.lock().remove(&name.address);
}

/// Gives a socket the name of an address; an empty one gets an abstract name of five digits.
///
/// # Errors
/// EADDRINUSE, EINVAL, and those of path resolution.
pub(super) fn bind(task: &Task, addr: &[u8], socket: &UnixSocket) -> Result<Arc<Name>, Errno> {
    let path = path_of(addr)?;
    match path.first() {
        None | Some(0) => bind_abstract(addr, socket),
        Some(_) => {
            let path = cut(path);
            let address = super::path::make(task, path)?;
            // A stale entry of an inode number that was used before.
            BOUND.lock().remove(&address);
            claim(address, path.to_vec(), socket)
        }
    }
}

/// Gives a socket an abstract name; an empty address makes one up.
///
/// # Errors
/// EADDRINUSE, EINVAL.
pub(super) fn bind_abstract(addr: &[u8], socket: &UnixSocket) -> Result<Arc<Name>, Errno> {
    let named = |path: &[u8]| Address::Abstract(socket.net.id.0, path.to_vec());
    match path_of(addr)? {
        [] => autobind(socket),
        path @ [0, ..] => claim(named(path), path.to_vec(), socket),
        _ => Err(Errno::EINVAL),
    }
}

/// Gives a socket an abstract name nobody has.
///
/// # Errors
/// ENOSPC when all are taken.
fn autobind(socket: &UnixSocket) -> Result<Arc<Name>, Errno> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..0x10_0000 {
        let n = NEXT.fetch_add(1, Ordering::Relaxed) & 0xf_ffff;
        let path = format!("\0{n:05x}").into_bytes();
        match claim(Address::Abstract(socket.net.id.0, path.clone()), path, socket) {
            Err(Errno::EADDRINUSE) => {}
            r => return r,
        }
    }
    Err(Errno::ENOSPC)
}

/// Bound sockets with their names, for `/proc/net/unix`.
pub fn list() -> Vec<Arc<UnixSocket>> {
    BOUND.lock().values().filter_map(Weak::upgrade).collect()
}

/// Whether the name leads to `socket`.
pub(super) fn is_owner(name: &Name, socket: &UnixSocket) -> bool {
    let bound = BOUND.lock();
    bound
        .get(&name.address)
        .is_some_and(|w| core::ptr::eq(w.as_ptr(), socket))
}
