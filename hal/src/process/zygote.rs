//! The first process of the sandbox: it boots the kernel, hosts the kernel's own threads, makes fresh processes
//! (its address space holds nothing but the region), and reaps the dead. Containers that join the sandbox have a process
//! each that makes theirs, so that they are born in the container's cgroup.

use super::sys;
use super::threads::{self, OFF};
use super::{FAULT_CODE, Process, clock, futex, space, stack, traps};
use crate::boot;
use crate::contract::{HostService, Threads};
use crate::sync::{Once, SpinLock};
use crate::thread::{NewSpace, Thread, ThreadRef};
use crate::uapi::general as g;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::fmt::Write;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};
use qlib::Errno;

/// The heap grows by this much at a time.
const HEAP_STEP: u64 = 2 << 20;

static HEAP_NEXT: AtomicU64 = AtomicU64::new(0);

fn more_heap(min: usize) -> Option<(usize, usize)> {
    let len = (min as u64).checked_next_multiple_of(HEAP_STEP)?;
    // The heap's lock serialises callers.
    let start = HEAP_NEXT.load(Ordering::Relaxed);
    let end = start.checked_add(len)?;
    if end > boot::info().heap.end {
        return None;
    }
    HEAP_NEXT.store(end, Ordering::Relaxed);
    Some((start as usize, len as usize))
}

/// Boots the machine on the calling thread, which becomes the reaper.
pub(super) fn run(sound: bool) -> ! {
    let info = boot::info();
    let pid = sys::getpid();
    sys::ZYGOTE.store(pid, Ordering::Relaxed);
    if !sound {
        Process::log(1, b"kernel image and host are of different versions");
        sys::exit_group(FAULT_CODE);
    }
    block_signals();
    let stacks_end = info.heap.start + stack::STACKS_BYTES.min(info.heap.len() / 2);
    stack::init(info.heap.start, stacks_end);
    HEAP_NEXT.store(stacks_end, Ordering::Relaxed);
    crate::heap::init(more_heap);
    crate::logger::init(info.log_level);
    let me = Arc::new(Thread::new("zygote"));
    me.host_pid.store(pid, Ordering::Relaxed);
    me.host_tid.store(sys::gettid(), Ordering::Relaxed);
    let base = stack::here();
    me.stack.store(base, Ordering::Relaxed);
    stack::reset(base);
    stack::with(|h| h.thread = Some(me));
    space::init();
    clock::init();
    if space::unmap_everything().is_err() || traps::install().is_err() {
        Process::power_off(FAULT_CODE, "the host refused to set up the first process");
    }
    let spawner = crate::thread::new_thread("spawner");
    let up = Process::spawn(
        &spawner,
        NewSpace::Kernel,
        Box::new(|| FIRST.serve(sys::PROCESS_FLAGS)),
    );
    FIRST.spawner.call_once(|| spawner);
    let main = crate::thread::new_thread("boot");
    let start = Process::spawn(&main, NewSpace::Kernel, Box::new(|| (boot::hooks().start)()));
    if up.is_err() || start.is_err() {
        Process::power_off(FAULT_CODE, "the host refused to start the first threads");
    }
    reap()
}

fn block_signals() {
    let mask = sys::KERNEL_MASK;
    // SAFETY: the host reads the mask.
    let _ = unsafe {
        sys::call(
            g::__NR_rt_sigprocmask,
            [g::SIG_SETMASK as u64, &raw const mask as u64, 0, 8],
        )
    };
}

/// A host thread or process to start on a prepared slot; lies on the asking thread's stack.
struct Request {
    process: bool,
    stack: u64,
    result: AtomicI32,
    done: AtomicU32,
}

/// Address of a [`Request`] whose owner waits until it is done.
struct Asked(*const Request);
// SAFETY: the request is only touched through atomics and read-only fields, and lives until it is done.
unsafe impl Send for Asked {}

/// A host process that starts others, and what it is asked.
pub struct Nursery {
    spawner: Once<ThreadRef>,
    queue: SpinLock<VecDeque<Asked>>,
    closed: AtomicBool,
}

/// That of the sandbox's first process.
static FIRST: Nursery = Nursery::new();

/// Has the zygote start a host thread on the prepared slot.
pub(super) fn start_thread(stack: u64) -> Result<(), Errno> {
    FIRST.start(false, stack)
}

/// Has the `nursery` start a host process on the prepared slot; without one the zygote does.
pub(super) fn start_process(nursery: Option<&Nursery>, stack: u64) -> Result<(), Errno> {
    nursery.unwrap_or(&FIRST).start(true, stack)
}

/// Makes a host process that starts others; `hello` runs in it first.
pub(super) fn new_nursery(hello: Box<dyn FnOnce() + Send>) -> Result<Arc<Nursery>, Errno> {
    let nursery = Arc::new(Nursery::new());
    let spawner = crate::thread::new_thread("nursery");
    let (space, own) = (Once::new(), nursery.clone());
    let body = move || {
        hello();
        // The zygote reaps what is started here.
        own.serve(sys::FORK_FLAGS);
    };
    nursery.spawner.call_once(|| spawner.clone());
    Process::spawn(&spawner, NewSpace::Fresh(&space), Box::new(body))?;
    Ok(nursery)
}

impl Nursery {
    const fn new() -> Self {
        Self {
            spawner: Once::new(),
            queue: SpinLock::new(VecDeque::new()),
            closed: AtomicBool::new(false),
        }
    }

    fn start(&self, process: bool, stack: u64) -> Result<(), Errno> {
        let request = Request {
            process,
            stack,
            result: AtomicI32::new(0),
            done: AtomicU32::new(0),
        };
        let spawner = self.spawner.get().ok_or(Errno::EAGAIN)?;
        {
            let mut queue = self.queue.lock();
            if self.closed.load(Ordering::SeqCst) {
                return Err(Errno::EAGAIN);
            }
            queue.push_back(Asked(&request));
        }
        spawner.unpark();
        while request.done.load(Ordering::Acquire) == 0 {
            futex::wait(&request.done, 0, None);
        }
        match request.result.load(Ordering::Relaxed) {
            0 => Ok(()),
            e => Err(Errno(e)),
        }
    }

    /// Nothing more is started, and its process ends.
    pub(crate) fn close(&self) {
        {
            let _queue = self.queue.lock();
            self.closed.store(true, Ordering::SeqCst);
        }
        if let Some(spawner) = self.spawner.get() {
            spawner.unpark();
        }
    }

    /// The spawner thread: starts what is asked for, processes with `flags`, until it is closed.
    fn serve(&self, flags: u64) {
        loop {
            let next = self.queue.lock().pop_front();
            let Some(Asked(request)) = next else {
                if self.closed.load(Ordering::SeqCst) {
                    return;
                }
                Process::park(None);
                continue;
            };
            // SAFETY: the asking thread waits until the request is done.
            let request = unsafe { &*request };
            let flags = if request.process { flags } else { sys::THREAD_FLAGS };
            let result = threads::start(flags, request.stack);
            request
                .result
                .store(result.err().map_or(0, |e| e.0), Ordering::Relaxed);
            let done = &raw const request.done;
            request.done.store(1, Ordering::Release);
            // SAFETY: the request may be gone, but kernel stacks stay mapped, and the host only takes the address.
            futex::wake(unsafe { &*done }, 1);
        }
    }
}

/// Waits for the end of host processes. One that ends otherwise than by the kernel's own doing may have held locks:
/// the sandbox ends with it.
fn reap() -> ! {
    loop {
        let mut status = 0i32;
        let args = [
            u64::MAX,
            &raw mut status as u64,
            (g::WNOHANG | g::__WALL) as u64,
            0,
        ];
        // SAFETY: the host writes the status.
        let pid = unsafe { sys::call(g::__NR_wait4, args) };
        if OFF.load(Ordering::SeqCst) != 0 {
            leave();
        }
        match pid {
            Ok(pid) if pid > 0 => {
                if status != 0 {
                    lost(pid as i32, status);
                }
            }
            _ => wait_for_signal(),
        }
    }
}

/// Sleeps until a child ends or [`power_off`] kicks.
fn wait_for_signal() {
    let mask = sys::KERNEL_MASK;
    // SAFETY: the host reads the mask; no siginfo and no timeout.
    let _ = unsafe { sys::call(g::__NR_rt_sigtimedwait, [&raw const mask as u64, 0, 0, 8]) };
}

/// A line for a reason to end.
struct Reason {
    bytes: [u8; 120],
    len: usize,
}

impl Write for Reason {
    fn write_str(&mut self, s: &str) -> core::fmt::Result {
        let n = s.len().min(self.bytes.len() - self.len);
        self.bytes[self.len..self.len + n].copy_from_slice(&s.as_bytes()[..n]);
        self.len += n;
        Ok(())
    }
}

fn lost(pid: i32, status: i32) -> ! {
    let mut r = Reason {
        bytes: [0; 120],
        len: 0,
    };
    let signal = status & 0x7f;
    let _ = match signal {
        0 => write!(r, "host process {pid} ended with status {}", status >> 8 & 0xff),
        9 => write!(r, "host process {pid} was killed (by the out-of-memory killer?)"),
        s => write!(r, "host process {pid} died by signal {s}"),
    };
    power_off(
        FAULT_CODE,
        core::str::from_utf8(&r.bytes[..r.len]).unwrap_or("a host process died"),
    )
}

/// Ends the sandbox: the zygote is the first process of its pid namespace, so its end is everybody's.
pub(super) fn power_off(code: i32, reason: &str) -> ! {
    let first = OFF
        .compare_exchange(0, (code & 0xff) as u32 + 1, Ordering::SeqCst, Ordering::SeqCst)
        .is_ok();
    if first && !reason.is_empty() {
        Process::log(if code == 0 { 3 } else { 1 }, reason.as_bytes());
    }
    let zygote = sys::ZYGOTE.load(Ordering::Relaxed);
    if sys::getpid() == zygote {
        leave();
    }
    loop {
        sys::send_kick(zygote, zygote);
        let word = AtomicU32::new(0);
        futex::wait(&word, 0, None);
    }
}

fn leave() -> ! {
    sys::exit_group(OFF.load(Ordering::SeqCst).saturating_sub(1) as i32)
}
