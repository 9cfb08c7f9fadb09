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
mod sysvipc;
mod users;
mod who;

use crate::fs::inode::{FileType, InodeRef};
use crate::fs::pseudo::{Dir, Entries, Entry, Link, Meta, Table, Tree, new_dev_of, new_ino, parse_name};
use crate::ns::pid::PidNs;
use crate::task::table;
use alloc::sync::Arc;
use alloc::vec::Vec;
pub use pid::process_of;
use qlib::Errno;
use who::Who;

/// Inode number of the root, as in Linux.
const ROOT_INO: u64 = 1;
/// PROC_SUPER_MAGIC.
const MAGIC: u64 = 0x9fa0;

/// A device number for the procfs of a pid namespace.
pub fn new_dev() -> u64 {
    new_dev_of(MAGIC)
}

/// The root of a procfs for a mount: it shows the processes of `ns` by their numbers there.
pub fn new_root(ns: &Arc<PidNs>) -> InodeRef {
    let dev = ns.proc_dev();
    let mut tree = Tree::new(dev);
    system::fill(&mut tree);
    let link = Meta {
        dev,
        ino: new_ino(),
        perm: 0o777,
        uid: 0,
        gid: 0,
    };
    let (of_self, of_thread) = (ns.clone(), ns.clone());
    tree.add(
        "self",
        Link::new(link, move || {
            let me = crate::task::current().ok_or(Errno::ENOENT)?;
            let pid = seen(me.process.numbers.shown(&of_self))?;
            Ok(alloc::format!("{pid}").into_bytes())
        }),
    );
    tree.add(
        "thread-self",
        Link::new(link.with(new_ino(), 0o777), move || {
            let me = crate::task::current().ok_or(Errno::ENOENT)?;
            let pid = seen(me.process.numbers.shown(&of_thread))?;
            Ok(alloc::format!("{pid}/task/{}", me.tid_in(&of_thread)).into_bytes())
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
    let ns = ns.clone();
    Dir::new(meta, Root { fixed, ns })
}

/// A number, unless there is none.
fn seen(number: u32) -> Result<u32, Errno> {
    if number == 0 {
        Err(Errno::ENOENT)
    } else {
        Ok(number)
    }
}

/// `/proc`: fixed names, and one directory per process.
struct Root {
    fixed: Table,
    ns: Arc<PidNs>,
}

impl Entries for Root {
    fn lookup(&self, name: &[u8]) -> Result<InodeRef, Errno> {
        if let Some(i) = self.fixed.find(name) {
            return Ok(i);
        }
        let pid = parse_name(name).ok_or(Errno::ENOENT)?;
        let pid = self.ns.kernel(pid).ok_or(Errno::ENOENT)?;
        if let Some(p) = table::process(pid) {
            return Ok(pid::process_dir(&Who::process(&p, &self.ns)));
        }
        // Threads can be looked up by number too, though they are not listed.
        let task = table::task(pid).ok_or(Errno::ENOENT)?;
        Ok(pid::process_dir(&Who::process(&task.process, &self.ns)))
    }
    fn list(&self) -> Result<Vec<Entry>, Errno> {
        let mut all = self.fixed.entries();
        all.extend(table::processes_in(&self.ns).iter().map(|(pid, p)| {
            let who = Who::process(p, &self.ns);
            let name = alloc::format!("{pid}").into_bytes();
            Entry::new(name, who.ino(0), FileType::Directory)
        }));
        Ok(all)
    }
    fn nlink(&self) -> Option<u32> {
        Some(2 + table::processes_in(&self.ns).len() as u32)
    }
}

#[cfg(test)]
mod tests;
