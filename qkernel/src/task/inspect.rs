//! Who may look into a task. Source: `ptrace(2)`, "Ptrace access mode checking"; Linux `kernel/ptrace.c`.

use super::Task;
use super::creds::{Creds, cap};
use crate::ns::user;
use core::sync::atomic::Ordering;

/// Who wants to look.
pub struct Seeker<'a> {
    /// All its credentials.
    pub creds: &'a Creds,
    /// The user that counts: the real one, or the file system's.
    pub uid: u32,
    /// The group that counts.
    pub gid: u32,
    /// The capabilities that count: the permitted, or the effective.
    pub caps: u64,
}

impl Seeker<'_> {
    /// Whether it may look into `target`, a task of another process.
    pub fn may_inspect(&self, target: &Task) -> bool {
        let it = target.creds();
        if self.creds.capable_in(&it.user, cap::SYS_PTRACE) {
            return self.dumps(target);
        }
        let same = [it.uid, it.euid, it.suid].iter().all(|u| *u == self.uid)
            && [it.gid, it.egid, it.sgid].iter().all(|g| *g == self.gid);
        // The same user, but in another user namespace or with capabilities the seeker does not have.
        let within = user::same(&it.user, &self.creds.user) && it.caps.permitted & !self.caps == 0;
        same && within && self.dumps(target)
    }
    /// The memory of a program that may not be dumped belongs to the user namespace it was started in, wherever the task
    /// went since.
    fn dumps(&self, target: &Task) -> bool {
        if target.process.dumpable.load(Ordering::Relaxed) == 1 {
            return true;
        }
        let Some(mm) = target.mm() else { return true };
        let home = mm.owner.lock().user.clone();
        self.creds.capable_in(&home, cap::SYS_PTRACE)
    }
}
