//! Descriptors that refer to processes. Source: `pidfd_open(2)`.

use crate::fs::fdtable::Fd;
use crate::fs::file::{File, FileOps, PollSource};
use crate::fs::inode::Stat;
use crate::ns::pid::PidNs;
use crate::sched::wait::Events;
use crate::task::process::RLIMITS;
use crate::task::{Process, Task, table};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::Ordering;
use hal::uapi::general::{O_NONBLOCK, O_RDWR};
use qlib::Errno;

/// RLIMIT_NOFILE.
const RLIMIT_NOFILE: usize = 7;
const _: () = assert!(RLIMIT_NOFILE < RLIMITS);

/// The open file of a pidfd.
pub struct PidFd {
    /// The process.
    pub process: Arc<Process>,
}

impl FileOps for PidFd {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn is_stream(&self) -> bool {
        true
    }
    fn stat(&self, _file: &File) -> Result<Stat, Errno> {
        Ok(Stat {
            mode: 0o600,
            nlink: 1,
            ino: u64::from(self.process.pid),
            blksize: 4096,
            ..Stat::default()
        })
    }
    fn poll(&self, _file: &File) -> Events {
        if self.process.zombie.load(Ordering::SeqCst) {
            Events::IN | Events::RDNORM
        } else {
            Events::empty()
        }
    }
    fn poll_source(&self) -> PollSource<'_> {
        PollSource::Queue(&self.process.exit_wait)
    }
    fn describe(&self) -> Vec<u8> {
        b"anon_inode:[pidfd]".to_vec()
    }
}

impl PidFd {
    /// What `fdinfo` tells in a procfs of a pid namespace.
    pub fn info(&self, reader: &PidNs) -> Vec<u8> {
        let gone = table::process(self.process.pid).is_none_or(|p| !Arc::ptr_eq(&p, &self.process));
        if gone {
            return b"Pid:\t-1\nNSpid:\t-1\n".to_vec();
        }
        let all = self.process.numbers.shown_below(reader);
        let mut text = alloc::format!("Pid:\t{}\nNSpid:", all[0]);
        for n in all {
            text.push_str(&alloc::format!("\t{n}"));
        }
        text.push('\n');
        text.into_bytes()
    }
}

/// Puts a pidfd of `process` into the task's table; `flags` may hold O_NONBLOCK.
///
/// # Errors
/// EMFILE.
pub fn install(task: &Task, process: &Arc<Process>, flags: u32) -> Result<Fd, Errno> {
    let file = File::new(
        Arc::new(PidFd {
            process: process.clone(),
        }),
        None,
        O_RDWR | flags & O_NONBLOCK,
    );
    let limit = task.process.rlimits.lock()[RLIMIT_NOFILE].0;
    task.files().insert(file, true, 0, limit)
}
