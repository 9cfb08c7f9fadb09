//! Memory of other processes. Only a thread that lives in an address space can touch it, so a thread is asked.

use super::{Mm, Vma};
use crate::sched::wait::{Events, Registered, WaitQueue, park};
use crate::task::Task;
use crate::task::task::work;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use hal::aspace::{Prot, RESIDENT, SHARED};
use hal::sync::SpinLock;
use qlib::boot::Range;
use qlib::{Errno, PAGE_SIZE};

/// Most bytes one read moves.
const CHUNK: u64 = 64 * 1024;
/// How long the other task may take, ns: it may be in the middle of a call that does not look.
const PATIENCE_NS: u64 = 100_000_000;
/// Pages asked of the machine at once.
const PAGES: u64 = 64 * 1024;
/// Of an area, what is counted, bytes: reservations of runtimes are terabytes of nothing.
const COUNTED: u64 = 4 << 30;

/// The answer of the other task.
struct Answer<T> {
    value: SpinLock<Option<T>>,
    done: WaitQueue,
}

/// Has `task` run `job` where it is: with its address space, between its instructions or while it sleeps. The job must not
/// wait.
///
/// # Errors
/// EIO when it does not answer in time; EINTR when the caller is killed.
pub fn ask<T: Send + 'static>(
    task: &Arc<Task>,
    job: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Errno> {
    let answer = Arc::new(Answer {
        value: SpinLock::new(None),
        done: WaitQueue::new(),
    });
    let theirs = answer.clone();
    let job = move || {
        let value = job();
        *theirs.value.lock() = Some(value);
        theirs.done.wake_all();
    };
    task.calls.lock().push(Box::new(job));
    task.notify(work::CALL);
    let deadline = hal::clock::monotonic_ns() + PATIENCE_NS;
    // Not interruptible: a tracer gets a signal for every stop of what it traces.
    let _registered = Registered::new(&answer.done, Events::all());
    loop {
        let value = answer.value.lock().take();
        if let Some(v) = value {
            return Ok(v);
        }
        if crate::task::killed() {
            return Err(Errno::EINTR);
        }
        if hal::clock::monotonic_ns() >= deadline {
            return Err(Errno::EIO);
        }
        park(Some(deadline));
    }
}

fn is_own(mm: &Mm) -> bool {
    crate::task::current()
        .and_then(|t| t.mm())
        .is_some_and(|m| m.space.same(&mm.space))
}

fn read_own(mm: &Mm, addr: u64, len: usize) -> Vec<u8> {
    // As much as is mapped, page by page.
    let mut out = Vec::with_capacity(len);
    let mut page = vec![0; PAGE_SIZE as usize];
    let mut at = addr;
    while out.len() < len {
        let n = (PAGE_SIZE - at % PAGE_SIZE).min((len - out.len()) as u64);
        let part = &mut page[..n as usize];
        if hal::user::copy_in(part, at).is_err() {
            break;
        }
        mm.space.show_original(at, part);
        out.extend_from_slice(part);
        at += n;
    }
    out
}

/// Reads up to `len` bytes of the memory of `task`, at most 64 KiB; fewer where less is mapped.
///
/// # Errors
/// ESRCH when the task has no memory any more; as [`ask`].
pub fn read(task: &Arc<Task>, addr: u64, len: u64) -> Result<Vec<u8>, Errno> {
    let mm = task.mm().ok_or(Errno::ESRCH)?;
    let len = len.min(CHUNK) as usize;
    if len == 0 {
        return Ok(Vec::new());
    }
    if is_own(&mm) {
        return Ok(read_own(&mm, addr, len));
    }
    ask(task, move || read_own(&mm, addr, len))
}

/// Writes to the memory of `task`; with `force` also where the app itself may not (breakpoints in code).
///
/// # Errors
/// EFAULT when part of it is not mapped, or not writable; ESRCH when the task has no memory any more; as [`ask`].
pub fn write(task: &Arc<Task>, addr: u64, bytes: &[u8], force: bool) -> Result<(), Errno> {
    if bytes.is_empty() {
        return Ok(());
    }
    let mm = task.mm().ok_or(Errno::ESRCH)?;
    let end = addr.checked_add(bytes.len() as u64).ok_or(Errno::EFAULT)?;
    // Held until it is written: the areas must not change meanwhile.
    let vmas = mm.vmas.lock();
    let mut parts = Vec::new();
    let mut at = addr;
    while at < end {
        let area = vmas.find(at).ok_or(Errno::EFAULT)?;
        if !area.prot.contains(Prot::WRITE) && (!force || area.shared) {
            return Err(Errno::EFAULT);
        }
        let to = area.end.min(end);
        parts.push((at, to, area.prot, super::calls::may_be_patched(area)));
        at = to;
    }
    let data = bytes.to_vec();
    let theirs = mm.clone();
    let job = move || {
        for (from, to, prot, patched) in parts {
            if patched {
                let range = Range { start: from, end: to };
                theirs.space.unpatch_calls(range, hal::site::Fate::Changes)?;
            }
            let data = &data[(from - addr) as usize..(to - addr) as usize];
            if prot.contains(Prot::WRITE) {
                hal::user::copy_out(from, data)?;
                continue;
            }
            let pages = Range {
                start: from & !(PAGE_SIZE - 1),
                end: (to + PAGE_SIZE - 1) & !(PAGE_SIZE - 1),
            };
            theirs.space.protect(pages, prot | Prot::READ | Prot::WRITE)?;
            let copied = hal::user::copy_out(from, data);
            theirs.space.protect(pages, prot)?;
            copied?;
        }
        Ok(())
    };
    let done = if is_own(&mm) { job() } else { ask(task, job)? };
    drop(vmas);
    done
}

/// Pages of an area that are there.
#[derive(Clone, Copy, Debug, Default)]
pub struct Resident {
    /// All.
    pub pages: u64,
    /// Private ones that a fork shares, where the machine knows.
    pub shared: u64,
}

/// Resident pages of areas of the calling thread's address space.
fn count_own(mm: &Mm, areas: &[Range]) -> Vec<Resident> {
    let mut map = Vec::new();
    let count = |r: &Range| {
        let end = r.end.min(r.start + COUNTED);
        let mut at = r.start;
        let mut n = Resident::default();
        while at < end {
            let to = end.min(at + PAGES * PAGE_SIZE);
            map.clear();
            map.resize(((to - at) / PAGE_SIZE) as usize, 0u8);
            if mm.space.resident(Range { start: at, end: to }, &mut map).is_ok() {
                let of = |bit: u8| map.iter().filter(|b| **b & bit != 0).count() as u64;
                n.pages += of(RESIDENT);
                n.shared += of(SHARED);
            }
            at = to;
        }
        n
    };
    areas.iter().map(count).collect()
}

/// Resident pages of each area of `vmas` in the memory of `task`.
///
/// # Errors
/// ESRCH when the task has no memory any more; as [`ask`].
pub fn resident(task: &Arc<Task>, vmas: &[Vma]) -> Result<Vec<Resident>, Errno> {
    let mm = task.mm().ok_or(Errno::ESRCH)?;
    let areas: Vec<Range> = vmas.iter().map(|v| v.range()).collect();
    if is_own(&mm) {
        return Ok(count_own(&mm, &areas));
    }
    ask(task, move || count_own(&mm, &areas))
}
