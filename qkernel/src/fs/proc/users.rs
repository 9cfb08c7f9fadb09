//! `/proc/PID/uid_map`, `gid_map` and `setgroups`. Source: `user_namespaces(7)`.

use super::who::Who;
use crate::fs::file::FileOps;
use crate::fs::inode::{FileType, Inode, InodeRef, SetAttr, Stat};
use crate::fs::pseudo::{Meta, Text, TextFile};
use crate::ns::user::{self, Kind, UserRef};
use crate::put;
use crate::task::creds::{Creds, cap};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use hal::uapi::general::O_ACCMODE;
use qlib::Errno;
use qlib::qcall::HostStatFs;

/// One of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// `uid_map` or `gid_map`.
    Map(Kind),
    /// `setgroups`.
    Setgroups,
}

/// A file that remembers who opened it: a write needs the rights of that one, not only of the writer.
struct UsersFile {
    meta: Meta,
    who: Who,
    which: Which,
}

/// The file of a process.
pub fn file(who: &Who, meta: Meta, which: Which) -> InodeRef {
    let who = who.clone();
    Arc::new(UsersFile { meta, who, which })
}

impl Inode for UsersFile {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn file_type(&self) -> FileType {
        FileType::Regular
    }
    fn stat(&self) -> Result<Stat, Errno> {
        Ok(self.meta.stat(FileType::Regular))
    }
    fn open(&self, flags: u32, creds: &Creds) -> Result<Arc<dyn FileOps>, Errno> {
        let which = self.which;
        if flags & O_ACCMODE != 0
            && which == Which::Setgroups
            && !creds.capable_in(&namespace(&self.who), cap::SYS_ADMIN)
        {
            return Err(Errno::EACCES);
        }
        let (reads, writes, opener) = (self.who.clone(), self.who.clone(), creds.clone());
        let show = move || show(&reads, which);
        let store = move |text: &[u8]| store(&writes, which, text, &opener);
        TextFile::writable(self.meta, show, store).open(flags, creds)
    }
    fn statfs(&self) -> Result<HostStatFs, Errno> {
        Ok(crate::fs::pseudo::statfs(self.meta.dev))
    }
    fn truncate(&self, _len: u64) -> Result<(), Errno> {
        // `echo deny > setgroups` opens with O_TRUNC.
        Ok(())
    }
    fn set_attr(&self, _attr: &SetAttr) -> Result<(), Errno> {
        Err(Errno::EPERM)
    }
}

fn namespace(who: &Who) -> UserRef {
    who.creds().and_then(|c| c.user.clone())
}

fn show(who: &Who, which: Which) -> Result<Vec<u8>, Errno> {
    match which {
        Which::Map(kind) => map(who, kind),
        Which::Setgroups => {
            who.get()?;
            let allowed = namespace(who).is_none_or(|n| n.may_setgroups());
            Ok(if allowed { b"allow\n" } else { b"deny\n".as_slice() }.to_vec())
        }
    }
}

fn store(who: &Who, which: Which, text: &[u8], opener: &Creds) -> Result<(), Errno> {
    who.get()?;
    let me = crate::task::current().ok_or(Errno::EPERM)?;
    // The first namespace has its maps.
    let ns = namespace(who).ok_or(Errno::EPERM)?;
    match which {
        Which::Map(kind) => ns.write_map(kind, text, opener, &me.creds()),
        Which::Setgroups => ns.write_setgroups(text),
    }
}

fn map(who: &Who, kind: Kind) -> Result<Vec<u8>, Errno> {
    who.get()?;
    let reader = crate::task::current().and_then(|t| t.creds().user.clone());
    let mut t = Text::new();
    for e in user::extents(&namespace(who), kind, &reader) {
        put!(t, "{:>10} {:>10} {:>10}\n", e.inside, e.kernel, e.count);
    }
    Ok(t.finish())
}

/// `projid_map`: there are no projects.
pub fn projid_map(who: &Who) -> Result<Vec<u8>, Errno> {
    match namespace(who) {
        None => map(who, Kind::Uid),
        Some(_) => Ok(Vec::new()),
    }
}
