//! The end of tasks and processes. Source: `_exit(2)`, `exit_group(2)`, `credentials(7)` (orphans), `wait(2)`.

use crate::fs::fdtable;
use crate::ns::pid::INIT;
use crate::sched::wait::wait_until;
use crate::sched::wait::{Events, WaitError};
use crate::signal::info::code;
use crate::signal::send::{slay, tell, to_group, to_process};
use crate::signal::{SIG_IGN, SigInfo, sa, signo};
use crate::task::process::StopState;
use crate::task::task::work;
use crate::task::{Process, Task, table};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use qlib::Errno;
use qlib::control::{Event, ExecId};

/// Ends the calling task: everything but the kernel thread itself.
pub fn finish(task: &Arc<Task>) {
    let p = task.process.clone();
    account(task);
    crate::ipc::futex::exit_task(task);
    clear_tid(task);
    let mm = task.mm.lock().take();
    task.end_vfork();
    drop(mm);
    let files = task.files();
    // One reference here and one in the task: nobody else has the table.
    if Arc::strong_count(&files) <= 2 {
        for f in files.clear() {
            fdtable::close(f);
        }
    }
    drop(files);
    *task.files.lock() = fdtable::FdTable::new();
    let namespaces = task.namespaces();
    task.set_namespaces(crate::ns::first().clone());
    task.exited.store(true, Ordering::SeqCst);
    task.state.store(u32::from(b'X'), Ordering::Relaxed);
    *p.last.lock() = Some((task.name(), task.creds()));
    let last = {
        let mut tasks = p.tasks.lock();
        tasks.retain(|t| !Arc::ptr_eq(t, task));
        tasks.is_empty()
    };
    {
        p.usage.lock().add(&task.usage());
    }
    if !last {
        // It may have been the one that was asked to look.
        crate::time::cpu::plan(&p);
    }
    table::remove_task(task);
    crate::trace::tracer::task_ended(task, last);
    p.signal_wait.wake_all();
    if last {
        crate::ipc::semaphore::exit_process(&p, &namespaces.ipc);
        if p.exit_status.load(Ordering::SeqCst) == -1 {
            p.exit_status
                .store(task.exit_status.load(Ordering::Relaxed), Ordering::SeqCst);
        }
        end_process(&p, task);
    }
}

/// CLONE_CHILD_CLEARTID: stores 0 and wakes who waits for the thread's end (`pthread_join`), while others use the memory.
pub fn clear_tid(task: &Task) {
    let addr = task.clear_tid.swap(0, Ordering::Relaxed);
    let mm = task.mm.lock().clone();
    if let Some(mm) = mm
        && addr != 0
        && hal::user::copy_out(addr, &0u32.to_le_bytes()).is_ok()
    {
        let _ = crate::ipc::futex::wake(&mm, addr, 1);
    }
}

/// Stores what the calling task used.
pub fn account(task: &Task) {
    task.cpu.note(hal::thread::cpu_time_ns());
    *task.counts.lock() = hal::thread::counts();
}

fn end_process(p: &Arc<Process>, last: &Arc<Task>) {
    let status = p.exit_status.load(Ordering::SeqCst);
    crate::time::timers::forget(p);
    crate::trace::tracer::tracer_ended(p);
    if p.pid == INIT {
        // The pid space ends with its init.
        for other in table::processes() {
            if other.pid != INIT && !other.has_ended() {
                slay(&other);
            }
        }
    } else if p.is_init() {
        p.pid_ns().end(p);
        reap_children(p);
    }
    leave_session(p);
    reparent_children(p);
    *p.exe.lock() = None;
    let exec_id = *p.exec_id.lock();
    let (how, value) = match status & 0x7f {
        0 => (code::CLD_EXITED, status >> 8 & 0xff),
        sig if status & 0x80 != 0 => (code::CLD_DUMPED, sig),
        sig => (code::CLD_KILLED, sig),
    };
    p.exit_uid.store(last.creds().uid, Ordering::Relaxed);
    if p.owed.load(Ordering::SeqCst) {
        // Its tracer may see it at once, the parent does not.
        p.zombie.store(true, Ordering::SeqCst);
        p.exit_wait.wake_all();
    }
    if !crate::trace::tracer::process_ended(p) {
        tell_parent(p, how, value);
    }
    if let Some(exec) = exec_id {
        p.container.send(&Event::Exited {
            exec,
            status: status as u32,
        });
    }
    p.pid_ns().tell_ended();
    match exec_id {
        // What belongs to a container goes with its first process, whoever's pids it shares.
        Some(ExecId::INIT) => p.container.end(),
        _ => p.container.settle(),
    }
    if p.pid == INIT {
        crate::control::init_ended(status);
    }
}

/// Reaps the children that have ended.
fn reap_children(p: &Process) {
    let children = p.family.lock().children.clone();
    for c in children {
        if c.has_ended() && !c.owed.load(Ordering::SeqCst) && claim(&c) {
            reap(&c);
        }
    }
}

/// Makes a process that ended a zombie for its parent, and tells it; one that nobody will wait for is reaped.
pub fn tell_parent(p: &Arc<Process>, how: i32, value: i32) {
    // In one step: a parent that waits sees either a child that runs, or a zombie that is its own to take.
    let (parent, reaped) = {
        let _tree = table::TREE.lock();
        let parent = p.family.lock().parent.as_ref().and_then(|w| w.upgrade());
        let ignores =
            parent.as_ref().is_some_and(|q| ignores_children(q)) && p.end_signal() == signo::SIGCHLD;
        // Init and processes from outside have no parent that could wait.
        let reaped = ignores || parent.is_none();
        p.claimed.store(reaped, Ordering::SeqCst);
        p.owed.store(false, Ordering::SeqCst);
        p.zombie.store(true, Ordering::SeqCst);
        (parent, reaped)
    };
    p.exit_wait.wake_all();
    // Before the parent hears of it: a waiter that is woken must find that there is no child any more.
    if reaped {
        reap(p);
    }
    if let Some(parent) = &parent {
        tell(parent, p, how, value);
        parent.child_wait.wake_all();
    }
}

/// Whether children of `p` vanish without being waited for.
fn ignores_children(p: &Process) -> bool {
    let handlers = p.handlers.lock().clone();
    let actions = handlers.actions.lock();
    let a = actions[signo::SIGCHLD as usize - 1];
    a.handler == SIG_IGN || a.flags & sa::NOCLDWAIT != 0
}

/// A session leader that ends hangs its terminal up; a group left without a way to be continued gets SIGHUP, SIGCONT.
fn leave_session(p: &Arc<Process>) {
    let (session, pgid) = {
        let f = p.family.lock();
        (f.session.clone(), f.pgid)
    };
    let Some(session) = session else { return };
    if session.sid == p.pid {
        crate::fs::tty::leader_exited(&session);
    }
    // Only what its end orphans: other groups of its session that its children are in, and its own group where its parent
    // is in another one of the session. A group that was an orphan before is left alone.
    let another = |q: &Process| {
        let f = q.family.lock();
        let same_session = f.session.as_ref().is_some_and(|s| s.sid == session.sid);
        (same_session && f.pgid != pgid).then_some(f.pgid)
    };
    let (children, parent) = {
        let f = p.family.lock();
        (f.children.clone(), f.parent.as_ref().and_then(|w| w.upgrade()))
    };
    let mut groups: Vec<u32> = children.iter().filter_map(|c| another(c)).collect();
    if parent.is_some_and(|q| another(&q).is_some()) {
        groups.push(pgid);
    }
    groups.sort_unstable();
    groups.dedup();
    for g in groups {
        let members: Vec<_> = table::group(g)
            .into_iter()
            .filter(|m| !Arc::ptr_eq(m, p))
            .collect();
        let stopped = members.iter().any(|m| m.stop.lock().0 != StopState::Running);
        if stopped && members.iter().all(|m| orphan_without(m, p)) {
            to_group(g, SigInfo::kernel(signo::SIGHUP));
            to_group(g, SigInfo::kernel(signo::SIGCONT));
        }
    }
}

/// Whether `m` has no parent in another group of its session, once `gone` is away.
fn orphan_without(m: &Process, gone: &Arc<Process>) -> bool {
    let (pgid, session, parent) = {
        let f = m.family.lock();
        (
            f.pgid,
            f.session.as_ref().map(|s| s.sid),
            f.parent.as_ref().and_then(|w| w.upgrade()),
        )
    };
    match parent {
        None => true,
        Some(q) if Arc::ptr_eq(&q, gone) => true,
        Some(q) => {
            let f = q.family.lock();
            f.pgid == pgid || f.session.as_ref().map(|s| s.sid) != session
        }
    }
}

/// Gives the children to the nearest subreaper above in the pid namespace, else to its init.
fn reparent_children(p: &Arc<Process>) {
    let mut zombies = Vec::new();
    let heir = {
        let _tree = table::TREE.lock();
        let children = core::mem::take(&mut p.family.lock().children);
        if children.is_empty() {
            return;
        }
        let heir = find_heir(p);
        for c in children {
            c.family.lock().parent = heir.as_ref().map(Arc::downgrade);
            // What the parent asked for is not the heir's wish: its end could be sent anything.
            c.exit_signal.store(signo::SIGCHLD, Ordering::Relaxed);
            if c.zombie.load(Ordering::SeqCst) && !c.owed.load(Ordering::SeqCst) {
                zombies.push(c.clone());
            }
            if let Some(h) = &heir {
                h.family.lock().children.push(c.clone());
            }
            death_signal(&c);
        }
        heir
    };
    match heir {
        Some(h) => {
            if !zombies.is_empty() {
                if ignores_children(&h) {
                    zombies.iter().filter(|z| claim(z)).for_each(reap);
                }
                to_process(&h, SigInfo::kernel(signo::SIGCHLD));
                h.child_wait.wake_all();
            }
        }
        None => {
            zombies.iter().filter(|z| claim(z)).for_each(reap);
        }
    }
}

/// PR_SET_PDEATHSIG of a child whose parent ends.
fn death_signal(child: &Arc<Process>) {
    let tasks = child.tasks.lock().clone();
    for t in tasks {
        let sig = t.death_signal.load(Ordering::Relaxed);
        if sig != 0 {
            crate::signal::send::to_task(&t, SigInfo::kernel(sig));
        }
    }
}

fn find_heir(p: &Arc<Process>) -> Option<Arc<Process>> {
    if p.is_init() {
        return None;
    }
    let level = p.pid_ns().level;
    let mut at = p.family.lock().parent.as_ref().and_then(|w| w.upgrade());
    while let Some(q) = at {
        if q.pid_ns().level != level {
            break;
        }
        if q.subreaper.load(Ordering::Relaxed) && !q.zombie.load(Ordering::SeqCst) {
            return Some(q);
        }
        at = q.family.lock().parent.as_ref().and_then(|w| w.upgrade());
    }
    p.pid_ns()
        .init()
        .filter(|i| !Arc::ptr_eq(i, p) && !i.zombie.load(Ordering::SeqCst))
}

/// Takes a zombie for the caller to [`reap`]; `false`: another has it.
pub fn claim(p: &Process) -> bool {
    let _tree = table::TREE.lock();
    !p.claimed.swap(true, Ordering::SeqCst)
}

/// Forgets a zombie that the caller has claimed: takes it out of its parent's children and adds its usage to the parent's.
pub fn reap(p: &Arc<Process>) {
    let parent = {
        // A parent that ends meanwhile gives its children to another: then it is that one's list it is taken from.
        let _tree = table::TREE.lock();
        let parent = p.family.lock().parent.take().and_then(|w| w.upgrade());
        if let Some(parent) = &parent {
            parent.family.lock().children.retain(|c| !Arc::ptr_eq(c, p));
        }
        parent
    };
    if let Some(parent) = parent {
        let (own, of_children) = (*p.usage.lock(), *p.child_usage.lock());
        let mut sum = parent.child_usage.lock();
        for u in [own, of_children] {
            sum.add(&u);
        }
    }
    p.family.lock().session = None;
    table::remove_process(p.pid);
}

/// Ends every other task of the caller's process (execve) and makes the caller the leader.
///
/// # Errors
/// EAGAIN-like when the caller is being killed itself.
pub fn kill_other_tasks(task: &Arc<Task>) -> Result<(), Errno> {
    let p = &task.process;
    let others: Vec<_> = p
        .tasks
        .lock()
        .iter()
        .filter(|t| !Arc::ptr_eq(t, task))
        .cloned()
        .collect();
    for t in &others {
        t.notify(work::KILL);
    }
    drop(others);
    let alone = || (p.tasks.lock().len() == 1).then_some(());
    loop {
        // Signals for the caller must not end the wait; a kill of the whole group does.
        match wait_until(&p.signal_wait, Events::all(), None, alone) {
            Ok(()) => break,
            Err(WaitError::Interrupted) if task.killed() => return Err(Errno::EINTR),
            Err(_) => {
                if alone().is_some() {
                    break;
                }
                hal::thread::yield_now();
            }
        }
    }
    if task.tid() != p.pid {
        table::become_leader(task);
    }
    Ok(())
}
