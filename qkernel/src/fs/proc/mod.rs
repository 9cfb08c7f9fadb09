//! procfs: processes and the kernel as text. Source: `proc(5)`, Linux `fs/proc`.

pub mod cpu_sets;
pub mod host_text;
pub mod ident;
mod limits;
pub mod load;
mod map_files;
mod maps;
mod memfile;
pub mod memory;
mod mounts;
pub mod net;
mod pid;
mod pid_dirs;
mod stat;
mod status;
pub mod sysctl;
mod sysctl_table;
mod system;
mod users;
mod who;

use crate::fs::inode::{FileType, InodeRef};
use crate::fs::pseudo::{Dir, Entries, Entry, Link, Meta, Table, Tree, new_dev_of, new_ino, parse_name};
use crate::task::table;
use alloc::vec::Vec;
use hal::sync::Once;
pub use pid::process_of;
use qlib::Errno;
use who::Who;

/// Inode number of the root, as in Linux.
const ROOT_INO: u64 = 1;
/// PROC_SUPER_MAGIC.
const MAGIC: u64 = 0x9fa0;

fn dev() -> u64 {
    static DEV: Once<u64> = Once::new();
    *DEV.call_once(|| new_dev_of(MAGIC))
}

/// The root of a procfs for a mount.
pub fn new_root() -> InodeRef {
    let dev = dev();
    let mut tree = Tree::new(dev);
    system::fill(&mut tree);
    let link = Meta {
        dev,
        ino: new_ino(),
        perm: 0o777,
        uid: 0,
        gid: 0,
    };
    tree.add(
        "self",
        Link::new(link, || {
            let me = crate::task::current().ok_or(Errno::ENOENT)?;
            Ok(alloc::format!("{}", me.process.pid).into_bytes())
        }),
    );
    tree.add(
        "thread-self",
        Link::new(link.with(new_ino(), 0o777), || {
            let me = crate::task::current().ok_or(Errno::ENOENT)?;
            Ok(alloc::format!("{}/task/{}", me.process.pid, me.tid()).into_bytes())
        }),
    );
    tree.add("sys", sysctl::root(dev));
    let meta = Meta {
        dev,
        ino: ROOT_INO,
        perm: 0o555,
        uid: 0,
        gid: 0,
    };
    let fixed = tree.into_table();
    Dir::new(meta, Root { fixed })
}

/// `/proc`: fixed names, and one directory per process.
struct Root {
    fixed: Table,
}

impl Entries for Root {
    fn lookup(&self, name: &[u8]) -> Result<InodeRef, Errno> {
        if let Some(i) = self.fixed.find(name) {
            return Ok(i);
        }
        let pid = parse_name(name).ok_or(Errno::ENOENT)?;
        if let Some(p) = table::process(pid) {
            return Ok(pid::process_dir(&Who::process(&p)));
        }
        // Threads can be looked up by number too, though they are not listed.
        let task = table::task(pid).ok_or(Errno::ENOENT)?;
        Ok(pid::process_dir(&Who::process(&task.process)))
    }
    fn list(&self) -> Result<Vec<Entry>, Errno> {
        let mut all = self.fixed.entries();
        all.extend(table::processes().iter().map(|p| {
            let who = Who::process(p);
            let name = alloc::format!("{}", p.pid).into_bytes();
            Entry::new(name, who.ino(0), FileType::Directory)
        }));
        Ok(all)
    }
    fn nlink(&self) -> Option<u32> {
        Some(2 + table::processes().len() as u32)
    }
}

#[cfg(test)]
mod tests;
