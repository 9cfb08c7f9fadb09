//! Pipes: the buffer both ends share, and the ends as open files. Source: `pipe(7)`, Linux `fs/pipe.c`.

use crate::fs::anon;
use crate::fs::file::{File, FileOps, PollSource, Signals};
use crate::fs::inode::{FileType, Stat};
use crate::fs::pipe_buffer::{Buffer, Chunk};
pub use crate::fs::pipe_fifo::open_fifo;
use crate::sched::wait::{Events, WaitQueue, wait_until};
use crate::signal::{SigInfo, info::code, signo};
use crate::syscall::Ctx;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use hal::host::{Dest, Src};
use hal::sync::SpinLock;
use hal::uapi::general::{O_ACCMODE, O_DIRECT, O_RDONLY, O_RDWR, O_WRONLY};
use hal::uapi::ioctl::FIONREAD;
use hal::user::UserPtr;
use qlib::Errno;

/// Writes of at most this many bytes are atomic.
pub const PIPE_BUF: usize = 4096;
/// Size of a new pipe, bytes.
pub const DEFAULT_SIZE: usize = 65536;
/// Largest size without CAP_SYS_RESOURCE, bytes (`/proc/sys/fs/pipe-max-size`).
pub const MAX_SIZE: usize = 1 << 20;

/// Who has a pipe open.
#[derive(Clone, Copy, Default)]
pub struct Counts {
    /// Read ends.
    pub readers: u32,
    /// Write ends.
    pub writers: u32,
    /// Openings of read ends so far, so that a FIFO's open sees a partner that came and went.
    pub reader_opens: u64,
    /// The same of write ends.
    pub writer_opens: u64,
}

struct State {
    buffer: Buffer,
    counts: Counts,
}

/// What both ends share.
pub struct Pipe {
    /// Lock order: before [`Pipe::queue`]'s.
    state: SpinLock<State>,
    queue: WaitQueue,
    ino: u64,
}

impl Pipe {
    /// An empty pipe without ends.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            state: SpinLock::new(State {
                buffer: Buffer::new(DEFAULT_SIZE),
                counts: Counts::default(),
            }),
            queue: WaitQueue::new(),
            ino: anon::next_ino(),
        })
    }

    /// Opens an end; `access` is O_RDONLY, O_WRONLY or O_RDWR.
    pub fn open_end(self: &Arc<Self>, access: u32) -> Arc<PipeEnd> {
        self.open_end_counted(access).0
    }

    /// As [`Pipe::open_end`], and who has the pipe open at that moment.
    pub(super) fn open_end_counted(self: &Arc<Self>, access: u32) -> (Arc<PipeEnd>, Counts) {
        let (reads, writes) = (access != O_WRONLY, access != O_RDONLY);
        let counts = {
            let c = &mut self.state.lock().counts;
            if reads {
                c.readers += 1;
                c.reader_opens += 1;
            }
            if writes {
                c.writers += 1;
                c.writer_opens += 1;
            }
            *c
        };
        self.queue.wake_all();
        let end = Arc::new(PipeEnd {
            pipe: self.clone(),
            reads,
            writes,
        });
        (end, counts)
    }

    /// The wait queue, for a FIFO's open.
    pub(crate) fn queue(&self) -> &WaitQueue {
        &self.queue
    }

    /// Who has the pipe open.
    pub(super) fn counts(&self) -> Counts {
        self.state.lock().counts
    }

    /// Takes up to `want` bytes; `None` = nothing there but writers, an empty vector = the end.
    pub(crate) fn try_take(&self, want: usize) -> Option<Vec<Chunk>> {
        let taken = {
            let mut s = self.state.lock();
            if s.buffer.is_empty() {
                return (s.counts.writers == 0).then(Vec::new);
            }
            s.buffer.take(want)
        };
        self.queue.wake(Events::OUT | Events::WRNORM);
        Some(taken)
    }

    /// Puts bytes that could not be delivered back to the front.
    pub(crate) fn give_back(&self, chunks: Vec<Chunk>) {
        self.state.lock().buffer.give_back(chunks);
        self.queue.wake(Events::IN | Events::RDNORM);
    }

    /// A copy of up to `want` bytes for `tee(2)`, which leaves them; `None` and empty as [`Pipe::try_take`].
    pub(crate) fn try_peek(&self, want: usize) -> Option<Vec<Chunk>> {
        let s = self.state.lock();
        if s.buffer.is_empty() {
            return (s.counts.writers == 0).then(Vec::new);
        }
        Some(s.buffer.peek(want))
    }

    /// Puts as much of the chunk as fits; what does not stays in it. `None` = it must wait.
    ///
    /// # Errors
    /// EPIPE without readers.
    pub(super) fn try_put(&self, chunk: &mut Chunk) -> Option<Result<(), Errno>> {
        {
            let mut s = self.state.lock();
            if s.counts.readers == 0 {
                return Some(Err(Errno::EPIPE));
            }
            let room = s.buffer.room();
            // A small write is all or nothing; a large one goes on once a page is free.
            if room < chunk.len().min(PIPE_BUF) {
                return None;
            }
            let part = chunk.split_front(room);
            s.buffer.push(part);
        }
        self.queue.wake(Events::IN | Events::RDNORM);
        Some(Ok(()))
    }

    /// Bytes that can be written without waiting.
    pub(crate) fn room(&self) -> usize {
        self.state.lock().buffer.room()
    }

    /// Whether somebody could read what is written.
    pub(crate) fn has_readers(&self) -> bool {
        self.state.lock().counts.readers > 0
    }

    /// Adds chunks whether there is room or not: the caller looked, and their bytes have nowhere else to go.
    pub(crate) fn put_all(&self, chunks: Vec<Chunk>) {
        {
            let mut s = self.state.lock();
            for c in chunks {
                s.buffer.push(c);
            }
        }
        self.queue.wake(Events::IN | Events::RDNORM);
    }

    /// Capacity, bytes (F_GETPIPE_SZ).
    pub fn size(&self) -> usize {
        self.state.lock().buffer.capacity()
    }

    /// Changes the capacity (F_SETPIPE_SZ); returns the new one.
    ///
    /// # Errors
    /// EINVAL for 0, EPERM past [`MAX_SIZE`] without CAP_SYS_RESOURCE, EBUSY when more is in it.
    pub fn set_size(&self, wanted: u64, privileged: bool) -> Result<usize, Errno> {
        if wanted == 0 || wanted > 1 << 31 {
            return Err(Errno::EINVAL);
        }
        let size = (wanted as usize).max(PIPE_BUF).next_power_of_two();
        if size > MAX_SIZE && !privileged {
            return Err(Errno::EPERM);
        }
        {
            let mut s = self.state.lock();
            if s.buffer.len() > size {
                return Err(Errno::EBUSY);
            }
            s.buffer.set_capacity(size);
        }
        self.queue.wake(Events::OUT | Events::WRNORM);
        Ok(size)
    }
}

/// An open end of a pipe.
pub struct PipeEnd {
    pipe: Arc<Pipe>,
    reads: bool,
    writes: bool,
}

impl PipeEnd {
    /// The pipe.
    pub fn pipe(&self) -> &Arc<Pipe> {
        &self.pipe
    }
}

impl Drop for PipeEnd {
    fn drop(&mut self) {
        {
            let mut s = self.pipe.state.lock();
            s.counts.readers -= u32::from(self.reads);
            s.counts.writers -= u32::from(self.writes);
        }
        self.pipe.queue.wake_all();
    }
}

/// Raises SIGPIPE in the calling task, and is the error that goes with it.
pub fn broken_pipe() -> Errno {
    if let Some(t) = crate::task::current() {
        let uid = t.creds().uid;
        let info = SigInfo::user(signo::SIGPIPE, code::SI_USER, t.process.pid, uid);
        crate::signal::send::to_task(&t, info);
    }
    Errno::EPIPE
}

/// Stores chunks; what a fault leaves over goes back into the pipe.
fn deliver(pipe: &Pipe, chunks: Vec<Chunk>, dst: &mut Dest<'_>, packet: bool) -> Result<usize, Errno> {
    let mut done = 0;
    let mut chunks = chunks.into_iter();
    while let Some(mut c) = chunks.next() {
        let r = dst.put(c.bytes());
        let n = *r.as_ref().unwrap_or(&0);
        done += n;
        if n < c.len() && packet {
            return r;
        }
        if n < c.len() {
            c.skip(n);
            let mut left = Vec::with_capacity(chunks.len() + 1);
            left.push(c);
            left.extend(chunks);
            pipe.give_back(left);
            return if done > 0 { Ok(done) } else { r };
        }
    }
    Ok(done)
}

impl FileOps for PipeEnd {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn read(&self, file: &File, dst: &mut Dest<'_>, _offset: u64) -> Result<usize, Errno> {
        let want = dst.remaining();
        if want == 0 {
            return Ok(0);
        }
        let p = &self.pipe;
        let chunks = match p.try_take(want) {
            Some(c) => c,
            None if file.nonblock() => return Err(Errno::EAGAIN),
            None => wait_until(&p.queue, Events::IN, None, || p.try_take(want))
                .map_err(|e| e.restart_or(Errno::EAGAIN))?,
        };
        let packet = chunks.first().is_some_and(Chunk::is_packet);
        deliver(p, chunks, dst, packet)
    }

    fn write(&self, file: &File, src: &mut Src<'_>, _offset: u64) -> Result<usize, Errno> {
        let p = &self.pipe;
        let mut done = 0;
        let packets = file.flags() & O_DIRECT != 0;
        if src.remaining() == 0 {
            return Ok(0);
        }
        while src.remaining() > 0 {
            let limit = if packets { PIPE_BUF } else { DEFAULT_SIZE };
            let mut chunk = match Chunk::read_from(src, limit, packets) {
                Ok(c) => c,
                Err(e) => return if done > 0 { Ok(done) } else { Err(e) },
            };
            while !chunk.is_empty() {
                let before = chunk.len();
                let r = match p.try_put(&mut chunk) {
                    Some(r) => r,
                    None if file.nonblock() => Err(Errno::EAGAIN),
                    None => {
                        let put = || p.try_put(&mut chunk);
                        wait_until(&p.queue, Events::OUT, None, put)
                            .unwrap_or_else(|e| Err(e.restart_or(Errno::EAGAIN)))
                    }
                };
                done += before - chunk.len();
                match r {
                    Ok(()) => {}
                    Err(e) => {
                        let e = if e == Errno::EPIPE { broken_pipe() } else { e };
                        return if done > 0 { Ok(done) } else { Err(e) };
                    }
                }
            }
        }
        Ok(done)
    }

    fn is_stream(&self) -> bool {
        true
    }

    fn stat(&self, file: &File) -> Result<Stat, Errno> {
        match file.path() {
            Some(p) => p.inode().stat(),
            None => Ok(anon::stat(Some(FileType::Fifo), anon::PIPE_DEV, self.pipe.ino)),
        }
    }

    fn poll(&self, _file: &File) -> Events {
        let s = self.pipe.state.lock();
        let mut e = Events::empty();
        if self.reads {
            if !s.buffer.is_empty() {
                e |= Events::IN | Events::RDNORM;
            }
            // A FIFO that never had a writer does not hang up.
            if s.counts.writers == 0 && s.counts.writer_opens > 0 {
                e |= Events::HUP;
            }
        }
        if self.writes {
            if s.buffer.room() >= PIPE_BUF {
                e |= Events::OUT | Events::WRNORM;
            }
            if s.counts.readers == 0 {
                e |= Events::ERR;
            }
        }
        e
    }

    fn signals(&self) -> Signals {
        Signals::Readiness
    }
    fn poll_source(&self) -> PollSource<'_> {
        PollSource::Queue(&self.pipe.queue)
    }

    fn ioctl(&self, _file: &File, _ctx: &mut Ctx<'_>, request: u32, arg: u64) -> Result<u64, Errno> {
        match request {
            FIONREAD => {
                let n = self.pipe.state.lock().buffer.len() as i32;
                UserPtr::<i32>::new(arg).write(&n)?;
                Ok(0)
            }
            _ => Err(Errno::ENOTTY),
        }
    }

    fn describe(&self) -> Vec<u8> {
        format!("pipe:[{}]", self.pipe.ino).into_bytes()
    }
}

/// Makes a pipe: the read end and the write end. `flags` are O_NONBLOCK and O_DIRECT.
pub fn pipe(flags: u32) -> (Arc<File>, Arc<File>) {
    let p = Pipe::new();
    let (r, w) = (p.open_end(O_RDONLY), p.open_end(O_WRONLY));
    (
        File::new(r, None, flags | O_RDONLY),
        File::new(w, None, flags | O_WRONLY),
    )
}

/// The pipe behind an open file, for `fcntl(F_GETPIPE_SZ, F_SETPIPE_SZ)`, `splice` and `tee`.
pub fn of(file: &File) -> Option<&Arc<Pipe>> {
    file.downcast::<PipeEnd>().map(|e| &e.pipe)
}

/// The access mode among O_* flags.
pub(crate) fn access(flags: u32) -> u32 {
    match flags & O_ACCMODE {
        O_WRONLY => O_WRONLY,
        O_RDONLY => O_RDONLY,
        _ => O_RDWR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hal::uapi::general::O_NONBLOCK;
    use std::time::Duration;

    fn read(f: &File, n: usize) -> Result<Vec<u8>, Errno> {
        let mut b = alloc::vec![0; n];
        let got = f.ops().read(f, &mut Dest::kernel(&mut b), 0)?;
        b.truncate(got);
        Ok(b)
    }
    fn write(f: &File, b: &[u8]) -> Result<usize, Errno> {
        f.ops().write(f, &mut Src::kernel(b), 0)
    }

    #[test]
    fn bytes_go_through_in_order_and_end() {
        let (r, w) = pipe(O_NONBLOCK);
        assert_eq!(read(&r, 5), Err(Errno::EAGAIN));
        assert_eq!(write(&w, b"hello "), Ok(6));
        assert_eq!(write(&w, b"world"), Ok(5));
        assert_eq!(read(&r, 8), Ok(b"hello wo".to_vec()));
        assert_eq!(read(&r, 8), Ok(b"rld".to_vec()));
        drop(w);
        assert_eq!(read(&r, 8), Ok(Vec::new()));
        assert!(r.ops().poll(&r).contains(Events::HUP));
    }

    #[test]
    fn a_small_write_is_all_or_nothing_and_a_large_one_is_not() {
        let (r, w) = pipe(O_NONBLOCK);
        let big = alloc::vec![7u8; DEFAULT_SIZE - 10];
        assert_eq!(write(&w, &big), Ok(big.len()));
        assert_eq!(write(&w, &[1; 11]), Err(Errno::EAGAIN));
        assert_eq!(write(&w, &[1; 10]), Ok(10));
        assert!(!w.ops().poll(&w).contains(Events::OUT));
        assert_eq!(read(&r, PIPE_BUF).map(|v| v.len()), Ok(PIPE_BUF));
        assert!(w.ops().poll(&w).contains(Events::OUT));
        assert_eq!(write(&w, &alloc::vec![2; 3 * PIPE_BUF]), Ok(PIPE_BUF));
    }

    #[test]
    fn without_readers_writing_fails() {
        let (r, w) = pipe(0);
        drop(r);
        assert_eq!(write(&w, b"x"), Err(Errno::EPIPE));
        assert!(w.ops().poll(&w).contains(Events::ERR));
    }

    #[test]
    fn concurrent_small_writes_do_not_mix() {
        let (r, w) = pipe(0);
        let threads: Vec<_> = (0u8..4)
            .map(|id| {
                let w = w.clone();
                std::thread::spawn(move || {
                    for _ in 0..200 {
                        assert_eq!(write(&w, &[id; 1000]), Ok(1000));
                    }
                })
            })
            .collect();
        drop(w);
        let mut all = Vec::new();
        loop {
            let part = read(&r, 4096).unwrap();
            if part.is_empty() {
                break;
            }
            all.extend(part);
        }
        assert_eq!(all.len(), 4 * 200 * 1000);
        for block in all.chunks(1000) {
            assert!(block.iter().all(|b| *b == block[0]));
        }
        for t in threads {
            t.join().unwrap();
        }
    }

    #[test]
    fn a_blocked_writer_goes_on_when_there_is_room() {
        let (r, w) = pipe(0);
        let t = std::thread::spawn(move || write(&w, &alloc::vec![1; 3 * DEFAULT_SIZE]));
        std::thread::sleep(Duration::from_millis(10));
        let mut got = 0;
        loop {
            match read(&r, 10_000).unwrap().len() {
                0 => break,
                n => got += n,
            }
        }
        assert_eq!(got, 3 * DEFAULT_SIZE);
        assert_eq!(t.join().unwrap(), Ok(3 * DEFAULT_SIZE));
    }

    #[test]
    fn the_size_can_be_changed() {
        let p = Pipe::new();
        assert_eq!(p.set_size(5000, false), Ok(8192));
        assert_eq!(p.set_size(0, false), Err(Errno::EINVAL));
        assert_eq!(p.set_size(2 << 20, false), Err(Errno::EPERM));
        assert_eq!(p.set_size(2 << 20, true), Ok(2 << 20));
    }

    #[test]
    fn a_fifo_waits_for_its_partner() {
        use crate::fs::pipe_fifo::open_fifo;
        let key = (1, 77);
        assert_eq!(open_fifo(key, O_WRONLY | O_NONBLOCK).err(), Some(Errno::ENXIO));
        let t = std::thread::spawn(move || open_fifo(key, O_RDONLY).is_ok());
        std::thread::sleep(Duration::from_millis(10));
        let w = open_fifo(key, O_WRONLY).unwrap();
        assert!(t.join().unwrap());
        drop(w);
    }

    #[test]
    fn a_fifo_s_partner_may_come_first_and_leave_at_once() {
        use crate::fs::pipe_fifo::open_fifo;
        for n in 0..2000 {
            let key = (78, n);
            let t = std::thread::spawn(move || open_fifo(key, O_WRONLY).is_ok());
            assert!(open_fifo(key, O_RDONLY).is_ok());
            assert!(t.join().unwrap());
        }
    }
}
