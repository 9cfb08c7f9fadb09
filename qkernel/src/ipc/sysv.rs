//! What System V shared memory, semaphores and message queues have in common: ids, keys, owners. Source: `sysvipc(7)`,
//! Linux `ipc/util.c`.

use crate::task::creds::{Creds, cap};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use hal::sync::SpinLock;
use qlib::Errno;

/// IPC_PRIVATE.
pub const PRIVATE: i32 = 0;
/// IPC_CREAT.
pub const CREAT: u32 = 0o1000;
/// IPC_EXCL.
pub const EXCL: u32 = 0o2000;
/// IPC_NOWAIT.
pub const NOWAIT: u32 = 0o4000;
/// IPC_RMID.
pub const RMID: u32 = 0;
/// IPC_SET.
pub const SET: u32 = 1;
/// IPC_STAT.
pub const STAT: u32 = 2;
/// IPC_INFO.
pub const INFO: u32 = 3;
/// IPC_64, which old C libraries set.
pub const IPC_64: u32 = 0x100;

/// Objects of one kind at most, and the factor between an id's slot and its sequence number.
pub const MAX_OBJECTS: usize = 32768;

/// Owner and mode of an object.
#[derive(Clone, Copy, Debug, Default)]
pub struct Perm {
    /// Key it was made with.
    pub key: i32,
    /// Owner.
    pub uid: u32,
    /// Owner's group.
    pub gid: u32,
    /// Who made it.
    pub cuid: u32,
    /// The maker's group.
    pub cgid: u32,
    /// Permission bits.
    pub mode: u32,
}

impl Perm {
    /// Of an object made now.
    pub fn new(key: i32, mode: u32, creds: &Creds) -> Self {
        Self {
            key,
            uid: creds.euid,
            gid: creds.egid,
            cuid: creds.euid,
            cgid: creds.egid,
            mode: mode & 0o777,
        }
    }
    /// Checks `want` (4 read, 2 write).
    ///
    /// # Errors
    /// EACCES.
    pub fn check(&self, creds: &Creds, want: u32) -> Result<(), Errno> {
        let bits = if creds.euid == self.uid || creds.euid == self.cuid {
            self.mode >> 6
        } else if creds.in_egroup(self.gid) || creds.in_egroup(self.cgid) {
            self.mode >> 3
        } else {
            self.mode
        };
        if bits & want == want || creds.capable_in(&crate::ns::current().ipc.owner, cap::IPC_OWNER) {
            Ok(())
        } else {
            Err(Errno::EACCES)
        }
    }
    /// Whether `creds` may change or remove the object.
    ///
    /// # Errors
    /// EPERM.
    pub fn check_owner(&self, creds: &Creds) -> Result<(), Errno> {
        if creds.euid == self.uid
            || creds.euid == self.cuid
            || creds.capable_in(&crate::ns::current().ipc.owner, cap::SYS_ADMIN)
        {
            Ok(())
        } else {
            Err(Errno::EPERM)
        }
    }
    /// As `struct ipc64_perm`: 48 bytes.
    pub fn to_bytes(&self, id: i32) -> [u8; 48] {
        let mut b = [0u8; 48];
        let (uid, gid) = crate::ns::shown_owner(self.uid, self.gid);
        let (cuid, cgid) = crate::ns::shown_owner(self.cuid, self.cgid);
        for (i, v) in [self.key as u32, uid, gid, cuid, cgid, self.mode]
            .iter()
            .enumerate()
        {
            b[i * 4..i * 4 + 4].copy_from_slice(&v.to_ne_bytes());
        }
        // The sequence number is 16 bits wide, behind the mode and its padding.
        b[24..26].copy_from_slice(&((id as usize / MAX_OBJECTS) as u16).to_ne_bytes());
        b
    }
    /// Takes what IPC_SET may change from `struct ipc64_perm`, as `creds` counts users and groups.
    ///
    /// # Errors
    /// EINVAL for a user or a group that means nobody.
    pub fn set(&mut self, b: &[u8], creds: &Creds) -> Result<(), Errno> {
        let word = |i: usize| u32::from_ne_bytes([b[i], b[i + 1], b[i + 2], b[i + 3]]);
        let uid = creds.kernel_uid(word(4)).ok_or(Errno::EINVAL)?;
        let gid = creds.kernel_gid(word(8)).ok_or(Errno::EINVAL)?;
        (self.uid, self.gid) = (uid, gid);
        self.mode = self.mode & !0o777 | word(20) & 0o777;
        Ok(())
    }
}

struct Objects<T> {
    by_id: BTreeMap<i32, Arc<T>>,
    by_key: BTreeMap<i32, i32>,
    slots: Slots,
}

/// Slots of objects, given one after the other, and sequence numbers, which tell an id from an earlier one of the slot.
/// Source: Linux `ipc_idr_alloc`.
struct Slots {
    taken: BTreeSet<usize>,
    next: usize,
    last: Option<usize>,
    sequence: usize,
}

impl Slots {
    /// Slots that are gone through at least before the first is given again.
    const CYCLE: usize = 64;
    /// Sequence numbers.
    const SEQUENCES: usize = 0x10000;

    const fn new() -> Self {
        Self {
            taken: BTreeSet::new(),
            next: 0,
            last: None,
            sequence: 0,
        }
    }
    /// The id of an object.
    const fn id(sequence: usize, slot: usize) -> i32 {
        (sequence * MAX_OBJECTS + slot) as i32
    }
    fn take(&mut self) -> Option<i32> {
        let end = (self.taken.len() * 3 / 2).clamp(Self::CYCLE, MAX_OBJECTS);
        let free = |s: &usize| !self.taken.contains(s);
        let slot = (self.next..end).find(free).or_else(|| (0..end).find(free))?;
        if self.last.is_some_and(|last| slot <= last) {
            self.sequence = (self.sequence + 1) % Self::SEQUENCES;
        }
        (self.last, self.next) = (Some(slot), slot + 1);
        self.taken.insert(slot);
        Some(Self::id(self.sequence, slot))
    }
    fn give_back(&mut self, id: i32) {
        self.taken.remove(&(id as u32 as usize % MAX_OBJECTS));
    }
}

/// All objects of one kind.
pub struct Registry<T>(SpinLock<Objects<T>>);

impl<T> Registry<T> {
    /// An empty one.
    pub const fn new() -> Self {
        Self(SpinLock::new(Objects {
            by_id: BTreeMap::new(),
            by_key: BTreeMap::new(),
            slots: Slots::new(),
        }))
    }

    /// Finds the object of a key, or makes one. `check` judges one that is there.
    ///
    /// # Errors
    /// EEXIST, ENOENT, ENOSPC, and those of `check` and `make`.
    pub fn get(
        &self,
        key: i32,
        flags: u32,
        check: impl FnOnce(&T) -> Result<(), Errno>,
        make: impl FnOnce(i32) -> Result<T, Errno>,
    ) -> Result<i32, Errno> {
        if key != PRIVATE {
            let found = {
                let o = self.0.lock();
                o.by_key
                    .get(&key)
                    .and_then(|id| o.by_id.get(id).map(|t| (*id, t.clone())))
            };
            if let Some((id, t)) = found {
                if flags & (CREAT | EXCL) == CREAT | EXCL {
                    return Err(Errno::EEXIST);
                }
                check(&t)?;
                return Ok(id);
            }
            if flags & CREAT == 0 {
                return Err(Errno::ENOENT);
            }
        }
        let id = self.0.lock().slots.take().ok_or(Errno::ENOSPC)?;
        // Made without the lock: shared memory asks the host.
        let made = make(id).inspect_err(|_| self.0.lock().slots.give_back(id));
        let object = Arc::new(made?);
        let mut o = self.0.lock();
        if key != PRIVATE {
            if o.by_key.contains_key(&key) {
                // Somebody else was faster.
                o.slots.give_back(id);
                drop(o);
                drop(object);
                return if flags & EXCL != 0 {
                    Err(Errno::EEXIST)
                } else {
                    Err(Errno::EAGAIN)
                };
            }
            o.by_key.insert(key, id);
        }
        o.by_id.insert(id, object);
        Ok(id)
    }

    /// The object of an id.
    ///
    /// # Errors
    /// EINVAL.
    pub fn find(&self, id: i32) -> Result<Arc<T>, Errno> {
        self.0.lock().by_id.get(&id).cloned().ok_or(Errno::EINVAL)
    }

    /// The object in a slot, for the STAT forms of `ipcs`; and the highest slot in use.
    ///
    /// # Errors
    /// EINVAL.
    pub fn at_index(&self, index: i32) -> Result<(i32, Arc<T>), Errno> {
        let o = self.0.lock();
        let found = o
            .by_id
            .iter()
            .find(|(id, _)| **id as usize % MAX_OBJECTS == index as usize);
        found.map(|(id, t)| (*id, t.clone())).ok_or(Errno::EINVAL)
    }

    /// Number of objects, and the highest slot in use.
    pub fn usage(&self) -> (usize, i32) {
        let o = self.0.lock();
        let top = o.by_id.keys().map(|id| (*id as usize % MAX_OBJECTS) as i32).max();
        (o.by_id.len(), top.unwrap_or(0))
    }

    /// Takes an object's key away, so that it is found by its id only.
    pub fn forget_key(&self, id: i32) {
        self.0.lock().by_key.retain(|_, i| *i != id);
    }

    /// Removes an object.
    pub fn remove(&self, id: i32) -> Option<Arc<T>> {
        let mut o = self.0.lock();
        o.by_key.retain(|_, i| *i != id);
        let removed = o.by_id.remove(&id);
        if removed.is_some() {
            o.slots.give_back(id);
        }
        removed
    }

    /// All objects, for `/proc/sysvipc`.
    pub fn list(&self) -> alloc::vec::Vec<(i32, Arc<T>)> {
        self.0
            .lock()
            .by_id
            .iter()
            .map(|(id, t)| (*id, t.clone()))
            .collect()
    }
}

/// Seconds since 1970.
pub fn now_s() -> u64 {
    hal::clock::realtime_ns() / 1_000_000_000
}
