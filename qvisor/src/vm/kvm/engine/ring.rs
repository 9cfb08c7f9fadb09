//! The io_uring engine. One thread takes the guest's requests and drives the ring: data operations on files and pipes, and
//! readiness, go into it, with the guest's memory as their buffers; all else goes to workers. The guest never sees the ring.
//!
//! No seccomp filter sees what a ring does, so the ring is restricted to the few operations it is there for before it is
//! switched on (`IORING_REGISTER_RESTRICTIONS`): it opens, connects, and registers nothing.

use super::{MAX_WAITING, Spawn, WORKERS};
use crate::host;
use crate::seccomp::Role;
use crate::vm::kvm::rings::Area;
use crate::vm::kvm::service::{Service, held};
use io_uring::squeue::Entry;
use io_uring::types::{Fd, FsyncFlags};
use io_uring::{IoUring, opcode};
use qlib::qcall::{MAX_PAYLOAD, Op, Reply, Request};
use qlib::ring::{Broken, Consumer};
use qlib::{Errno, PhysAddr};
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::fs::FileType;
use std::collections::HashMap;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use zerocopy::{FromZeros, IntoBytes};

/// Operations submitted at one time; what waits in the kernel is not counted.
const ENTRIES: u32 = 256;
/// Completions the ring holds; the kernel keeps more aside.
const COMPLETIONS: u32 = 4096;
/// Requests on the way to the workers.
const JOBS: usize = 64;
/// `user_data` of the read of the doorbell.
const BELL: u64 = u64::MAX;
/// `user_data` of cancellations, whose results nobody waits for.
const CANCEL: u64 = u64::MAX - 1;
/// Offset that stands for the file's own position, to the guest and to the ring.
const CURRENT: u64 = u64::MAX;

/// What the ring may do.
const ALLOWED: [u8; 5] = [
    opcode::Read::CODE,
    opcode::Write::CODE,
    opcode::Fsync::CODE,
    opcode::PollAdd::CODE,
    opcode::AsyncCancel::CODE,
];

/// A ring that is switched on and restricted.
pub struct Ring(IoUring);

impl Ring {
    /// Makes a ring.
    ///
    /// # Errors
    /// The host's, where io_uring is forbidden (EPERM, ENOSYS), or older than Linux 5.10 (EINVAL).
    pub fn new() -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_r_disabled()
            .setup_cqsize(COMPLETIONS)
            .build(ENTRIES)?;
        let mut restrictions = ALLOWED.map(io_uring::register::Restriction::sqe_op);
        ring.submitter().register_restrictions(&mut restrictions)?;
        ring.submitter().register_enable_rings()?;
        Ok(Self(ring))
    }

    /// Puts an operation into the ring; it starts with the next [`Ring::wait`], or before.
    ///
    /// # Safety
    /// The operation's buffer stays mapped, and its descriptor open, until it completes.
    unsafe fn push(&mut self, entry: &Entry) -> io::Result<()> {
        loop {
            // SAFETY: as this function demands.
            if unsafe { self.0.submission().push(entry) }.is_ok() {
                return Ok(());
            }
            self.0.submit()?;
        }
    }

    /// Takes a completion, if there is one.
    fn completed(&mut self) -> Option<io_uring::cqueue::Entry> {
        self.0.completion().next()
    }

    /// Starts what was put in and waits for a completion.
    fn wait(&mut self) -> io::Result<()> {
        match self.0.submit_and_wait(1) {
            Ok(_) => Ok(()),
            // EBUSY: completions must be taken first.
            Err(e) if matches!(e.raw_os_error(), Some(libc::EINTR | libc::EBUSY | libc::EAGAIN)) => Ok(()),
            Err(e) => Err(e),
        }
    }
}

/// Starts the engine's thread and the workers.
pub fn start(
    ring: Ring,
    service: &Arc<Service>,
    submissions: Consumer<Area>,
    spawn: Spawn<'_>,
) -> io::Result<()> {
    let (jobs, waiting) = sync_channel(JOBS);
    let waiting = Arc::new(Mutex::new(waiting));
    for i in 0..WORKERS {
        let (s, waiting) = (service.clone(), waiting.clone());
        spawn(
            Role::Worker,
            format!("quark-qcall{i}"),
            Box::new(move || work(&s, &waiting)),
        )?;
    }
    let driver = Driver {
        ring,
        service: service.clone(),
        submissions,
        jobs,
        pending: HashMap::new(),
        polls: HashMap::new(),
        next: 0,
        bell: Box::new(0),
    };
    spawn(
        Role::Engine,
        "quark-ring".to_owned(),
        Box::new(move || driver.run()),
    )
}

fn work(service: &Service, waiting: &Mutex<Receiver<Request>>) {
    let mut payload = Vec::new();
    let mut data = Vec::new();
    loop {
        let Ok(request) = held(waiting).recv() else { return };
        if let Some(reply) = service.serve(&request, &mut payload, &mut data) {
            service.complete(reply);
        }
    }
}

/// What an operation in the ring is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Read,
    Write,
    Sync,
    Poll,
}

/// An operation in the ring.
struct Pending {
    tag: u64,
    kind: Kind,
    /// Open until the operation completes.
    _file: Arc<OwnedFd>,
}

/// Why the engine ends.
enum End {
    /// The guest broke the submission ring.
    Guest,
    /// The host's ring does not work any more.
    Host(io::Error),
}

impl From<Broken> for End {
    fn from(_: Broken) -> Self {
        Self::Guest
    }
}

impl From<io::Error> for End {
    fn from(e: io::Error) -> Self {
        Self::Host(e)
    }
}

struct Driver {
    ring: Ring,
    service: Arc<Service>,
    submissions: Consumer<Area>,
    jobs: SyncSender<Request>,
    pending: HashMap<u64, Pending>,
    /// Waits for readiness by tag, to be cancelled.
    polls: HashMap<u64, u64>,
    next: u64,
    /// Where the doorbell's count goes.
    bell: Box<u64>,
}

impl Driver {
    fn run(mut self) {
        match self.drive() {
            Ok(()) => {}
            Err(End::Guest) => {
                self.service.broken::<()>();
            }
            Err(End::Host(e)) => self.service.end(1, format!("io_uring: {e}")),
        }
        // What is still in the ring uses what this value holds; the process ends with the guest.
        std::mem::forget(self);
    }

    fn drive(&mut self) -> Result<(), End> {
        let mut asleep = false;
        let mut armed = false;
        loop {
            while !asleep {
                self.take_requests()?;
                asleep = self.submissions.sleep()?;
            }
            if !armed {
                self.arm_bell()?;
                armed = true;
            }
            self.ring.wait()?;
            while let Some(done) = self.ring.completed() {
                match done.user_data() {
                    BELL => {
                        armed = false;
                        asleep = false;
                        self.submissions.awake();
                    }
                    CANCEL => {}
                    id => self.finish(id, done.result()),
                }
            }
        }
    }

    fn arm_bell(&mut self) -> io::Result<()> {
        let fd = Fd(self.service.bells.submissions.as_raw_fd());
        let to: *mut u64 = &raw mut *self.bell;
        let entry = opcode::Read::new(fd, to.cast(), size_of::<u64>() as u32)
            .build()
            .user_data(BELL);
        // SAFETY: the word and the doorbell live as long as this value, which is never dropped.
        unsafe { self.ring.push(&entry) }
    }

    fn take_requests(&mut self) -> Result<(), End> {
        let mut request = Request::new_zeroed();
        while self.submissions.pop(request.as_mut_bytes())? {
            match self.take(&request) {
                Taken::Submitted => {}
                Taken::Known(result) => self.service.complete(Reply::of(request.tag, result)),
                Taken::NotOurs => {
                    // Waits when the workers are behind: the guest's next requests stay in its own ring. Workers end only
                    // with the process.
                    let _ = self.jobs.send(request);
                }
                Taken::Failed(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    fn take(&mut self, r: &Request) -> Taken {
        match Op::try_from(r.op) {
            Ok(Op::Read | Op::Write) => self.transfer(r),
            Ok(Op::Sync) => self.sync(r),
            Ok(Op::PollWait) => self.poll(r),
            Ok(Op::Cancel) => self.cancel(r),
            _ => match self.service.serve_in_order(r) {
                Some(result) => Taken::Known(result),
                None => Taken::NotOurs,
            },
        }
    }

    /// A read or write, from or to the guest's own memory.
    fn transfer(&mut self, r: &Request) -> Taken {
        let [offset, len, buffer, append, ..] = r.args;
        let file = match self.service.handles.get(r.handle) {
            Ok(file) => file,
            Err(e) => return Taken::Known(Err(e)),
        };
        let write = r.op == Op::Write as u32;
        let seeks = match rustix::fs::fstat(&*file).map(|s| FileType::from_raw_mode(s.st_mode)) {
            Ok(FileType::RegularFile | FileType::BlockDevice) => true,
            Ok(FileType::Fifo | FileType::CharacterDevice) => false,
            // Sockets have calls of their own, which never wait; a directory is an error; the rest is rare.
            _ => return Taken::NotOurs,
        };
        if seeks && offset != CURRENT && offset > i64::MAX as u64 {
            return Taken::Known(Err(Errno::EINVAL));
        }
        if !seeks && offset != CURRENT {
            return Taken::Known(Err(Errno::ESPIPE));
        }
        if write && len > MAX_PAYLOAD as u64 {
            return Taken::Known(Err(Errno::E2BIG));
        }
        let mut len = len.min(MAX_PAYLOAD as u64) as usize;
        let Some(at) = self.service.memory().pointer(PhysAddr(buffer), len) else {
            return Taken::Known(Err(Errno::EFAULT));
        };
        if !seeks {
            // The guest waits for readiness by itself, and must learn that it has to.
            len = match host::without_waiting(file.as_fd(), write, len) {
                Ok(len) => len,
                Err(e) => return Taken::Known(Err(e)),
            };
        }
        let fd = Fd(file.as_raw_fd());
        let offset = if seeks { offset } else { CURRENT };
        let (kind, entry) = if write {
            let flags = if append == host::APPEND && seeks {
                libc::RWF_APPEND
            } else {
                0
            };
            let offset = if flags != 0 { 0 } else { offset };
            let write = opcode::Write::new(fd, at, len as u32)
                .offset(offset)
                .rw_flags(flags);
            (Kind::Write, write.build())
        } else {
            (
                Kind::Read,
                opcode::Read::new(fd, at, len as u32).offset(offset).build(),
            )
        };
        self.submit(r.tag, kind, file, entry)
    }

    fn sync(&mut self, r: &Request) -> Taken {
        let file = match self.service.handles.get(r.handle) {
            Ok(file) => file,
            Err(e) => return Taken::Known(Err(e)),
        };
        let flags = if r.args[0] == 1 {
            FsyncFlags::DATASYNC
        } else {
            FsyncFlags::empty()
        };
        let entry = opcode::Fsync::new(Fd(file.as_raw_fd())).flags(flags).build();
        self.submit(r.tag, Kind::Sync, file, entry)
    }

    fn poll(&mut self, r: &Request) -> Taken {
        let file = match self.service.handles.get(r.handle) {
            Ok(file) => file,
            Err(e) => return Taken::Known(Err(e)),
        };
        let events = u32::from(r.args[0] as u16);
        let entry = opcode::PollAdd::new(Fd(file.as_raw_fd()), events).build();
        let id = self.next;
        let taken = self.submit(r.tag, Kind::Poll, file, entry);
        if matches!(taken, Taken::Submitted) {
            self.polls.insert(r.tag, id);
        }
        taken
    }

    fn cancel(&mut self, r: &Request) -> Taken {
        // Its own completion tells that it was cancelled, or that it was faster.
        let Some(id) = self.polls.get(&r.args[0]) else {
            return Taken::Known(Err(Errno::ENOENT));
        };
        let entry = opcode::AsyncCancel::new(*id).build().user_data(CANCEL);
        // SAFETY: a cancellation has neither buffer nor descriptor.
        match unsafe { self.ring.push(&entry) } {
            Ok(()) => Taken::Known(Ok(0)),
            Err(e) => Taken::Failed(e),
        }
    }

    fn submit(&mut self, tag: u64, kind: Kind, file: Arc<OwnedFd>, entry: Entry) -> Taken {
        if self.pending.len() >= MAX_WAITING {
            return Taken::Known(Err(Errno::ENOMEM));
        }
        let id = self.next;
        // The two highest are taken; a guest does not get there in centuries.
        self.next = (self.next + 1) % CANCEL;
        // SAFETY: the buffer is guest memory, which is mapped as long as the process lives; the file is kept in `pending`
        // until the completion.
        if let Err(e) = unsafe { self.ring.push(&entry.user_data(id)) } {
            return Taken::Failed(e);
        }
        self.pending.insert(
            id,
            Pending {
                tag,
                kind,
                _file: file,
            },
        );
        Taken::Submitted
    }

    fn finish(&mut self, id: u64, result: i32) {
        let Some(done) = self.pending.remove(&id) else {
            return;
        };
        if done.kind == Kind::Poll && self.polls.get(&done.tag) == Some(&id) {
            self.polls.remove(&done.tag);
        }
        let value = if result < 0 {
            Err(Errno(-result))
        } else {
            Ok(result as u64)
        };
        let mut reply = Reply::of(done.tag, value);
        if done.kind == Kind::Read {
            reply.data_len = value.unwrap_or(0) as u32;
        }
        self.service.complete(reply);
    }
}

/// What became of a request.
enum Taken {
    /// It is in the ring.
    Submitted,
    /// Its result is known.
    Known(Result<u64, Errno>),
    /// It is a worker's.
    NotOurs,
    /// The ring does not work.
    Failed(io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;
    use io_uring::types::OpenHow;

    /// Runs one operation; gives its result.
    fn run(ring: &mut Ring, entry: Entry) -> i32 {
        // SAFETY: the tests' buffers live longer than the operation, which is waited for.
        unsafe { ring.push(&entry.user_data(7)) }.unwrap();
        ring.wait().unwrap();
        let done = ring.completed().unwrap();
        assert_eq!(done.user_data(), 7);
        done.result()
    }

    fn ring() -> Option<Ring> {
        Ring::new()
            .map_err(|e| eprintln!("skipped: this host has no io_uring: {e}"))
            .ok()
    }

    #[test]
    fn the_restrictions_hold() {
        let Some(mut r) = ring() else { return };
        let (a, b) = rustix::pipe::pipe().unwrap();
        let (here, root) = (Fd(libc::AT_FDCWD), c"/".as_ptr());
        let mut byte = 0u8;
        // What it is for works...
        let pipe = Fd(b.as_raw_fd());
        assert_eq!(
            run(&mut r, opcode::Write::new(pipe, &raw const byte, 1).build()),
            1
        );
        let pipe = Fd(a.as_raw_fd());
        assert_eq!(run(&mut r, opcode::Read::new(pipe, &raw mut byte, 1).build()), 1);
        // ... and nothing else.
        let how = OpenHow::new();
        let forbidden = [
            opcode::Nop::new().build(),
            opcode::OpenAt::new(here, root).build(),
            opcode::OpenAt2::new(here, root, &raw const how).build(),
            opcode::Close::new(pipe).build(),
            opcode::UnlinkAt::new(here, c"/nosuch".as_ptr()).build(),
            opcode::RenameAt::new(here, c"/nosuch".as_ptr(), here, c"/nosuch2".as_ptr()).build(),
            opcode::Socket::new(libc::AF_INET, libc::SOCK_STREAM, 0).build(),
            opcode::Accept::new(pipe, std::ptr::null_mut(), std::ptr::null_mut()).build(),
            opcode::Connect::new(pipe, std::ptr::null(), 0).build(),
            opcode::SendMsg::new(pipe, std::ptr::null()).build(),
            opcode::RecvMsg::new(pipe, std::ptr::null_mut()).build(),
            opcode::Splice::new(pipe, -1, pipe, -1, 1).build(),
            opcode::Fallocate::new(pipe, 1).build(),
            opcode::Read::new(pipe, &raw mut byte, 1)
                .build()
                .flags(io_uring::squeue::Flags::FIXED_FILE),
            opcode::Read::new(pipe, &raw mut byte, 1)
                .build()
                .flags(io_uring::squeue::Flags::IO_LINK),
        ];
        for (n, entry) in forbidden.into_iter().enumerate() {
            assert_eq!(run(&mut r, entry), -libc::EACCES, "operation {n}");
        }
        let refused = |e: io::Result<()>| e.unwrap_err().raw_os_error();
        let s = r.0.submitter();
        assert_eq!(refused(s.register_files(&[a.as_raw_fd()])), Some(libc::EACCES));
        assert_eq!(refused(s.register_personality().map(drop)), Some(libc::EACCES));
        assert_eq!(refused(s.register_eventfd(a.as_raw_fd())), Some(libc::EACCES));
    }

    #[test]
    fn restrictions_cannot_be_changed_once_it_is_on() {
        let Some(r) = ring() else { return };
        let mut more = [io_uring::register::Restriction::sqe_op(opcode::OpenAt::CODE)];
        assert!(r.0.submitter().register_restrictions(&mut more).is_err());
    }
}
