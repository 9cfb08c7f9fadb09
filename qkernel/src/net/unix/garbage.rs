//! Sockets to which only messages lead that wait in such sockets: nobody can receive them, and nothing would close them. They are
//! looked for when a socket closes, and when too many files are under way. As in Linux (`net/unix/garbage.c`) what counts is
//! whether all references to an open socket are messages, and whether these can be reached from one that has others.

use super::UnixSocket;
use super::inbox;
use crate::fs::file::File;
use crate::net::file::SocketFile;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use hal::clock::monotonic_ns;
use hal::sync::SpinLock;

/// Sockets whose inboxes hold, or held, sockets under way; by address. Taken inside a socket's lock.
static HOLDERS: SpinLock<BTreeMap<usize, Weak<UnixSocket>>> = SpinLock::new(BTreeMap::new());
static COLLECTING: AtomicBool = AtomicBool::new(false);
static LAST_NS: AtomicU64 = AtomicU64::new(0);

/// With no more holders than this every close looks; with more, one in [`REST_NS`].
const FEW: usize = 64;
const REST_NS: u64 = 100_000_000;
/// Looks, when messages move meanwhile.
const TRIES: usize = 4;

fn address(s: &UnixSocket) -> usize {
    core::ptr::from_ref(s) as usize
}

/// The unix socket of an open file, if it is one.
pub(super) fn socket_of(file: &File) -> Option<&UnixSocket> {
    file.downcast::<SocketFile>()?.socket().as_any().downcast_ref()
}

/// A socket is about to get a message with sockets.
pub(super) fn holds(s: &UnixSocket) {
    HOLDERS.lock().insert(address(s), s.me.clone());
}

/// A socket closed for good: its own messages are out. Others may have lost what led to them.
pub(super) fn closed(s: &UnixSocket) {
    let left = {
        let mut holders = HOLDERS.lock();
        holders.remove(&address(s));
        holders.len()
    };
    let now = monotonic_ns();
    let due = left <= FEW || now.saturating_sub(LAST_NS.load(Ordering::Relaxed)) > REST_NS;
    if left > 0 && due {
        LAST_NS.store(now, Ordering::Relaxed);
        collect();
    }
}

/// Empties the sockets that nobody can reach. No lock of a socket may be held.
pub(super) fn collect() {
    if COLLECTING.swap(true, Ordering::Acquire) {
        return;
    }
    let found = (0..TRIES).find_map(|_| find());
    COLLECTING.store(false, Ordering::Release);
    for s in found.unwrap_or_default() {
        let messages = s.state.lock().inbox.clear();
        // Closes what was in them, with no lock held.
        drop(messages);
    }
}

/// The sockets that nobody can reach; `None` when messages with files moved meanwhile, so that the picture may be wrong. Once
/// true it stays true.
fn find() -> Option<Vec<Arc<UnixSocket>>> {
    let before = inbox::moves();
    let known: Vec<Weak<UnixSocket>> = HOLDERS.lock().values().cloned().collect();
    let holders: Vec<Arc<UnixSocket>> = known.iter().filter_map(Weak::upgrade).collect();
    let mut held: BTreeMap<usize, Vec<Arc<File>>> = BTreeMap::new();
    for h in &holders {
        let state = h.state.lock();
        let files: Vec<_> = state.inbox.sockets().cloned().collect();
        if files.is_empty() {
            HOLDERS.lock().remove(&address(h));
        }
        held.insert(address(h), files);
    }
    let mut seen: BTreeMap<usize, (usize, &Arc<File>)> = BTreeMap::new();
    for f in held.values().flatten() {
        seen.entry(Arc::as_ptr(f) as usize).or_insert((0, f)).0 += 1;
    }
    // All references are messages, and the copies made above.
    let mut lost: BTreeSet<usize> = seen
        .values()
        .filter(|(n, f)| Arc::strong_count(f) == 2 * n)
        .filter_map(|(_, f)| socket_of(f).map(address))
        .collect();
    let mut todo: Vec<usize> = held.keys().copied().filter(|h| !lost.contains(h)).collect();
    while let Some(h) = todo.pop() {
        let files = held.get(&h).into_iter().flatten();
        for s in files.filter_map(|f| socket_of(f)).map(address) {
            if lost.remove(&s) {
                todo.push(s);
            }
        }
    }
    let still = inbox::moves() == before;
    still.then(|| {
        holders
            .into_iter()
            .filter(|h| lost.contains(&address(h)))
            .collect()
    })
}
