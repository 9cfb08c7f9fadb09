//! Pids, and finding processes by them.

use crate::container::Container;
use crate::ns::pid::{self, AFTER_LAST, INIT, Pid, PidNs};
use crate::task::{Process, Task};
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use hal::sync::SpinLock;
use qlib::Errno;

pub use crate::ns::pid::PID_MAX;

#[derive(Default)]
struct Table {
    tasks: BTreeMap<u32, Arc<Task>>,
    processes: BTreeMap<u32, Arc<Process>>,
    last: u32,
}

/// All tasks and processes of the sandbox. Lock order: before every lock of a process or task.
static TABLE: SpinLock<Table> = SpinLock::new(Table {
    tasks: BTreeMap::new(),
    processes: BTreeMap::new(),
    last: 0,
});

/// Serialises changes of the process tree (parents, groups, sessions). Lock order: before [`TABLE`].
pub static TREE: SpinLock<()> = SpinLock::new(());

/// Takes free numbers in `ns` and all namespaces above it, for a task of `container`: those of the namespace's init, which are
/// given once (`init`), or of anybody else. What is not published is to be dismissed from the container.
///
/// # Errors
/// EAGAIN at the container's pids limit; ENOMEM when the namespace's init has ended; EBUSY when it has its number.
pub fn allocate(container: &Container, ns: &Arc<PidNs>, init: bool) -> Result<Pid, Errno> {
    if !container.admit() {
        return Err(Errno::EAGAIN);
    }
    let number = {
        let mut t = TABLE.lock();
        // Init's number is init's, also for what runs before it.
        let mut id = t.last.max(INIT);
        if init && ns.is_root() {
            t.last = id;
            id = INIT;
        } else {
            loop {
                id = if id + 1 >= PID_MAX { AFTER_LAST } else { id + 1 };
                if is_free(&t, id) {
                    break;
                }
            }
            t.last = id;
        }
        id
    };
    Pid::take(number, ns, init).inspect_err(|_| container.dismiss())
}

/// Takes free numbers for a child that is forked into `ns`: the first is its init.
///
/// # Errors
/// As [`allocate`].
pub fn allocate_child(container: &Container, ns: &Arc<PidNs>) -> Result<Pid, Errno> {
    match allocate(container, ns, ns.is_fresh()) {
        // Another was first.
        Err(Errno::EBUSY) => allocate(container, ns, false),
        r => r,
    }
}

fn is_free(t: &Table, id: u32) -> bool {
    !t.tasks.contains_key(&id) && !t.processes.contains_key(&id) && !pid::is_kept(id) && !group_in_use(t, id)
}

fn group_in_use(t: &Table, id: u32) -> bool {
    // Numbers wrap late, so the walk over all processes is rare.
    t.last > id
        && t.processes.values().any(|p| {
            let f = p.family.lock();
            f.pgid == id || f.session.as_ref().is_some_and(|s| s.sid == id)
        })
}

/// Publishes a task (and its process when it is the leader).
pub fn insert(task: &Arc<Task>) {
    let mut t = TABLE.lock();
    t.tasks.insert(task.tid(), task.clone());
    if task.process.pid == task.tid() {
        t.processes.insert(task.tid(), task.process.clone());
    }
}

/// Forgets a task that ended. A leader's number stays taken until its process is reaped.
pub fn remove_task(task: &Task) {
    if task.process.pid != task.tid() {
        task.process.container.dismiss();
    }
    let removed = TABLE.lock().tasks.remove(&task.tid());
    drop(removed);
}

/// Moves the leader's number to `task` (exec by another thread of the group).
pub fn remove_process(pid: u32) {
    let removed = TABLE.lock().processes.remove(&pid);
    if let Some(p) = removed {
        p.container.dismiss();
        p.pid_ns().tell_ended();
    }
}

/// Finds a task by its thread id.
pub fn task(tid: u32) -> Option<Arc<Task>> {
    TABLE.lock().tasks.get(&tid).cloned()
}

/// Finds a process (also a zombie) by its pid.
pub fn process(pid: u32) -> Option<Arc<Process>> {
    TABLE.lock().processes.get(&pid).cloned()
}

/// Finds a task by the number it has in `ns`.
pub fn task_in(ns: &PidNs, tid: u32) -> Option<Arc<Task>> {
    task(ns.kernel(tid)?)
}

/// Finds a process (also a zombie) by the number it has in `ns`.
pub fn process_in(ns: &PidNs, pid: u32) -> Option<Arc<Process>> {
    process(ns.kernel(pid)?)
}

/// The processes that are to be seen from `ns`, with the numbers they have there, in their order; zombies included.
pub fn processes_in(ns: &PidNs) -> Vec<(u32, Arc<Process>)> {
    if ns.is_root() {
        let all = processes().into_iter();
        return all
            .filter(|p| p.pid_ns().is_within(ns))
            .map(|p| (p.pid, p))
            .collect();
    }
    let numbers = ns.all();
    let t = TABLE.lock();
    let known = |(n, k): &(u32, u32)| Some((*n, t.processes.get(k)?.clone()));
    numbers.iter().filter_map(known).collect()
}

/// All processes in pid order, zombies included.
pub fn processes() -> Vec<Arc<Process>> {
    TABLE.lock().processes.values().cloned().collect()
}

/// Processes of group `pgid`.
pub fn group(pgid: u32) -> Vec<Arc<Process>> {
    processes()
        .into_iter()
        .filter(|p| p.family.lock().pgid == pgid)
        .collect()
}

/// Number of live tasks.
pub fn task_count() -> usize {
    TABLE.lock().tasks.len()
}

/// The last number given out.
pub fn last_id() -> u32 {
    TABLE.lock().last
}

/// Makes `task`, the only one left of its process, the leader: it takes the leader's number (execve by another thread).
pub fn become_leader(task: &Arc<Task>) {
    let mut t = TABLE.lock();
    let old = task.tid();
    t.tasks.remove(&old);
    task.id
        .store(task.process.pid, core::sync::atomic::Ordering::Relaxed);
    t.tasks.insert(task.process.pid, task.clone());
    drop(t);
    task.process.container.dismiss();
    let numbers = core::mem::replace(&mut *task.numbers.lock(), task.process.numbers.clone());
    drop(numbers);
}

/// A rough figure of memory that processes use, bytes: private writable areas that were counted as touched.
pub fn resident_estimate() -> u64 {
    // The machine knows better; until it tells, assume a small footprint per process.
    const PER_PROCESS: u64 = 2 << 20;
    TABLE.lock().processes.len() as u64 * PER_PROCESS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ns::pid::root;

    #[test]
    fn the_first_child_is_the_init() {
        crate::tests::boot();
        let ns = PidNs::create(None, root()).unwrap();
        let container = crate::container::first();
        let first = allocate_child(container, &ns).unwrap();
        let second = allocate_child(container, &ns).unwrap();
        assert_eq!((first.own(), second.own()), (1, 2));
        assert_ne!(first.number(), second.number());
        assert_eq!(ns.kernel(2), Some(second.number()));
        assert_eq!(allocate(container, &ns, true), Err(Errno::EBUSY));
        let outside = allocate_child(container, root()).unwrap();
        assert_eq!((outside.own(), outside.shown(&ns)), (outside.number(), 0));
        drop(first);
        assert_eq!(allocate_child(container, &ns), Err(Errno::ENOMEM));
        // Nobody is known by them, though they are taken.
        assert!(process_in(&ns, 2).is_none() && processes_in(&ns).is_empty());
        (0..3).for_each(|_| container.dismiss());
    }
}
