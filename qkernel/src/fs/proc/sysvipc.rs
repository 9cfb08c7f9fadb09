//! `/proc/sysvipc`: the System V objects of the reader's IPC namespace. Source: `sysvipc(7)`, Linux `ipc/shm.c`, `ipc/sem.c`,
//! `ipc/msg.c`.

use crate::fs::pseudo::{Text, Tree};
use crate::ipc::sysv::{MAX_OBJECTS, Perm, Registry};
use crate::ns::pid::{self, Pid};
use crate::put;
use alloc::sync::Arc;
use alloc::vec::Vec;
use qlib::Errno;

/// Flags of a segment's mode: it goes with its last attachment, it is locked. Source: `linux/shm.h`.
const DEST: u32 = 0o1000;
const LOCKED: u32 = 0o2000;

pub(super) fn fill(d: &mut Tree) {
    d.file("msg", queues).file("sem", sets).file("shm", segments);
}

/// In the order of their slots.
fn sorted<T>(objects: &Registry<T>) -> Vec<(i32, Arc<T>)> {
    let mut all = objects.list();
    all.sort_by_key(|(id, _)| *id as usize % MAX_OBJECTS);
    all
}

/// A process as the reader knows it.
fn shown(process: &Pid) -> u32 {
    process.shown(&pid::current())
}

fn owners(p: &Perm) -> [u32; 4] {
    let (uid, gid) = crate::ns::shown_owner(p.uid, p.gid);
    let (cuid, cgid) = crate::ns::shown_owner(p.cuid, p.cgid);
    [uid, gid, cuid, cgid]
}

fn queues() -> Result<Vec<u8>, Errno> {
    let mut t = Text::new();
    put!(
        t,
        "       key      msqid perms      cbytes       qnum lspid lrpid   uid   gid  cuid  cgid      stime      rtime      ctime\n"
    );
    for (id, queue) in sorted(&crate::ns::current().ipc.queues) {
        let q = queue.state.lock();
        let [uid, gid, cuid, cgid] = owners(&q.perm);
        put!(
            t,
            "{:10} {id:10}  {:4o}  {:10} {:10} {:5} {:5} {uid:5} {gid:5} {cuid:5} {cgid:5} {:10} {:10} {:10}\n",
            q.perm.key,
            q.perm.mode,
            q.bytes,
            q.messages.len(),
            shown(&q.last_pids.0),
            shown(&q.last_pids.1),
            q.times.0,
            q.times.1,
            q.times.2
        );
    }
    Ok(t.finish())
}

fn sets() -> Result<Vec<u8>, Errno> {
    let mut t = Text::new();
    put!(
        t,
        "       key      semid perms      nsems   uid   gid  cuid  cgid      otime      ctime\n"
    );
    for (id, set) in sorted(&crate::ns::current().ipc.sets) {
        let s = set.state.lock();
        let [uid, gid, cuid, cgid] = owners(&s.perm);
        put!(
            t,
            "{:10} {id:10}  {:4o} {:10} {uid:5} {gid:5} {cuid:5} {cgid:5} {:10} {:10}\n",
            s.perm.key,
            s.perm.mode,
            s.sems.len(),
            s.otime,
            s.ctime
        );
    }
    Ok(t.finish())
}

fn segments() -> Result<Vec<u8>, Errno> {
    crate::ipc::shm::sweep();
    let mut t = Text::new();
    put!(
        t,
        "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid      atime      dtime      ctime                   rss                  swap\n"
    );
    for (id, segment) in sorted(&crate::ns::current().ipc.segments) {
        let resident = segment.resident();
        let attached = segment.attachments();
        let s = segment.state.lock();
        let [uid, gid, cuid, cgid] = owners(&s.perm);
        let dest = if s.doomed { DEST } else { 0 };
        let locked = if s.locked { LOCKED } else { 0 };
        put!(
            t,
            "{:10} {id:10}  {:4o} {:21} {:5} {:5}  {attached:5} {uid:5} {gid:5} {cuid:5} {cgid:5} {:10} {:10} {:10} {resident:21} {:21}\n",
            s.perm.key,
            s.perm.mode | dest | locked,
            segment.size,
            shown(&s.pids.0),
            shown(&s.pids.1),
            s.times.0,
            s.times.1,
            s.times.2,
            0
        );
    }
    Ok(t.finish())
}
