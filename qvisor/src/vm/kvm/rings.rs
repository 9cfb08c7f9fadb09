//! The host's ends of the rings. The guest may scribble over the area at any time: indices are checked by `qlib::ring`,
//! entries are copied before they are looked at.

use super::memory::Memory;
use qlib::PhysAddr;
use qlib::ring::{AREA_BYTES, LOG_BYTES, LOG_PAGE, Shared};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering, fence};

/// The ring area in guest memory.
#[derive(Clone)]
pub struct Area {
    memory: Arc<Memory>,
    base: *mut u8,
}

// SAFETY: the area is guest memory, which `Memory` keeps mapped; access is atomic or by copies.
unsafe impl Send for Area {}
// SAFETY: as above.
unsafe impl Sync for Area {}

impl Area {
    /// The area at `at`; `None` when it is not all RAM.
    pub fn new(memory: Arc<Memory>, at: PhysAddr) -> Option<Self> {
        let base = memory.pointer(at, AREA_BYTES)?;
        Some(Self { memory, base })
    }

    fn word(&self, at: usize) -> &AtomicU32 {
        debug_assert!(at + 4 <= AREA_BYTES && at.is_multiple_of(4));
        // SAFETY: ring words are aligned and inside the area (`qlib::ring::Layout`), which is mapped as long as `self`.
        unsafe { AtomicU32::from_ptr(self.base.wrapping_add(at).cast()) }
    }

    /// The line in the log page: level and bytes.
    pub fn log_line(&self) -> (u32, Vec<u8>) {
        let level = self.load(LOG_PAGE);
        let len = (self.load(LOG_PAGE + 4) as usize).min(LOG_BYTES - 8);
        let mut line = vec![0; len];
        self.read(LOG_PAGE + 8, &mut line);
        (level, line)
    }

    /// The guest memory the area lies in.
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }
}

impl Shared for Area {
    fn load(&self, at: usize) -> u32 {
        self.word(at).load(Ordering::Acquire)
    }
    fn store(&self, at: usize, value: u32) {
        self.word(at).store(value, Ordering::Release);
    }
    fn fence(&self) {
        fence(Ordering::SeqCst);
    }
    fn read(&self, at: usize, bytes: &mut [u8]) {
        assert!(at + bytes.len() <= AREA_BYTES);
        // SAFETY: the range lies in the area, which is mapped; torn data is the guest's own doing.
        unsafe { std::ptr::copy_nonoverlapping(self.base.wrapping_add(at), bytes.as_mut_ptr(), bytes.len()) };
    }
    fn write(&self, at: usize, bytes: &[u8]) {
        assert!(at + bytes.len() <= AREA_BYTES);
        // SAFETY: the range lies in the area, which is mapped and holds nothing of this process.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.base.wrapping_add(at), bytes.len()) };
    }
}
