//! The rings between guest and host (`kvm`): submissions ([`crate::qcall::Request`]) one way, completions
//! ([`crate::qcall::Reply`]) the other, each with one producer and one consumer at a time.
//!
//! Neither side trusts the other's index: an index out of range is [`Broken`]. A producer needs to ring the doorbell only
//! when [`Producer::push`] says that the consumer sleeps. Where the memory is, and how it is touched, is the side's
//! own [`Shared`].

/// Offset of the log page in the ring area: `u32` level, `u32` length, then the line. See `doorbell::LOG`.
pub const LOG_PAGE: usize = 0;
/// Bytes of the log page.
pub const LOG_BYTES: usize = 4096;
/// The submission ring: slots hold a [`crate::qcall::Request`].
pub const SUBMIT: Layout = Layout {
    base: 4096,
    slots: 1024,
    slot_bytes: 96,
};
/// The completion ring: slots hold a [`crate::qcall::Reply`].
pub const COMPLETE: Layout = Layout {
    base: SUBMIT.end().next_multiple_of(4096),
    slots: 4096,
    slot_bytes: 32,
};
/// Bytes of the whole ring area.
pub const AREA_BYTES: usize = COMPLETE.end().next_multiple_of(4096);

/// Consumer's index.
const HEAD: usize = 0;
/// Producer's index.
const TAIL: usize = 64;
/// 1 while the consumer sleeps and wants a doorbell.
const SLEEPS: usize = 128;
const SLOTS: usize = 192;

/// Where a ring lies in the area.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Offset of its header.
    pub base: usize,
    /// Slots, a power of two.
    pub slots: u32,
    /// Bytes of a slot.
    pub slot_bytes: usize,
}

impl Layout {
    /// Offset of the first byte behind the ring.
    pub const fn end(&self) -> usize {
        self.base + SLOTS + self.slots as usize * self.slot_bytes
    }
    const fn slot(&self, index: u32) -> usize {
        self.base + SLOTS + (index & (self.slots - 1)) as usize * self.slot_bytes
    }
}

/// The ring area as one side reaches it. Offsets are inside the area. Words are accessed atomically; the bytes of a slot
/// are not, and may change under the reader when the other side is hostile.
pub trait Shared {
    /// Loads a word with acquire ordering.
    fn load(&self, at: usize) -> u32;
    /// Stores a word with release ordering.
    fn store(&self, at: usize, value: u32);
    /// A full barrier between earlier and later accesses.
    fn fence(&self);
    /// Copies out of the area.
    fn read(&self, at: usize, bytes: &mut [u8]);
    /// Copies into the area.
    fn write(&self, at: usize, bytes: &[u8]);
}

/// The other side's index makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

/// What became of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It is in the ring and the consumer will see it.
    Quiet,
    /// It is in the ring; the consumer sleeps: ring.
    Ring,
    /// There is no room.
    Full,
}

/// The writing end. Exactly one exists per ring and side.
pub struct Producer<S> {
    shared: S,
    layout: Layout,
    tail: u32,
}

impl<S: Shared> Producer<S> {
    /// The writing end of a fresh (zeroed) ring.
    pub const fn new(shared: S, layout: Layout) -> Self {
        Self {
            shared,
            layout,
            tail: 0,
        }
    }

    /// Puts one entry of `slot_bytes` bytes.
    ///
    /// # Errors
    /// [`Broken`] when the consumer's index is ahead of ours or too far behind.
    pub fn push(&mut self, entry: &[u8]) -> Result<Pushed, Broken> {
        if self.room()? == 0 {
            return Ok(Pushed::Full);
        }
        self.shared.write(self.layout.slot(self.tail), entry);
        self.tail = self.tail.wrapping_add(1);
        self.shared.store(self.layout.base + TAIL, self.tail);
        // Pairs with the fence in `Consumer::sleep`: either it sees the entry, or we see that it sleeps.
        self.shared.fence();
        Ok(if self.shared.load(self.layout.base + SLEEPS) != 0 {
            Pushed::Ring
        } else {
            Pushed::Quiet
        })
    }

    /// Free slots.
    ///
    /// # Errors
    /// [`Broken`] as for [`Producer::push`].
    pub fn room(&self) -> Result<u32, Broken> {
        let used = self.tail.wrapping_sub(self.shared.load(self.layout.base + HEAD));
        self.layout.slots.checked_sub(used).ok_or(Broken)
    }
}

/// The reading end. Exactly one exists per ring and side.
pub struct Consumer<S> {
    shared: S,
    layout: Layout,
    head: u32,
}

impl<S: Shared> Consumer<S> {
    /// The reading end of a fresh (zeroed) ring.
    pub const fn new(shared: S, layout: Layout) -> Self {
        Self {
            shared,
            layout,
            head: 0,
        }
    }

    /// Takes one entry into `entry` (`slot_bytes` bytes); `false` when there is none.
    ///
    /// # Errors
    /// [`Broken`] when the producer's index is behind ours or too far ahead.
    pub fn pop(&mut self, entry: &mut [u8]) -> Result<bool, Broken> {
        if self.waiting()? == 0 {
            return Ok(false);
        }
        self.shared.read(self.layout.slot(self.head), entry);
        self.head = self.head.wrapping_add(1);
        self.shared.store(self.layout.base + HEAD, self.head);
        Ok(true)
    }

    /// Entries that wait.
    ///
    /// # Errors
    /// [`Broken`] as for [`Consumer::pop`].
    pub fn waiting(&self) -> Result<u32, Broken> {
        let n = self.shared.load(self.layout.base + TAIL).wrapping_sub(self.head);
        if n > self.layout.slots { Err(Broken) } else { Ok(n) }
    }

    /// Asks for a doorbell. `false`: entries came meanwhile, do not sleep (the request is withdrawn).
    ///
    /// # Errors
    /// [`Broken`] as for [`Consumer::pop`].
    pub fn sleep(&mut self) -> Result<bool, Broken> {
        self.shared.store(self.layout.base + SLEEPS, 1);
        self.shared.fence();
        if self.waiting()? != 0 {
            self.awake();
            return Ok(false);
        }
        Ok(true)
    }

    /// Withdraws the request for a doorbell.
    pub fn awake(&mut self) {
        self.shared.store(self.layout.base + SLEEPS, 0);
    }
}
