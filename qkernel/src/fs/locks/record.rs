//! Record locks on byte ranges.

use super::{Held, existing, id_of, locks_of, tidy};
use crate::fs::file::File;
use crate::fs::inode::InodeId;
use crate::sched::wait::{Events, wait_until};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use hal::sync::SpinLock;
use qlib::Errno;

/// Who holds a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// A process, named by its descriptor table.
    Process(usize),
    /// An open file description.
    Description(usize),
}

/// Shared or exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// F_RDLCK.
    Read,
    /// F_WRLCK.
    Write,
}

/// Bytes `start..=last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First byte.
    pub start: u64,
    /// Last byte; `u64::MAX` = to the end of the file, however far.
    pub last: u64,
}

impl Range {
    fn meets(&self, o: &Range) -> bool {
        self.start <= o.last && o.start <= self.last
    }
}

#[derive(Clone, Copy)]
struct Record {
    owner: Owner,
    pid: u32,
    kind: Kind,
    range: Range,
}

/// The locks of one inode, sorted by start for each owner.
#[derive(Default)]
pub(super) struct Records(Vec<Record>);

impl Records {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    pub(super) fn release(&mut self, owner: Owner) -> bool {
        let before = self.0.len();
        self.0.retain(|r| r.owner != owner);
        before != self.0.len()
    }
    fn conflict(&self, owner: Owner, kind: Kind, range: &Range) -> Option<Record> {
        let hit = |r: &&Record| {
            r.owner != owner && r.range.meets(range) && (kind == Kind::Write || r.kind == Kind::Write)
        };
        self.0.iter().find(hit).copied()
    }
    /// Replaces what the owner holds of the range by `kind`, or by nothing.
    fn replace(&mut self, owner: Owner, pid: u32, kind: Option<Kind>, range: Range) {
        let mut rest = Vec::with_capacity(self.0.len() + 2);
        let mut merged = range;
        for r in self.0.drain(..) {
            if r.owner != owner {
                rest.push(r);
                continue;
            }
            // Neighbours of the same kind become one.
            let touches = r.range.start <= merged.last.saturating_add(1)
                && merged.start <= r.range.last.saturating_add(1);
            if kind == Some(r.kind) && touches {
                merged.start = merged.start.min(r.range.start);
                merged.last = merged.last.max(r.range.last);
                continue;
            }
            if !r.range.meets(&range) {
                rest.push(r);
                continue;
            }
            if r.range.start < range.start {
                let mut left = r;
                left.range.last = range.start - 1;
                rest.push(left);
            }
            if r.range.last > range.last {
                let mut right = r;
                right.range.start = range.last + 1;
                rest.push(right);
            }
        }
        if let Some(kind) = kind {
            rest.push(Record {
                owner,
                pid,
                kind,
                range: merged,
            });
        }
        rest.sort_by_key(|r| (r.owner, r.range.start));
        self.0 = rest;
    }
    pub(super) fn list(&self, id: InodeId, out: &mut Vec<Held>) {
        out.extend(self.0.iter().map(|r| Held {
            class: match r.owner {
                Owner::Process(_) => "POSIX",
                Owner::Description(_) => "OFDLCK",
            },
            write: r.kind == Kind::Write,
            pid: match r.owner {
                Owner::Process(_) => i64::from(r.pid),
                Owner::Description(_) => -1,
            },
            id,
            start: r.range.start,
            last: r.range.last,
        }));
    }
}

/// Who waits for whom, to find circles. Only processes count, as in Linux.
static WAITING: SpinLock<BTreeMap<usize, usize>> = SpinLock::new(BTreeMap::new());

/// Notes that `me` waits for `holder`.
///
/// # Errors
/// EDEADLK when `holder` waits for `me`, also through others.
fn note_wait(me: Owner, holder: Owner) -> Result<(), Errno> {
    let (Owner::Process(me), Owner::Process(holder)) = (me, holder) else {
        return Ok(());
    };
    let mut waiting = WAITING.lock();
    let mut at = holder;
    // The chain cannot be longer than there are waiters.
    for _ in 0..=waiting.len() {
        if at == me {
            return Err(Errno::EDEADLK);
        }
        match waiting.get(&at) {
            Some(next) => at = *next,
            None => break,
        }
    }
    waiting.insert(me, holder);
    Ok(())
}

fn wait_over(me: Owner) {
    if let Owner::Process(me) = me {
        WAITING.lock().remove(&me);
    }
}

/// Takes (`Some(kind)`) or ends (`None`) a lock.
///
/// # Errors
/// EAGAIN when held by another and not `wait`; EDEADLK; ERESTARTSYS; EBADF for files that cannot be locked.
pub fn set(file: &File, owner: Owner, kind: Option<Kind>, range: Range, wait: bool) -> Result<(), Errno> {
    let id = id_of(file).ok_or(Errno::EBADF)?;
    let locks = locks_of(id);
    let pid = crate::task::current().map_or(0, |t| t.process.pid);
    let Some(kind) = kind else {
        locks.records.lock().replace(owner, pid, None, range);
        locks.queue.wake_all();
        drop(locks);
        tidy(id);
        return Ok(());
    };
    let attempt = || -> Option<Result<(), Errno>> {
        let holder = {
            let mut records = locks.records.lock();
            match records.conflict(owner, kind, &range) {
                None => {
                    records.replace(owner, pid, Some(kind), range);
                    return Some(Ok(()));
                }
                Some(r) => r.owner,
            }
        };
        if !wait {
            return Some(Err(Errno::EAGAIN));
        }
        note_wait(owner, holder).err().map(Err)
    };
    let result = match wait_until(&locks.queue, Events::all(), None, attempt) {
        Ok(r) => r,
        Err(e) => Err(e.restart_or(Errno::EAGAIN)),
    };
    if wait {
        wait_over(owner);
    }
    if result.is_ok() {
        // A write lock that became a read lock lets others in.
        locks.queue.wake_all();
    }
    drop(locks);
    if result.is_err() {
        tidy(id);
    }
    result
}

/// The first lock that keeps `owner` from a lock: kind, range, and pid (-1 for description locks).
///
/// # Errors
/// EBADF for files that cannot be locked.
pub fn get(file: &File, owner: Owner, kind: Kind, range: Range) -> Result<Option<(Kind, Range, i32)>, Errno> {
    let id = id_of(file).ok_or(Errno::EBADF)?;
    let Some(locks) = existing(id) else {
        return Ok(None);
    };
    let found = locks.records.lock().conflict(owner, kind, &range);
    drop(locks);
    tidy(id);
    Ok(found.map(|r| {
        let pid = match r.owner {
            Owner::Process(_) => r.pid as i32,
            Owner::Description(_) => -1,
        };
        (r.kind, r.range, pid)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn range(start: u64, last: u64) -> Range {
        Range { start, last }
    }

    fn held(r: &Records) -> Vec<(u64, u64, Kind)> {
        r.0.iter()
            .map(|r| (r.range.start, r.range.last, r.kind))
            .collect()
    }

    #[test]
    fn ranges_split_and_join() {
        let mut r = Records::default();
        let me = Owner::Process(1);
        r.replace(me, 1, Some(Kind::Read), range(0, 99));
        r.replace(me, 1, Some(Kind::Write), range(40, 59));
        assert_eq!(
            held(&r),
            [(0, 39, Kind::Read), (40, 59, Kind::Write), (60, 99, Kind::Read)]
        );
        r.replace(me, 1, Some(Kind::Read), range(30, 70));
        assert_eq!(held(&r), [(0, 99, Kind::Read)]);
        r.replace(me, 1, None, range(10, 19));
        assert_eq!(held(&r), [(0, 9, Kind::Read), (20, 99, Kind::Read)]);
        r.replace(me, 1, None, range(0, u64::MAX));
        assert!(r.is_empty());
    }

    #[test]
    fn readers_share_and_writers_do_not() {
        let mut r = Records::default();
        r.replace(Owner::Process(1), 1, Some(Kind::Read), range(0, 9));
        assert!(r.conflict(Owner::Process(2), Kind::Read, &range(5, 20)).is_none());
        assert!(
            r.conflict(Owner::Process(2), Kind::Write, &range(9, 20))
                .is_some()
        );
        assert!(
            r.conflict(Owner::Process(2), Kind::Write, &range(10, 20))
                .is_none()
        );
        assert!(
            r.conflict(Owner::Process(1), Kind::Write, &range(0, 20))
                .is_none()
        );
    }

    #[test]
    fn circles_are_found() {
        let p = Owner::Process;
        assert!(note_wait(p(101), p(102)).is_ok());
        assert!(note_wait(p(102), p(103)).is_ok());
        assert_eq!(note_wait(p(103), p(101)), Err(Errno::EDEADLK));
        wait_over(p(101));
        assert!(note_wait(p(103), p(101)).is_ok());
        wait_over(p(102));
        wait_over(p(103));
    }
}
