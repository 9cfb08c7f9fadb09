//! Requests to QVisor: submission, waiting, completion.

use super::thread::{self, counted};
use super::{Bare, phys};
use crate::contract::Threads;
use crate::native::ports;
use crate::sync::SpinLock;
use crate::thread::ThreadRef;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
use qlib::qcall::{HandleId, Op, Reply, Request};
use qlib::ring::{COMPLETE, Consumer, LOG_BYTES, LOG_PAGE, Producer, Pushed, SUBMIT, Shared};
use qlib::{Errno, PhysAddr};
use zerocopy::{FromZeros, IntoBytes};

/// The ring area in the direct map.
#[derive(Clone, Copy)]
struct Area;

static BASE: AtomicU64 = AtomicU64::new(0);

impl Area {
    fn at(self, offset: usize) -> *mut u8 {
        (BASE.load(Ordering::Relaxed) as usize + offset) as *mut u8
    }
    fn word(self, offset: usize) -> &'static AtomicU32 {
        // SAFETY: ring words are aligned and inside the area, which stays mapped; both sides access them atomically.
        unsafe { AtomicU32::from_ptr(self.at(offset).cast()) }
    }
}

impl Shared for Area {
    fn load(&self, at: usize) -> u32 {
        self.word(at).load(Ordering::Acquire)
    }
    fn store(&self, at: usize, value: u32) {
        self.word(at).store(value, Ordering::Release);
    }
    fn fence(&self) {
        fence(Ordering::SeqCst);
    }
    fn read(&self, at: usize, bytes: &mut [u8]) {
        // SAFETY: slots lie inside the area; the host does not touch a slot between its store of the tail and ours of the
        // head.
        unsafe { core::ptr::copy_nonoverlapping(self.at(at), bytes.as_mut_ptr(), bytes.len()) };
    }
    fn write(&self, at: usize, bytes: &[u8]) {
        // SAFETY: as in `read`, with the roles exchanged.
        unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), self.at(at), bytes.len()) };
    }
}

static SUBMISSIONS: SpinLock<Producer<Area>> = SpinLock::new(Producer::new(Area, SUBMIT));
static COMPLETIONS: SpinLock<Consumer<Area>> = SpinLock::new(Consumer::new(Area, COMPLETE));
static SUBMITTED: AtomicU64 = AtomicU64::new(0);
static LOG: SpinLock<()> = SpinLock::new(());

/// Learns where the rings are (physical).
pub(super) fn init(rings: u64) {
    BASE.store(phys::ptr(PhysAddr(rings)) as u64, Ordering::Relaxed);
    // A busy guest looks by itself; the idle loop asks for interrupts by `may_sleep`, and user mode needs them always.
    let _ = COMPLETIONS.lock().sleep();
}

/// A request on its way, on the stack of the thread that waits for it. The tag is its address.
pub(super) struct Pending {
    done: AtomicBool,
    reply: UnsafeCell<Reply>,
    thread: ThreadRef,
}

// SAFETY: the reply is written by one completion before `done` is set, and read by the waiting thread after.
unsafe impl Sync for Pending {}

impl Pending {
    pub(super) fn new() -> Self {
        Self {
            done: AtomicBool::new(false),
            reply: UnsafeCell::new(Reply::new_zeroed()),
            thread: counted(thread::current()),
        }
    }
    /// The tag a request must carry so that its completion comes here.
    pub(super) fn tag(&self) -> u64 {
        core::ptr::from_ref(self) as u64
    }
    /// Whether the completion came.
    pub(super) fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }
    /// The completion, when it came.
    pub(super) fn reply(&self) -> Option<Reply> {
        // SAFETY: `done` was set after the reply was written, and it is written once.
        self.is_done().then(|| unsafe { *self.reply.get() })
    }
    /// Sleeps until the completion comes. Wake-ups for other reasons are kept for whoever waits next.
    pub(super) fn wait(&self) -> Reply {
        let mut disturbed = false;
        loop {
            if let Some(r) = self.reply() {
                if disturbed {
                    Bare::unpark(thread::current());
                }
                return r;
            }
            Bare::park(None);
            disturbed |= !self.is_done();
        }
    }
}

/// An empty request.
pub(super) fn request(op: Op, handle: HandleId) -> Request {
    let mut r = Request::new_zeroed();
    r.op = op as u32;
    r.handle = handle;
    r.handle2 = HandleId::NONE;
    r
}

/// Requests so far.
pub(super) fn submitted() -> u64 {
    SUBMITTED.load(Ordering::Relaxed)
}

/// Puts a request into the ring. With a tag, the [`Pending`] it names must live until it is done; 0 = nobody waits.
pub(super) fn submit(r: &Request) {
    SUBMITTED.fetch_add(1, Ordering::Relaxed);
    loop {
        let pushed = SUBMISSIONS.lock().push(r.as_bytes());
        match pushed {
            Ok(Pushed::Quiet) => return,
            Ok(Pushed::Ring) => return ports::ring(),
            Ok(Pushed::Full) => {
                // The host takes entries without our help, unless its answers have no room.
                ports::ring();
                reap();
                core::hint::spin_loop();
            }
            Err(_) => panic!("the host's ring index is out of range"),
        }
    }
}

/// Submits and waits.
pub(super) fn call(mut r: Request) -> Reply {
    let p = Pending::new();
    r.tag = p.tag();
    submit(&r);
    p.wait()
}

/// As [`call`], for the result alone.
pub(super) fn call_value(r: Request) -> Result<u64, Errno> {
    Errno::from_ret(call(r).result)
}

/// Takes completions and wakes their threads.
pub(super) fn reap() {
    if BASE.load(Ordering::Relaxed) == 0 {
        return;
    }
    // Another CPU that reaps sees what came before it asks for interrupts again.
    let Some(mut ring) = COMPLETIONS.try_lock() else {
        return;
    };
    if ring.waiting() == Ok(0) {
        return;
    }
    loop {
        let mut reply = Reply::new_zeroed();
        match ring.pop(reply.as_mut_bytes()) {
            Ok(true) => complete(reply),
            Ok(false) => match ring.sleep() {
                Ok(true) => return,
                _ => continue,
            },
            Err(_) => panic!("the host's ring index is out of range"),
        }
    }
}

fn complete(reply: Reply) {
    let p = reply.tag as *const Pending;
    if p.is_null() {
        return;
    }
    // SAFETY: the host returns a tag once, and the waiting thread keeps the request until `done` is set.
    let thread = unsafe { (*p).thread.clone() };
    // SAFETY: as above; nobody reads the reply before `done`.
    let slot = unsafe { (*p).reply.get() };
    // SAFETY: as above.
    unsafe { *slot = reply };
    // SAFETY: as above; after this store the request may be gone.
    unsafe { (*p).done.store(true, Ordering::Release) };
    Bare::unpark(&thread);
}

/// Whether there is nothing to reap, so that the CPU may wait for the interrupt.
pub(super) fn may_sleep() -> bool {
    match COMPLETIONS.try_lock() {
        Some(ring) => ring.waiting() == Ok(0),
        None => true,
    }
}

/// Hands a line to the host by an exit: works before the rings do, and in a panic.
pub(super) fn log(level: u32, line: &[u8]) {
    // In a panic another CPU may hold the lock forever; a garbled line is better than none.
    let held = (0..1_000_000).find_map(|_| LOG.try_lock());
    put_line(level, line);
    ports::log();
    drop(held);
}

/// Puts a line into the log page.
pub(super) fn put_line(level: u32, line: &[u8]) {
    let n = line.len().min(LOG_BYTES - 8);
    Area.store(LOG_PAGE, level);
    Area.store(LOG_PAGE + 4, n as u32);
    Area.write(LOG_PAGE + 8, &line[..n]);
}
