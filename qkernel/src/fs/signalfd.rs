//! signalfd: pending signals as a file. Source: `signalfd(2)`, Linux `fs/signalfd.c`.

use crate::fs::anon;
use crate::fs::file::{File, FileOps, PollSource};
use crate::fs::inode::Stat;
use crate::sched::wait::{Events, wait_until};
use crate::signal::info::Fields;
use crate::signal::{SigInfo, SigSet};
use crate::task::{self, Process, Task};
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use hal::host::Dest;
use hal::sync::SpinLock;
use hal::uapi::general::O_RDWR;
use qlib::Errno;

/// `sizeof(struct signalfd_siginfo)`.
const INFO: usize = 128;

/// The open file. It gives the signals of whoever reads it; readiness changes are told for the process that made it.
pub struct SignalFd {
    process: Arc<Process>,
    mask: SpinLock<SigSet>,
    ino: u64,
}

/// Makes a signalfd for a task's process; `flags` may hold O_NONBLOCK.
pub fn signalfd(task: &Task, mask: SigSet, flags: u32) -> Arc<File> {
    let s = SignalFd {
        process: task.process.clone(),
        mask: SpinLock::new(mask.without(SigSet::UNBLOCKABLE)),
        ino: anon::next_ino(),
    };
    File::new(Arc::new(s), None, flags | O_RDWR)
}

impl SignalFd {
    /// Replaces the mask.
    pub fn set_mask(&self, mask: SigSet) {
        *self.mask.lock() = mask.without(SigSet::UNBLOCKABLE);
        self.process.signal_wait.wake(Events::IN);
    }

    fn take(&self, task: &Task) -> Option<SigInfo> {
        let mask = *self.mask.lock();
        crate::signal::send::take(task, |_| mask)
    }
}

/// As `struct signalfd_siginfo`.
fn encode(i: &SigInfo) -> [u8; INFO] {
    let mut b = [0u8; INFO];
    let mut put = |at: usize, v: &[u8]| b[at..at + v.len()].copy_from_slice(v);
    put(0, &i.signo.to_ne_bytes());
    put(4, &i.errno.to_ne_bytes());
    put(8, &i.code.to_ne_bytes());
    let mut sender = |pid: u32, uid: u32, value: u64| {
        put(12, &pid.to_ne_bytes());
        put(16, &uid.to_ne_bytes());
        put(44, &(value as u32).to_ne_bytes());
        put(48, &value.to_ne_bytes());
    };
    match i.fields {
        Fields::Sender { pid, uid, value } => sender(pid, uid, value),
        Fields::Raw(raw) => {
            // The union starts 4 bytes in: pid, uid, value of rt_sigqueueinfo.
            let word = |at: usize| u32::from_ne_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]]);
            sender(word(4), word(8), u64::from(word(12)) | u64::from(word(16)) << 32);
        }
        Fields::Child {
            pid,
            uid,
            status,
            utime,
            stime,
        } => {
            sender(pid, uid, 0);
            put(40, &status.to_ne_bytes());
            put(56, &utime.to_ne_bytes());
            put(64, &stime.to_ne_bytes());
        }
        Fields::Fault { addr } => put(72, &addr.to_ne_bytes()),
        Fields::Timer { id, overrun, value } => {
            put(24, &id.to_ne_bytes());
            put(32, &overrun.to_ne_bytes());
            put(44, &(value as u32).to_ne_bytes());
            put(48, &value.to_ne_bytes());
        }
        Fields::Poll { band, fd } => {
            put(20, &fd.to_ne_bytes());
            put(28, &(band as u32).to_ne_bytes());
        }
        Fields::Syscall { addr, number, arch } => {
            put(84, &number.to_ne_bytes());
            put(88, &addr.to_ne_bytes());
            put(96, &arch.to_ne_bytes());
        }
    }
    b
}

impl FileOps for SignalFd {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn read(&self, file: &File, dst: &mut Dest<'_>, _offset: u64) -> Result<usize, Errno> {
        if dst.remaining() < INFO {
            return Err(Errno::EINVAL);
        }
        let task = task::current().ok_or(Errno::EINVAL)?;
        let mut info = match self.take(&task) {
            Some(i) => i,
            None if file.nonblock() => return Err(Errno::EAGAIN),
            None => wait_until(&task.process.signal_wait, Events::IN, None, || self.take(&task))
                .map_err(|e| e.restart_or(Errno::EAGAIN))?,
        };
        let mut done = 0;
        loop {
            done += dst.put(&encode(&info))?;
            if dst.remaining() < INFO {
                return Ok(done);
            }
            match self.take(&task) {
                Some(i) => info = i,
                None => return Ok(done),
            }
        }
    }

    fn is_stream(&self) -> bool {
        true
    }

    fn stat(&self, _file: &File) -> Result<Stat, Errno> {
        Ok(anon::stat(None, anon::ANON_DEV, self.ino))
    }

    fn poll(&self, _file: &File) -> Events {
        let Some(task) = task::current() else {
            return Events::empty();
        };
        let pending = {
            let shared = task.process.pending.lock().set();
            shared.union(task.signals.lock().pending.set())
        };
        if pending.0 & self.mask.lock().0 != 0 {
            Events::IN | Events::RDNORM
        } else {
            Events::empty()
        }
    }

    fn poll_source(&self) -> PollSource<'_> {
        PollSource::Queue(&self.process.signal_wait)
    }

    fn describe(&self) -> Vec<u8> {
        b"anon_inode:[signalfd]".to_vec()
    }

    fn fdinfo(&self) -> Vec<u8> {
        format!("sigmask:\t{:016x}\n", self.mask.lock().0).into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_linux_s() {
        let i = SigInfo {
            signo: 34,
            errno: 0,
            code: -1,
            fields: Fields::Sender {
                pid: 5,
                uid: 6,
                value: 0x1_0000_0007,
            },
        };
        let b = encode(&i);
        let word = |at: usize| u32::from_ne_bytes(b[at..at + 4].try_into().unwrap());
        assert_eq!(
            (word(0), word(8) as i32, word(12), word(16), word(44)),
            (34, -1, 5, 6, 7)
        );
        assert_eq!(u64::from_ne_bytes(b[48..56].try_into().unwrap()), 0x1_0000_0007);
    }
}
