//! The containers of the sandbox: the one it was made for, and those that joined it to share its processes or IPC objects.
//! Each has a root, namespaces, a filter, limits and a first process of its own.

mod build;

use crate::fs::path::Path;
use crate::fs::tty::Tty;
use crate::fs::tty::WinSize;
use crate::ns::Namespaces;
use crate::sched::wait::{WaitQueue, wait_killable};
use crate::seccomp::Mode;
use crate::signal::send::slay;
use crate::task::table::PID_MAX;
use crate::task::{Process, table};
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use hal::boot;
use hal::sync::{Once, SpinLock};
use hal::thread::Nursery;
use qlib::control::{ContainerId, Event, ExecId, ProcessSpec};

pub use build::create;

/// What a container is set up with before its first process.
pub struct Setup {
    /// Its root directory.
    pub root: Path,
    /// Its first process.
    pub init: ProcessSpec,
    /// Its filter.
    pub seccomp: Mode,
    /// What its processes see.
    pub namespaces: Arc<Namespaces>,
    /// Its first process is the init of its pid namespace.
    pub first_of_pids: bool,
    /// Where the host starts its processes, if it joined the sandbox and they are processes of the host.
    pub nursery: Option<Nursery>,
}

/// A container.
pub struct Container {
    /// Which it is.
    pub id: ContainerId,
    /// Set when it is created.
    pub setup: Once<Setup>,
    /// Its first process was started.
    pub started: AtomicBool,
    /// No process of it may be started any more: its first one has ended, or its host side is gone.
    pub ending: AtomicBool,
    /// Terminals of processes the host started, by [`ExecId`].
    pub terminals: SpinLock<BTreeMap<u32, Weak<Tty>>>,
    /// The size of its first process's terminal, told before that was started.
    pub init_size: SpinLock<WinSize>,
    /// Whether its processes stand still.
    pub frozen: AtomicBool,
    /// Where they do.
    thaw: WaitQueue,
    /// Bytes; `u64::MAX`: no limit.
    memory_limit: AtomicU64,
    /// Tasks; `u64::MAX`: no limit.
    pids_limit: AtomicU64,
    /// Tasks it has, and zombies.
    tasks: AtomicU64,
    oom_kills: AtomicU64,
}

/// All but the first, by number.
static JOINED: SpinLock<BTreeMap<u32, Arc<Container>>> = SpinLock::new(BTreeMap::new());

/// The container that the sandbox was made for. Its limits are those of BootInfo until QVisor changes them.
pub fn first() -> &'static Arc<Container> {
    static FIRST: Once<Arc<Container>> = Once::new();
    FIRST.call_once(|| {
        let (memory, pids) =
            boot::try_info().map_or((u64::MAX, u64::MAX), |b| (b.memory_limit, b.pids_limit));
        Arc::new(Container::new(ContainerId::FIRST, memory, pids))
    })
}

/// The container numbered `id`.
pub fn find(id: ContainerId) -> Option<Arc<Container>> {
    match id {
        ContainerId::FIRST => Some(first().clone()),
        id => JOINED.lock().get(&id.0).cloned(),
    }
}

/// That of the calling task; the first one on kernel threads.
pub fn current() -> Arc<Container> {
    crate::task::current().map_or_else(|| first().clone(), |t| t.process.container.clone())
}

/// Every container.
pub fn all() -> Vec<Arc<Container>> {
    let mut all = Vec::from([first().clone()]);
    all.extend(JOINED.lock().values().cloned());
    all
}

impl Container {
    fn new(id: ContainerId, memory: u64, pids: u64) -> Self {
        Self {
            id,
            setup: Once::new(),
            started: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            terminals: SpinLock::new(BTreeMap::new()),
            init_size: SpinLock::new(WinSize::default()),
            frozen: AtomicBool::new(false),
            thaw: WaitQueue::new(),
            memory_limit: AtomicU64::new(memory),
            pids_limit: AtomicU64::new(pids),
            tasks: AtomicU64::new(0),
            oom_kills: AtomicU64::new(0),
        }
    }

    /// Bytes of memory it may use; `u64::MAX`: no limit.
    pub fn memory_limit(&self) -> u64 {
        self.memory_limit.load(Ordering::Relaxed)
    }

    /// Tasks it may have; `u64::MAX`: no limit.
    pub fn pids_limit(&self) -> u64 {
        self.pids_limit.load(Ordering::Relaxed)
    }

    /// Takes new limits; 0 leaves one as it is.
    pub fn change_limits(&self, memory: u64, pids: u64) {
        for (limit, new) in [(&self.memory_limit, memory), (&self.pids_limit, pids)] {
            if new != 0 {
                limit.store(new, Ordering::Relaxed);
            }
        }
    }

    /// Counts one more task, where the limit allows it.
    pub fn admit(&self) -> bool {
        let limit = self.pids_limit().min(u64::from(PID_MAX) / 2);
        let more = |n| (n < limit).then_some(n + 1);
        self.tasks
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .is_ok()
    }

    /// Counts one task less.
    pub fn dismiss(&self) {
        self.tasks.fetch_sub(1, Ordering::Relaxed);
    }

    /// Tasks, and zombies.
    pub fn tasks(&self) -> u64 {
        self.tasks.load(Ordering::Relaxed)
    }

    /// Its processes, zombies included.
    pub fn processes(self: &Arc<Self>) -> Vec<Arc<Process>> {
        let mut all = table::processes();
        all.retain(|p| Arc::ptr_eq(&p.container, self));
        all
    }

    /// The process that the host started as `exec`.
    pub fn by_exec_id(self: &Arc<Self>, exec: ExecId) -> Option<Arc<Process>> {
        let mut all = self.processes().into_iter();
        all.find(|p| *p.exec_id.lock() == Some(exec))
    }

    /// Processes of it that were killed for lack of memory so far.
    pub fn oom_kills(&self) -> u64 {
        self.oom_kills.load(Ordering::Relaxed)
    }

    /// Kills its process that uses most memory.
    pub fn out_of_memory(self: &Arc<Self>) {
        kill_largest(self.processes());
    }

    /// Sends an event of it to QVisor.
    pub fn send(&self, event: &Event) {
        crate::control::send(self.id, event);
    }

    /// Has its processes stand still where they next would go on in their program, or lets them go on.
    pub fn freeze(self: &Arc<Self>, stop: bool) {
        self.frozen.store(stop, Ordering::SeqCst);
        if !stop {
            self.thaw.wake_all();
            return;
        }
        for p in self.processes() {
            let tasks = p.tasks.lock().clone();
            for t in tasks {
                t.notify(crate::task::task::work::FREEZE);
            }
        }
    }

    /// Keeps the calling task, which is its, from going on while it is frozen. One that is killed goes.
    pub fn stand_still(&self) {
        let go = || (!self.frozen.load(Ordering::SeqCst)).then_some(());
        let _ = wait_killable(&self.thaw, go);
    }

    /// Ends what is left of a container that joined the sandbox, and forgets it once nothing is.
    pub fn end(self: &Arc<Self>) {
        self.ending.store(true, Ordering::SeqCst);
        self.freeze(false);
        self.settle();
    }

    /// Looks after a container that is ending: kills what still runs of it; once nothing does, forgets it.
    pub fn settle(self: &Arc<Self>) {
        if !self.ending.load(Ordering::SeqCst) || self.id == ContainerId::FIRST {
            return;
        }
        let mut live = self.processes();
        live.retain(|p| !p.has_ended());
        // One that was forked while its parent was being killed has not heard of it.
        for p in &live {
            slay(p);
        }
        if !live.is_empty() {
            return;
        }
        let last = JOINED.lock().remove(&self.id.0);
        if last.is_some() {
            if let Some(nursery) = self.setup.get().and_then(|s| s.nursery.as_ref()) {
                nursery.close();
            }
            self.send(&Event::Ended);
        }
    }
}

/// Kills the process that uses most memory of `among` (by the size of its areas, adjusted by oom_score_adj).
pub fn kill_largest(among: Vec<Arc<Process>>) {
    let score = |p: &Arc<Process>| {
        // The areas' lock sleeps: the spin lock is let go of before.
        let mm = p.tasks.lock().first().and_then(|t| t.mm());
        let size = mm.map_or(0, |m| m.vmas.lock().total());
        let adj = i64::from(p.oom_score_adj.load(Ordering::Relaxed));
        let limit = p.container.memory_limit().min(1 << 40) as i64;
        (size as i64).saturating_add(limit / 1000 * adj)
    };
    let live = among.into_iter().filter(|p| !p.has_ended());
    if let Some(victim) = live.max_by_key(score) {
        log::warn!("out of memory: killed process {}", victim.pid);
        victim.container.oom_kills.fetch_add(1, Ordering::Relaxed);
        victim.container.send(&Event::OomKilled { pid: victim.pid });
        slay(&victim);
    }
}
