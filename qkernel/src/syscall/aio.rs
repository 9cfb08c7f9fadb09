//! Linux's asynchronous IO. Source: `io_setup(2)`, `io_submit(2)`, `io_getevents(2)`, Linux `fs/aio.c`.
//!
//! An operation is done when it is submitted, as Linux does it for files without O_DIRECT; what is asynchronous is how the
//! result is fetched.

use super::file_io::{read_operation, write_operation};
use super::files::{buffer, io_file, iovecs};
use super::poll::{restore_mask, set_temporary_mask};
use super::{Args, Ctx, Support::*, SysResult};
use crate::fs::eventfd::EventFd;
use crate::fs::fdtable::Fd;
use crate::fs::file::File;
use crate::mm::Mm;
use crate::mm::ops::{Backing, MapRequest, Place};
use crate::mm::vma::Label;
use crate::rows;
use crate::sched::wait::{Events, WaitError, WaitQueue, wait_until};
use crate::time::deadline_after;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};
use hal::aspace::Prot;
use hal::sync::SpinLock;
use hal::user::UserPtr;
use qlib::{Errno, PAGE_SIZE};

rows! {
    io_setup: Full, |c, a| sys_io_setup(c, a.u32(0), a.ptr(1));
    io_destroy: Full, |c, a| sys_io_destroy(c, a.u64(0));
    io_submit: Partial("operations are done at once; no IOCB_CMD_POLL"), |c, a| sys_io_submit(c, a.u64(0), a.i64(1), a.ptr(2));
    io_cancel: Full, |c, a| sys_io_cancel(c, a.u64(0), a.u64(1));
    io_getevents: Full, |c, a| get_events(c, a);
    io_pgetevents: Full, |c, a| sys_io_pgetevents(c, a);
}

/// Most events of all contexts together, as `/proc/sys/fs/aio-max-nr` says.
const MAX_EVENTS: u32 = 65536;
/// Above this a number is no number of events. Source: Linux `ioctx_alloc`.
const ABSURD: u32 = 0x1000_0000;
/// `aio_key` of an operation that the kernel has seen.
const KEY: u32 = 0;
const IOCB_FLAG_RESFD: u32 = 1;

/// `aio_lio_opcode`.
mod opcode {
    pub const PREAD: u16 = 0;
    pub const PWRITE: u16 = 1;
    pub const FSYNC: u16 = 2;
    pub const FDSYNC: u16 = 3;
    pub const PREADV: u16 = 7;
    pub const PWRITEV: u16 = 8;
}

/// `struct io_event`: data, operation, result, 0.
type Event = [u64; 4];

/// A context: results that wait to be fetched.
pub struct Context {
    room: usize,
    results: SpinLock<VecDeque<Event>>,
    queue: WaitQueue,
    destroyed: AtomicBool,
}

/// Contexts of an address space by number, which is the address of a page of theirs.
pub type Contexts = alloc::collections::BTreeMap<u64, Arc<Context>>;

fn memory(c: &Ctx<'_>) -> SysResult<Arc<Mm>> {
    c.task.mm().ok_or(Errno::EINVAL)
}

fn context(c: &Ctx<'_>, id: u64) -> SysResult<Arc<Context>> {
    memory(c)?.aio.lock().get(&id).cloned().ok_or(Errno::EINVAL)
}

fn sys_io_setup(c: &mut Ctx<'_>, events: u32, at: UserPtr<u64>) -> SysResult {
    if at.read()? != 0 || events == 0 || events > ABSURD {
        return Err(Errno::EINVAL);
    }
    if events > MAX_EVENTS {
        return Err(Errno::EAGAIN);
    }
    let mm = memory(c)?;
    // The number is an address the app may look at: libaio looks there for a ring, and finds none.
    let page = MapRequest {
        place: Place::Hint(0),
        len: PAGE_SIZE,
        prot: Prot::READ | Prot::WRITE,
        label: Label::None,
        grows_down: false,
        locked: false,
        limit: u64::MAX,
    };
    let id = mm.map(&page, Backing::Anonymous)?;
    let context = Context {
        // Linux, too, gives more than asked.
        room: events as usize * 2,
        results: SpinLock::default(),
        queue: WaitQueue::new(),
        destroyed: AtomicBool::new(false),
    };
    mm.aio.lock().insert(id, Arc::new(context));
    if let Err(e) = at.write(&id) {
        sys_io_destroy(c, id)?;
        return Err(e);
    }
    Ok(0)
}

fn sys_io_destroy(c: &mut Ctx<'_>, id: u64) -> SysResult {
    let mm = memory(c)?;
    let gone = mm.aio.lock().remove(&id).ok_or(Errno::EINVAL)?;
    gone.destroyed.store(true, Ordering::SeqCst);
    gone.queue.wake_all();
    mm.unmap(id, PAGE_SIZE)?;
    Ok(0)
}

fn sys_io_submit(c: &mut Ctx<'_>, id: u64, count: i64, list: UserPtr<u64>) -> SysResult {
    if count < 0 {
        return Err(Errno::EINVAL);
    }
    let context = context(c, id)?;
    for i in 0..count as u64 {
        match list.at(i as usize).read().and_then(|at| submit(c, &context, at)) {
            Ok(()) => {}
            Err(e) if i == 0 => return Err(e),
            Err(_) => return Ok(i),
        }
    }
    Ok(count as u64)
}

/// `struct iocb`.
struct Operation {
    data: u64,
    rw_flags: u32,
    opcode: u16,
    fd: Fd,
    buffer: u64,
    len: u64,
    offset: i64,
    flags: u32,
    event_fd: Fd,
}

fn read_operation_at(at: u64) -> SysResult<Operation> {
    let from = UserPtr::<u64>::new(at);
    let mut w = [0; 8];
    for (i, word) in w.iter_mut().enumerate() {
        *word = from.at(i).read()?;
    }
    if w[6] != 0 || w[4] > i64::MAX as u64 {
        return Err(Errno::EINVAL);
    }
    Ok(Operation {
        data: w[0],
        rw_flags: (w[1] >> 32) as u32,
        opcode: w[2] as u16,
        fd: Fd((w[2] >> 32) as i32),
        buffer: w[3],
        len: w[4],
        offset: w[5] as i64,
        flags: w[7] as u32,
        event_fd: Fd((w[7] >> 32) as i32),
    })
}

/// Does one operation; errors of the operation itself are its result.
fn submit(c: &mut Ctx<'_>, context: &Context, at: u64) -> SysResult<()> {
    let op = read_operation_at(at)?;
    if context.results.lock().len() >= context.room {
        return Err(Errno::EAGAIN);
    }
    let file = io_file(c, op.fd)?;
    let teller = if op.flags & IOCB_FLAG_RESFD != 0 {
        let f = c.task.files().get(op.event_fd)?;
        f.downcast::<EventFd>().ok_or(Errno::EINVAL)?;
        Some(f)
    } else {
        None
    };
    UserPtr::<u32>::new(at + 8).write(&KEY)?;
    let result = perform(c, &op, &file)?;
    let result = match result {
        Err(
            Errno::ERESTARTSYS | Errno::ERESTARTNOHAND | Errno::ERESTARTNOINTR | Errno::ERESTART_RESTARTBLOCK,
        ) => Errno::to_ret(Err(Errno::EINTR)),
        r => Errno::to_ret(r),
    };
    context.results.lock().push_back([op.data, at, result as u64, 0]);
    context.queue.wake_all();
    if let Some(e) = teller.as_ref().and_then(|f| f.downcast::<EventFd>()) {
        e.add_one();
    }
    Ok(())
}

/// The inner result is what the app fetches, the outer one refuses the operation.
fn perform(c: &mut Ctx<'_>, op: &Operation, file: &Arc<File>) -> SysResult<SysResult> {
    let vector = matches!(op.opcode, opcode::PREADV | opcode::PWRITEV);
    match op.opcode {
        opcode::PREAD | opcode::PREADV | opcode::PWRITE | opcode::PWRITEV => {
            let write = matches!(op.opcode, opcode::PWRITE | opcode::PWRITEV);
            if op.rw_flags != 0 {
                return Err(Errno::EOPNOTSUPP);
            }
            if !(if write { file.writable() } else { file.readable() }) {
                return Err(Errno::EBADF);
            }
            let buffers = if vector {
                iovecs(op.buffer, op.len)?
            } else {
                Vec::from([buffer(op.buffer, op.len)?])
            };
            if op.offset < 0 && !file.ops().is_stream() {
                return Err(Errno::EINVAL);
            }
            Ok(if write {
                write_operation(c, file, &buffers, op.offset as u64)
            } else {
                read_operation(c, file, &buffers, op.offset as u64)
            })
        }
        opcode::FSYNC | opcode::FDSYNC => {
            if op.buffer | op.len | op.offset as u64 | u64::from(op.rw_flags) != 0 {
                return Err(Errno::EINVAL);
            }
            match file.ops().sync(file, op.opcode == opcode::FDSYNC) {
                Err(Errno::EINVAL) => Err(Errno::EINVAL),
                r => Ok(r.map(|()| 0)),
            }
        }
        _ => Err(Errno::EINVAL),
    }
}

/// Everything is done by the time it could be cancelled.
fn sys_io_cancel(c: &mut Ctx<'_>, id: u64, at: u64) -> SysResult {
    let key = UserPtr::<u32>::new(at.wrapping_add(8)).read()?;
    if key != KEY {
        return Err(Errno::EINVAL);
    }
    context(c, id)?;
    Err(Errno::EINVAL)
}

fn get_events(c: &mut Ctx<'_>, a: Args) -> SysResult {
    let deadline = deadline_after(a.u64(4))?;
    let context = context(c, a.u64(0))?;
    let (min, max) = (a.i64(1), a.i64(2));
    if min < 0 || min > max {
        return Err(Errno::EINVAL);
    }
    let to = UserPtr::<u64>::new(a.u64(3));
    let mut taken = 0u64;
    let mut failed = None;
    let mut take = || {
        while failed.is_none() && (taken as i64) < max {
            let next = context.results.lock().pop_front();
            let Some(event) = next else { break };
            let mut words = event.iter().enumerate();
            match words.try_for_each(|(i, w)| to.at(taken as usize * 4 + i).write(w)) {
                Ok(()) => taken += 1,
                Err(e) => {
                    context.results.lock().push_front(event);
                    failed = Some(e);
                }
            }
        }
        let gone = context.destroyed.load(Ordering::SeqCst);
        (failed.is_some() || gone || taken as i64 >= min).then_some(())
    };
    let waited = wait_until(&context.queue, Events::all(), deadline, &mut take);
    match (taken, failed, waited) {
        (0, Some(e), _) => Err(e),
        (0, None, Err(WaitError::Interrupted)) => Err(Errno::EINTR),
        _ => Ok(taken),
    }
}

fn sys_io_pgetevents(c: &mut Ctx<'_>, a: Args) -> SysResult {
    // The mask and its size lie in memory.
    let (mask, size) = match UserPtr::<[u64; 2]>::nonnull(a.u64(5)) {
        Some(p) => {
            let [mask, size] = p.read()?;
            (mask, size)
        }
        None => (0, 0),
    };
    set_temporary_mask(c.task, mask, size)?;
    let r = get_events(c, a);
    restore_mask(c.task, &r);
    r
}
