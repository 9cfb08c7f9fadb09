//! Memory of other processes. Only a thread that lives in an address space can touch it, so the thread is asked.

use super::Mm;
use crate::sched::wait::{Events, WaitQueue, wait_until};
use crate::task::Task;
use crate::task::task::work;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use hal::sync::SpinLock;
use qlib::Errno;

/// Most bytes one request moves.
const CHUNK: u64 = 64 * 1024;
/// How long the other thread may take, ns. It may be stopped or wait in the host for long.
const PATIENCE_NS: u64 = 200_000_000;

/// The answer of the other thread.
#[derive(Default)]
struct Answer {
    bytes: SpinLock<Option<Vec<u8>>>,
    done: WaitQueue,
}

fn read_own(addr: u64, len: usize) -> Vec<u8> {
    // As much as is mapped: page by page.
    let mut out = Vec::with_capacity(len);
    let mut page = vec![0; 4096];
    let mut at = addr;
    while out.len() < len {
        let n = (4096 - at as usize % 4096).min(len - out.len());
        if hal::user::copy_in(&mut page[..n], at).is_err() {
            break;
        }
        out.extend_from_slice(&page[..n]);
        at += n as u64;
    }
    out
}

fn is_own(mm: &Arc<Mm>) -> bool {
    crate::task::current()
        .and_then(|t| t.mm())
        .is_some_and(|m| m.space.same(&mm.space))
}

/// Reads up to `len` bytes of the memory of `task`, at most 64 KiB; fewer where less is mapped.
///
/// # Errors
/// ESRCH when the task has no memory any more; EIO when it does not answer in time; ERESTARTSYS.
pub fn read(task: &Arc<Task>, addr: u64, len: u64) -> Result<Vec<u8>, Errno> {
    let mm = task.mm().ok_or(Errno::ESRCH)?;
    let len = len.min(CHUNK) as usize;
    if len == 0 {
        return Ok(Vec::new());
    }
    if is_own(&mm) {
        return Ok(read_own(addr, len));
    }
    let answer = Arc::new(Answer::default());
    let theirs = answer.clone();
    let job = move || {
        let bytes = read_own(addr, len);
        *theirs.bytes.lock() = Some(bytes);
        theirs.done.wake_all();
    };
    task.calls.lock().push(Box::new(job));
    task.notify(work::CALL);
    let deadline = hal::clock::monotonic_ns() + PATIENCE_NS;
    wait_until(&answer.done, Events::all(), Some(deadline), || {
        answer.bytes.lock().take()
    })
    .map_err(|e| e.restart_or(Errno::EIO))
}
