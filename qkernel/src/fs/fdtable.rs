//! Descriptor tables of processes.

use crate::fs::file::File;
use alloc::sync::Arc;
use alloc::vec::Vec;
use hal::sync::SpinLock;
use qlib::Errno;

/// A descriptor number of an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fd(pub i32);

#[derive(Clone)]
struct Slot {
    file: Arc<File>,
    close_on_exec: bool,
}

/// Descriptors by number, shared by tasks with CLONE_FILES.
#[derive(Default)]
pub struct FdTable {
    slots: SpinLock<Vec<Option<Slot>>>,
}

impl FdTable {
    /// An empty table.
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }
    /// Finds an open file.
    ///
    /// # Errors
    /// EBADF.
    pub fn get(&self, fd: Fd) -> Result<Arc<File>, Errno> {
        let slots = self.slots.lock();
        let slot = usize::try_from(fd.0)
            .ok()
            .and_then(|i| slots.get(i))
            .and_then(|s| s.as_ref());
        slot.map(|s| s.file.clone()).ok_or(Errno::EBADF)
    }
    /// Whether the descriptor closes on exec.
    ///
    /// # Errors
    /// EBADF.
    pub fn close_on_exec(&self, fd: Fd) -> Result<bool, Errno> {
        let slots = self.slots.lock();
        let slot = usize::try_from(fd.0)
            .ok()
            .and_then(|i| slots.get(i))
            .and_then(|s| s.as_ref());
        slot.map(|s| s.close_on_exec).ok_or(Errno::EBADF)
    }
    /// Sets whether the descriptor closes on exec.
    ///
    /// # Errors
    /// EBADF.
    pub fn set_close_on_exec(&self, fd: Fd, on: bool) -> Result<(), Errno> {
        let mut slots = self.slots.lock();
        let slot = usize::try_from(fd.0)
            .ok()
            .and_then(|i| slots.get_mut(i))
            .and_then(|s| s.as_mut());
        slot.map(|s| s.close_on_exec = on).ok_or(Errno::EBADF)
    }
    /// Puts a file at the lowest free number not below `from`; `limit` is RLIMIT_NOFILE.
    ///
    /// # Errors
    /// EMFILE.
    pub fn insert(&self, file: Arc<File>, close_on_exec: bool, from: usize, limit: u64) -> Result<Fd, Errno> {
        let mut slots = self.slots.lock();
        let mut i = from;
        while slots.get(i).is_some_and(|s| s.is_some()) {
            i += 1;
        }
        if i as u64 >= limit {
            return Err(Errno::EMFILE);
        }
        if slots.len() <= i {
            slots.resize(i + 1, None);
        }
        slots[i] = Some(Slot { file, close_on_exec });
        Ok(Fd(i as i32))
    }
    /// Puts a file at exactly `fd`; returns the one that was there, to be closed by the caller.
    ///
    /// # Errors
    /// EBADF when the number is not below `limit`.
    pub fn replace(
        &self,
        fd: Fd,
        file: Arc<File>,
        close_on_exec: bool,
        limit: u64,
    ) -> Result<Option<Arc<File>>, Errno> {
        let i = usize::try_from(fd.0).map_err(|_| Errno::EBADF)?;
        if i as u64 >= limit {
            return Err(Errno::EBADF);
        }
        let mut slots = self.slots.lock();
        if slots.len() <= i {
            slots.resize(i + 1, None);
        }
        let old = slots[i].replace(Slot { file, close_on_exec });
        Ok(old.map(|s| s.file))
    }
    /// Takes a file out.
    ///
    /// # Errors
    /// EBADF.
    pub fn remove(&self, fd: Fd) -> Result<Arc<File>, Errno> {
        let mut slots = self.slots.lock();
        let slot = usize::try_from(fd.0)
            .ok()
            .and_then(|i| slots.get_mut(i))
            .and_then(|s| s.take());
        slot.map(|s| s.file).ok_or(Errno::EBADF)
    }
    /// A copy for fork.
    pub fn copy(&self) -> Arc<Self> {
        Arc::new(Self {
            slots: SpinLock::new(self.slots.lock().clone()),
        })
    }
    /// Closes what closes on exec; returns the files, to be dropped by the caller.
    pub fn close_for_exec(&self) -> Vec<Arc<File>> {
        let mut slots = self.slots.lock();
        let close = slots
            .iter_mut()
            .filter(|s| s.as_ref().is_some_and(|s| s.close_on_exec));
        close.filter_map(|s| s.take()).map(|s| s.file).collect()
    }
    /// Takes everything out.
    pub fn clear(&self) -> Vec<Arc<File>> {
        let mut slots = self.slots.lock();
        core::mem::take(&mut *slots)
            .into_iter()
            .flatten()
            .map(|s| s.file)
            .collect()
    }
    /// Open numbers in order with their files.
    pub fn list(&self) -> Vec<(Fd, Arc<File>)> {
        let slots = self.slots.lock();
        let open = slots
            .iter()
            .enumerate()
            .filter_map(|(i, s)| s.as_ref().map(|s| (Fd(i as i32), s.file.clone())));
        open.collect()
    }
}

/// Tells the file that a descriptor of it was closed, then drops it. Never call with a lock held.
pub fn close(file: Arc<File>) {
    if let Some(task) = crate::task::current() {
        crate::fs::locks::descriptor_closed(&file, Arc::as_ptr(&task.files()) as usize);
    }
    file.ops().descriptor_closed(&file);
}
