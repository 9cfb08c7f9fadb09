//! The virtual file system.

pub mod fdtable;
pub mod file;
pub mod inode;
pub mod path;
pub mod tty;

pub use fdtable::{Fd, FdTable};
pub use file::{File, FileOps, PollSource};
pub use inode::{FileType, Inode, InodeRef, SetAttr, Stat};
