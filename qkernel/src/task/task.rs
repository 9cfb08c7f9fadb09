//! A task: one thread of an app.

use crate::fs::fdtable::FdTable;
use crate::fs::path::FsContext;
use crate::mm::Mm;
use crate::ns::Namespaces;
use crate::ns::pid::{Pid, PidNs};
use crate::sched::wait::WaitQueue;
use crate::signal::{PendingSignals, SigSet};
use crate::task::cpus::CpuSet;
use crate::task::creds::Creds;
use crate::task::policy::Policy;
use crate::task::process::{Process, Usage};
use crate::time::cpu::CpuTime;
use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};
use hal::sync::SpinLock;
use hal::thread::{Counts, Thread};
use hal::{FpState, UserContext};

/// Bits of [`Task::work`]: what must be done before the task returns to the app.
pub mod work {
    /// Look for signals.
    pub const SIGNAL: u32 = 1;
    /// The task must end (its group exits or execs).
    pub const KILL: u32 = 2;
    /// Run what other tasks asked ([`super::Task::run_on`]).
    pub const CALL: u32 = 4;
    /// Stop for the tracer.
    pub const TRACE: u32 = 8;
    /// Stand still while the container does.
    pub const FREEZE: u32 = 16;
}

/// Bits of [`Task::entry`]: what must be done before a system call runs.
pub mod entry {
    /// Ask the seccomp mode.
    pub const SECCOMP: u32 = 1;
    /// Stop for the tracer before and after.
    pub const TRACE: u32 = 2;
    /// The task is traced at all.
    pub const TRACED: u32 = 4;
}

/// Signal state of one task.
#[derive(Default)]
pub struct TaskSignals {
    /// Blocked signals.
    pub blocked: SigSet,
    /// The mask to restore after a handler ran, set by `sigsuspend`, `ppoll` and the like.
    pub saved: Option<SigSet>,
    /// Signals for this task alone.
    pub pending: PendingSignals,
    /// Alternate stack: base, flags, size.
    pub alt_stack: (u64, u32, u64),
    /// Signals `sigtimedwait` waits for: they count as deliverable though blocked.
    pub awaited: SigSet,
}

/// One thread of an app.
pub struct Task {
    /// Thread id in the root pid namespace; see [`Task::tid`]. It changes when a thread that is not the leader calls
    /// execve and becomes the leader.
    pub id: AtomicU32,
    /// Thread id in its own namespace and those above it; see [`Task::own_tid`].
    pub numbers: SpinLock<Pid>,
    /// The thread group.
    pub process: Arc<Process>,
    /// The kernel thread, which owns the task.
    pub thread: Weak<Thread>,
    /// Who it is.
    pub creds: SpinLock<Arc<Creds>>,
    /// Descriptors; shared with CLONE_FILES.
    pub files: SpinLock<Arc<FdTable>>,
    /// Root, cwd, umask; shared with CLONE_FS.
    pub fs: SpinLock<Arc<FsContext>>,
    /// What it sees; the user namespace is in [`Task::creds`].
    pub namespaces: SpinLock<Arc<Namespaces>>,
    /// Memory; `None` once it exits.
    pub mm: SpinLock<Option<Arc<Mm>>>,
    /// Signal state. Lock order: after the process's signal lock.
    pub signals: SpinLock<TaskSignals>,
    /// [`work`] bits.
    pub work: AtomicU32,
    /// [`entry`] bits.
    pub entry: AtomicU32,
    /// What confines the task's calls; [`entry::SECCOMP`] is set when something does.
    pub seccomp: SpinLock<crate::seccomp::Mode>,
    /// Tracing; [`entry::TRACED`] is set while somebody does. Lock order: after the tracer's list.
    pub trace: SpinLock<crate::trace::Trace>,
    /// Where the task waits while it is stopped for its tracer.
    pub trace_wait: WaitQueue,
    /// Name, NUL-padded (`PR_SET_NAME`).
    pub comm: SpinLock<[u8; 16]>,
    /// Where to store 0 and wake a futex when the task ends (CLONE_CHILD_CLEARTID).
    pub clear_tid: AtomicU64,
    /// Head of the robust futex list.
    pub robust_list: AtomicU64,
    /// Waiting for a vfork child, or `R`/`S`/`D`/`T`/`Z`/`X` as `/proc` shows it.
    pub state: AtomicU32,
    /// Has left its process.
    pub exited: AtomicBool,
    /// CPU time when last looked.
    pub cpu: CpuTime,
    /// What else it did when it last looked itself.
    pub counts: SpinLock<Counts>,
    /// When [`Task::cpu`] was looked at, monotonic ns.
    pub looked_ns: AtomicU64,
    /// CPUs it may run on.
    pub cpus: SpinLock<CpuSet>,
    /// Its scheduling policy.
    pub policy: SpinLock<Policy>,
    /// Nice value + 20.
    pub nice: AtomicU32,
    /// `PR_SET_PDEATHSIG`.
    pub death_signal: AtomicU32,
    /// Timer slack, ns.
    pub timer_slack_ns: AtomicU64,
    /// Start time, monotonic ns.
    pub start_ns: u64,
    /// The call `restart_syscall` continues: deadline and what to do.
    pub restart: SpinLock<Option<crate::time::Restart>>,
    /// Jobs other tasks gave this one (memory of its address space); run at [`work::CALL`].
    pub calls: SpinLock<Vec<Box<dyn FnOnce() + Send>>>,
    /// Registers a new task starts with; taken when it first runs.
    pub start: SpinLock<Option<Box<Start>>>,
    /// The parent that waits in vfork until this task execs or ends.
    pub vfork: SpinLock<Option<Arc<VforkDone>>>,
    /// Wait status of this thread's own exit.
    pub exit_status: AtomicI32,
}

/// What a new task leaves for the app with.
pub struct Start {
    /// Integer registers.
    pub regs: UserContext,
    /// FP state of the parent; `None` = initial.
    pub fp: Option<FpState>,
    /// Where to store the tid (CLONE_CHILD_SETTID), or 0.
    pub set_tid: u64,
}

/// Tells a vfork parent that its memory is its own again.
#[derive(Default)]
pub struct VforkDone {
    /// The child is gone from the memory.
    pub done: AtomicBool,
    /// Where the parent waits.
    pub queue: WaitQueue,
}

impl Task {
    /// Thread id in the root pid namespace, by which the kernel knows it.
    pub fn tid(&self) -> u32 {
        self.id.load(Ordering::Relaxed)
    }
    /// Thread id in its own pid namespace.
    pub fn own_tid(&self) -> u32 {
        if self.pid_ns().is_root() {
            self.tid()
        } else {
            self.numbers.lock().own()
        }
    }
    /// Thread id in `ns`, 0 when it is not to be seen from there.
    pub fn tid_in(&self, ns: &PidNs) -> u32 {
        if ns.is_root() {
            self.tid()
        } else {
            self.numbers.lock().shown(ns)
        }
    }
    /// The pid namespace it lives in; its children may come into another.
    pub fn pid_ns(&self) -> &Arc<PidNs> {
        self.process.pid_ns()
    }
    /// Whether an interruptible wait must end.
    pub fn interrupted(&self) -> bool {
        self.work.load(Ordering::SeqCst) & (work::SIGNAL | work::KILL | work::TRACE) != 0
    }
    /// Whether the task is being killed.
    pub fn killed(&self) -> bool {
        self.work.load(Ordering::SeqCst) & work::KILL != 0
    }
    /// Sets work bits and makes the task look at them.
    pub fn notify(&self, bits: u32) {
        self.work.fetch_or(bits, Ordering::SeqCst);
        if let Some(t) = self.thread.upgrade() {
            t.kick();
        }
    }
    /// Stores the CPU time used so far; called by the task itself.
    pub fn look_at_cpu(&self, now_ns: u64) {
        self.cpu.note(hal::thread::cpu_time_ns());
        self.looked_ns.store(now_ns, Ordering::Relaxed);
    }
    /// What it used, when last looked at.
    pub fn usage(&self) -> Usage {
        Usage {
            user_ns: self.cpu.user_ns(),
            system_ns: self.cpu.system_ns(),
            counts: *self.counts.lock(),
        }
    }
    /// Looks at the CPU time used so far, whoever asks; `false`: it cannot be seen from here.
    pub fn see_cpu(&self) -> bool {
        let time = self.thread.upgrade().and_then(|t| hal::thread::cpu_time_of(&t));
        if let Some(time) = time {
            self.cpu.note(time);
        }
        time.is_some() || self.exited.load(Ordering::SeqCst)
    }
    /// Runs the jobs that other tasks gave this one; called by the task itself, also while it waits.
    pub fn run_calls(&self) {
        self.work.fetch_and(!work::CALL, Ordering::SeqCst);
        let calls = core::mem::take(&mut *self.calls.lock());
        for f in calls {
            f();
        }
    }
    /// A snapshot of the credentials.
    pub fn creds(&self) -> Arc<Creds> {
        self.creds.lock().clone()
    }
    /// The descriptor table.
    pub fn files(&self) -> Arc<FdTable> {
        self.files.lock().clone()
    }
    /// Root, cwd and umask.
    pub fn fs(&self) -> Arc<FsContext> {
        self.fs.lock().clone()
    }
    /// Its namespaces.
    pub fn namespaces(&self) -> Arc<Namespaces> {
        self.namespaces.lock().clone()
    }
    /// Enters other namespaces.
    pub fn set_namespaces(&self, to: Arc<Namespaces>) {
        let old = core::mem::replace(&mut *self.namespaces.lock(), to);
        drop(old);
    }
    /// Whether another task has the same root and working directory.
    pub fn shares_fs(&self) -> bool {
        let own = self.fs();
        let users = |p: Arc<Process>| {
            let tasks = p.tasks.lock().clone();
            tasks.iter().filter(|t| Arc::ptr_eq(&t.fs(), &own)).count()
        };
        crate::task::table::processes()
            .into_iter()
            .map(users)
            .sum::<usize>()
            > 1
    }
    /// Gives the task a root and working directory of its own.
    pub fn unshare_fs(&self) {
        if self.shares_fs() {
            let own = self.fs().copy();
            let old = core::mem::replace(&mut *self.fs.lock(), own);
            drop(old);
        }
    }
    /// The memory, unless the task has ended.
    pub fn mm(&self) -> Option<Arc<Mm>> {
        self.mm.lock().clone()
    }
    /// Sets the name: at most 15 bytes count.
    pub fn set_name(&self, name: &[u8]) {
        let mut comm = [0; 16];
        let n = name.len().min(15);
        comm[..n].copy_from_slice(&name[..n]);
        self.set_comm(comm);
    }
    /// Sets the NUL-padded name. The host shows what a task calls itself, not what another calls it.
    pub fn set_comm(&self, comm: [u8; 16]) {
        *self.comm.lock() = comm;
        let me = hal::thread::current();
        if self.thread.upgrade().is_some_and(|t| Arc::ptr_eq(&t, &me)) {
            hal::thread::set_host_name(&comm);
        }
    }
    /// Tells a vfork parent that the memory is its own again.
    pub fn end_vfork(&self) {
        let done = self.vfork.lock().take();
        if let Some(d) = done {
            d.done.store(true, Ordering::SeqCst);
            d.queue.wake_all();
        }
    }
    /// Tells a forked task that its memory is described.
    pub fn started(&self) {
        if let Some(t) = self.thread.upgrade() {
            t.unpark();
        }
    }
    /// Waits until the memory is described (fork).
    pub fn wait_started(&self) {
        while self.mm.lock().is_none() {
            hal::thread::park(None);
        }
    }
    /// The name without padding.
    pub fn name(&self) -> alloc::vec::Vec<u8> {
        let comm = self.comm.lock();
        comm.iter().copied().take_while(|b| *b != 0).collect()
    }
    /// The state letter of `/proc/PID/stat`.
    pub fn state_letter(&self) -> u8 {
        self.state.load(Ordering::Relaxed) as u8
    }
}
