//! Deadlines of parked threads.

use super::clock;
use crate::contract::Threads;
use crate::sync::SpinLock;
use crate::thread::ThreadRef;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

/// Deadline in counter ticks, then a number that makes it unique.
pub(super) type TimerId = (u64, u64);

static TIMERS: SpinLock<BTreeMap<TimerId, ThreadRef>> = SpinLock::new(BTreeMap::new());
static NEXT: AtomicU64 = AtomicU64::new(0);
/// The earliest deadline, ticks; `u64::MAX` = none.
static EARLIEST: AtomicU64 = AtomicU64::new(u64::MAX);

fn note(timers: &BTreeMap<TimerId, ThreadRef>) {
    EARLIEST.store(
        timers.first_key_value().map_or(u64::MAX, |(k, _)| k.0),
        Ordering::Relaxed,
    );
}

/// Adds a deadline (monotonic ns).
pub(super) fn add(deadline_ns: u64, thread: ThreadRef) -> TimerId {
    let id = (clock::to_ticks(deadline_ns), NEXT.fetch_add(1, Ordering::Relaxed));
    let mut t = TIMERS.lock();
    t.insert(id, thread);
    note(&t);
    id
}

/// Removes a deadline; one that passed is gone already.
pub(super) fn remove(id: TimerId) {
    let mut t = TIMERS.lock();
    let gone = t.remove(&id);
    note(&t);
    drop(t);
    drop(gone);
}

/// The earliest deadline in ticks.
pub(super) fn earliest() -> u64 {
    EARLIEST.load(Ordering::Relaxed)
}

/// Wakes every thread whose deadline is not after `now`.
pub(super) fn expire(now: u64) {
    if earliest() > now {
        return;
    }
    let mut due = Vec::new();
    let mut t = TIMERS.lock();
    while let Some(e) = t.first_entry() {
        if e.key().0 > now {
            break;
        }
        due.push(e.remove());
    }
    note(&t);
    drop(t);
    for thread in due {
        super::Bare::unpark(&thread);
    }
}
