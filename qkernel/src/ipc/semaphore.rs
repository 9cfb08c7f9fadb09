//! System V semaphores. Source: `semop(2)`, Linux `ipc/sem.c`.

use super::sysv::{Perm, now_s};
use crate::ns::ipc::IpcNs;
use crate::ns::pid::Pid;
use crate::sched::wait::{Events, WaitError, WaitQueue, wait_until};
use crate::task::Process;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use hal::sync::SpinLock;
use qlib::Errno;

/// Largest value (SEMVMX).
pub const MAX_VALUE: i32 = 32767;
/// Semaphores in one set at most (SEMMSL).
pub const MAX_SET: usize = 32000;
/// Operations in one call at most (SEMOPM).
pub const MAX_OPS: usize = 500;
/// SEM_UNDO.
pub const UNDO: u16 = 0x1000;

/// One semaphore.
#[derive(Clone, Debug, Default)]
pub struct Semaphore {
    /// Value.
    pub value: i32,
    /// Process that changed it last.
    pub pid: Pid,
    /// Waiters for it to grow.
    pub growing: u32,
    /// Waiters for zero.
    pub zero: u32,
}

/// What changes in a set.
pub struct SetState {
    /// Owner and mode.
    pub perm: Perm,
    /// The semaphores.
    pub sems: Vec<Semaphore>,
    /// Last semop, s.
    pub otime: u64,
    /// Last change, s.
    pub ctime: u64,
    /// It was removed.
    pub removed: bool,
}

/// A set.
pub struct SemSet {
    /// Its id.
    pub id: i32,
    /// Number of its namespace.
    ns: u64,
    /// What changes. Lock order: before a process's undo list.
    pub state: SpinLock<SetState>,
    queue: WaitQueue,
}

/// One operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Op {
    /// Which semaphore.
    pub index: u16,
    /// Added; 0 waits for zero.
    pub by: i16,
    /// IPC_NOWAIT, SEM_UNDO.
    pub flags: u16,
}

/// What a process undoes when it ends, by IPC namespace, set and semaphore.
pub type Undo = SpinLock<BTreeMap<(u64, u32, u32), i32>>;

/// Who operates on semaphores.
#[derive(Clone, Copy)]
pub struct Actor<'a> {
    /// Process.
    pub pid: &'a Pid,
    /// Its undo list.
    pub undo: &'a Undo,
}

/// What trying all operations gave.
enum Tried {
    Done,
    /// This one must wait.
    Blocked(Op),
}

impl SemSet {
    /// A set of `n` zeros.
    pub fn new(id: i32, perm: Perm, n: usize) -> Self {
        Self {
            id,
            ns: crate::ns::current().ipc.id.0,
            state: SpinLock::new(SetState {
                perm,
                sems: vec![Semaphore::default(); n],
                otime: 0,
                ctime: now_s(),
                removed: false,
            }),
            queue: WaitQueue::new(),
        }
    }

    /// Tells the waiters that something changed.
    pub fn changed(&self) {
        self.queue.wake_all();
    }

    /// Removes the set; waiters fail with EIDRM.
    pub fn remove(&self) {
        self.state.lock().removed = true;
        crate::ns::current().ipc.sets.remove(self.id);
        self.changed();
    }

    /// Tries all operations, or none.
    fn attempt(&self, ops: &[Op], actor: Actor<'_>) -> Result<Tried, Errno> {
        let mut s = self.state.lock();
        if s.removed {
            return Err(Errno::EIDRM);
        }
        // Worked out on copies of the values, so that nothing must be undone.
        let mut values: Vec<(u16, i32)> = Vec::with_capacity(ops.len());
        for op in ops {
            let at = match values.iter().position(|(i, _)| *i == op.index) {
                Some(at) => at,
                None => {
                    let sem = s.sems.get(usize::from(op.index)).ok_or(Errno::EFBIG)?;
                    values.push((op.index, sem.value));
                    values.len() - 1
                }
            };
            let v = &mut values[at].1;
            let new = *v + i32::from(op.by);
            if op.by == 0 && *v != 0 || new < 0 {
                return Ok(Tried::Blocked(*op));
            }
            if new > MAX_VALUE {
                return Err(Errno::ERANGE);
            }
            *v = new;
        }
        for (i, v) in &values {
            let sem = &mut s.sems[usize::from(*i)];
            sem.value = *v;
            sem.pid = actor.pid.clone();
        }
        if ops.iter().any(|o| o.flags & UNDO != 0) {
            let mut undo = actor.undo.lock();
            for op in ops.iter().filter(|o| o.flags & UNDO != 0) {
                *undo
                    .entry((self.ns, self.id as u32, u32::from(op.index)))
                    .or_insert(0) -= i32::from(op.by);
            }
        }
        s.otime = now_s();
        Ok(Tried::Done)
    }

    fn count_waiter(&self, op: Op, by: i32) {
        let mut s = self.state.lock();
        if let Some(sem) = s.sems.get_mut(usize::from(op.index)) {
            let n = if op.by == 0 {
                &mut sem.zero
            } else {
                &mut sem.growing
            };
            *n = n.saturating_add_signed(by);
        }
    }

    /// Does all operations at once, waiting until they can be done.
    ///
    /// # Errors
    /// EAGAIN with IPC_NOWAIT or at the deadline, EIDRM, EFBIG, ERANGE, EINTR.
    pub fn operate(&self, ops: &[Op], actor: Actor<'_>, deadline_ns: Option<u64>) -> Result<(), Errno> {
        let mut waiting: Option<Op> = None;
        let mut r = match self.attempt(ops, actor)? {
            Tried::Done => Ok(()),
            Tried::Blocked(op) if u32::from(op.flags) & super::sysv::NOWAIT != 0 => {
                return Err(Errno::EAGAIN);
            }
            Tried::Blocked(op) => {
                self.count_waiter(op, 1);
                waiting = Some(op);
                Err(Errno::EAGAIN)
            }
        };
        if waiting.is_some() {
            let again = || match self.attempt(ops, actor) {
                Ok(Tried::Done) => Some(Ok(())),
                Ok(Tried::Blocked(op)) if u32::from(op.flags) & super::sysv::NOWAIT != 0 => {
                    Some(Err(Errno::EAGAIN))
                }
                Ok(Tried::Blocked(_)) => None,
                Err(e) => Some(Err(e)),
            };
            r = wait_until(&self.queue, Events::all(), deadline_ns, again).unwrap_or_else(|e| {
                Err(match e {
                    WaitError::TimedOut => Errno::EAGAIN,
                    WaitError::Interrupted => Errno::EINTR,
                })
            });
        }
        if let Some(op) = waiting {
            self.count_waiter(op, -1);
        }
        if r.is_ok() && ops.iter().any(|o| o.by != 0) {
            self.changed();
        }
        r
    }

    /// Forgets what all processes would undo on semaphore `index`, or on all (SETVAL, SETALL).
    pub fn forget_undo(&self, index: Option<u32>) {
        for p in crate::task::table::processes() {
            p.sem_undo.lock().retain(|(ns, set, i), _| {
                (*ns, *set) != (self.ns, self.id as u32) || index.is_some_and(|x| x != *i)
            });
        }
    }
}

/// Undoes what a process did with SEM_UNDO in a namespace, when it ends or leaves it.
pub fn exit_process(process: &Process, ipc: &IpcNs) {
    let actor = Actor {
        pid: &process.numbers,
        undo: &process.sem_undo,
    };
    run_undo(actor, ipc);
}

fn run_undo(actor: Actor<'_>, ipc: &IpcNs) {
    let undo = core::mem::take(&mut *actor.undo.lock());
    let mut touched: Vec<Arc<SemSet>> = Vec::new();
    for ((ns, id, index), by) in undo {
        // The sets of a namespace that a thread left are not this one's, whatever their numbers.
        if ns != ipc.id.0 {
            continue;
        }
        let Ok(set) = ipc.sets.find(id as i32) else {
            continue;
        };
        {
            let mut s = set.state.lock();
            if let Some(sem) = s.sems.get_mut(index as usize) {
                sem.value = (sem.value + by).clamp(0, MAX_VALUE);
                sem.pid = actor.pid.clone();
            }
            s.otime = now_s();
        }
        if !touched.iter().any(|t| Arc::ptr_eq(t, &set)) {
            touched.push(set);
        }
    }
    for set in touched {
        set.changed();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipc::sysv::NOWAIT;
    use std::time::Duration;

    fn op(index: u16, by: i16) -> Op {
        Op { index, by, flags: 0 }
    }
    fn now(o: Op) -> Op {
        Op {
            flags: o.flags | NOWAIT as u16,
            ..o
        }
    }
    fn values(s: &SemSet) -> Vec<i32> {
        s.state.lock().sems.iter().map(|s| s.value).collect()
    }
    fn actor(undo: &Undo) -> Actor<'_> {
        const NOBODY: &Pid = &Pid::NONE;
        Actor { pid: NOBODY, undo }
    }

    #[test]
    fn all_operations_or_none() {
        let undo = Undo::default();
        let s = SemSet::new(1, Perm::default(), 2);
        s.operate(&[op(0, 3)], actor(&undo), None).unwrap();
        assert_eq!(
            s.operate(&[op(0, -2), now(op(1, -1))], actor(&undo), None),
            Err(Errno::EAGAIN)
        );
        assert_eq!(values(&s), [3, 0]);
        // Operations on the same semaphore see each other.
        s.operate(&[op(0, -3), op(0, 0), op(0, 5)], actor(&undo), None)
            .unwrap();
        assert_eq!(values(&s), [5, 0]);
        assert_eq!(s.operate(&[op(2, 1)], actor(&undo), None), Err(Errno::EFBIG));
        assert_eq!(s.operate(&[op(0, 32767)], actor(&undo), None), Err(Errno::ERANGE));
        let soon = hal::clock::monotonic_ns() + 2_000_000;
        assert_eq!(
            s.operate(&[op(1, -1)], actor(&undo), Some(soon)),
            Err(Errno::EAGAIN)
        );
        assert_eq!(s.state.lock().sems[1].growing, 0);
    }

    #[test]
    fn waiters_go_on_and_removal_ends_them() {
        let s = Arc::new(SemSet::new(2, Perm::default(), 1));
        let wait = |by| {
            let s = s.clone();
            std::thread::spawn(move || s.operate(&[op(0, by)], actor(&Undo::default()), None))
        };
        let t = wait(-2);
        while s.state.lock().sems[0].growing == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        let undo = Undo::default();
        s.operate(&[op(0, 1)], actor(&undo), None).unwrap();
        s.operate(&[op(0, 1)], actor(&undo), None).unwrap();
        assert_eq!(t.join().unwrap(), Ok(()));
        assert_eq!(values(&s), [0]);
        let t = wait(-1);
        std::thread::sleep(Duration::from_millis(5));
        s.remove();
        assert_eq!(t.join().unwrap(), Err(Errno::EIDRM));
    }

    #[test]
    fn undo_takes_back_what_a_process_did() {
        let id = crate::ns::current()
            .ipc
            .sets
            .get(0, 0, |_| Ok(()), |id| Ok(SemSet::new(id, Perm::default(), 1)))
            .unwrap();
        let s = crate::ns::current().ipc.sets.find(id).unwrap();
        let undo = Undo::default();
        let with_undo = |by| Op {
            index: 0,
            by,
            flags: UNDO,
        };
        s.operate(&[op(0, 5)], actor(&undo), None).unwrap();
        s.operate(&[with_undo(-2)], actor(&undo), None).unwrap();
        s.operate(&[with_undo(-1)], actor(&undo), None).unwrap();
        assert_eq!(values(&s), [2]);
        run_undo(actor(&undo), &crate::ns::current().ipc);
        assert_eq!(values(&s), [5]);
        run_undo(actor(&undo), &crate::ns::current().ipc);
        assert_eq!(values(&s), [5]);
        s.remove();
        assert_eq!(crate::ns::current().ipc.sets.find(id).err(), Some(Errno::EINVAL));
    }
}
