//! What every engine does alike: one suite for both, under the threads' real filters, with the guest's side of the rings
//! played by the test.

use super::Engine;
use crate::sandbox::jail;
use crate::seccomp::Role;
use crate::vcpu::Bells;
use crate::vm::Engine as Wanted;
use crate::vm::kvm::memory::Memory;
use crate::vm::kvm::rings::Area;
use crate::vm::kvm::service::{Ending, Service};
use crate::vm::kvm::window::Window;
use qlib::qcall::{HandleId, Op, Reply, Request};
use qlib::ring::{AREA_BYTES, COMPLETE, Consumer, Producer, Pushed, SUBMIT};
use qlib::{Errno, PhysAddr};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fd::{BorrowedFd, OwnedFd};
use std::collections::HashMap;
use std::io::{Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use vmm_sys_util::eventfd::EventFd;
use zerocopy::{FromZeros, IntoBytes};

const RAM: u64 = 1 << 32;
/// Where the test's buffers lie.
const BUFFER: u64 = RAM + (1 << 20);
const CURRENT: u64 = u64::MAX;
/// POLLIN, POLLOUT.
const IN: u64 = 1;
const OUT: u64 = 4;

/// A guest that does what it is told.
struct Guest {
    service: Arc<Service>,
    memory: Arc<Memory>,
    submissions: Producer<Area>,
    completions: Consumer<Area>,
    submit_bell: EventFd,
    complete_bell: EventFd,
    came: HashMap<u64, Reply>,
    next: u64,
    ended: Receiver<Ending>,
    _control: OwnedFd,
}

/// The doorbell as something to poll.
fn bell(e: &EventFd) -> BorrowedFd<'_> {
    crate::sys::borrow(e.as_raw_fd()).unwrap()
}

fn guest(engine: Engine) -> Guest {
    let memory = Arc::new(Memory::new(RAM, 4 << 20).unwrap());
    let area = Area::new(memory.clone(), PhysAddr(RAM)).unwrap();
    assert!(AREA_BYTES < 1 << 20);
    let bells = Bells::new().unwrap();
    let (submit_bell, complete_bell) = (
        bells.submissions.try_clone().unwrap(),
        bells.completions.try_clone().unwrap(),
    );
    let (control, guest_control) = crate::sandbox::socket::message_pair().unwrap();
    let (_, log) = rustix::pipe::pipe().unwrap();
    let (ending, ended) = channel();
    let window = Window::new(1 << 40, 4 << 20).unwrap();
    let confine: crate::vm::kvm::Confine =
        Arc::new(|role| jail::confine_thread(role).map_err(std::io::Error::other));
    let service = Service::start(
        area.clone(),
        window,
        bells,
        guest_control,
        log,
        ending,
        engine,
        &confine,
    )
    .unwrap();
    Guest {
        service,
        memory,
        submissions: Producer::new(area.clone(), SUBMIT),
        completions: Consumer::new(area, COMPLETE),
        submit_bell,
        complete_bell,
        came: HashMap::new(),
        next: 1,
        ended,
        _control: control,
    }
}

fn request(op: Op, handle: HandleId, args: &[u64]) -> Request {
    let mut r = Request::new_zeroed();
    r.op = op as u32;
    r.handle = handle;
    r.handle2 = HandleId::NONE;
    r.args[..args.len()].copy_from_slice(args);
    r
}

impl Guest {
    fn give(&self, file: impl Into<OwnedFd>) -> HandleId {
        self.service.handles.insert(Arc::new(file.into())).unwrap()
    }

    /// Submits a request; gives its tag.
    fn send(&mut self, mut r: Request) -> u64 {
        r.tag = self.next;
        self.next += 1;
        loop {
            match self.submissions.push(r.as_bytes()).unwrap() {
                Pushed::Quiet => return r.tag,
                Pushed::Ring => {
                    self.submit_bell.write(1).unwrap();
                    return r.tag;
                }
                Pushed::Full => {
                    self.take();
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        }
    }

    fn take(&mut self) {
        let mut reply = Reply::new_zeroed();
        while self.completions.pop(reply.as_mut_bytes()).unwrap() {
            let before = self.came.insert(reply.tag, reply);
            assert!(before.is_none(), "tag {} completed twice", reply.tag);
        }
    }

    /// The reply to `tag`, if it comes within `time`.
    fn wait_for(&mut self, tag: u64, time: Duration) -> Option<Reply> {
        let end = Instant::now() + time;
        loop {
            self.take();
            if let Some(reply) = self.came.remove(&tag) {
                return Some(reply);
            }
            let left = end.checked_duration_since(Instant::now())?;
            if self.completions.sleep().unwrap() {
                let mut fds = [PollFd::from_borrowed_fd(bell(&self.complete_bell), PollFlags::IN)];
                let _ = rustix::event::poll(&mut fds, Some(&Timespec::try_from(left).unwrap()));
                if !fds[0].revents().is_empty() {
                    self.complete_bell.read().unwrap();
                }
                self.completions.awake();
            }
        }
    }

    fn result(&mut self, tag: u64) -> Result<u64, Errno> {
        let reply = self
            .wait_for(tag, Duration::from_secs(20))
            .expect("no completion");
        Errno::from_ret(reply.result)
    }

    fn call(&mut self, op: Op, handle: HandleId, args: &[u64]) -> Result<u64, Errno> {
        let tag = self.send(request(op, handle, args));
        self.result(tag)
    }

    fn put(&self, bytes: &[u8]) {
        assert!(self.memory.write(PhysAddr(BUFFER), bytes));
    }

    fn get(&self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        assert!(self.memory.read(PhysAddr(BUFFER), &mut bytes));
        bytes
    }
}

fn memory_file(content: &[u8]) -> std::fs::File {
    let fd = rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let mut file = std::fs::File::from(fd);
    file.write_all(content).unwrap();
    file.rewind().unwrap();
    file
}

fn files_are_read_and_written(g: &mut Guest) {
    let file = memory_file(b"hello, world");
    let h = g.give(file.try_clone().unwrap());
    assert_eq!(g.call(Op::Read, h, &[7, 100, BUFFER]), Ok(5));
    assert_eq!(g.get(5), b"world");
    assert_eq!(g.call(Op::Read, h, &[CURRENT, 5, BUFFER]), Ok(5));
    assert_eq!(g.get(5), b"hello");
    assert_eq!(g.call(Op::Read, h, &[CURRENT, 2, BUFFER]), Ok(2));
    assert_eq!(g.get(2), b", ");
    assert_eq!(g.call(Op::Read, h, &[100, 5, BUFFER]), Ok(0));
    g.put(b"WORLD");
    assert_eq!(g.call(Op::Write, h, &[7, 5, BUFFER, 0]), Ok(5));
    g.put(b"!\n");
    assert_eq!(g.call(Op::Write, h, &[CURRENT, 2, BUFFER, 1]), Ok(2));
    assert_eq!(g.call(Op::Sync, h, &[0]), Ok(0));
    assert_eq!(g.call(Op::Sync, h, &[1]), Ok(0));
    let mut all = String::new();
    let mut file = file;
    file.rewind().unwrap();
    file.read_to_string(&mut all).unwrap();
    assert_eq!(all, "hello, WORLD!\n");
}

fn many_at_once_complete_once_each(g: &mut Guest) {
    let content: Vec<u8> = (0..=255u8).collect();
    let h = g.give(memory_file(&content));
    let tags: Vec<(u64, u64)> = (0..3000)
        .map(|n| {
            let at = n % 256;
            (at, g.send(request(Op::Read, h, &[at, 1, BUFFER + 4096 + n])))
        })
        .collect();
    for (n, (at, tag)) in tags.into_iter().enumerate() {
        assert_eq!(g.result(tag), Ok(1));
        let mut byte = [0];
        assert!(g.memory.read(PhysAddr(BUFFER + 4096 + n as u64), &mut byte));
        assert_eq!(u64::from(byte[0]), at);
    }
}

fn pipes_do_not_wait(g: &mut Guest) {
    let (read, write) = rustix::pipe::pipe().unwrap();
    let (r, w) = (g.give(read), g.give(write));
    assert_eq!(g.call(Op::Read, r, &[CURRENT, 10, BUFFER]), Err(Errno::EAGAIN));
    g.put(b"through");
    assert_eq!(g.call(Op::Write, w, &[CURRENT, 7, BUFFER, 0]), Ok(7));
    g.put(b"       ");
    assert_eq!(g.call(Op::Read, r, &[CURRENT, 10, BUFFER]), Ok(7));
    assert_eq!(g.get(7), b"through");
    assert_eq!(g.call(Op::Read, r, &[0, 10, BUFFER]), Err(Errno::ESPIPE));
    // Full: what does not fit is not waited for.
    let mut total = 0;
    loop {
        match g.call(Op::Write, w, &[CURRENT, 60_000, BUFFER, 0]) {
            Ok(n) => total += n,
            Err(e) => break assert_eq!(e, Errno::EAGAIN),
        }
        assert!(total < 1 << 20);
    }
    g.service.handles.remove(w).unwrap();
    while g.call(Op::Read, r, &[CURRENT, 60_000, BUFFER]) != Ok(0) {}
}

fn readiness_is_told_and_cancelled(g: &mut Guest) {
    let (read, write) = rustix::pipe::pipe().unwrap();
    let (r, w) = (g.give(read), g.give(write.try_clone().unwrap()));
    assert_eq!(g.call(Op::PollWait, w, &[OUT]), Ok(OUT));
    let first = g.send(request(Op::PollWait, r, &[IN]));
    let second = g.send(request(Op::PollWait, r, &[IN]));
    assert!(g.wait_for(first, Duration::from_millis(50)).is_none());
    // One is given up; the other still waits.
    assert_eq!(g.call(Op::Cancel, HandleId::NONE, &[first]), Ok(0));
    assert_eq!(g.result(first), Err(Errno::ECANCELED));
    assert!(g.wait_for(second, Duration::from_millis(20)).is_none());
    rustix::io::write(&write, b"x").unwrap();
    assert_eq!(g.result(second), Ok(IN));
    assert_eq!(g.call(Op::Cancel, HandleId::NONE, &[second]), Err(Errno::ENOENT));
    assert_eq!(g.call(Op::Cancel, HandleId::NONE, &[12345]), Err(Errno::ENOENT));
    // The object may go while somebody waits for it.
    let (read, write) = rustix::pipe::pipe().unwrap();
    let r = g.give(read);
    let waits = g.send(request(Op::PollWait, r, &[IN]));
    assert_eq!(g.call(Op::Nop, HandleId::NONE, &[7]), Ok(7));
    g.service.handles.remove(r).unwrap();
    drop(write);
    let events = g.result(waits).unwrap();
    assert_ne!(events & 0x10, 0, "POLLHUP in {events:#x}");
}

fn sockets_and_control_operations_are_served(g: &mut Guest) {
    let tag = g.send(request(
        Op::Socket,
        HandleId::NONE,
        &[libc::AF_UNIX as u64, libc::SOCK_STREAM as u64],
    ));
    let reply = g.wait_for(tag, Duration::from_secs(20)).unwrap();
    assert_eq!(reply.result, 0);
    assert_eq!(g.call(Op::Listen, reply.handle, &[1]).err(), Some(Errno::EINVAL));
    let (ours, theirs) = rustix::net::socketpair(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::STREAM,
        rustix::net::SocketFlags::NONBLOCK,
        None,
    )
    .unwrap();
    let h = g.give(theirs);
    assert_eq!(g.call(Op::Read, h, &[CURRENT, 10, BUFFER]), Err(Errno::EAGAIN));
    let waits = g.send(request(Op::PollWait, h, &[IN]));
    rustix::io::write(&ours, b"hi").unwrap();
    assert_eq!(g.result(waits), Ok(IN));
    assert_eq!(g.call(Op::Read, h, &[CURRENT, 10, BUFFER]), Ok(2));
    g.put(b"there");
    assert_eq!(g.call(Op::Write, h, &[CURRENT, 5, BUFFER, 0]), Ok(5));
    let mut got = [0; 10];
    assert_eq!(rustix::io::read(&ours, &mut got), Ok(5));
}

/// A request to a container's service; gives its tag.
fn ask(g: &mut Guest, op: Op, service: HandleId, args: &[u64], payload: &[u8]) -> u64 {
    g.put(payload);
    let mut r = request(op, service, args);
    (r.data_addr, r.data_len) = (BUFFER, payload.len() as u32);
    g.send(r)
}

fn services_are_asked(g: &mut Guest) {
    const INET: [u64; 3] = [libc::AF_INET as u64, libc::SOCK_STREAM as u64, 0];
    let soon = Duration::from_secs(20);
    let pair = || crate::sandbox::socket::message_pair().unwrap();
    let (host, guest) = pair();
    let service = g.give(guest);
    crate::host::system::open(&[]);
    let confine = || jail::confine_thread(Role::Service).map_err(std::io::Error::other);
    crate::host::channel::spawn_service(host, confine).unwrap();
    // A socket, which works as one of the sandbox's own.
    let tag = ask(g, Op::Socket, service, &INET, b"");
    let reply = g.wait_for(tag, soon).unwrap();
    assert_eq!(reply.result, 0);
    assert_eq!(g.call(Op::Listen, reply.handle, &[1]), Ok(0));
    let tag = ask(g, Op::SystemFile, service, &[0], b"dev");
    let text = g.wait_for(tag, soon).unwrap();
    assert_eq!(text.result, 0);
    assert!(g.call(Op::Read, text.handle, &[CURRENT, 4096, BUFFER]).unwrap() > 0);
    let tag = ask(g, Op::SystemFile, service, &[0], b"../stat");
    assert_eq!(g.result(tag), Err(Errno::ENOENT));
    let tag = ask(g, Op::Socket, service, &[libc::AF_PACKET as u64, 3, 0], b"");
    assert_eq!(g.result(tag), Err(Errno::EAFNOSUPPORT));
    let many: Vec<u64> = (0..200)
        .map(|_| ask(g, Op::Socket, service, &INET, b""))
        .collect();
    for tag in many {
        assert_eq!(g.result(tag), Ok(0));
    }
    // What is no service is not asked.
    let file = g.give(memory_file(b"x"));
    assert_eq!(g.call(Op::Socket, file, &INET), Err(Errno::ENOTSOCK));
    let other = reply.handle;
    assert_eq!(g.call(Op::Socket, other, &INET), Err(Errno::ENOTSOCK));
    // One that is silent keeps nobody else waiting; when it goes, those who asked it are told.
    let (host, guest) = pair();
    let silent = g.give(guest);
    let waits: Vec<u64> = (0..8).map(|_| ask(g, Op::Socket, silent, &INET, b"")).collect();
    let tag = ask(g, Op::Socket, service, &INET, b"");
    assert_eq!(g.result(tag), Ok(0));
    assert!(g.wait_for(waits[0], Duration::from_millis(20)).is_none());
    drop(host);
    for tag in waits {
        assert_eq!(g.result(tag), Err(Errno::EIO));
    }
    assert_eq!(g.call(Op::Socket, silent, &INET), Err(Errno::EIO));
    // What is no answer, and one that was not asked for.
    let (host, guest) = pair();
    let odd = g.give(guest);
    let mut stranger = Reply::of(u64::MAX, Ok(0));
    stranger.handle = HandleId::new(0, 0);
    rustix::io::write(&host, stranger.as_bytes()).unwrap();
    let tag = ask(g, Op::Socket, odd, &INET, b"");
    assert!(g.wait_for(tag, Duration::from_millis(20)).is_none());
    rustix::io::write(&host, b"nonsense").unwrap();
    assert_eq!(g.result(tag), Err(Errno::EIO));
    // A success without a descriptor, and a handle that the service made up.
    let (host, guest) = pair();
    let odd = g.give(guest);
    let asked = || {
        let mut r = Request::new_zeroed();
        assert_eq!(
            rustix::io::read(&host, r.as_mut_bytes()),
            Ok(size_of::<Request>())
        );
        r
    };
    let tag = ask(g, Op::Socket, odd, &INET, b"");
    let mut empty = Reply::of(asked().tag, Ok(0));
    empty.handle = file;
    rustix::io::write(&host, empty.as_bytes()).unwrap();
    let reply = g.wait_for(tag, soon).unwrap();
    assert_eq!(
        (Errno::from_ret(reply.result), reply.handle),
        (Err(Errno::EIO), HandleId::NONE)
    );
    // Nobody waits for ever, and an answer that comes too late is nobody's.
    let tag = ask(g, Op::Socket, odd, &INET, b"");
    assert_eq!(g.result(tag), Err(Errno::EIO));
    let late = Reply::of(asked().tag, Ok(0));
    let tag = ask(g, Op::Socket, odd, &INET, b"");
    let timely = Reply::of(asked().tag, Err(Errno::EACCES));
    for reply in [late, timely] {
        rustix::io::write(&host, reply.as_bytes()).unwrap();
    }
    assert_eq!(g.result(tag), Err(Errno::EACCES));
    assert_eq!(g.call(Op::Nop, HandleId::NONE, &[7]), Ok(7));
}

fn instances_tell_of_many(g: &mut Guest) {
    let tag = g.send(request(Op::EpollCreate, HandleId::NONE, &[]));
    let instance = g.wait_for(tag, Duration::from_secs(20)).unwrap().handle;
    let (read, write) = rustix::pipe::pipe().unwrap();
    let object = g.give(read);
    let ctl = |op: i32, data: u64| {
        let mut r = request(Op::EpollCtl, instance, &[op as u64, IN, data]);
        r.handle2 = object;
        r
    };
    let take = || {
        let mut r = request(Op::EpollWait, instance, &[8]);
        (r.data_addr, r.reply_cap) = (BUFFER, 128);
        r
    };
    let tag = g.send(ctl(libc::EPOLL_CTL_ADD, 0x1234_5678_9abc));
    assert_eq!(g.result(tag), Ok(0));
    let tag = g.send(take());
    assert_eq!(g.result(tag), Ok(0));
    let waits = g.send(request(Op::PollWait, instance, &[IN]));
    rustix::io::write(&write, b"x").unwrap();
    assert_eq!(g.result(waits), Ok(IN));
    let tag = g.send(take());
    assert_eq!(g.result(tag), Ok(1));
    let told = g.get(16);
    assert_eq!(told[..8], [1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(told[8..], 0x1234_5678_9abc_u64.to_le_bytes());
    let tag = g.send(ctl(libc::EPOLL_CTL_ADD, 1));
    assert_eq!(g.result(tag), Err(Errno::EEXIST));
    let tag = g.send(ctl(libc::EPOLL_CTL_DEL, 0));
    assert_eq!(g.result(tag), Ok(0));
    let tag = g.send(ctl(77, 0));
    assert_eq!(g.result(tag), Err(Errno::EINVAL));
}

fn hostile_requests_are_answered(g: &mut Guest) {
    let h = g.give(memory_file(b"content"));
    let dir = g.give(std::fs::File::open("/").unwrap());
    let end = RAM + (4 << 20);
    for (handle, args, expected) in [
        (HandleId::NONE, [0, 4, BUFFER], Errno::EBADF),
        (
            HandleId::new(h.index(), h.generation() + 1),
            [0, 4, BUFFER],
            Errno::EBADF,
        ),
        (h, [0, 4, 0], Errno::EFAULT),
        (h, [0, 4, end - 3], Errno::EFAULT),
        (h, [0, 4, u64::MAX - 1], Errno::EFAULT),
        (h, [1 << 63, 4, BUFFER], Errno::EINVAL),
        (dir, [0, 4, BUFFER], Errno::EISDIR),
    ] {
        assert_eq!(g.call(Op::Read, handle, &args), Err(expected), "read {args:x?}");
        if expected != Errno::EISDIR {
            assert_eq!(g.call(Op::Write, handle, &args), Err(expected), "write {args:x?}");
        }
    }
    assert_eq!(g.call(Op::Write, h, &[0, 1 << 20, BUFFER]), Err(Errno::E2BIG));
    // More than a request may ask for is cut, as a short read.
    assert_eq!(g.call(Op::Read, h, &[0, u64::MAX, BUFFER]), Ok(7));
    let mut nonsense = request(Op::Nop, h, &[0]);
    nonsense.op = 0xffff_ffff;
    let tag = g.send(nonsense);
    assert_eq!(g.result(tag), Err(Errno::ENOSYS));
    for op in Op::ALL {
        // These end the guest, wait for a control message, or write the log.
        if matches!(op, Op::PowerOff | Op::ControlRecv | Op::Log) {
            continue;
        }
        for fill in [u64::MAX, 1 << 63, 0xffff_ffff] {
            let mut r = request(*op, HandleId(fill), &[fill; 6]);
            (r.data_addr, r.data_len, r.reply_cap) = (fill, u32::MAX, u32::MAX);
            let tag = g.send(r);
            let _ = g.result(tag);
        }
    }
    assert_eq!(g.call(Op::Read, h, &[0, 7, BUFFER]), Ok(7));
    assert_eq!(g.get(7), b"content");
    assert!(g.ended.try_recv().is_err(), "the guest goes on");
}

fn a_broken_ring_ends_the_guest(mut g: Guest) {
    use qlib::ring::Shared;
    let area = Area::new(g.memory.clone(), PhysAddr(RAM)).unwrap();
    // The producer's index, far ahead.
    area.store(SUBMIT.base + 64, 0x8000_0000);
    g.submit_bell.write(1).unwrap();
    let (code, why) = g.ended.recv_timeout(Duration::from_secs(20)).unwrap();
    assert_eq!(code, 1);
    assert!(why.contains("nonsense"), "{why}");
    g.next += 1;
}

fn suite(wanted: Wanted) {
    let engine = match Engine::choose(wanted) {
        Ok((engine, _)) => engine,
        Err(e) => return eprintln!("skipped: this host has no io_uring: {e}"),
    };
    let mut g = guest(engine);
    files_are_read_and_written(&mut g);
    many_at_once_complete_once_each(&mut g);
    pipes_do_not_wait(&mut g);
    readiness_is_told_and_cancelled(&mut g);
    sockets_and_control_operations_are_served(&mut g);
    services_are_asked(&mut g);
    instances_tell_of_many(&mut g);
    hostile_requests_are_answered(&mut g);
    a_broken_ring_ends_the_guest(g);
}

#[test]
fn threads() {
    suite(Wanted::Threads);
}

#[test]
fn io_uring() {
    suite(Wanted::IoUring);
}
