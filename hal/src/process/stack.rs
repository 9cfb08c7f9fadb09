//! Kernel stacks: 64 KiB slots in the region, each with a header at its base. A thread's stack is also its alternate
//! signal stack, so the stack pointer tells the thread.

use crate::aspace::SpaceInner;
use crate::native::callgate;
use crate::native::hosted::{self, HandOver};
use crate::native::hostframe::HostFrame;
use crate::sync::SpinLock;
use crate::thread::Thread;
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Bytes of a slot, and its alignment.
pub(super) const STACK_BYTES: u64 = 64 << 10;
/// Part of the heap range that holds stacks.
pub(super) const STACKS_BYTES: u64 = 2 << 30;
/// What [`Header::canary`] holds while the stack has not overflown.
const CANARY: u64 = 0x6b72_6175_715f_6b73;

/// What lies at the base of a slot. Only the thread on the stack touches it, but for the fields that say otherwise.
#[repr(C)]
pub(super) struct Header {
    /// Next free slot while this one is free.
    pub link: u64,
    /// What the call gate knows a slot by; at [`callgate::MAGIC_AT`].
    magic: u32,
    /// The app's stack pointer while a call enters; at [`callgate::USER_SP_AT`].
    user_sp: u64,
    /// The thread.
    pub thread: Option<Arc<Thread>>,
    /// The address space it lives in; kernel threads have none.
    pub space: Option<Arc<SpaceInner>>,
    /// What the thread runs first; taken when it starts.
    pub entry: Option<Box<dyn FnOnce() + Send>>,
    /// The host's signal frame of the trap being handled.
    pub frame: *mut HostFrame,
    /// FS and GS base of the app, where they cannot be read by instruction.
    pub bases: (u64, u64),
    /// Whether spinning before sleeping has paid off lately; negative: for how many sleeps it was not tried.
    pub luck: i8,
    /// Whether the thread came by the call gate: the app's FP state is in the registers.
    pub by_gate: bool,
    /// Whether the thread is the first of a new host process.
    pub new_process: bool,
    /// Whether the slot is a temporary one whose thread waits for another stack (exec).
    pub waits: bool,
    /// Where such a thread waits; the thread that gives its stack writes it.
    pub hand_over: HandOver,
    /// The lowest word an overflow reaches.
    canary: u64,
}

const _: () = {
    assert!(core::mem::offset_of!(Header, magic) == callgate::MAGIC_AT);
    assert!(core::mem::offset_of!(Header, user_sp) == callgate::USER_SP_AT);
    assert!(STACK_BYTES == callgate::SLOT_BYTES as u64);
};

/// Slots never used yet start here.
static FRESH: AtomicU64 = AtomicU64::new(0);
static END: AtomicU64 = AtomicU64::new(0);
/// Free slots, linked through their headers. Dying threads push without a lock (in assembly); takers hold [`TAKE`], so
/// a slot cannot come back between a taker's look and its exchange.
struct FreeList(UnsafeCell<u64>);
// SAFETY: the word is only accessed atomically.
unsafe impl Sync for FreeList {}
static FREE: FreeList = FreeList(UnsafeCell::new(0));
static TAKE: SpinLock<()> = SpinLock::new(());

impl FreeList {
    fn word(&self) -> &AtomicU64 {
        // SAFETY: AtomicU64 has the layout of u64, and every access is atomic.
        unsafe { AtomicU64::from_ptr(self.0.get()) }
    }
}

/// Sets the memory for stacks.
pub(super) fn init(start: u64, end: u64) {
    FRESH.store(start.next_multiple_of(STACK_BYTES), Ordering::Relaxed);
    END.store(end, Ordering::Relaxed);
}

/// Takes a slot and writes an empty header; returns its base.
pub(super) fn alloc() -> Option<u64> {
    let base = take()?;
    reset(base);
    Some(base)
}

fn take() -> Option<u64> {
    let _takers = TAKE.lock();
    let mut head = FREE.word().load(Ordering::Acquire);
    while head != 0 {
        // SAFETY: a free slot's link is written before it is pushed, and slots are never unmapped.
        let next = unsafe { (*(head as *const Header)).link };
        match FREE
            .word()
            .compare_exchange(head, next, Ordering::AcqRel, Ordering::Acquire)
        {
            Ok(_) => return Some(head),
            Err(now) => head = now,
        }
    }
    let base = FRESH.load(Ordering::Relaxed);
    if base + STACK_BYTES > END.load(Ordering::Relaxed) {
        return None;
    }
    FRESH.store(base + STACK_BYTES, Ordering::Relaxed);
    Some(base)
}

/// Writes an empty header.
pub(super) fn reset(base: u64) {
    let header = Header {
        link: 0,
        magic: callgate::MAGIC,
        user_sp: 0,
        thread: None,
        space: None,
        entry: None,
        frame: core::ptr::null_mut(),
        bases: (0, 0),
        luck: 0,
        by_gate: false,
        new_process: false,
        waits: false,
        hand_over: HandOver {
            word: AtomicU32::new(0),
            sp: UnsafeCell::new(0),
        },
        canary: CANARY,
    };
    // SAFETY: the slot is the caller's alone, and its base is aligned and mapped.
    unsafe { (base as *mut Header).write(header) };
}

/// Gives back a slot no thread runs on; its header must be empty.
pub(super) fn free(base: u64) {
    let mut head = FREE.word().load(Ordering::Relaxed);
    loop {
        // SAFETY: the slot is the caller's until the exchange below.
        unsafe { (*(base as *mut Header)).link = head };
        match FREE
            .word()
            .compare_exchange(head, base, Ordering::AcqRel, Ordering::Relaxed)
        {
            Ok(_) => return,
            Err(now) => head = now,
        }
    }
}

/// Ends the calling host thread and gives its slot back.
pub(super) fn exit_thread() -> ! {
    let base = here();
    // SAFETY: only the address of the field is taken.
    let link = unsafe { &raw mut (*(base as *mut Header)).link };
    // SAFETY: the thread runs on this slot and needs nothing on it any more.
    unsafe { hosted::exit_thread(FREE.0.get(), base, link) }
}

/// Base of the calling thread's slot.
#[inline]
pub(super) fn here() -> u64 {
    hosted::stack_pointer() & !(STACK_BYTES - 1)
}

/// Header of a slot.
///
/// # Safety
/// The slot is the caller's: it runs on it, or no thread runs on it yet; and no other reference is used meanwhile.
#[inline]
pub(super) unsafe fn header<'a>(base: u64) -> &'a mut Header {
    // SAFETY: the caller vouches for the slot.
    unsafe { &mut *(base as *mut Header) }
}

/// Runs `f` on the calling thread's header. `f` must not come back here.
#[inline]
pub(super) fn with<R>(f: impl FnOnce(&mut Header) -> R) -> R {
    // SAFETY: the thread runs on the slot; `f` is the only user of the reference.
    f(unsafe { header(here()) })
}

/// Top of a slot: the first stack pointer.
pub(super) fn top(base: u64) -> u64 {
    base + STACK_BYTES
}

/// The alternate signal stack of a slot: base and size.
pub(super) fn alt_stack(base: u64) -> (u64, u64) {
    let start = base + (size_of::<Header>() as u64).next_multiple_of(64);
    (start, base + STACK_BYTES - start)
}

/// Whether the stack never overflowed into its header.
#[inline]
pub(super) fn is_sound(h: &Header) -> bool {
    h.canary == CANARY
}
