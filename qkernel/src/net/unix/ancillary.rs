//! What a sender may attach: open files and credentials. Source: `unix(7)`, Linux `net/core/scm.c`.

use crate::fs::fdtable::Fd;
use crate::fs::file::File;
use crate::net::PeerCred;
use crate::net::cmsg::{self, MAX_RIGHTS, SCM_CREDENTIALS, SCM_RIGHTS, SOL_SOCKET};
use crate::task::creds::cap;
use crate::task::{Task, table};
use alloc::sync::Arc;
use alloc::vec::Vec;
use qlib::Errno;

/// What came with a message to send.
pub(super) struct Given {
    pub(super) rights: Vec<Arc<File>>,
    pub(super) cred: PeerCred,
}

/// Takes control data apart and checks it; without credentials the sender's own go along.
///
/// # Errors
/// EINVAL, EBADF, EPERM for credentials of somebody else.
pub(super) fn parse(control: &[u8]) -> Result<Given, Errno> {
    let task = crate::task::current();
    let mut given = Given {
        rights: Vec::new(),
        cred: task.as_deref().map(cred_of_sender).unwrap_or_default(),
    };
    if control.is_empty() {
        return Ok(given);
    }
    for m in cmsg::parse(control)? {
        if m.level != SOL_SOCKET {
            continue;
        }
        let task = task.as_deref().ok_or(Errno::EINVAL)?;
        match m.kind {
            SCM_RIGHTS => take_rights(task, m.data, &mut given.rights)?,
            SCM_CREDENTIALS => given.cred = check_cred(task, m.data)?,
            _ => return Err(Errno::EINVAL),
        }
    }
    Ok(given)
}

fn take_rights(task: &Task, data: &[u8], out: &mut Vec<Arc<File>>) -> Result<(), Errno> {
    if data.len() / 4 + out.len() > MAX_RIGHTS {
        return Err(Errno::EINVAL);
    }
    let files = task.files();
    for b in data.chunks_exact(4) {
        let file = files.get(Fd(i32::from_ne_bytes([b[0], b[1], b[2], b[3]])))?;
        if file.is_path_only() {
            return Err(Errno::EBADF);
        }
        out.push(file);
    }
    Ok(())
}

fn check_cred(task: &Task, data: &[u8]) -> Result<PeerCred, Errno> {
    let word = |i: usize| u32::from_ne_bytes([data[i], data[i + 1], data[i + 2], data[i + 3]]);
    if data.len() != 12 {
        return Err(Errno::EINVAL);
    }
    let c = task.creds();
    let uid = c.kernel_uid(word(4)).ok_or(Errno::EINVAL)?;
    let gid = c.kernel_gid(word(8)).ok_or(Errno::EINVAL)?;
    let ns = task.pid_ns();
    let pid_ok = word(0) == task.process.own_pid() || c.capable_in(&ns.owner, cap::SYS_ADMIN);
    let uid_ok = [c.uid, c.euid, c.suid].contains(&uid) || c.has(cap::SETUID);
    let gid_ok = [c.gid, c.egid, c.sgid].contains(&gid) || c.has(cap::SETGID);
    if !(pid_ok && uid_ok && gid_ok) {
        return Err(Errno::EPERM);
    }
    let named = table::process_in(ns, word(0)).map(|p| p.numbers.clone());
    let named = named.or_else(|| Some(table::task_in(ns, word(0))?.numbers.lock().clone()));
    let pid = named.ok_or(Errno::ESRCH)?;
    Ok(PeerCred { pid, uid, gid })
}

/// Who a message without explicit credentials comes from: the real ids, as Linux has it.
fn cred_of_sender(task: &Task) -> PeerCred {
    let c = task.creds();
    PeerCred {
        pid: task.process.numbers.clone(),
        uid: c.uid,
        gid: c.gid,
    }
}
