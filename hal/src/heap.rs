//! The kernel heap. The machine provides memory in chunks as the heap runs out.

use crate::HeapUsage;
use crate::sync::SpinLock;
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::NonNull;
use talc::{OomHandler, Span, Talc};

/// Hands out memory for the heap: at least `min` bytes, never handed out before. (start, length), or `None` when
/// there is no more. Called with the heap locked: it must not allocate.
pub(crate) type Source = fn(min: usize) -> Option<(usize, usize)>;

struct Grow {
    source: Option<Source>,
    last: Span,
}

// SAFETY: the span only names memory that the heap owns; the heap's lock guards it.
unsafe impl Send for Grow {}

impl OomHandler for Grow {
    fn handle_oom(talc: &mut Talc<Self>, layout: Layout) -> Result<(), ()> {
        let source = talc.oom_handler.source.ok_or(())?;
        // Room for the allocator's own tags and for the alignment.
        let min = layout
            .size()
            .checked_add(layout.align())
            .and_then(|n| n.checked_add(4096))
            .ok_or(())?;
        let (start, len) = source(min).ok_or(())?;
        let fresh = Span::from_base_size(start as *mut u8, len);
        let last = talc.oom_handler.last;
        let grown = match last.get_base_acme() {
            Some((base, acme)) if acme as usize == start => {
                let whole = Span::new(base, (start + len) as *mut u8);
                // SAFETY: `last` is what the previous claim or extension returned, and the source gave the rest.
                unsafe { talc.extend(last, whole) }
            }
            // SAFETY: the source hands out memory that nothing else uses.
            _ => unsafe { talc.claim(fresh)? },
        };
        talc.oom_handler.last = grown;
        Ok(())
    }
}

struct Heap(SpinLock<Talc<Grow>>);

#[global_allocator]
static HEAP: Heap = Heap(SpinLock::new(Talc::new(Grow {
    source: None,
    last: Span::empty(),
})));

/// Gives the heap its source of memory. Called once, before anything allocates.
pub(crate) fn init(source: Source) {
    HEAP.0.lock().oom_handler.source = Some(source);
}

/// How much of the heap is used.
pub(crate) fn usage() -> HeapUsage {
    let heap = HEAP.0.lock();
    let counters = heap.get_counters();
    HeapUsage {
        allocated: counters.allocated_bytes,
        claimed: counters.claimed_bytes,
    }
}

// SAFETY: Talc is an allocator; the lock serialises it.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller promises a layout of non-zero size.
        match unsafe { self.0.lock().malloc(layout) } {
            Ok(p) => p.as_ptr(),
            Err(()) => core::ptr::null_mut(),
        }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        if let Some(p) = NonNull::new(ptr) {
            // SAFETY: the caller promises that `ptr` came from here with `layout`.
            unsafe { self.0.lock().free(p, layout) }
        }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let Some(p) = NonNull::new(ptr) else {
            return core::ptr::null_mut();
        };
        if new_size <= layout.size() {
            // SAFETY: `ptr` came from here with `layout`, and the new size is smaller and not zero.
            unsafe { self.0.lock().shrink(p, layout, new_size) };
            return ptr;
        }
        // SAFETY: `ptr` came from here with `layout`, and the new size is larger.
        if let Ok(grown) = unsafe { self.0.lock().grow_in_place(p, layout, new_size) } {
            return grown.as_ptr();
        }
        let Ok(bigger) = Layout::from_size_align(new_size, layout.align()) else {
            return core::ptr::null_mut();
        };
        // SAFETY: the new size is not zero.
        let fresh = unsafe { self.alloc(bigger) };
        if !fresh.is_null() {
            // SAFETY: both blocks are at least the old size long and distinct.
            unsafe { core::ptr::copy_nonoverlapping(ptr, fresh, layout.size()) };
            // SAFETY: `ptr` came from here with `layout` and is not used again.
            unsafe { self.dealloc(ptr, layout) };
        }
        fresh
    }
}
