//! Gives free memory that was used back to the host, in batches: a thread of the kernel that sleeps until there is enough.

use super::qcall::{self, Pending};
use super::{Bare, frames};
use crate::contract::{Clock, Threads};
use crate::sync::Once;
use crate::thread::{NewSpace, Thread, ThreadRef};
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};
use qlib::qcall::{HandleId, Op};
use qlib::{Errno, PAGE_SIZE, PhysAddr};

/// What is used again soon is not worth giving away: memory rests so long first.
const REST_NS: u64 = 500_000_000;
/// Blocks asked for at one time.
const BATCH: usize = 16;

static THREAD: Once<ThreadRef> = Once::new();
/// Somebody asked for a round that has not begun.
static ASKED: AtomicBool = AtomicBool::new(false);

/// Starts the thread. Without it the guest works, and the host pays.
pub(super) fn start() {
    let thread = Arc::new(Thread::new("reclaim"));
    if Bare::spawn(&thread, NewSpace::Kernel, Box::new(|| run())).is_ok() {
        THREAD.call_once(|| thread);
    }
}

/// There is enough to give. May be called with locks held, but not those of the frames or the scheduler.
pub(super) fn wake() {
    if let Some(thread) = THREAD.get()
        && !ASKED.swap(true, Ordering::SeqCst)
    {
        Bare::unpark(thread);
    }
}

fn run() -> ! {
    loop {
        while !ASKED.load(Ordering::SeqCst) {
            Bare::park(None);
        }
        let begin = Bare::monotonic_ns() + REST_NS;
        while Bare::monotonic_ns() < begin {
            Bare::park(Some(begin));
        }
        ASKED.store(false, Ordering::SeqCst);
        while give_batch() {}
    }
}

/// Gives up to [`BATCH`] blocks; `false` when there is nothing more to do now.
fn give_batch() -> bool {
    // Out of the lists, the blocks are nobody's until the host has taken what they hold.
    let blocks: [Option<(PhysAddr, usize)>; BATCH] = core::array::from_fn(|_| frames::take_used());
    let pending: [Pending; BATCH] = core::array::from_fn(|_| Pending::new());
    for (block, p) in blocks.iter().zip(&pending) {
        let Some((pa, order)) = block else { continue };
        let mut r = qcall::request(Op::FreeRam, HandleId::NONE);
        r.args[0] = pa.0;
        r.args[1] = PAGE_SIZE << order;
        r.tag = p.tag();
        qcall::submit(&r);
    }
    let mut refused = false;
    for (block, p) in blocks.iter().zip(&pending) {
        let Some((pa, order)) = *block else { continue };
        let taken = Errno::from_ret(p.wait().result).is_ok();
        refused |= !taken;
        frames::put_back(pa, order, !taken);
    }
    // A host that takes nothing back is not asked again before more was freed.
    !refused && blocks[BATCH - 1].is_some()
}
