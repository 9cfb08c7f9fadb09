//! The handle table of a virtual machine: the guest names objects by index and generation, never by descriptor.

use super::Handles;
use qlib::Errno;
use qlib::qcall::HandleId;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Most handles a guest may have; beyond, it gets EMFILE.
const MOST: usize = 1 << 20;

#[derive(Default)]
struct Slot {
    generation: u32,
    file: Option<Arc<OwnedFd>>,
}

#[derive(Default)]
struct Slots {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

/// Handles of one guest.
#[derive(Default)]
pub struct HandleTable(Mutex<Slots>);

impl HandleTable {
    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The object behind `id`.
    ///
    /// # Errors
    /// EBADF.
    pub fn get(&self, id: HandleId) -> Result<Arc<OwnedFd>, Errno> {
        let s = self.slots();
        let slot = s
            .slots
            .get(id.index() as usize)
            .filter(|s| s.generation == id.generation());
        slot.and_then(|s| s.file.clone()).ok_or(Errno::EBADF)
    }

    /// Keeps an object.
    ///
    /// # Errors
    /// EMFILE.
    pub fn insert(&self, file: Arc<OwnedFd>) -> Result<HandleId, Errno> {
        let mut s = self.slots();
        let index = match s.free.pop() {
            Some(i) => i,
            None if s.slots.len() < MOST => {
                s.slots.push(Slot::default());
                s.slots.len() as u32 - 1
            }
            None => return Err(Errno::EMFILE),
        };
        let slot = &mut s.slots[index as usize];
        slot.file = Some(file);
        Ok(HandleId::new(index, slot.generation))
    }

    /// Forgets `id`; the object goes when nothing else uses it.
    ///
    /// # Errors
    /// EBADF.
    pub fn remove(&self, id: HandleId) -> Result<(), Errno> {
        let mut s = self.slots();
        let slot = s
            .slots
            .get_mut(id.index() as usize)
            .filter(|s| s.generation == id.generation() && s.file.is_some());
        let slot = slot.ok_or(Errno::EBADF)?;
        let file = slot.file.take();
        // An index of `HandleId::NONE` is never reached; generations may come around after 2^32 uses of one slot.
        slot.generation = slot.generation.wrapping_add(1);
        s.free.push(id.index());
        drop(s);
        drop(file);
        Ok(())
    }
}

/// The objects one request names, held while it is served.
pub struct Named<'a> {
    table: &'a HandleTable,
    held: [(HandleId, Option<Arc<OwnedFd>>); 2],
    /// The handle of an object the request made.
    pub made: HandleId,
}

impl<'a> Named<'a> {
    /// Looks up the objects; those that do not exist are missed when they are asked for.
    pub fn new(table: &'a HandleTable, ids: [HandleId; 2]) -> Self {
        Self {
            table,
            held: ids.map(|id| (id, table.get(id).ok())),
            made: HandleId::NONE,
        }
    }
}

impl Handles for Named<'_> {
    fn get(&self, id: HandleId) -> Result<BorrowedFd<'_>, Errno> {
        let found = self
            .held
            .iter()
            .find(|(h, _)| *h == id)
            .and_then(|(_, f)| f.as_ref());
        found.map(|f| f.as_fd()).ok_or(Errno::EBADF)
    }
    fn insert(&mut self, fd: OwnedFd) -> Result<HandleId, Errno> {
        self.made = self.table.insert(Arc::new(fd))?;
        Ok(self.made)
    }
    fn remove(&mut self, id: HandleId) -> Result<(), Errno> {
        self.table.remove(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Arc<OwnedFd> {
        Arc::new(std::fs::File::open("/dev/null").unwrap().into())
    }

    #[test]
    fn stale_and_invented_handles_are_refused() {
        let t = HandleTable::default();
        let a = t.insert(file()).unwrap();
        assert!(t.get(a).is_ok());
        t.remove(a).unwrap();
        assert_eq!(t.remove(a), Err(Errno::EBADF));
        let b = t.insert(file()).unwrap();
        assert_eq!(a.index(), b.index());
        assert_eq!(t.get(a).err(), Some(Errno::EBADF));
        assert!(t.get(b).is_ok());
        for id in [
            HandleId::NONE,
            HandleId::new(7, 0),
            HandleId::new(b.index(), b.generation() + 1),
        ] {
            assert_eq!(t.get(id).err(), Some(Errno::EBADF));
        }
    }
}
