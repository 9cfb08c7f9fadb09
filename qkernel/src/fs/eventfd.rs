//! eventfd: a counter as a file. Source: `eventfd(2)`.

use crate::fs::anon;
use crate::fs::file::{File, FileOps, PollSource};
use crate::fs::inode::Stat;
use crate::sched::wait::{Events, WaitQueue, wait_until};
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use hal::host::{Dest, Src};
use hal::sync::SpinLock;
use hal::uapi::general::O_RDWR;
use qlib::Errno;

/// Largest value the counter holds.
const MAX: u64 = u64::MAX - 1;

/// The counter.
pub struct EventFd {
    count: SpinLock<u64>,
    semaphore: bool,
    queue: WaitQueue,
    ino: u64,
}

/// Makes an eventfd; `flags` may hold O_NONBLOCK.
pub fn eventfd(initial: u32, semaphore: bool, flags: u32) -> Arc<File> {
    let e = EventFd {
        count: SpinLock::new(u64::from(initial)),
        semaphore,
        queue: WaitQueue::new(),
        ino: anon::next_ino(),
    };
    File::new(Arc::new(e), None, flags | O_RDWR)
}

impl EventFd {
    fn try_read(&self) -> Option<u64> {
        let mut n = self.count.lock();
        match *n {
            0 => None,
            _ if self.semaphore => {
                *n -= 1;
                Some(1)
            }
            all => {
                *n = 0;
                Some(all)
            }
        }
    }
    /// Adds 1, unless the counter is full: what the kernel tells of itself.
    pub fn add_one(&self) {
        if self.try_add(1).is_some() {
            self.queue.wake(Events::IN);
        }
    }
    fn try_add(&self, by: u64) -> Option<()> {
        let mut n = self.count.lock();
        if MAX - *n < by {
            return None;
        }
        *n += by;
        Some(())
    }
}

impl FileOps for EventFd {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn read(&self, file: &File, dst: &mut Dest<'_>, _offset: u64) -> Result<usize, Errno> {
        if dst.remaining() < 8 {
            return Err(Errno::EINVAL);
        }
        let v = match self.try_read() {
            Some(v) => v,
            None if file.nonblock() => return Err(Errno::EAGAIN),
            None => wait_until(&self.queue, Events::IN, None, || self.try_read())
                .map_err(|e| e.restart_or(Errno::EAGAIN))?,
        };
        self.queue.wake(Events::OUT);
        dst.put(&v.to_ne_bytes())
    }

    fn write(&self, file: &File, src: &mut Src<'_>, _offset: u64) -> Result<usize, Errno> {
        if src.remaining() < 8 {
            return Err(Errno::EINVAL);
        }
        let mut b = [0; 8];
        if src.take(&mut b)? < 8 {
            return Err(Errno::EFAULT);
        }
        let by = u64::from_ne_bytes(b);
        if by == u64::MAX {
            return Err(Errno::EINVAL);
        }
        if self.try_add(by).is_none() {
            if file.nonblock() {
                return Err(Errno::EAGAIN);
            }
            wait_until(&self.queue, Events::OUT, None, || self.try_add(by))
                .map_err(|e| e.restart_or(Errno::EAGAIN))?;
        }
        self.queue.wake(Events::IN);
        Ok(8)
    }

    fn is_stream(&self) -> bool {
        true
    }

    fn stat(&self, _file: &File) -> Result<Stat, Errno> {
        Ok(anon::stat(None, anon::ANON_DEV, self.ino))
    }

    fn poll(&self, _file: &File) -> Events {
        let n = *self.count.lock();
        let mut e = Events::empty();
        if n > 0 {
            e |= Events::IN | Events::RDNORM;
        }
        if n < MAX {
            e |= Events::OUT | Events::WRNORM;
        }
        e
    }

    fn poll_source(&self) -> PollSource<'_> {
        PollSource::Queue(&self.queue)
    }

    fn describe(&self) -> Vec<u8> {
        b"anon_inode:[eventfd]".to_vec()
    }

    fn fdinfo(&self) -> Vec<u8> {
        format!(
            "eventfd-count: {:16x}\neventfd-semaphore: {}\n",
            *self.count.lock(),
            u32::from(self.semaphore)
        )
        .into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hal::uapi::general::O_NONBLOCK;

    fn read(f: &File) -> Result<u64, Errno> {
        let mut b = [0; 8];
        f.ops().read(f, &mut Dest::kernel(&mut b), 0)?;
        Ok(u64::from_ne_bytes(b))
    }
    fn write(f: &File, v: u64) -> Result<usize, Errno> {
        f.ops().write(f, &mut Src::kernel(&v.to_ne_bytes()), 0)
    }

    #[test]
    fn counts_and_semaphores() {
        let f = eventfd(3, false, O_NONBLOCK);
        assert_eq!(write(&f, 4), Ok(8));
        assert_eq!(read(&f), Ok(7));
        assert_eq!(read(&f), Err(Errno::EAGAIN));
        assert_eq!(write(&f, u64::MAX), Err(Errno::EINVAL));
        assert_eq!(write(&f, u64::MAX - 1), Ok(8));
        assert_eq!(write(&f, 1), Err(Errno::EAGAIN));
        assert!(!f.ops().poll(&f).contains(Events::OUT));
        let s = eventfd(2, true, O_NONBLOCK);
        assert_eq!((read(&s), read(&s)), (Ok(1), Ok(1)));
        assert_eq!(read(&s), Err(Errno::EAGAIN));
        let mut short = [0; 7];
        assert_eq!(
            s.ops().read(&s, &mut Dest::kernel(&mut short), 0),
            Err(Errno::EINVAL)
        );
    }

    #[test]
    fn a_blocked_reader_is_woken() {
        let f = eventfd(0, false, 0);
        let g = f.clone();
        let t = std::thread::spawn(move || read(&g));
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert_eq!(write(&f, 5), Ok(8));
        assert_eq!(t.join().unwrap(), Ok(5));
    }
}
