//! Messages that wait in a unix socket.

use super::name::Name;
use crate::fs::file::File;
use crate::fs::pipe_buffer::Chunk;
use crate::net::PeerCred;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};
use qlib::Errno;

/// What a message costs besides its bytes, so that many empty ones fill a buffer too.
const OVERHEAD: usize = 256;
/// Open files under way at most, over all sockets: files in sockets that are themselves under way would never close.
const MAX_IN_FLIGHT: usize = 16384;

static IN_FLIGHT: AtomicUsize = AtomicUsize::new(0);

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
    /// The files, for MSG_PEEK.
    pub fn copy(&self) -> Vec<Arc<File>> {
        self.0.clone()
    }
}

impl Drop for Rights {
    fn drop(&mut self) {
        IN_FLIGHT.fetch_sub(self.0.len(), Ordering::Relaxed);
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
    /// The messages in order.
    pub fn iter(&self) -> impl Iterator<Item = &Message> {
        self.queue.iter()
    }
    /// Adds at the end.
    pub fn push(&mut self, m: Message) {
        self.charge += m.data.len() + OVERHEAD;
        self.bytes += m.data.len();
        self.queue.push_back(m);
    }
    /// Takes the first message.
    pub fn pop(&mut self) -> Option<Message> {
        let m = self.queue.pop_front()?;
        self.charge -= m.data.len() + OVERHEAD;
        self.bytes -= m.data.len();
        Some(m)
    }
    /// Takes up to `n` bytes of the first message, which goes once it is empty; its files go with its first byte.
    pub fn take_bytes(&mut self, n: usize) -> Option<(Chunk, Rights)> {
        let m = self.queue.front_mut()?;
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
        self.charge += m.data.len() + OVERHEAD;
        self.bytes += m.data.len();
        self.queue.push_front(m);
    }
    /// Takes everything out.
    pub fn clear(&mut self) -> Vec<Message> {
        self.charge = 0;
        self.bytes = 0;
        core::mem::take(&mut self.queue).into()
    }
}
