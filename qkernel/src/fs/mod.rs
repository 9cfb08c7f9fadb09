//! The virtual file system.

pub mod anon;
pub mod dev;
pub mod devpts;
pub mod epoll;
pub mod epoll_host;
pub mod eventfd;
pub mod fdtable;
pub mod file;
pub mod hostio;
pub mod inode;
pub mod path;
pub mod pipe;
pub mod pipe_buffer;
pub mod pipe_fifo;
pub mod poll;
pub mod pseudo;
pub mod tty;

pub use fdtable::{Fd, FdTable};
pub use file::{File, FileOps, PollSource};
pub use inode::{FileType, Inode, InodeRef, SetAttr, Stat};

/// MS_* flags of `mount(2)`.
#[allow(missing_docs)]
pub mod mount_flags {
    pub const RDONLY: u64 = 1;
    pub const NOSUID: u64 = 2;
    pub const NODEV: u64 = 4;
    pub const NOEXEC: u64 = 8;
}
