//! POSIX message queues. Source: `mq_overview(7)`, Linux `ipc/mqueue.c`.

use crate::fs::anon;
use crate::fs::file::{File, FileOps, PollSource};
use crate::fs::inode::{Attr, FileType, SetAttr, Stat};
use crate::fs::pseudo::Meta;
use crate::ns::pid;
use crate::sched::wait::{Events, WaitError, WaitQueue, wait_until};
use crate::signal::info::{Fields, SigInfo};
use crate::task::Process;
use crate::task::creds::{Creds, cap};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::any::Any;
use hal::host::Dest;
use hal::sync::SpinLock;
use hal::uapi::general::{O_CREAT, O_EXCL, O_NONBLOCK, O_RDONLY, O_WRONLY};
use qlib::Errno;

/// Messages in a queue by default, and the most an unprivileged process may ask for.
pub const MAX_MESSAGES: u64 = 10;
/// Bytes in a message by default, and the most an unprivileged process may ask for.
pub const MAX_SIZE: u64 = 8192;
/// The limits with CAP_SYS_RESOURCE.
const HARD_MESSAGES: u64 = 65536;
const HARD_SIZE: u64 = 16 << 20;
/// Bytes all queues may hold together.
const MAX_TOTAL: u64 = 64 << 20;
/// Queues at most.
const MAX_QUEUES: usize = 256;
/// One past the largest priority (MQ_PRIO_MAX).
pub const MAX_PRIORITY: u32 = 32768;
/// Size of a queue's file. Source: `FILENT_SIZE` in Linux `ipc/mqueue.c`.
const STATUS_SIZE: u64 = 80;
/// `si_code` of a notification (SI_MESGQ).
const SI_MESGQ: i32 = -3;

/// All queues of a namespace by name.
#[derive(Default)]
pub struct Queues(SpinLock<BTreeMap<Vec<u8>, Arc<PosixQueue>>>);

impl Queues {
    /// The queue of a name.
    ///
    /// # Errors
    /// ENOENT.
    pub fn find(&self, name: &[u8]) -> Result<Arc<PosixQueue>, Errno> {
        self.0.lock().get(name).cloned().ok_or(Errno::ENOENT)
    }
    /// All names in order, with the queues' inode numbers.
    pub fn list(&self) -> Vec<(Vec<u8>, u64)> {
        self.0.lock().iter().map(|(n, q)| (n.clone(), q.ino)).collect()
    }
    /// Makes a queue of a new name; `size` is `mq_maxmsg` and `mq_msgsize`.
    ///
    /// # Errors
    /// EEXIST; EINVAL for a size that may not be; ENOSPC and EMFILE for too many.
    pub fn make(
        &self,
        name: &[u8],
        mode: u32,
        size: Option<(i64, i64)>,
        creds: &Creds,
    ) -> Result<Arc<PosixQueue>, Errno> {
        let mut all = self.0.lock();
        if all.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        let q = Arc::new(make(mode, size, creds)?);
        let total: u64 = all.values().map(|q| q.max_messages * q.max_size).sum();
        if all.len() >= MAX_QUEUES && !creds.capable(cap::SYS_RESOURCE) {
            return Err(Errno::ENOSPC);
        }
        if total + q.max_messages * q.max_size > MAX_TOTAL {
            return Err(Errno::EMFILE);
        }
        all.insert(name.to_vec(), q.clone());
        Ok(q)
    }
    /// Removes a name; open queues live on.
    ///
    /// # Errors
    /// ENOENT.
    pub fn remove(&self, name: &[u8]) -> Result<(), Errno> {
        let removed = self.0.lock().remove(name);
        removed.map(drop).ok_or(Errno::ENOENT)
    }
}

/// Who is told of the next message in an empty queue.
pub struct Notification {
    /// The process.
    pub process: Weak<Process>,
    /// Signal, 0 = none.
    pub signo: u32,
    /// `sigev_value`.
    pub value: u64,
}

#[derive(Default)]
struct State {
    /// Messages by descending priority, oldest first; the key is the priority turned over.
    messages: BTreeMap<(u32, u64), Vec<u8>>,
    serial: u64,
    waiting_receivers: u32,
    notify: Option<Notification>,
}

/// A queue.
pub struct PosixQueue {
    /// Messages at most.
    pub max_messages: u64,
    /// Bytes in a message at most.
    pub max_size: u64,
    attr: SpinLock<Attr>,
    ino: u64,
    state: SpinLock<State>,
    queue: WaitQueue,
}

/// An open queue.
pub struct QueueFile(pub Arc<PosixQueue>);

/// Opens or makes a queue; `size` is `mq_maxmsg` and `mq_msgsize`.
///
/// # Errors
/// As `mq_open(3)`.
pub fn open(
    name: &[u8],
    flags: u32,
    mode: u32,
    size: Option<(i64, i64)>,
    creds: &Creds,
) -> Result<Arc<File>, Errno> {
    check_name(name)?;
    let all = &crate::ns::current().ipc.posix;
    let queue = match flags & O_CREAT {
        0 => all.find(name)?,
        _ => match all.make(name, mode, size, creds) {
            Err(Errno::EEXIST) if flags & O_EXCL == 0 => all.find(name)?,
            made => made?,
        },
    };
    let want = match crate::fs::pipe::access(flags) {
        O_RDONLY => 4,
        O_WRONLY => 2,
        _ => 6,
    };
    let attr = queue.attr();
    if !creds.may_access(attr.mode, attr.uid, attr.gid, want) {
        return Err(Errno::EACCES);
    }
    let status = crate::fs::pipe::access(flags) | flags & O_NONBLOCK;
    Ok(File::new(Arc::new(QueueFile(queue)), None, status))
}

fn check_name(name: &[u8]) -> Result<(), Errno> {
    match name {
        [] => Err(Errno::ENOENT),
        n if n.contains(&b'/') || n == b"." || n == b".." => Err(Errno::EACCES),
        n if n.len() > 255 => Err(Errno::ENAMETOOLONG),
        _ => Ok(()),
    }
}

fn make(mode: u32, size: Option<(i64, i64)>, creds: &Creds) -> Result<PosixQueue, Errno> {
    let (max_messages, max_size) = match size {
        None => (MAX_MESSAGES, MAX_SIZE),
        Some((n, s)) if n > 0 && s > 0 => (n as u64, s as u64),
        Some(_) => return Err(Errno::EINVAL),
    };
    let (most, largest) = if creds.capable(cap::SYS_RESOURCE) {
        (HARD_MESSAGES, HARD_SIZE)
    } else {
        (MAX_MESSAGES, MAX_SIZE)
    };
    if max_messages > most || max_size > largest {
        return Err(Errno::EINVAL);
    }
    Ok(PosixQueue {
        max_messages,
        max_size,
        attr: SpinLock::new(Attr {
            mode: FileType::Regular.mode_bits() | mode & 0o777,
            uid: creds.fsuid,
            gid: creds.fsgid,
        }),
        ino: anon::next_ino(),
        state: SpinLock::default(),
        queue: WaitQueue::new(),
    })
}

/// Removes a name; open queues live on.
///
/// # Errors
/// ENOENT, EACCES.
pub fn unlink(name: &[u8], creds: &Creds) -> Result<(), Errno> {
    check_name(name)?;
    let all = &crate::ns::current().ipc.posix;
    if all.find(name)?.attr().uid != creds.fsuid && !creds.capable(cap::FOWNER) {
        return Err(Errno::EACCES);
    }
    all.remove(name)
}

fn wait_error(e: WaitError) -> Errno {
    e.restart_or(Errno::ETIMEDOUT)
}

impl PosixQueue {
    /// Mode and owner.
    pub fn attr(&self) -> Attr {
        *self.attr.lock()
    }
    /// Changes mode and owner.
    pub fn set_attr(&self, a: &SetAttr) {
        let mut attr = self.attr.lock();
        if let Some(m) = a.mode {
            attr.mode = attr.mode & !0o7777 | m & 0o7777;
        }
        attr.uid = a.uid.unwrap_or(attr.uid);
        attr.gid = a.gid.unwrap_or(attr.gid);
    }
    /// Status as a file of the queues' file system.
    pub fn stat(&self) -> Stat {
        let attr = self.attr();
        let meta = Meta {
            dev: crate::fs::mqueue::dev(),
            ino: self.ino,
            perm: attr.mode & 0o7777,
            uid: attr.uid,
            gid: attr.gid,
        };
        Stat {
            size: STATUS_SIZE,
            ..meta.stat(FileType::Regular)
        }
    }
    /// What a read gives.
    pub fn status(&self) -> String {
        let s = self.state.lock();
        let bytes: usize = s.messages.values().map(Vec::len).sum();
        let notify = s
            .notify
            .as_ref()
            .and_then(|n| Some((n.process.upgrade()?, n.signo)));
        let pid = notify
            .as_ref()
            .map_or(0, |(p, _)| p.numbers.shown(&pid::current()));
        let signo = notify.as_ref().map_or(0, |(_, s)| *s);
        // A notification without a signal is SIGEV_NONE, which is 1; SIGEV_SIGNAL is 0.
        let how = u32::from(notify.is_some() && signo == 0);
        format!("QSIZE:{bytes:<10} NOTIFY:{how:<5} SIGNO:{signo:<5} NOTIFY_PID:{pid:<6}\n")
    }
    /// Messages in it.
    pub fn len(&self) -> usize {
        self.state.lock().messages.len()
    }
    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sends.
    ///
    /// # Errors
    /// EMSGSIZE, EAGAIN, ETIMEDOUT, ERESTARTSYS.
    pub fn send(
        &self,
        bytes: Vec<u8>,
        priority: u32,
        nonblock: bool,
        deadline_ns: Option<u64>,
    ) -> Result<(), Errno> {
        if bytes.len() as u64 > self.max_size {
            return Err(Errno::EMSGSIZE);
        }
        let mut bytes = Some(bytes);
        let mut put = || {
            let mut s = self.state.lock();
            if s.messages.len() as u64 >= self.max_messages {
                return None;
            }
            let first = s.messages.is_empty() && s.waiting_receivers == 0;
            s.serial += 1;
            let key = (u32::MAX - priority, s.serial);
            s.messages.insert(key, bytes.take().unwrap_or_default());
            // Only a message that nobody waits for is told, and only once.
            Some(if first { s.notify.take() } else { None })
        };
        let told = match put() {
            Some(t) => t,
            None if nonblock => return Err(Errno::EAGAIN),
            None => wait_until(&self.queue, Events::OUT, deadline_ns, put).map_err(wait_error)?,
        };
        self.queue.wake(Events::IN | Events::RDNORM);
        if let Some(n) = told
            && n.signo != 0
            && let Some(p) = n.process.upgrade()
        {
            let (pid, uid) = match crate::task::current() {
                Some(t) => (t.process.pid, t.creds().uid),
                None => (0, 0),
            };
            let fields = Fields::Sender {
                pid,
                uid,
                value: n.value,
            };
            let info = SigInfo {
                signo: n.signo,
                errno: 0,
                code: SI_MESGQ,
                fields,
            };
            crate::signal::send::to_process(&p, info);
        }
        Ok(())
    }

    /// Receives the oldest message of the highest priority, with its priority.
    ///
    /// # Errors
    /// EMSGSIZE, EAGAIN, ETIMEDOUT, ERESTARTSYS.
    pub fn receive(
        &self,
        room: u64,
        nonblock: bool,
        deadline_ns: Option<u64>,
    ) -> Result<(Vec<u8>, u32), Errno> {
        if room < self.max_size {
            return Err(Errno::EMSGSIZE);
        }
        let take = || {
            let mut s = self.state.lock();
            s.messages.pop_first().map(|((p, _), m)| (m, u32::MAX - p))
        };
        let got = match take() {
            Some(m) => m,
            None if nonblock => return Err(Errno::EAGAIN),
            None => {
                self.state.lock().waiting_receivers += 1;
                let r = wait_until(&self.queue, Events::IN, deadline_ns, take);
                self.state.lock().waiting_receivers -= 1;
                r.map_err(wait_error)?
            }
        };
        self.queue.wake(Events::OUT | Events::WRNORM);
        Ok(got)
    }

    /// Registers who is told of the next message, or ends the registration of `process`.
    ///
    /// # Errors
    /// EBUSY when another is registered.
    pub fn notify(&self, process: &Arc<Process>, n: Option<Notification>) -> Result<(), Errno> {
        let mut s = self.state.lock();
        let own = |n: &Notification| core::ptr::eq(n.process.as_ptr(), Arc::as_ptr(process));
        let live = s.notify.as_ref().is_some_and(|n| n.process.strong_count() > 0);
        match n {
            Some(_) if live => return Err(Errno::EBUSY),
            Some(n) => s.notify = Some(n),
            None if s.notify.as_ref().is_some_and(own) => s.notify = None,
            None => {}
        }
        Ok(())
    }
}

impl FileOps for QueueFile {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn descriptor_closed(&self, _file: &File) {
        // A close by any descriptor ends the process's registration.
        if let Some(task) = crate::task::current() {
            let _ = self.0.notify(&task.process, None);
        }
    }
    fn read(&self, _file: &File, dst: &mut Dest<'_>, offset: u64) -> Result<usize, Errno> {
        let text = self.0.status();
        let rest = usize::try_from(offset)
            .ok()
            .and_then(|o| text.as_bytes().get(o..));
        dst.put(rest.unwrap_or_default())
    }
    fn stat(&self, _file: &File) -> Result<Stat, Errno> {
        Ok(self.0.stat())
    }
    fn poll(&self, _file: &File) -> Events {
        let n = self.0.len() as u64;
        let mut e = Events::empty();
        if n > 0 {
            e |= Events::IN | Events::RDNORM;
        }
        if n < self.0.max_messages {
            e |= Events::OUT | Events::WRNORM;
        }
        e
    }
    fn poll_source(&self) -> PollSource<'_> {
        PollSource::Queue(&self.0.queue)
    }
    fn describe(&self) -> Vec<u8> {
        b"mqueue:[queue]".to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(name: &[u8]) -> Arc<File> {
        open(name, O_CREAT | 2, 0o600, Some((3, 16)), &Creds::default()).unwrap()
    }
    fn of(f: &File) -> &PosixQueue {
        &f.downcast::<QueueFile>().unwrap().0
    }

    #[test]
    fn priorities_order_and_limits_hold() {
        let f = queue(b"order");
        let q = of(&f);
        for (m, p) in [(b"a", 1), (b"b", 5), (b"c", 1)] {
            q.send(m.to_vec(), p, true, None).unwrap();
        }
        assert_eq!(q.send(alloc::vec![1], 1, true, None), Err(Errno::EAGAIN));
        assert_eq!(q.send(alloc::vec![0; 17], 1, true, None), Err(Errno::EMSGSIZE));
        assert_eq!(q.receive(15, true, None), Err(Errno::EMSGSIZE));
        let mut got = Vec::new();
        while let Ok((m, p)) = q.receive(16, true, None) {
            got.push((m, p));
        }
        let want = [(b"b".to_vec(), 5), (b"a".to_vec(), 1), (b"c".to_vec(), 1)];
        assert_eq!(got, want);
        let past = Some(hal::clock::monotonic_ns() + 1_000_000);
        assert_eq!(q.receive(16, false, past), Err(Errno::ETIMEDOUT));
        unlink(b"order", &Creds::default()).unwrap();
    }

    #[test]
    fn names_have_rules() {
        let c = Creds::default();
        assert_eq!(open(b"none", 0, 0, None, &c).err(), Some(Errno::ENOENT));
        assert_eq!(open(b"a/b", O_CREAT, 0, None, &c).err(), Some(Errno::EACCES));
        assert_eq!(
            open(b"big", O_CREAT, 0, Some((11, 1)), &c).err(),
            Some(Errno::EINVAL)
        );
        let f = queue(b"twice");
        assert_eq!(
            open(b"twice", O_CREAT | O_EXCL, 0, None, &c).err(),
            Some(Errno::EEXIST)
        );
        let g = open(b"twice", 2, 0, None, &c).unwrap();
        of(&f).send(b"x".to_vec(), 0, true, None).unwrap();
        assert_eq!(of(&g).len(), 1);
        unlink(b"twice", &c).unwrap();
        assert_eq!(unlink(b"twice", &c), Err(Errno::ENOENT));
    }
}
