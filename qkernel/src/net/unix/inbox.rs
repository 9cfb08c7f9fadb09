//! Messages that wait in a unix socket.

use super::garbage;
use super::name::Name;
use crate::fs::file::File;
use crate::fs::pipe_buffer::Chunk;
use crate::net::PeerCred;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use hal::sync::SpinLock;
use qlib::Errno;

/// What a message costs besides its bytes, so that many empty ones fill a buffer too.
const OVERHEAD: usize = 256;
/// Open files under way at most, over all sockets: files in sockets that are themselves under way would never close.
const MAX_IN_FLIGHT: usize = 16384;

static IN_FLIGHT: AtomicUsize = AtomicUsize::new(0);
/// How often files moved into or out of an inbox.
static MOVES: AtomicU64 = AtomicU64::new(0);

/// Changes whenever files move into or out of an inbox.
pub(super) fn moves() -> u64 {
    MOVES.load(Ordering::SeqCst)
}

/// Open files on their way.
#[derive(Default)]
pub struct Rights(Vec<Arc<File>>);

impl Rights {
    /// Takes files along.
    ///
    /// # Errors
    /// ETOOMANYREFS when too many are under way.
    pub fn new(files: Vec<Arc<File>>) -> Result<Self, Errno> {
        if !files.is_empty()
            && IN_FLIGHT.fetch_add(files.len(), Ordering::Relaxed) + files.len() > MAX_IN_FLIGHT
        {
            IN_FLIGHT.fetch_sub(files.len(), Ordering::Relaxed);
            return Err(Errno::ETOOMANYREFS);
        }
        Ok(Self(files))
    }
    /// As [`Rights::new`], after what nobody can receive any more was closed if need be. No lock of a socket may be held.
    ///
    /// # Errors
    /// ETOOMANYREFS.
    pub fn send(files: Vec<Arc<File>>) -> Result<Self, Errno> {
        if IN_FLIGHT.load(Ordering::Relaxed) + files.len() > MAX_IN_FLIGHT {
            garbage::collect();
        }
        Self::new(files)
    }
    /// The unix sockets among them.
    pub(super) fn sockets(&self) -> impl Iterator<Item = &Arc<File>> {
        self.0.iter().filter(|f| garbage::socket_of(f).is_some())
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    /// They have arrived.
    pub fn arrive(mut self) -> Vec<Arc<File>> {
        let files = core::mem::take(&mut self.0);
        IN_FLIGHT.fetch_sub(files.len(), Ordering::Relaxed);
        files
    }
    /// Says that they move, in the lock of the socket that holds them.
    fn moves(&self) {
        if !self.0.is_empty() {
            MOVES.fetch_add(1, Ordering::SeqCst);
        }
    }
    /// The files, for MSG_PEEK.
    pub fn copy(&self) -> Vec<Arc<File>> {
        self.moves();
        self.0.clone()
    }
}

impl Drop for Rights {
    fn drop(&mut self) {
        if !self.0.is_empty() {
            IN_FLIGHT.fetch_sub(self.0.len(), Ordering::Relaxed);
            ORPHANS.lock().append(&mut self.0);
            close_orphans();
        }
    }
}

/// Files that were under way to a socket that is gone. Sockets among them hold messages with further files: a chain as long as
/// an app likes, which is taken apart in a loop and not on the kernel's stack.
static ORPHANS: SpinLock<Vec<Arc<File>>> = SpinLock::new(Vec::new());
/// Somebody closes them, and what comes meanwhile too.
static CLOSING: AtomicBool = AtomicBool::new(false);

fn close_orphans() {
    while !CLOSING.swap(true, Ordering::Acquire) {
        loop {
            let next = ORPHANS.lock().pop();
            match next {
                Some(file) => drop(file),
                None => break,
            }
        }
        CLOSING.store(false, Ordering::Release);
        // One may have come between the last look and the store; whoever brought it has left already.
        if ORPHANS.lock().is_empty() {
            break;
        }
    }
}

/// A message, or what is left of one on a stream.
pub struct Message {
    /// Bytes.
    pub data: Chunk,
    /// Open files.
    pub rights: Rights,
    /// Who sent it.
    pub cred: PeerCred,
    /// The sender's name.
    pub from: Option<Arc<Name>>,
}

/// The queue.
#[derive(Default)]
pub struct Inbox {
    queue: VecDeque<Message>,
    charge: usize,
    bytes: usize,
}

impl Inbox {
    /// Messages in it.
    pub fn len(&self) -> usize {
        self.queue.len()
    }
    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
    /// Bytes in it.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
    /// Bytes and overhead.
    pub fn charge(&self) -> usize {
        self.charge
    }
    /// The first message.
    pub fn front(&self) -> Option<&Message> {
        self.queue.front()
    }
    /// The unix sockets that its messages bring.
    pub(super) fn sockets(&self) -> impl Iterator<Item = &Arc<File>> {
        self.queue.iter().flat_map(|m| m.rights.sockets())
    }
    /// The messages in order.
    pub fn iter(&self) -> impl Iterator<Item = &Message> {
        self.queue.iter()
    }
    /// Adds at the end.
    pub fn push(&mut self, m: Message) {
        m.rights.moves();
        self.charge += m.data.len() + OVERHEAD;
        self.bytes += m.data.len();
        self.queue.push_back(m);
    }
    /// Takes the first message.
    pub fn pop(&mut self) -> Option<Message> {
        let m = self.queue.pop_front()?;
        m.rights.moves();
        self.charge -= m.data.len() + OVERHEAD;
        self.bytes -= m.data.len();
        Some(m)
    }
    /// Takes up to `n` bytes of the first message, which goes once it is empty; its files go with its first byte.
    pub fn take_bytes(&mut self, n: usize) -> Option<(Chunk, Rights)> {
        let m = self.queue.front_mut()?;
        m.rights.moves();
        let rights = core::mem::take(&mut m.rights);
        if n >= m.data.len() {
            let mut m = self.pop()?;
            let len = m.data.len();
            return Some((m.data.split_front(len), rights));
        }
        let part = m.data.split_front(n);
        self.charge -= part.len();
        self.bytes -= part.len();
        Some((part, rights))
    }
    /// Puts bytes back that could not be delivered.
    pub fn give_back(&mut self, m: Message) {
        m.rights.moves();
        self.charge += m.data.len() + OVERHEAD;
        self.bytes += m.data.len();
        self.queue.push_front(m);
    }
    /// Takes everything out.
    pub fn clear(&mut self) -> Vec<Message> {
        self.charge = 0;
        self.bytes = 0;
        MOVES.fetch_add(1, Ordering::SeqCst);
        core::mem::take(&mut self.queue).into()
    }
}
