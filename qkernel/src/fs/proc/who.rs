//! The process or thread a directory of `/proc` is about.

use crate::fs::pseudo::Meta;
use crate::mm::Mm;
use crate::ns::pid::{Pid, PidNs};
use crate::task::creds::Creds;
use crate::task::inspect::Seeker;
use crate::task::process::StopState;
use crate::task::{Process, Task, table};
use alloc::sync::{Arc, Weak};
use core::sync::atomic::Ordering;
use qlib::Errno;

/// A process, or one of its threads. It may be gone by the time it is asked.
#[derive(Clone)]
pub struct Who {
    /// Process id in the root namespace.
    pid: u32,
    /// Thread id there; the pid for the process as a whole.
    tid: u32,
    /// Whose numbers are shown: the pid namespace of the procfs.
    pub ns: Arc<PidNs>,
    /// It is one thread (`/proc/PID/task/TID`), not the process.
    pub thread: bool,
    process: Weak<Process>,
    born_ns: u64,
}

impl Who {
    /// A process.
    pub fn process(p: &Arc<Process>, ns: &Arc<PidNs>) -> Self {
        Self {
            ns: ns.clone(),
            pid: p.pid,
            tid: p.pid,
            thread: false,
            process: Arc::downgrade(p),
            born_ns: p.start_ns,
        }
    }
    /// A thread.
    pub fn task(t: &Task, ns: &Arc<PidNs>) -> Self {
        Self {
            ns: ns.clone(),
            pid: t.process.pid,
            tid: t.tid(),
            thread: true,
            process: Arc::downgrade(&t.process),
            born_ns: t.start_ns,
        }
    }
    /// Thread id, or the pid for the process as a whole, in all namespaces from the procfs's down.
    pub fn numbers(&self, p: &Process) -> Pid {
        let task = self.thread.then(|| self.live().ok()).flatten();
        task.map_or_else(|| p.numbers.clone(), |t| t.numbers.lock().clone())
    }
    /// Whether the task is one of the process.
    pub fn has(&self, t: &Task) -> bool {
        t.process.pid == self.pid
    }
    /// Inode number of entry `k` of the directory: stable for the life of the process, different for its number's next.
    pub fn ino(&self, k: u64) -> u64 {
        let thread = u64::from(self.thread);
        u64::from(self.tid) << 36 | (self.born_ns >> 12 & 0x7fff) << 21 | thread << 20 | (k & 0xf_ffff)
    }
    /// The process.
    ///
    /// # Errors
    /// ESRCH when it was reaped.
    pub fn get(&self) -> Result<Arc<Process>, Errno> {
        let p = self.process.upgrade().ok_or(Errno::ESRCH)?;
        let here = table::process(self.pid).is_some_and(|q| Arc::ptr_eq(&p, &q));
        if here { Ok(p) } else { Err(Errno::ESRCH) }
    }
    /// The thread; for a process its leader, or another thread when the leader has ended.
    ///
    /// # Errors
    /// ESRCH when there is none (zombies).
    pub fn live(&self) -> Result<Arc<Task>, Errno> {
        let p = self.get()?;
        let tasks = p.tasks.lock();
        let exact = tasks.iter().find(|t| t.tid() == self.tid);
        match exact {
            Some(t) => Ok(t.clone()),
            None if self.thread => Err(Errno::ESRCH),
            None => tasks.first().cloned().ok_or(Errno::ESRCH),
        }
    }
    /// The memory; `None` for zombies.
    pub fn mm(&self) -> Option<Arc<Mm>> {
        self.live().ok()?.mm()
    }
    /// Credentials; of a zombie those it ended with.
    pub fn creds(&self) -> Option<Arc<Creds>> {
        match self.live() {
            Ok(t) => Some(t.creds()),
            Err(_) => self.get().ok()?.last.lock().as_ref().map(|l| l.1.clone()),
        }
    }
    /// What `stat` tells of entry `k`: owned by the process's user, but only its directory is when it is not dumpable.
    pub fn meta(&self, k: u64, perm: u32) -> Meta {
        let owner = self.get().ok().and_then(|p| {
            let dumpable = p.dumpable.load(Ordering::Relaxed) == 1;
            let creds = self.creds()?;
            (dumpable || perm == 0o555).then_some((creds.euid, creds.egid))
        });
        let (uid, gid) = owner.unwrap_or((0, 0));
        Meta {
            dev: self.ns.proc_dev(),
            ino: self.ino(k),
            perm,
            uid,
            gid,
        }
    }
    /// The state letter of `stat` and `status`.
    pub fn state(&self) -> u8 {
        let Ok(p) = self.get() else { return b'X' };
        if p.zombie.load(Ordering::SeqCst) {
            return b'Z';
        }
        let Ok(t) = self.live() else { return b'Z' };
        if t.exited.load(Ordering::Relaxed) {
            return b'Z';
        }
        if t.trace.lock().stop.is_some() {
            return b't';
        }
        if matches!(p.stop.lock().0, StopState::Stopped(_)) {
            return b'T';
        }
        if crate::task::current().is_some_and(|me| Arc::ptr_eq(&me, &t)) {
            return b'R';
        }
        match t.state_letter() {
            l if l.is_ascii_alphabetic() => l,
            _ => b'S',
        }
    }
    /// Checks that the caller may look inside (PTRACE_MODE_READ). Source: `ptrace(2)`.
    ///
    /// # Errors
    /// EACCES; ESRCH.
    pub fn inspect(&self) -> Result<(), Errno> {
        let Some(me) = crate::task::current() else {
            return Ok(());
        };
        let p = self.get()?;
        if Arc::ptr_eq(&me.process, &p) {
            return Ok(());
        }
        let mine = me.creds();
        let seeker = Seeker {
            creds: &mine,
            uid: mine.fsuid,
            gid: mine.fsgid,
            caps: mine.caps.effective,
        };
        if seeker.may_inspect(&*self.live()?) {
            Ok(())
        } else {
            Err(Errno::EACCES)
        }
    }
}
