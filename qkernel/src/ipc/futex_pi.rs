//! PI futexes: the word holds the owner's thread id as the owner knows it, the kernel hands the lock on. There are no real-time priorities here,
//! so there is nothing to inherit; order is first come, first served. Source: `futex(2)`, FUTEX_LOCK_PI.

use super::futex::{Key, MATCH_ANY, NotWoken, Waiter, bucket, move_to_lock, wait_as};
use crate::ns::pid;
use crate::sched::wait::WaitError;
use crate::task::table;
use alloc::sync::Arc;
use hal::user::{cmpxchg_u32, load_u32};
use qlib::Errno;

/// Somebody waits in the kernel.
pub const WAITERS: u32 = 1 << 31;
/// The owner ended while it held the lock.
pub const OWNER_DIED: u32 = 1 << 30;
/// The owner's thread id.
pub const TID_MASK: u32 = OWNER_DIED - 1;

fn has_waiters(key: &Key) -> bool {
    bucket(key)
        .lock()
        .iter()
        .any(|(k, w)| k == key && w.pi_tid() != 0)
}

/// FUTEX_LOCK_PI (`wait` false: FUTEX_TRYLOCK_PI) by thread `tid`.
///
/// # Errors
/// EDEADLK when the caller owns it, ESRCH when the owner does not exist, EAGAIN for a trylock, EFAULT; ETIMEDOUT,
/// ERESTARTNOINTR.
pub fn lock(key: Key, addr: u64, tid: u32, deadline_ns: Option<u64>, wait: bool) -> Result<(), Errno> {
    loop {
        let v = load_u32(addr)?;
        let owner = v & TID_MASK;
        if owner == tid {
            return Err(Errno::EDEADLK);
        }
        if owner == 0 {
            let waiters = if has_waiters(&key) { WAITERS } else { 0 };
            if cmpxchg_u32(addr, v, tid | v & OWNER_DIED | waiters)? == v {
                return Ok(());
            }
            continue;
        }
        if !wait {
            return Err(Errno::EAGAIN);
        }
        if table::task_in(&pid::current(), owner).is_none() {
            // It may have ended between the load and the look.
            if load_u32(addr)? == v {
                return Err(Errno::ESRCH);
            }
            continue;
        }
        let w = Waiter::enqueue(key, MATCH_ANY, tid);
        let marked = cmpxchg_u32(addr, v, v | WAITERS);
        if marked != Ok(v) {
            if !w.dequeue() {
                w.await_release();
                return Ok(());
            }
            marked?;
            continue;
        }
        return match w.sleep(deadline_ns) {
            Ok(()) => Ok(()),
            Err(WaitError::TimedOut) => Err(Errno::ETIMEDOUT),
            Err(WaitError::Interrupted) => Err(Errno::ERESTARTNOINTR),
        };
    }
}

/// Takes the first waiter of a PI lock out, and tells whether others remain.
fn next_owner(key: &Key) -> (Option<Arc<Waiter>>, bool) {
    let mut b = bucket(key).lock();
    let at = b.iter().position(|(k, w)| k == key && w.pi_tid() != 0);
    let first = at.map(|i| b.remove(i).1);
    let more = b.iter().any(|(k, w)| k == key && w.pi_tid() != 0);
    (first, more)
}

/// Hands the lock to the next waiter or frees it; `extra` bits go into the word. The caller owns it.
///
/// # Errors
/// EFAULT.
pub(super) fn hand_over(key: &Key, addr: u64, tid: u32, extra: u32) -> Result<(), Errno> {
    loop {
        let v = load_u32(addr)?;
        if v & TID_MASK != tid {
            return Err(Errno::EPERM);
        }
        let (next, more) = next_owner(key);
        let Some(w) = next else {
            if cmpxchg_u32(addr, v, extra)? == v {
                return Ok(());
            }
            continue;
        };
        let new = w.pi_tid() | extra | if more { WAITERS } else { 0 };
        let mut v = v;
        let r = loop {
            match cmpxchg_u32(addr, v, new) {
                Ok(found) if found == v => break Ok(()),
                Ok(found) => v = found,
                Err(e) => break Err(e),
            }
        };
        w.release();
        return r;
    }
}

/// FUTEX_UNLOCK_PI by thread `tid`.
///
/// # Errors
/// EPERM when the caller does not own it, EFAULT.
pub fn unlock(key: Key, addr: u64, tid: u32) -> Result<(), Errno> {
    hand_over(&key, addr, tid, 0)
}

/// The first waiter of a PI lock, and whether there are others.
fn first_waiter(key: &Key) -> Option<(Arc<Waiter>, bool)> {
    let b = bucket(key).lock();
    let mut waiters = b.iter().filter(|(k, w)| k == key && w.pi_tid() != 0);
    let first = waiters.next()?.1.clone();
    Some((first, waiters.next().is_some()))
}

/// Makes the word tell what the queue holds: a free lock goes to the first waiter, a held one is marked as waited for.
fn settle(key: &Key, addr: u64) -> Result<(), Errno> {
    while let Some((w, more)) = first_waiter(key) {
        let v = load_u32(addr)?;
        if v & TID_MASK != 0 {
            if cmpxchg_u32(addr, v, v | WAITERS)? == v {
                break;
            }
            continue;
        }
        let tid = w.pi_tid();
        let new = tid | v & OWNER_DIED | if more { WAITERS } else { 0 };
        if cmpxchg_u32(addr, v, new)? != v {
            continue;
        }
        if w.dequeue() {
            w.release();
            break;
        }
        // It gave up waiting meanwhile: the lock goes on to the next.
        hand_over(key, addr, tid, v & OWNER_DIED)?;
    }
    Ok(())
}

/// FUTEX_WAIT_REQUEUE_PI by thread `tid`: sleeps while the word at `addr` is `expected`; a FUTEX_CMP_REQUEUE_PI makes it
/// wait for the PI lock `lock` instead, which it owns on return.
///
/// # Errors
/// EAGAIN, EFAULT, EINVAL, ETIMEDOUT, ERESTARTNOINTR.
pub fn wait_requeue(
    key: Key,
    addr: u64,
    expected: u32,
    lock: Key,
    tid: u32,
    deadline_ns: Option<u64>,
) -> Result<(), Errno> {
    if key == lock {
        return Err(Errno::EINVAL);
    }
    let enter = || Waiter::enter(key, MATCH_ANY, 0, Some((lock, tid)));
    wait_as(addr, expected, deadline_ns, enter).map_err(|e| match e {
        (NotWoken::Error(e), _) => e,
        (NotWoken::Wait(WaitError::TimedOut), _) => Errno::ETIMEDOUT,
        // The condition was signalled already: libc takes the lock itself.
        (NotWoken::Wait(WaitError::Interrupted), true) => Errno::EAGAIN,
        (NotWoken::Wait(WaitError::Interrupted), false) => Errno::ERESTARTNOINTR,
    })
}

/// FUTEX_CMP_REQUEUE_PI: of the waiters of `from`, one gets the PI lock `to` at `to_addr` if it is free, and up to
/// `requeue` others wait for it; returns how many that were.
///
/// # Errors
/// EINVAL, EFAULT.
pub fn cmp_requeue(from: &Key, to: &Key, to_addr: u64, requeue: usize) -> Result<usize, Errno> {
    if from == to {
        return Err(Errno::EINVAL);
    }
    load_u32(to_addr)?;
    let moved = move_to_lock(from, to, requeue.saturating_add(1))?;
    settle(to, to_addr)?;
    Ok(moved)
}
