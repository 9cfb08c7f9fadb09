//! Pid namespaces, and the numbers that tasks, groups and sessions have in them. Source: `pid_namespaces(7)`, Linux
//! `kernel/pid.c`, `kernel/pid_namespace.c`.
//!
//! Inside, the kernel knows everybody by the number in the root namespace. Other namespaces give numbers of their own to who
//! lives in them or below; these are looked up where a call takes or shows one. In the root namespace nothing is looked up.

use super::user::{UserRef, same};
use super::{FIRST_PID, Id};
use crate::fs::proc;
use crate::sched::wait::{Events, Registered, WaitQueue, park};
use crate::task::{Process, table};
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};
use hal::sync::{Once, SpinLock};
use qlib::Errno;

/// The number of a namespace's init in it.
pub const INIT: u32 = 1;
/// Largest number, as `/proc/sys/kernel/pid_max` shows it.
pub const PID_MAX: u32 = 4_194_304;
/// Where numbers begin again after the largest.
pub const AFTER_LAST: u32 = 300;
/// Levels below the root namespace.
const MAX_LEVEL: u32 = 32;

/// What becomes of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    /// Its init is still to come: the first that is forked into it.
    Fresh,
    /// Its init has its number.
    Peopled,
    /// Its init has ended: nobody comes any more.
    Over,
}

struct Numbers {
    /// The last given.
    last: u32,
    /// The numbers in the root namespace.
    kernel: BTreeMap<u32, u32>,
    life: Life,
}

/// A pid namespace.
pub struct PidNs {
    /// Its number.
    pub id: Id,
    /// Whose capabilities count.
    pub owner: UserRef,
    /// The one it was made in; the root namespace has none.
    pub parent: Option<Arc<PidNs>>,
    /// How deep: 0 = the root namespace.
    pub level: u32,
    /// Not used by the root namespace, whose numbers are those of [`table`]. Lock order: last.
    numbers: SpinLock<Numbers>,
    /// Woken when a process of it, or of one below it, has ended.
    ended: WaitQueue,
    /// The device number of its procfs.
    proc_dev: Once<u64>,
}

/// Where the numbers are that go with those of the root namespace. Lock order: last.
static KEPT: SpinLock<BTreeMap<u32, Weak<Ids>>> = SpinLock::new(BTreeMap::new());

/// Whether there are namespaces that the root namespace does not see into ([`PidNs::apart`]).
static APART: AtomicBool = AtomicBool::new(false);

/// The root namespace.
pub fn root() -> &'static Arc<PidNs> {
    static ROOT: Once<Arc<PidNs>> = Once::new();
    ROOT.call_once(|| Arc::new(PidNs::new(Id(FIRST_PID), None, None)))
}

/// The calling task's; the root namespace on kernel threads.
pub fn current() -> Arc<PidNs> {
    crate::task::current().map_or_else(|| root().clone(), |t| t.pid_ns().clone())
}

/// The number by which the calling task knows somebody, 0 where it does not.
pub fn shown(number: u32) -> u32 {
    match crate::task::current() {
        Some(t) => t.pid_ns().shown(number),
        None => number,
    }
}

impl PidNs {
    fn new(id: Id, owner: UserRef, parent: Option<Arc<Self>>) -> Self {
        Self {
            id,
            owner,
            level: parent.as_ref().map_or(0, |p| p.level + 1),
            parent,
            numbers: SpinLock::new(Numbers {
                last: 0,
                kernel: BTreeMap::new(),
                life: Life::Fresh,
            }),
            ended: WaitQueue::new(),
            proc_dev: Once::new(),
        }
    }
    /// Makes one below `parent` for `owner`.
    ///
    /// # Errors
    /// EINVAL when `owner` is not within the user namespace the parent belongs to; ENOSPC when nested too deep.
    pub fn create(owner: UserRef, parent: &Arc<Self>) -> Result<Arc<Self>, Errno> {
        let mut above = owner.clone();
        while !same(&above, &parent.owner) {
            above = above.ok_or(Errno::EINVAL)?.parent.clone();
        }
        if parent.level >= MAX_LEVEL {
            return Err(Errno::ENOSPC);
        }
        Ok(Arc::new(Self::new(Id::new(), owner, Some(parent.clone()))))
    }
    /// Makes one beside the root namespace: who lives in it is not seen from there. A container has it that shares the
    /// sandbox but not the processes.
    pub fn apart() -> Arc<Self> {
        APART.store(true, Ordering::SeqCst);
        let mut ns = Self::new(Id::new(), None, None);
        ns.level = 1;
        Arc::new(ns)
    }
    /// Whether it is the root namespace.
    pub fn is_root(&self) -> bool {
        self.level == 0
    }
    /// Whether it is `other` or one below it.
    pub fn is_within(&self, other: &Self) -> bool {
        let mut at = self;
        while at.level > other.level {
            match &at.parent {
                Some(p) => at = p,
                None => return false,
            }
        }
        core::ptr::eq(at, other)
    }
    /// The number here of who has `number` in the root namespace; 0 when it is not to be seen from here.
    pub fn shown(&self, number: u32) -> u32 {
        if self.sees_all() || number == 0 {
            return number;
        }
        let outside = if self.is_root() { number } else { 0 };
        ids_of(number).map_or(outside, |i| i.number_in(self))
    }
    /// The number in the root namespace of who has `number` here.
    pub fn kernel(&self, number: u32) -> Option<u32> {
        if self.sees_all() {
            Some(number)
        } else if self.is_root() {
            Some(number).filter(|n| self.shown(*n) != 0)
        } else {
            self.numbers.lock().kernel.get(&number).copied()
        }
    }
    /// Whether it is the root namespace and none lies beside it.
    fn sees_all(&self) -> bool {
        self.is_root() && !APART.load(Ordering::Relaxed)
    }
    /// Everybody's numbers: here, and in the root namespace. Groups and sessions without a leader are among them.
    pub fn all(&self) -> Vec<(u32, u32)> {
        let numbers = self.numbers.lock();
        numbers.kernel.iter().map(|(n, k)| (*n, *k)).collect()
    }
    /// The last number given here.
    pub fn last(&self) -> u32 {
        if self.is_root() {
            table::last_id()
        } else {
            self.numbers.lock().last
        }
    }
    /// Its init, also one that has ended and was not waited for.
    pub fn init(&self) -> Option<Arc<Process>> {
        table::process(self.kernel(INIT)?)
    }
    /// Whether its init is still to come.
    pub fn is_fresh(&self) -> bool {
        !self.is_root() && self.numbers.lock().life == Life::Fresh
    }
    /// Whether nobody can come any more.
    pub fn is_over(&self) -> bool {
        !self.is_root() && self.numbers.lock().life == Life::Over
    }
    /// Takes a number for `kernel`: the init's (`init`), or the next.
    fn take(&self, kernel: u32, init: bool) -> Result<u32, Errno> {
        let mut n = self.numbers.lock();
        if n.life == Life::Over {
            return Err(Errno::ENOMEM);
        }
        if n.kernel.len() as u32 >= PID_MAX - AFTER_LAST {
            return Err(Errno::EAGAIN);
        }
        let mut number = INIT;
        if init {
            if n.life != Life::Fresh {
                return Err(Errno::EBUSY);
            }
            n.life = Life::Peopled;
        } else {
            // Init's number is init's, also for what runs before it.
            number = n.last.max(INIT) + 1;
            loop {
                if number >= PID_MAX {
                    number = AFTER_LAST;
                }
                if !n.kernel.contains_key(&number) {
                    break;
                }
                number += 1;
            }
        }
        n.last = n.last.max(INIT);
        if !init {
            n.last = number;
        }
        n.kernel.insert(number, kernel);
        Ok(number)
    }
    fn give_back(&self, number: u32) {
        let mut n = self.numbers.lock();
        n.kernel.remove(&number);
        if number == INIT {
            n.life = Life::Over;
        }
    }
    /// Itself and those above it, but for the root namespace.
    fn line(self: &Arc<Self>) -> impl Iterator<Item = &Arc<Self>> {
        core::iter::successors(Some(self), |n| n.parent.as_ref()).take_while(|n| !n.is_root())
    }
    /// Its init has ended: nobody comes any more, and who is there gets SIGKILL; returns when they are gone. Source: Linux
    /// `zap_pid_ns_processes`.
    pub fn end(&self, init: &Arc<Process>) {
        self.numbers.lock().life = Life::Over;
        let registered = Registered::new(&self.ended, Events::all());
        loop {
            let left: Vec<_> = table::processes_in(self)
                .into_iter()
                .map(|(_, p)| p)
                .filter(|p| !Arc::ptr_eq(p, init) && !p.has_ended())
                .collect();
            if left.is_empty() {
                break;
            }
            left.iter().for_each(crate::signal::send::slay);
            drop(left);
            park(None);
        }
        drop(registered);
    }
    /// A process of it has ended.
    pub fn tell_ended(self: &Arc<Self>) {
        self.line().for_each(|n| n.ended.wake_all());
    }
    /// The device number of its procfs.
    pub fn proc_dev(&self) -> u64 {
        *self.proc_dev.call_once(proc::new_dev)
    }
}

/// The numbers of one outside the root namespace.
struct Ids {
    kernel: u32,
    ns: Arc<PidNs>,
    /// By level, from 1 on.
    inner: Vec<u32>,
}

impl Ids {
    fn number_in(&self, ns: &PidNs) -> u32 {
        match ns.level as usize {
            0 if self.ns.is_within(ns) => self.kernel,
            0 => 0,
            level if self.ns.is_within(ns) => self.inner[level - 1],
            _ => 0,
        }
    }
}

impl Drop for Ids {
    fn drop(&mut self) {
        KEPT.lock().remove(&self.kernel);
        for (ns, number) in self.ns.line().zip(self.inner.iter().rev()) {
            ns.give_back(*number);
        }
    }
}

fn ids_of(kernel: u32) -> Option<Arc<Ids>> {
    KEPT.lock().get(&kernel).and_then(Weak::upgrade)
}

/// Whether somebody keeps the number.
pub fn is_kept(kernel: u32) -> bool {
    KEPT.lock().contains_key(&kernel)
}

/// The numbers of a task, process, group or session. They are nobody else's while this is kept, also after its end.
#[derive(Clone, Default)]
pub struct Pid {
    number: u32,
    ids: Option<Arc<Ids>>,
}

impl Pid {
    /// Nobody's.
    pub const NONE: Self = Self { number: 0, ids: None };
    /// Who has `number` in the root namespace, which is in use.
    pub fn of(number: u32) -> Self {
        let ids = ids_of(number);
        Self { number, ids }
    }
    /// Takes numbers in `ns` and all above it, for who has `kernel` in the root namespace.
    ///
    /// # Errors
    /// ENOMEM when the namespace's init has ended; EBUSY when `init` and there was one; EAGAIN.
    pub fn take(kernel: u32, ns: &Arc<PidNs>, init: bool) -> Result<Self, Errno> {
        if ns.is_root() {
            return Ok(Self {
                number: kernel,
                ids: None,
            });
        }
        let mut ids = Ids {
            kernel,
            ns: ns.clone(),
            inner: Vec::new(),
        };
        for (i, n) in ns.line().enumerate() {
            match n.take(kernel, init && i == 0) {
                Ok(number) => ids.inner.push(number),
                Err(e) => {
                    let taken = core::mem::take(&mut ids.inner);
                    for (n, number) in ns.line().zip(taken) {
                        n.give_back(number);
                    }
                    return Err(e);
                }
            }
        }
        ids.inner.reverse();
        let ids = Arc::new(ids);
        KEPT.lock().insert(kernel, Arc::downgrade(&ids));
        Ok(Self {
            number: kernel,
            ids: Some(ids),
        })
    }
    /// In the root namespace.
    pub fn number(&self) -> u32 {
        self.number
    }
    /// The namespace it lives in.
    pub fn ns(&self) -> &Arc<PidNs> {
        match &self.ids {
            None => root(),
            Some(i) => &i.ns,
        }
    }
    /// In the namespace it lives in.
    pub fn own(&self) -> u32 {
        let ids = self.ids.as_ref();
        ids.and_then(|i| i.inner.last().copied()).unwrap_or(self.number)
    }
    /// In `ns`; 0 when it is not to be seen from there.
    pub fn shown(&self, ns: &PidNs) -> u32 {
        match &self.ids {
            None if ns.is_root() => self.number,
            None => 0,
            Some(i) => i.number_in(ns),
        }
    }
    /// In `ns` and all below it down to its own.
    pub fn shown_below(&self, ns: &PidNs) -> Vec<u32> {
        let mut all = alloc::vec![self.shown(ns)];
        if let Some(i) = &self.ids
            && all[0] != 0
        {
            all.extend(i.inner.iter().skip(ns.level as usize));
        }
        all
    }
}

impl PartialEq for Pid {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Pid {}

impl fmt::Debug for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_has_a_number_in_each_namespace_above() {
        let outer = PidNs::create(None, root()).unwrap();
        let inner = PidNs::create(None, &outer).unwrap();
        let beside = PidNs::create(None, &outer).unwrap();
        let first = Pid::take(3_000_001, &outer, true).unwrap();
        let second = Pid::take(3_000_002, &outer, false).unwrap();
        let deep = Pid::take(3_000_003, &inner, true).unwrap();
        assert_eq!((first.own(), second.own(), deep.own()), (1, 2, 1));
        assert_eq!(deep.shown_below(root()), [3_000_003, 3, 1]);
        assert_eq!(deep.shown_below(&outer), [3, 1]);
        assert_eq!((deep.shown(&beside), first.shown(&inner)), (0, 0));
        assert_eq!(outer.kernel(3), Some(3_000_003));
        assert_eq!((outer.shown(3_000_003), inner.shown(3_000_002)), (3, 0));
        assert!(inner.is_within(&outer) && !outer.is_within(&inner) && !inner.is_within(&beside));
        assert_eq!(Pid::of(3_000_003).shown(&outer), 3);
        drop(second);
        assert_eq!(outer.kernel(2), None);
        assert!(!is_kept(3_000_002));
    }

    #[test]
    fn a_namespace_ends_with_its_init() {
        let ns = PidNs::create(None, root()).unwrap();
        assert!(ns.is_fresh());
        // What the host runs before.
        let hook = Pid::take(3_000_011, &ns, false).unwrap();
        assert_eq!(hook.own(), 2);
        let init = Pid::take(3_000_012, &ns, true).unwrap();
        assert_eq!((init.own(), ns.last()), (1, 2));
        assert_eq!(Pid::take(3_000_013, &ns, true), Err(Errno::EBUSY));
        drop(init);
        assert!(ns.is_over());
        assert_eq!(Pid::take(3_000_013, &ns, false), Err(Errno::ENOMEM));
        assert_eq!(ns.shown(3_000_013), 0);
    }

    #[test]
    fn numbers_are_kept_as_long_as_somebody_wants_them() {
        let ns = PidNs::create(None, root()).unwrap();
        let init = Pid::take(3_000_021, &ns, true).unwrap();
        let leader = Pid::take(3_000_022, &ns, false).unwrap();
        let group = Pid::of(leader.number());
        drop(leader);
        assert_eq!((group.own(), ns.kernel(2)), (2, Some(3_000_022)));
        drop(group);
        assert_eq!(ns.kernel(2), None);
        assert_eq!(init.ns().id.0, ns.id.0);
    }

    #[test]
    fn who_lives_apart_is_not_seen_from_the_root() {
        let ns = PidNs::apart();
        let below = PidNs::create(None, &ns).unwrap();
        let init = Pid::take(3_000_031, &ns, true).unwrap();
        let deep = Pid::take(3_000_032, &below, true).unwrap();
        assert_eq!((init.own(), deep.shown(&ns), deep.own()), (1, 2, 1));
        assert_eq!((init.shown(root()), deep.shown(root())), (0, 0));
        assert_eq!((root().shown(3_000_031), root().kernel(3_000_032)), (0, None));
        assert_eq!(
            (root().shown(3_000_039), root().kernel(3_000_039)),
            (3_000_039, Some(3_000_039))
        );
        assert!(!ns.is_within(root()) && !below.is_within(root()) && below.is_within(&ns));
    }

    #[test]
    fn nesting_has_an_end() {
        let mut ns = root().clone();
        for _ in 0..MAX_LEVEL {
            ns = PidNs::create(None, &ns).unwrap();
        }
        assert_eq!(PidNs::create(None, &ns).err(), Some(Errno::ENOSPC));
    }
}
