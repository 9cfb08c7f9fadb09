//! Locks. A [`SpinLock`] is held for short and never across a wait for the host or for another thread, nor while
//! user memory is touched.

use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicU32, Ordering};

pub use spin::Once;

/// Lock word values.
const FREE: u32 = 0;
const HELD: u32 = 1;
/// Held, and a waiter may sleep in the host (`process`).
const CONTENDED: u32 = 2;

/// A mutual-exclusion lock: spins briefly, then does what the machine does (the host's futex on `process`, polling for
/// shootdowns on bare machines).
pub struct SpinLock<T> {
    word: AtomicU32,
    value: UnsafeCell<T>,
}

// SAFETY: the lock gives exclusive access, so sharing it needs only that the value may move between threads.
unsafe impl<T: Send> Sync for SpinLock<T> {}
// SAFETY: moving the lock moves the value.
unsafe impl<T: Send> Send for SpinLock<T> {}

/// Access to the value while the lock is held.
pub struct Guard<'a, T> {
    lock: &'a SpinLock<T>,
}

impl<T> SpinLock<T> {
    /// A free lock.
    pub const fn new(value: T) -> Self {
        Self {
            word: AtomicU32::new(FREE),
            value: UnsafeCell::new(value),
        }
    }

    /// Takes the lock.
    pub fn lock(&self) -> Guard<'_, T> {
        if self
            .word
            .compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed)
            .is_err()
        {
            self.lock_slow();
        }
        Guard { lock: self }
    }

    /// Takes the lock if it is free.
    pub fn try_lock(&self) -> Option<Guard<'_, T>> {
        self.word
            .compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed)
            .ok()
            .map(|_| Guard { lock: self })
    }

    /// Gives access without locking to a sole owner.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    #[cold]
    fn lock_slow(&self) {
        for _ in 0..100 {
            if self.word.load(Ordering::Relaxed) == FREE
                && self
                    .word
                    .compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed)
                    .is_ok()
            {
                return;
            }
            relax();
        }
        while self.word.swap(CONTENDED, Ordering::Acquire) != FREE {
            wait(&self.word);
        }
    }
}

#[cfg(target_os = "none")]
fn relax() {
    core::hint::spin_loop();
    if crate::boot::kind() == qlib::boot::MachineKind::Kvm {
        crate::bare::poll_while_spinning();
    }
}

#[cfg(not(target_os = "none"))]
fn relax() {
    core::hint::spin_loop();
}

/// Waits for a change of a contended word.
#[cfg(target_os = "none")]
fn wait(word: &AtomicU32) {
    match crate::boot::kind() {
        qlib::boot::MachineKind::Process => crate::process::futex::wait(word, CONTENDED, None),
        qlib::boot::MachineKind::Kvm => relax(),
    }
}

#[cfg(not(target_os = "none"))]
fn wait(_word: &AtomicU32) {
    std::thread::yield_now();
}

#[cfg(target_os = "none")]
fn wake(word: &AtomicU32) {
    if crate::boot::kind() == qlib::boot::MachineKind::Process {
        crate::process::futex::wake(word, 1);
    }
}

#[cfg(not(target_os = "none"))]
fn wake(_word: &AtomicU32) {}

impl<T> Deref for Guard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: the guard exists only while the lock is held.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the guard exists only while the lock is held, and it is borrowed exclusively.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T> Drop for Guard<'_, T> {
    fn drop(&mut self) {
        if self.lock.word.swap(FREE, Ordering::Release) == CONTENDED {
            wake(&self.lock.word);
        }
    }
}

impl<T: Default> Default for SpinLock<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}
