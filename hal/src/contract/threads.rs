//! Threads and time.

use crate::thread::{Counts, MachineNursery, NewSpace, Thread, ThreadRef};
use alloc::boxed::Box;
use alloc::sync::Arc;
use qlib::Errno;

/// Kernel threads, each with a stack of its own. An app's thread is a kernel thread that leaves for user mode.
pub trait Threads {
    /// The calling thread.
    fn current() -> ThreadRef;
    /// Starts `f` on a fresh kernel stack. See [`crate::thread::spawn`].
    ///
    /// # Errors
    /// ENOMEM or EAGAIN when a stack or a host thread cannot be had.
    fn spawn(thread: &Arc<Thread>, space: NewSpace<'_>, f: Box<dyn FnOnce() + Send>) -> Result<(), Errno>;
    /// Ends the calling thread.
    fn exit() -> !;
    /// Sleeps until [`Threads::unpark`] or the deadline (monotonic ns); returns at once when a token is there.
    fn park(deadline_ns: Option<u64>);
    /// Leaves a token and wakes the thread.
    fn unpark(thread: &Thread);
    /// As `unpark`, and makes a thread that runs in user mode trap into the kernel.
    fn kick(thread: &Thread);
    /// Lets others run.
    fn yield_now();
    /// CPU time the calling thread has used, ns: (user, system).
    fn cpu_time_ns() -> (u64, u64);
    /// The same of another thread, which may run at this moment; `None` where only the thread itself, or one of its address
    /// space, can tell.
    fn cpu_time_of(thread: &Thread) -> Option<(u64, u64)>;
    /// See [`crate::thread::set_host_name`]. Only on `process` has the host a thread to look at.
    fn set_host_name(_name: &[u8; 16]) {}
    /// What the calling thread did, where the machine counts it.
    fn counts() -> Counts;
    /// See [`crate::thread::Nursery::create`].
    ///
    /// # Errors
    /// As [`Threads::spawn`].
    fn new_nursery(_hello: Box<dyn FnOnce() + Send>) -> Result<Option<Arc<MachineNursery>>, Errno> {
        Ok(None)
    }
    /// See [`crate::thread::Nursery::close`].
    fn close_nursery(_nursery: &MachineNursery) {}
    /// Stops the whole guest with an exit code and a reason for the log.
    fn power_off(code: i32, reason: &str) -> !;
}

/// Clocks.
pub trait Clock {
    /// CLOCK_MONOTONIC, ns.
    fn monotonic_ns() -> u64;
    /// CLOCK_REALTIME, ns since 1970.
    fn realtime_ns() -> u64;
    /// Fills `buf` with random bytes fit for keys.
    fn random(buf: &mut [u8]);
}
