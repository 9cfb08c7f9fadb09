//! Exec in an address space that others share: a fresh host process takes over the calling thread's kernel stack.
//! The kernel's calls on it return in the new process without noticing.

use super::{Process, stack, threads, zygote};
use crate::contract::Threads;
use crate::native::hosted;
use core::sync::atomic::Ordering;
use qlib::Errno;

/// Moves the calling thread into a fresh host process; the old host thread ends.
///
/// # Errors
/// ENOMEM or EAGAIN, in the old process.
pub(super) fn to_fresh_process() -> Result<(), Errno> {
    let temporary = stack::alloc().ok_or(Errno::ENOMEM)?;
    let (user, system) = Process::cpu_time_ns();
    // SAFETY: the slot was just taken, and no thread runs on it.
    let waiting = unsafe { stack::header(temporary) };
    waiting.waits = true;
    let nursery = stack::with(|h| h.thread.as_ref().and_then(|t| t.nursery.get().cloned()));
    if let Err(e) = zygote::start_process(nursery.as_deref(), temporary) {
        stack::free(temporary);
        return Err(e);
    }
    // SAFETY: only the address is taken; the slot is mapped.
    let slot = unsafe { &raw mut (*(temporary as *mut stack::Header)).hand_over };
    // SAFETY: the thread just started waits there.
    unsafe { hosted::hand_over(slot) };
    // Here the new host thread goes on; nobody runs on the temporary stack any more.
    stack::with(|h| {
        h.bases = (0, 0);
        if let Some(t) = &h.thread {
            t.spent_ns[0].store(user, Ordering::Relaxed);
            t.spent_ns[1].store(system, Ordering::Relaxed);
        }
    });
    stack::free(temporary);
    Ok(())
}

/// The new host thread's part, on its temporary stack.
pub(super) fn wait_for_stack(temporary: u64, tid: i32) -> ! {
    // SAFETY: this thread runs on the slot; the giver only writes word and stack pointer, which are made for sharing.
    let header = unsafe { stack::header(temporary) };
    let slot = &header.hand_over;
    while slot.word.load(Ordering::Acquire) == 0 {
        super::futex::wait(&slot.word, 0, None);
    }
    // SAFETY: written before the word was.
    let sp = unsafe { *slot.sp.get() };
    let base = sp & !(stack::STACK_BYTES - 1);
    // SAFETY: the giver has left its stack for good, and this thread is its owner from here on.
    let given = unsafe { stack::header(base) };
    if let Some(t) = &given.thread {
        t.host_pid.store(tid, Ordering::SeqCst);
        t.host_tid.store(tid, Ordering::SeqCst);
    }
    threads::set_alt_stack(base);
    // SAFETY: the stack pointer is the one the giver saved.
    unsafe { hosted::take_over(sp) }
}
