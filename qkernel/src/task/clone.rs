//! New tasks and processes. Source: `clone(2)`, `fork(2)`, `vfork(2)`.

use crate::container::Container;
use crate::fs::fdtable::FdTable;
use crate::fs::path::FsContext;
use crate::mm::Mm;
use crate::ns::pid::Pid;
use crate::ns::{self, new};
use crate::sched::wait::{WaitQueue, wait_killable};
use crate::signal::{PendingSignals, SIG_IGN, SigAction, signo};
use crate::syscall::Ctx;
use crate::task::creds::{Creds, cap};
use crate::task::process::{Family, Process, RLIMITS, SigHandlers, StopState, Usage};
use crate::task::task::{Start, TaskSignals, VforkDone, work};
use crate::task::{Session, Task, table};
use crate::trace::{event, option};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};
use hal::sync::{Once, SpinLock};
use hal::thread::{NewSpace, Thread};
use hal::{FpState, UserContext};
use qlib::Errno;

/// Flags of `clone(2)`.
#[allow(missing_docs)]
pub mod flag {
    pub const CSIGNAL: u64 = 0xff;
    pub const VM: u64 = 0x100;
    pub const FS: u64 = 0x200;
    pub const FILES: u64 = 0x400;
    pub const SIGHAND: u64 = 0x800;
    pub const PIDFD: u64 = 0x1000;
    pub const VFORK: u64 = 0x4000;
    pub const PARENT: u64 = 0x8000;
    pub const THREAD: u64 = 0x1_0000;
    pub const SETTLS: u64 = 0x8_0000;
    pub const PARENT_SETTID: u64 = 0x10_0000;
    pub const CHILD_CLEARTID: u64 = 0x20_0000;
    pub const CHILD_SETTID: u64 = 0x100_0000;
    pub const CLEAR_SIGHAND: u64 = 0x1_0000_0000;
    pub const SYSVSEM: u64 = 0x4_0000;
}

/// What to clone.
#[derive(Clone, Copy, Debug, Default)]
pub struct CloneArgs {
    /// [`flag`] bits.
    pub flags: u64,
    /// Signal to the parent at the end.
    pub exit_signal: u32,
    /// Stack pointer of the child, 0 = the parent's.
    pub stack: u64,
    /// Where the parent stores the tid.
    pub parent_tid: u64,
    /// Where the child stores and clears its tid.
    pub child_tid: u64,
    /// Thread pointer.
    pub tls: u64,
    /// Where the pidfd goes.
    pub pidfd: u64,
}

/// What a new [`Task`] is made of.
pub struct Parts {
    /// Numbers.
    pub tid: Pid,
    /// Its process.
    pub process: Arc<Process>,
    /// Who it is.
    pub creds: Arc<Creds>,
    /// Descriptors.
    pub files: Arc<FdTable>,
    /// Root, cwd, umask.
    pub fs: Arc<FsContext>,
    /// Memory; `None`: set once the machine made it.
    pub mm: Option<Arc<Mm>>,
}

/// Builds a task over a fresh kernel thread.
pub fn make_task(thread: &Arc<Thread>, parts: Parts) -> Arc<Task> {
    Arc::new(Task {
        id: AtomicU32::new(parts.tid.number()),
        numbers: SpinLock::new(parts.tid),
        process: parts.process,
        thread: Arc::downgrade(thread),
        creds: SpinLock::new(parts.creds),
        files: SpinLock::new(parts.files),
        fs: SpinLock::new(parts.fs),
        namespaces: SpinLock::new(crate::ns::first().clone()),
        mm: SpinLock::new(parts.mm),
        signals: SpinLock::new(TaskSignals::default()),
        work: AtomicU32::new(0),
        entry: AtomicU32::new(0),
        seccomp: SpinLock::new(crate::seccomp::Mode::Off),
        trace: SpinLock::new(crate::trace::Trace::default()),
        trace_wait: WaitQueue::new(),
        comm: SpinLock::new([0; 16]),
        clear_tid: AtomicU64::new(0),
        robust_list: AtomicU64::new(0),
        state: AtomicU32::new(u32::from(b'R')),
        exited: AtomicBool::new(false),
        cpu: crate::time::cpu::CpuTime::default(),
        counts: SpinLock::default(),
        looked_ns: AtomicU64::new(0),
        cpus: SpinLock::default(),
        policy: SpinLock::default(),
        nice: AtomicU32::new(20),
        death_signal: AtomicU32::new(0),
        timer_slack_ns: AtomicU64::new(50_000),
        start_ns: hal::clock::monotonic_ns(),
        restart: SpinLock::new(None),
        calls: SpinLock::new(Vec::new()),
        start: SpinLock::new(None),
        vfork: SpinLock::new(None),
        exit_status: AtomicI32::new(0),
    })
}

/// Builds a process without tasks.
pub fn make_process(
    pid: Pid,
    container: Arc<Container>,
    parent: Option<Weak<Process>>,
    group: Pid,
    session: Option<Arc<Session>>,
    handlers: Arc<SigHandlers>,
    rlimits: [(u64, u64); RLIMITS],
) -> Process {
    Process {
        pid: pid.number(),
        numbers: pid,
        container,
        tasks: SpinLock::new(Vec::new()),
        family: SpinLock::new(Family {
            parent,
            children: Vec::new(),
            pgid: group.number(),
            group,
            session,
        }),
        handlers: SpinLock::new(handlers),
        pending: SpinLock::new(PendingSignals::default()),
        child_wait: WaitQueue::new(),
        signal_wait: WaitQueue::new(),
        exit_wait: WaitQueue::new(),
        exit_status: AtomicI32::new(-1),
        zombie: AtomicBool::new(false),
        claimed: AtomicBool::new(false),
        exit_signal: AtomicU32::new(0),
        parent_execed: AtomicBool::new(false),
        stop: SpinLock::new((StopState::Running, false, false)),
        traced: SpinLock::new(crate::trace::tracer::Traced::default()),
        owed: AtomicBool::new(false),
        owed_to: SpinLock::new(None),
        rlimits: SpinLock::new(rlimits),
        exe: SpinLock::new(None),
        usage: SpinLock::new(Usage::default()),
        child_usage: SpinLock::new(Usage::default()),
        start_ns: hal::clock::monotonic_ns(),
        exec_id: SpinLock::new(None),
        timers: SpinLock::new(crate::time::ProcessTimers::default()),
        cpu_alarms: SpinLock::new(crate::time::cpu::CpuAlarms::default()),
        did_exec: AtomicBool::new(false),
        exit_uid: AtomicU32::new(0),
        dumpable: AtomicU32::new(1),
        subreaper: AtomicBool::new(false),
        oom_score_adj: AtomicI32::new(0),
        io: [const { AtomicU64::new(0) }; 4],
        personality: AtomicU32::new(0),
        last: SpinLock::new(None),
        sem_undo: SpinLock::new(BTreeMap::new()),
    }
}

/// Handlers that are all SIG_DFL.
pub fn default_handlers() -> Arc<SigHandlers> {
    Arc::new(SigHandlers {
        actions: SpinLock::new([SigAction::default(); 64]),
    })
}

/// Whether children come into the namespace that the parent is in.
fn children_stay(parent: &Task) -> bool {
    Arc::ptr_eq(parent.pid_ns(), &parent.namespaces.lock().pid)
}

fn check(parent: &Task, args: &CloneArgs) -> Result<(), Errno> {
    use flag::*;
    let f = args.flags;
    let bad = f & (SIGHAND | VM) == SIGHAND
        || f & (THREAD | SIGHAND) == THREAD
        || f & (CLEAR_SIGHAND | SIGHAND) == CLEAR_SIGHAND | SIGHAND
        || f & (THREAD | PIDFD) == THREAD | PIDFD
        || f & FS != 0 && f & (new::NS | new::USER) != 0
        || f & (SYSVSEM | new::IPC) == SYSVSEM | new::IPC
        || f & THREAD != 0 && (f & (new::USER | new::PID) != 0 || !children_stay(parent))
        // Init has no siblings: nobody would wait for them.
        || f & PARENT != 0 && parent.process.is_init()
        || args.exit_signal > signo::MAX;
    if bad {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

/// RLIMIT_NPROC: tasks of the same real user, zombies included. Root and administrators have no limit.
fn check_count(parent: &Task) -> Result<(), Errno> {
    const RLIMIT_NPROC: usize = 6;
    let limit = parent.process.rlimits.lock()[RLIMIT_NPROC].0;
    let creds = parent.creds();
    if limit == u64::MAX
        || creds.uid == 0
        || creds.capable(cap::SYS_RESOURCE)
        || creds.capable(cap::SYS_ADMIN)
    {
        return Ok(());
    }
    let count = |p: &Arc<Process>| {
        let tasks = p.tasks.lock();
        match p.last.lock().as_ref() {
            Some((_, c)) if tasks.is_empty() => usize::from(c.uid == creds.uid),
            _ => tasks.iter().filter(|t| t.creds().uid == creds.uid).count(),
        }
    };
    let all: usize = table::processes().iter().map(count).sum();
    if all as u64 >= limit {
        Err(Errno::EAGAIN)
    } else {
        Ok(())
    }
}

/// Clones the calling task; returns the child's tid.
///
/// # Errors
/// As `clone(2)`.
pub fn clone(ctx: &mut Ctx<'_>, args: &CloneArgs) -> Result<u64, Errno> {
    let f = args.flags;
    let parent = ctx.task;
    check(parent, args)?;
    check_count(parent)?;
    let fs = parent.fs();
    let fs = if f & flag::FS != 0 { fs } else { fs.copy() };
    let fresh = match f & new::ALL {
        0 => None,
        kinds => Some(ns::make(parent, &fs, kinds)?),
    };
    let mm = parent.mm().ok_or(Errno::ESRCH)?;
    let set = fresh
        .as_ref()
        .map_or_else(|| parent.namespaces(), |f| f.set.clone());
    let pid = table::allocate_child(&parent.process.container, &set.pid)?;
    let tid = pid.clone();
    // By which the parent knows the child.
    let number = pid.shown(parent.pid_ns());
    let thread = hal::thread::new_thread("task");
    let process = if f & flag::THREAD != 0 {
        parent.process.clone()
    } else {
        new_process(parent, pid, args)
    };
    let files = parent.files();
    let task = make_task(
        &thread,
        Parts {
            tid,
            process: process.clone(),
            creds: parent.creds(),
            files: if f & flag::FILES != 0 { files } else { files.copy() },
            fs,
            mm: (f & flag::VM != 0).then(|| mm.clone()),
        },
    );
    task.set_namespaces(set);
    if let Some(c) = fresh.and_then(|f| f.creds) {
        *task.creds.lock() = c;
    }
    inherit(parent, &task, args);
    let mut regs = *ctx.regs;
    prepare_registers(&mut regs, args);
    let mut fp = FpState::initial();
    hal::user::save_fp(&mut fp);
    let set_tid = if f & flag::CHILD_SETTID != 0 {
        args.child_tid
    } else {
        0
    };
    *task.start.lock() = Some(Box::new(Start {
        regs,
        fp: Some(fp),
        set_tid,
    }));
    let done = (f & flag::VFORK != 0).then(|| Arc::new(VforkDone::default()));
    *task.vfork.lock() = done.clone();
    thread.set_data(task.clone());

    // The parent learns the number before the child can run, and a bad address is no error.
    if f & flag::PARENT_SETTID != 0 {
        let _ = hal::user::copy_out(args.parent_tid, &number.to_le_bytes());
    }
    if f & flag::PIDFD != 0 {
        let fd = crate::task::pidfd::install(parent, &process, 0);
        fd.and_then(|fd| hal::user::copy_out(args.pidfd, &fd.0.to_le_bytes()))
            .inspect_err(|_| parent.process.container.dismiss())?;
    }
    publish(parent, &task, f);
    crate::seccomp::inherit(parent, &task);
    let traced = crate::trace::begin_traced(parent, &task, what_of(args).0);
    if let Err(e) = start(&task, &thread, &mm, f) {
        if traced {
            crate::trace::tracer::unlink(&task, 0);
        }
        unpublish(&task);
        return Err(e);
    }
    if f & flag::THREAD == 0 {
        crate::time::cpu::limit_changed(&process);
    }
    // By which the tracer knows it.
    let tracer = crate::trace::tracer_of(parent);
    let child = tracer.map_or(0, |t| u64::from(task.tid_in(t.pid_ns())));
    drop((task, thread, mm, process));
    if traced {
        crate::trace::event_stop(ctx, what_of(args).1, child);
    }
    if let Some(done) = done {
        let _ = wait_killable(&done.queue, || done.done.load(Ordering::SeqCst).then_some(()));
        if crate::trace::wants(ctx.task, option::VFORK_DONE) {
            crate::trace::event_stop(ctx, event::VFORK_DONE, child);
        }
    }
    Ok(u64::from(number))
}

/// The option by which a tracer hears of such a child, and the event.
fn what_of(args: &CloneArgs) -> (u32, u32) {
    if args.flags & flag::VFORK != 0 {
        (option::VFORK, event::VFORK)
    } else if args.exit_signal != signo::SIGCHLD {
        (option::CLONE, event::CLONE)
    } else {
        (option::FORK, event::FORK)
    }
}

fn new_process(parent: &Arc<Task>, pid: Pid, args: &CloneArgs) -> Arc<Process> {
    let p = &parent.process;
    let f = args.flags;
    let handlers = p.handlers.lock().clone();
    let handlers = if f & flag::SIGHAND != 0 {
        handlers
    } else {
        let mut actions = *handlers.actions.lock();
        if f & flag::CLEAR_SIGHAND != 0 {
            for a in actions.iter_mut().filter(|a| a.handler != SIG_IGN) {
                *a = SigAction::default();
            }
        }
        Arc::new(SigHandlers {
            actions: SpinLock::new(actions),
        })
    };
    let (group, session, grandparent) = {
        let fam = p.family.lock();
        (fam.group.clone(), fam.session.clone(), fam.parent.clone())
    };
    let up = if f & flag::PARENT != 0 {
        grandparent
    } else {
        Some(Arc::downgrade(p))
    };
    let rlimits = *p.rlimits.lock();
    let child = make_process(pid, p.container.clone(), up, group, session, handlers, rlimits);
    let signal = if f & flag::PARENT != 0 {
        p.exit_signal.load(Ordering::Relaxed)
    } else {
        args.exit_signal
    };
    child.exit_signal.store(signal, Ordering::Relaxed);
    *child.exe.lock() = p.exe.lock().clone();
    child
        .dumpable
        .store(p.dumpable.load(Ordering::Relaxed), Ordering::Relaxed);
    child
        .oom_score_adj
        .store(p.oom_score_adj.load(Ordering::Relaxed), Ordering::Relaxed);
    child
        .personality
        .store(p.personality.load(Ordering::Relaxed), Ordering::Relaxed);
    Arc::new(child)
}

fn inherit(parent: &Task, task: &Task, args: &CloneArgs) {
    let f = args.flags;
    {
        let from = parent.signals.lock();
        let (blocked, alt) = (from.blocked, from.alt_stack);
        drop(from);
        let mut to = task.signals.lock();
        to.blocked = blocked;
        // A thread has no alternate stack; a process keeps the parent's, and so does vfork.
        if f & flag::VM == 0 || f & flag::VFORK != 0 {
            to.alt_stack = alt;
        }
    }
    *task.comm.lock() = *parent.comm.lock();
    *task.cpus.lock() = parent.cpus.lock().clone();
    let (policy, nice) = parent
        .policy
        .lock()
        .inherited(parent.nice.load(Ordering::Relaxed));
    *task.policy.lock() = policy;
    task.nice.store(nice, Ordering::Relaxed);
    task.timer_slack_ns
        .store(parent.timer_slack_ns.load(Ordering::Relaxed), Ordering::Relaxed);
    if f & flag::CHILD_CLEARTID != 0 {
        task.clear_tid.store(args.child_tid, Ordering::Relaxed);
    }
}

fn prepare_registers(regs: &mut UserContext, args: &CloneArgs) {
    regs.set_return(0);
    regs.end_syscall();
    if args.stack != 0 {
        regs.set_sp(args.stack);
    }
    if args.flags & flag::SETTLS != 0 {
        regs.set_tls(args.tls);
    }
}

fn publish(parent: &Arc<Task>, task: &Arc<Task>, f: u64) {
    let process = &task.process;
    process.tasks.lock().push(task.clone());
    if f & flag::THREAD == 0 {
        let _tree = table::TREE.lock();
        let up = process.family.lock().parent.as_ref().and_then(|w| w.upgrade());
        if let Some(up) = up {
            up.family.lock().children.push(process.clone());
        }
    }
    table::insert(task);
    if process.container.frozen.load(Ordering::SeqCst) {
        task.work.fetch_or(work::FREEZE, Ordering::SeqCst);
    }
    // A group exit that began meanwhile takes the new thread along.
    if f & flag::THREAD != 0 && parent.killed() {
        task.notify(work::KILL);
    }
    // And so does the end of a namespace.
    if process.pid_ns().is_over() {
        crate::signal::send::slay(process);
    }
}

fn unpublish(task: &Arc<Task>) {
    let process = &task.process;
    process.tasks.lock().retain(|t| !Arc::ptr_eq(t, task));
    table::remove_task(task);
    if process.pid == task.tid() {
        let up = process.family.lock().parent.take().and_then(|w| w.upgrade());
        if let Some(up) = up {
            up.family.lock().children.retain(|c| !Arc::ptr_eq(c, process));
        }
        table::remove_process(process.pid);
    }
}

fn start(task: &Arc<Task>, thread: &Arc<Thread>, mm: &Arc<Mm>, f: u64) -> Result<(), Errno> {
    if f & flag::VM != 0 {
        return hal::thread::start(thread, NewSpace::Shared, run);
    }
    // The areas must not change while the machine copies what they describe.
    let vmas = mm.vmas.lock();
    let copy = vmas.clone();
    let cell = Once::new();
    hal::thread::start(thread, NewSpace::Fork(&cell), run)?;
    drop(vmas);
    if let Some(space) = cell.get() {
        let forked = mm.forked(space.clone(), copy);
        *task.mm.lock() = Some(forked);
    }
    task.started();
    Ok(())
}

/// First code of a new task's kernel thread: it leaves for the app.
pub fn run() {
    let Some((regs, fp)) = first_steps() else { return };
    hal::user::enter(&regs, fp.as_ref());
}

fn first_steps() -> Option<(UserContext, Option<FpState>)> {
    let task = crate::task::current()?;
    task.wait_started();
    let start = task.start.lock().take()?;
    let Start {
        mut regs,
        fp,
        set_tid,
    } = *start;
    if set_tid != 0 {
        let _ = hal::user::copy_out(set_tid, &task.own_tid().to_le_bytes());
    }
    let mut ctx = Ctx {
        task: &task,
        regs: &mut regs,
    };
    if !crate::signal::deliver::before_return(&mut ctx) {
        crate::task::exit::finish(&task);
        return None;
    }
    Some((regs, fp))
}
