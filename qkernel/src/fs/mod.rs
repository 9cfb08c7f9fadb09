//! The virtual file system.

pub mod anon;
pub mod attr;
pub mod cgroup;
pub mod dcache;
pub mod dev;
pub mod devpts;
pub mod epoll;
pub mod epoll_host;
pub mod eventfd;
pub mod exec;
pub mod fdtable;
pub mod file;
pub mod hostfs;
pub mod hostio;
pub mod inode;
pub mod inotify;
pub mod locks;
pub mod memfd;
pub mod mount;
pub mod mqueue;
pub mod names;
pub mod notify;
pub mod open;
pub mod path;
pub mod pipe;
pub mod pipe_buffer;
pub mod pipe_fifo;
pub mod poll;
pub mod proc;
pub mod pseudo;
pub mod sigio;
pub mod signalfd;
pub mod special;
pub mod sys;
pub mod text;
pub mod timerfd;
pub mod tmpfs;
pub mod tty;
pub mod walk;

pub use exec::{open_exec, open_exec_at, set_sysctl, start_dir};
pub use fdtable::{Fd, FdTable};
pub use file::{File, FileOps, PollSource};
pub use inode::{FileType, Inode, InodeRef, SetAttr, Stat};
pub use open::{open, open_kernel};
pub use walk::{lookup, lookup_parent};

/// MS_* flags of `mount(2)`.
#[allow(missing_docs)]
pub mod mount_flags {
    pub const RDONLY: u64 = 1;
    pub const NOSUID: u64 = 2;
    pub const NODEV: u64 = 4;
    pub const NOEXEC: u64 = 8;
}

/// A device number for a file system of the kernel's own.
pub fn next_dev() -> u64 {
    pseudo::new_dev()
}

#[cfg(test)]
mod tests;
