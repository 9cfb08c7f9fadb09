//! Kernel threads: spawn, park, unpark, kick.

use crate::aspace::AddressSpace;
use crate::machine;
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::any::Any;
use core::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};
use qlib::Errno;
use spin::Once;

/// A counted reference to a thread.
pub type ThreadRef = Arc<Thread>;

/// The address space a new thread runs in.
pub enum NewSpace<'a> {
    /// None: the thread never leaves for user mode.
    Kernel,
    /// That of the calling thread, shared.
    Shared,
    /// A copy-on-write copy of that of the calling thread; the copy is stored in the cell.
    Fork(&'a Once<AddressSpace>),
    /// An empty one, stored in the cell.
    Fresh(&'a Once<AddressSpace>),
}

/// Where the host starts fresh processes for the threads that were given it, and for what those start: a host process that
/// the host side can put into a cgroup of its own (`process`).
#[derive(Clone)]
pub struct Nursery(Arc<MachineNursery>);

impl Nursery {
    /// Makes one; `hello` runs in its host process first. `None` where guest processes are no processes of the host.
    ///
    /// # Errors
    /// As [`spawn`].
    pub fn create(hello: impl FnOnce() + Send + 'static) -> Result<Option<Self>, Errno> {
        let made = machine!(Threads::new_nursery(Box::new(hello)))?;
        Ok(made.map(Self))
    }
    /// Has `thread`, which was not started yet, started there.
    pub fn adopt(&self, thread: &Thread) {
        thread.nursery.call_once(|| self.0.clone());
    }
    /// Ends its host process; nothing can be started there any more.
    pub fn close(&self) {
        machine!(Threads::close_nursery(&self.0));
    }
}

/// A kernel thread. Not every machine uses every field.
#[allow(dead_code)]
pub struct Thread {
    /// What it is, for the log.
    name: &'static str,
    /// QKernel's object of this thread.
    data: Once<Arc<dyn Any + Send + Sync>>,
    /// Park word: 0 empty, 1 token, 2 parked. Shared with the host's futex on `process`.
    pub(crate) park: AtomicU32,
    /// Where the thread is; see the machines.
    pub(crate) mode: AtomicU32,
    /// Host thread id (`process`).
    pub(crate) host_tid: AtomicI32,
    /// Host process id (`process`).
    pub(crate) host_pid: AtomicI32,
    /// CPU time used in host processes that were left, ns: user, system (`process`).
    pub(crate) spent_ns: [AtomicU64; 2],
    /// Base of the kernel stack, 0 before it has one.
    pub(crate) stack: AtomicU64,
    /// Where its fresh host processes are started; unset: where the sandbox's first ones are.
    pub(crate) nursery: Once<Arc<MachineNursery>>,
    /// What the machine keeps besides.
    pub(crate) machine: MachineThread,
}

#[cfg(target_os = "none")]
pub(crate) type MachineThread = crate::bare::thread::ThreadState;
#[cfg(not(target_os = "none"))]
pub(crate) type MachineThread = crate::fake::ThreadState;
#[cfg(target_os = "none")]
pub(crate) type MachineNursery = crate::process::Nursery;
#[cfg(not(target_os = "none"))]
pub(crate) type MachineNursery = ();

impl Thread {
    pub(crate) fn new(name: &'static str) -> Self {
        Self {
            name,
            data: Once::new(),
            park: AtomicU32::new(0),
            mode: AtomicU32::new(0),
            host_tid: AtomicI32::new(0),
            host_pid: AtomicI32::new(0),
            spent_ns: [AtomicU64::new(0), AtomicU64::new(0)],
            stack: AtomicU64::new(0),
            nursery: Once::new(),
            machine: MachineThread::default(),
        }
    }
    /// What the thread is, for the log.
    pub fn name(&self) -> &'static str {
        self.name
    }
    /// Ties QKernel's object to the thread; only the first call counts.
    pub fn set_data(&self, data: Arc<dyn Any + Send + Sync>) {
        self.data.call_once(|| data);
    }
    /// QKernel's object, when it is of type `T`.
    pub fn data<T: Any + Send + Sync>(&self) -> Option<&T> {
        self.data.get().and_then(|d| d.downcast_ref())
    }
    /// A counted reference to QKernel's object, when it is of type `T`.
    pub fn data_arc<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.data.get().and_then(|d| d.clone().downcast().ok())
    }
    /// Wakes the thread from [`park`], now or when it next parks.
    pub fn unpark(&self) {
        machine!(Threads::unpark(self));
    }
    /// Wakes the thread and makes it trap when it runs in user mode.
    pub fn kick(&self) {
        machine!(Threads::kick(self));
    }
    /// Whether the thread has a stack, that is: was started and did not end.
    pub fn is_started(&self) -> bool {
        self.stack.load(Ordering::Relaxed) != 0
    }
}

/// The calling thread.
pub fn current() -> ThreadRef {
    machine!(Threads::current())
}

/// Starts a thread that runs `f` on a fresh kernel stack; `data` is tied to it before it runs.
///
/// # Errors
/// ENOMEM or EAGAIN when a stack, an address space or a host thread cannot be had.
pub fn spawn(
    name: &'static str,
    data: Option<Arc<dyn Any + Send + Sync>>,
    space: NewSpace<'_>,
    f: impl FnOnce() + Send + 'static,
) -> Result<ThreadRef, Errno> {
    let thread = Arc::new(Thread::new(name));
    if let Some(d) = data {
        thread.set_data(d);
    }
    machine!(Threads::spawn(&thread, space, Box::new(f)))?;
    Ok(thread)
}

/// Starts a thread object made beforehand with [`new_thread`].
///
/// # Errors
/// As [`spawn`].
pub fn start(
    thread: &ThreadRef,
    space: NewSpace<'_>,
    f: impl FnOnce() + Send + 'static,
) -> Result<(), Errno> {
    machine!(Threads::spawn(thread, space, Box::new(f)))
}

/// Makes a thread object that [`start`] starts later, so that QKernel can publish it first.
pub fn new_thread(name: &'static str) -> ThreadRef {
    Arc::new(Thread::new(name))
}

/// Ends the calling thread. Nothing on its stack is dropped.
pub fn exit() -> ! {
    machine!(Threads::exit())
}

/// Sleeps until unparked or until the deadline (monotonic ns). May return early; callers loop.
pub fn park(deadline_ns: Option<u64>) {
    machine!(Threads::park(deadline_ns));
}

/// Lets other threads run.
pub fn yield_now() {
    machine!(Threads::yield_now());
}

/// CPU time of the calling thread, ns: (user, system).
pub fn cpu_time_ns() -> (u64, u64) {
    machine!(Threads::cpu_time_ns())
}

/// What a thread did besides using time (`getrusage(2)`); zeros where the machine does not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Largest resident set of its address space, KiB. It holds what the machine itself maps there.
    pub peak_rss_kib: u64,
    /// Page faults that needed no input.
    pub minor_faults: u64,
    /// Page faults that did.
    pub major_faults: u64,
    /// Blocks of 512 bytes read from storage.
    pub blocks_read: u64,
    /// Blocks written to storage.
    pub blocks_written: u64,
    /// Switches to another thread because this one waited.
    pub voluntary: u64,
    /// Switches because its time was up.
    pub involuntary: u64,
}

impl Counts {
    /// Adds another's.
    pub fn add(&mut self, other: &Self) {
        self.peak_rss_kib = self.peak_rss_kib.max(other.peak_rss_kib);
        self.minor_faults += other.minor_faults;
        self.major_faults += other.major_faults;
        self.blocks_read += other.blocks_read;
        self.blocks_written += other.blocks_written;
        self.voluntary += other.voluntary;
        self.involuntary += other.involuntary;
    }
}

/// What the calling thread did, as far as the machine counts it.
pub fn counts() -> Counts {
    machine!(Threads::counts())
}

/// CPU time of any thread, ns: (user, system); `None` when it cannot be told from here.
pub fn cpu_time_of(thread: &Thread) -> Option<(u64, u64)> {
    machine!(Threads::cpu_time_of(thread))
}

/// Names the calling thread, NUL-padded, for those who look at it from the host.
pub fn set_host_name(name: &[u8; 16]) {
    machine!(Threads::set_host_name(name));
}

/// Stops the whole guest with an exit code and a reason.
pub fn power_off(code: i32, reason: &str) -> ! {
    machine!(Threads::power_off(code, reason))
}
