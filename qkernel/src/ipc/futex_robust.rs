//! Robust lists: locks that a task held when it ended. Source: `get_robust_list(2)`, Linux `kernel/futex/core.c`.

use super::futex::{MATCH_ANY, key, wake_key};
use super::futex_pi::{OWNER_DIED, TID_MASK, WAITERS, hand_over};
use crate::mm::Mm;
use crate::task::Task;
use alloc::sync::Arc;
use core::sync::atomic::Ordering;
use hal::user::{UserPtr, cmpxchg_u32, load_u32};
use qlib::Errno;

/// Entries walked at most, against circles.
const LIMIT: usize = 2048;

/// An entry's address, and whether it is a PI lock (bit 0).
fn entry(raw: u64) -> (u64, bool) {
    (raw & !1, raw & 1 != 0)
}

/// Marks the locks on the task's robust list as orphaned and wakes one waiter of each.
pub(super) fn walk(task: &Task) {
    let head = task.robust_list.swap(0, Ordering::Relaxed);
    if head == 0 {
        return;
    }
    let Some(mm) = task.mm() else { return };
    // A list that cannot be read is the app's loss.
    let _ = walk_list(&mm, task.own_tid(), head);
}

fn walk_list(mm: &Arc<Mm>, tid: u32, head: u64) -> Result<(), Errno> {
    let first = UserPtr::<u64>::new(head).read()?;
    let offset = UserPtr::<u64>::new(head.wrapping_add(8)).read()?;
    let pending = UserPtr::<u64>::new(head.wrapping_add(16)).read()?;
    let (pending, pending_pi) = entry(pending);
    let (mut at, mut pi) = entry(first);
    for _ in 0..LIMIT {
        if at == head {
            break;
        }
        let next = UserPtr::<u64>::new(at).read();
        // The pending one is handled last: it may be on the list or not.
        if at != pending {
            orphan(mm, at.wrapping_add(offset), tid, pi, false)?;
        }
        (at, pi) = entry(next?);
    }
    if pending != 0 {
        orphan(mm, pending.wrapping_add(offset), tid, pending_pi, true)?;
    }
    Ok(())
}

fn orphan(mm: &Arc<Mm>, addr: u64, tid: u32, pi: bool, pending: bool) -> Result<(), Errno> {
    let mut v = load_u32(addr)?;
    // The task was about to take or had just released the lock: a waiter may have missed its wake.
    if pending && !pi && v & TID_MASK == 0 {
        wake_key(&key(mm, addr, false)?, 1, MATCH_ANY);
        return Ok(());
    }
    loop {
        if v & TID_MASK != tid {
            return Ok(());
        }
        let k = key(mm, addr, false)?;
        if pi && v & WAITERS != 0 {
            return hand_over(&k, addr, tid, OWNER_DIED);
        }
        let found = cmpxchg_u32(addr, v, v & WAITERS | OWNER_DIED)?;
        if found == v {
            if v & WAITERS != 0 {
                wake_key(&k, 1, MATCH_ANY);
            }
            return Ok(());
        }
        v = found;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipc::futex::{NotWoken, wait};
    use crate::mm::Vma;
    use crate::mm::vma::Label;
    use hal::aspace::Prot;
    use qlib::boot::Range;

    const BASE: u64 = 0x40_0000;

    fn put(at: u64, v: u64) {
        UserPtr::<u64>::new(BASE + at).write(&v).unwrap();
    }

    #[test]
    fn held_locks_are_marked_and_their_waiters_woken() {
        crate::tests::boot();
        let range = Range {
            start: BASE,
            end: BASE + 4096,
        };
        let prot = Prot::READ | Prot::WRITE;
        let space = hal::fake::with_space();
        space.map_anon(range, prot).unwrap();
        let mm = Mm::new(space, Arc::default());
        mm.vmas.lock().insert(Vma {
            start: range.start,
            end: range.end,
            prot,
            shared: false,
            file: None,
            memory: None,
            label: Label::None,
            locked: false,
            grows_down: false,
            dont_fork: false,
        });
        // Head at 0; entries at 256 and 512, their words 32 bytes behind; the pending one at 768 was just released.
        put(0, BASE + 256);
        put(8, 32);
        put(16, BASE + 768);
        put(256, BASE + 512);
        put(512, BASE);
        put(288, u64::from(42 | WAITERS));
        put(544, 43);
        put(800, 0);
        let (tx, rx) = std::sync::mpsc::channel();
        let k = key(&mm, BASE + 288, true).unwrap();
        hal::thread::spawn("t", None, hal::thread::NewSpace::Shared, move || {
            let _ = tx.send(wait(k, BASE + 288, 42 | WAITERS, MATCH_ANY, None));
        })
        .unwrap();
        while super::super::futex::bucket(&k)
            .lock()
            .iter()
            .all(|(q, _)| *q != k)
        {
            std::thread::yield_now();
        }
        assert_eq!(walk_list(&mm, 42, BASE), Ok(()));
        // Woken, unless it came so late that it saw the new value.
        let r = rx.recv().unwrap();
        assert!(r == Ok(()) || r == Err(NotWoken::Error(Errno::EAGAIN)));
        assert_eq!(load_u32(BASE + 288), Ok(OWNER_DIED | WAITERS));
        assert_eq!(load_u32(BASE + 544), Ok(43));
        // A circle that never meets the head ends.
        put(512, BASE + 256);
        assert_eq!(walk_list(&mm, 42, BASE), Ok(()));
    }
}
