//! A process (thread group), its group and session.

use crate::container::Container;
use crate::fs::path::Path;
use crate::ns::pid::{INIT, Pid, PidNs};
use crate::sched::wait::WaitQueue;
use crate::signal::{PendingSignals, SigAction};
use crate::task::Task;
use crate::task::creds::Creds;
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};
use hal::sync::SpinLock;
use hal::thread::Counts;
use qlib::control::ExecId;

/// Number of RLIMIT_* resources.
pub const RLIMITS: usize = 16;

/// Signal handlers, shared with CLONE_SIGHAND.
pub struct SigHandlers {
    /// By signal number - 1.
    pub actions: SpinLock<[SigAction; 64]>,
}

/// Stopped or continued, as wait reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopState {
    /// Runs.
    Running,
    /// Stopped by the signal.
    Stopped(u32),
}

/// Links of the process tree. One lock for all of it: [`crate::task::table`].
#[derive(Default)]
pub struct Family {
    /// Parent.
    pub parent: Option<Weak<Process>>,
    /// Children, zombies included.
    pub children: Vec<Arc<Process>>,
    /// Process group.
    pub pgid: u32,
    /// The numbers that go with it.
    pub group: Pid,
    /// Session.
    pub session: Option<Arc<Session>>,
}

/// A session and its controlling terminal.
pub struct Session {
    /// Session id: the leader's pid.
    pub sid: u32,
    /// The numbers that go with it.
    pub numbers: Pid,
    /// Controlling terminal.
    pub tty: SpinLock<Option<Arc<crate::fs::tty::Tty>>>,
}

impl Session {
    /// One without a terminal.
    pub fn new(leader: &Pid) -> Arc<Self> {
        Arc::new(Self {
            sid: leader.number(),
            numbers: leader.clone(),
            tty: SpinLock::new(None),
        })
    }
}

impl Family {
    /// Enters a process group, which is in use or is to be the process's own.
    pub fn join(&mut self, pgid: u32) {
        self.pgid = pgid;
        self.group = Pid::of(pgid);
    }
}

/// Resource usage, ns and counts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// User time, ns.
    pub user_ns: u64,
    /// System time, ns.
    pub system_ns: u64,
    /// The rest.
    pub counts: Counts,
}

impl Usage {
    /// Adds another's.
    pub fn add(&mut self, other: &Self) {
        self.user_ns += other.user_ns;
        self.system_ns += other.system_ns;
        self.counts.add(&other.counts);
    }
}

/// A thread group.
pub struct Process {
    /// Process id in the root namespace, by which the kernel knows it.
    pub pid: u32,
    /// The container it belongs to.
    pub container: Arc<Container>,
    /// Process id in its own namespace and those above it.
    pub numbers: Pid,
    /// Live tasks.
    pub tasks: SpinLock<Vec<Arc<Task>>>,
    /// Parent, children, group, session.
    pub family: SpinLock<Family>,
    /// Handlers.
    pub handlers: SpinLock<Arc<SigHandlers>>,
    /// Signals for any task of the process.
    pub pending: SpinLock<PendingSignals>,
    /// Woken when a child changes state, and when a signal comes that signalfd watches.
    pub child_wait: WaitQueue,
    /// Woken when a signal becomes pending (signalfd, sigtimedwait).
    pub signal_wait: WaitQueue,
    /// Woken when the process ends (pidfd, vfork).
    pub exit_wait: WaitQueue,
    /// Wait status once the group exits; -1 before.
    pub exit_status: AtomicI32,
    /// All tasks are gone; the parent may reap, unless [`Process::claimed`]. Stays set.
    pub zombie: AtomicBool,
    /// Somebody has taken the zombie, or nobody may: set under [`crate::task::table::TREE`], by who reaps it.
    pub claimed: AtomicBool,
    /// Signal the parent gets at the end (SIGCHLD), 0 = none.
    pub exit_signal: AtomicU32,
    /// The parent that asked for that signal runs another program since: it gets SIGCHLD.
    pub parent_execed: AtomicBool,
    /// Stop state and whether the parent was told (stop, continue).
    pub stop: SpinLock<(StopState, bool, bool)>,
    /// What the process traces.
    pub traced: SpinLock<crate::trace::tracer::Traced>,
    /// Has ended, but a tracer that is not the parent must hear of it first: who, and the user it ran as.
    pub owed: AtomicBool,
    /// See [`Process::owed`].
    pub owed_to: SpinLock<Option<(Weak<Process>, u32)>>,
    /// Resource limits: soft, hard.
    pub rlimits: SpinLock<[(u64, u64); RLIMITS]>,
    /// The program.
    pub exe: SpinLock<Option<Path>>,
    /// Name and credentials of the last task that ended: what is still told of a zombie.
    pub last: SpinLock<Option<(Vec<u8>, Arc<Creds>)>>,
    /// Usage of tasks that ended.
    pub usage: SpinLock<Usage>,
    /// Usage of reaped children.
    pub child_usage: SpinLock<Usage>,
    /// Start time, monotonic ns.
    pub start_ns: u64,
    /// The host started it as this.
    pub exec_id: SpinLock<Option<ExecId>>,
    /// `setitimer`, `timer_create`.
    pub timers: SpinLock<crate::time::ProcessTimers>,
    /// Alarms on clocks of its CPU time. Lock order: before `tasks` and `usage`.
    pub cpu_alarms: SpinLock<crate::time::cpu::CpuAlarms>,
    /// Has called execve (setpgid of a child then fails).
    pub did_exec: AtomicBool,
    /// Real user id when the last task ended.
    pub exit_uid: AtomicU32,
    /// PR_SET_DUMPABLE.
    pub dumpable: AtomicU32,
    /// PR_SET_CHILD_SUBREAPER.
    pub subreaper: AtomicBool,
    /// oom_score_adj.
    pub oom_score_adj: AtomicI32,
    /// Bytes read and written by calls, and calls, for `/proc/PID/io`.
    pub io: [AtomicU64; 4],
    /// Personality.
    pub personality: AtomicU32,
    /// SysV semaphore undo entries by (semaphore set, index).
    pub sem_undo: SpinLock<BTreeMap<(u64, u32, u32), i32>>,
}

impl Process {
    /// Its pid namespace.
    pub fn pid_ns(&self) -> &Arc<PidNs> {
        self.numbers.ns()
    }
    /// Its number in its own namespace.
    pub fn own_pid(&self) -> u32 {
        self.numbers.own()
    }
    /// Whether it is the init of its namespace.
    pub fn is_init(&self) -> bool {
        self.numbers.own() == INIT
    }
    /// Whether all of its tasks are gone.
    pub fn has_ended(&self) -> bool {
        self.zombie.load(Ordering::SeqCst)
    }
    /// Its parent's number in `ns`, 0 when that is not to be seen from there.
    pub fn parent_in(&self, ns: &PidNs) -> u32 {
        let parent = self.family.lock().parent.as_ref().and_then(Weak::upgrade);
        parent.map_or(0, |p| p.numbers.shown(ns))
    }
    /// The real user id it runs as, or ran as.
    pub fn uid(&self) -> u32 {
        let live = self.tasks.lock().first().map(|t| t.creds().uid);
        live.unwrap_or_else(|| self.exit_uid.load(Ordering::Relaxed))
    }
    /// The signal its parent gets when it ends, 0 = none.
    pub fn end_signal(&self) -> u32 {
        if self.parent_execed.load(Ordering::Relaxed) {
            crate::signal::signo::SIGCHLD
        } else {
            self.exit_signal.load(Ordering::Relaxed)
        }
    }
}
