//! Directories of `/proc/PID`: `fd`, `fdinfo`, `task`, `ns`, `attr`.

use super::who::Who;
use crate::fs::fdtable::Fd;
use crate::fs::file::{File, MagicTarget};
use crate::fs::inode::{FileType, InodeRef};
use crate::fs::pseudo::{Dir, Entries, Entry, Magic, TextFile, parse_name};
use crate::ns::{self, new};
use crate::put;
use crate::task::pidfd::PidFd;
use crate::task::table;
use alloc::sync::Arc;
use alloc::vec::Vec;
use hal::uapi::general as g;
use qlib::Errno;

const FD: u64 = 0x1_0000;
const FDINFO: u64 = 0x8_0000;
const NS: u64 = 0x200;
const ATTR: u64 = 0x300;

fn file_of(who: &Who, fd: i32) -> Result<Arc<File>, Errno> {
    who.live()
        .and_then(|t| t.files().get(Fd(fd)))
        .map_err(|_| Errno::ENOENT)
}

fn number(name: &[u8]) -> Result<i32, Errno> {
    parse_name(name)
        .and_then(|n| i32::try_from(n).ok())
        .ok_or(Errno::ENOENT)
}

fn open_numbers(who: &Who) -> Result<Vec<(i32, Arc<File>)>, Errno> {
    who.inspect()?;
    let files = who.live().map_err(|_| Errno::ENOENT)?.files();
    Ok(files.list().into_iter().map(|(fd, f)| (fd.0, f)).collect())
}

/// `fd`.
pub fn fd(who: &Who, k: u64) -> InodeRef {
    Dir::new(who.meta(k, 0o500), FdDir(who.clone()))
}

struct FdDir(Who);

impl Entries for FdDir {
    fn lookup(&self, name: &[u8]) -> Result<InodeRef, Errno> {
        let n = number(name)?;
        self.0.inspect()?;
        let file = file_of(&self.0, n)?;
        // The link's mode tells how the file is open.
        let read = if file.readable() { 0o500 } else { 0 };
        let write = if file.writable() { 0o300 } else { 0 };
        let meta = self.0.meta(FD + n as u64, read | write);
        let (a, b) = (self.0.clone(), self.0.clone());
        Ok(Magic::new(
            meta,
            move || {
                let file = file_of(&a, n)?;
                Ok(match file.path() {
                    Some(p) => super::mounts::shown(p),
                    None => file.describe(),
                })
            },
            move || Ok(MagicTarget::File(file_of(&b, n)?)),
        ))
    }
    fn list(&self) -> Result<Vec<Entry>, Errno> {
        let entry = |(n, _): (i32, Arc<File>)| {
            let name = alloc::format!("{n}").into_bytes();
            Entry::new(name, self.0.ino(FD + n as u64), FileType::Symlink)
        };
        Ok(open_numbers(&self.0)?.into_iter().map(entry).collect())
    }
}

/// `fdinfo`.
pub fn fdinfo(who: &Who, k: u64) -> InodeRef {
    Dir::new(who.meta(k, 0o500), FdInfoDir(who.clone()))
}

struct FdInfoDir(Who);

impl Entries for FdInfoDir {
    fn lookup(&self, name: &[u8]) -> Result<InodeRef, Errno> {
        let n = number(name)?;
        self.0.inspect()?;
        file_of(&self.0, n)?;
        let who = self.0.clone();
        Ok(TextFile::new(self.0.meta(FDINFO + n as u64, 0o400), move || {
            info(&who, n)
        }))
    }
    fn list(&self) -> Result<Vec<Entry>, Errno> {
        let entry = |(n, _): (i32, Arc<File>)| {
            let name = alloc::format!("{n}").into_bytes();
            Entry::new(name, self.0.ino(FDINFO + n as u64), FileType::Regular)
        };
        Ok(open_numbers(&self.0)?.into_iter().map(entry).collect())
    }
}

fn info(who: &Who, n: i32) -> Result<Vec<u8>, Errno> {
    let task = who.live().map_err(|_| Errno::ENOENT)?;
    let file = file_of(who, n)?;
    let mut flags = file.flags();
    if task.files().close_on_exec(Fd(n)).unwrap_or(false) {
        flags |= g::O_CLOEXEC;
    }
    let pos = if file.ops().is_stream() {
        0
    } else {
        file.position(*file.pos.lock())?
    };
    let ino = file.ops().stat(&file).map_or(0, |s| s.ino);
    let mount = file.path().map_or(0, |p| p.mount.id);
    let mut t = crate::fs::pseudo::Text::new();
    put!(
        t,
        "pos:\t{pos}\nflags:\t0{flags:o}\nmnt_id:\t{mount}\nino:\t{ino}\n"
    );
    match file.downcast::<PidFd>() {
        Some(p) => t.bytes(&p.info(&who.ns)),
        None => t.bytes(&file.ops().fdinfo()),
    };
    Ok(t.finish())
}

/// `task`.
pub fn task(who: &Who, k: u64) -> InodeRef {
    Dir::new(who.meta(k, 0o555), TaskDir(who.clone()))
}

struct TaskDir(Who);

impl Entries for TaskDir {
    fn lookup(&self, name: &[u8]) -> Result<InodeRef, Errno> {
        let tid = parse_name(name).ok_or(Errno::ENOENT)?;
        let task = table::task_in(&self.0.ns, tid).filter(|t| self.0.has(t));
        let task = task.ok_or(Errno::ENOENT)?;
        Ok(super::pid::process_dir(&Who::task(&task, &self.0.ns)))
    }
    fn list(&self) -> Result<Vec<Entry>, Errno> {
        let p = self.0.get().map_err(|_| Errno::ENOENT)?;
        let tasks = p.tasks.lock().clone();
        let entry = |t: &Arc<crate::task::Task>| {
            let name = alloc::format!("{}", t.tid_in(&self.0.ns)).into_bytes();
            Entry::new(name, Who::task(t, &self.0.ns).ino(0), FileType::Directory)
        };
        let mut all: Vec<Entry> = tasks.iter().map(entry).collect();
        all.sort_by_key(|e| parse_name(&e.name));
        Ok(all)
    }
    fn nlink(&self) -> Option<u32> {
        self.0.get().ok().map(|p| 2 + p.tasks.lock().len() as u32)
    }
}

/// Names in `ns`, and the flag of the kind.
const NAMESPACES: &[(&str, u64)] = &[
    ("cgroup", new::CGROUP),
    ("ipc", new::IPC),
    ("mnt", new::NS),
    ("net", new::NET),
    ("pid", new::PID),
    ("pid_for_children", new::PID),
    ("time", new::TIME),
    ("time_for_children", new::TIME),
    ("user", new::USER),
    ("uts", new::UTS),
];

/// `ns`.
pub fn ns(who: &Who, k: u64) -> InodeRef {
    Dir::new(who.meta(k, 0o511), NsDir(who.clone()))
}

struct NsDir(Who);

/// A process's namespace of the kind.
fn namespace(who: &Who, name: &str, flag: u64) -> Result<ns::Any, Errno> {
    who.inspect()?;
    let task = who.live().map_err(|_| Errno::ENOENT)?;
    if name == "pid_for_children" {
        let pid = task.namespaces().pid.clone();
        // Not before it has an init.
        return if pid.is_fresh() {
            Err(Errno::ENOENT)
        } else {
            Ok(ns::Any::Pid(pid))
        };
    }
    ns::Any::of(&task, flag).into_iter().next().ok_or(Errno::ENOENT)
}

impl Entries for NsDir {
    fn lookup(&self, name: &[u8]) -> Result<InodeRef, Errno> {
        let (i, (name, flag)) = NAMESPACES
            .iter()
            .enumerate()
            .find(|(_, (n, _))| n.as_bytes() == name)
            .ok_or(Errno::ENOENT)?;
        let (a, b) = (self.0.clone(), self.0.clone());
        Ok(Magic::new(
            self.0.meta(NS + i as u64, 0o777),
            move || Ok(ns::file::text(&namespace(&a, name, *flag)?)),
            move || Ok(MagicTarget::Path(ns::file::place(namespace(&b, name, *flag)?))),
        ))
    }
    fn list(&self) -> Result<Vec<Entry>, Errno> {
        let entry = |(i, (n, _)): (usize, &(&'static str, u64))| {
            Entry::new(n.as_bytes(), self.0.ino(NS + i as u64), FileType::Symlink)
        };
        Ok(NAMESPACES.iter().enumerate().map(entry).collect())
    }
}

/// `attr`: no security module is active.
pub fn attr(who: &Who, k: u64) -> InodeRef {
    Dir::new(who.meta(k, 0o555), AttrDir(who.clone()))
}

struct AttrDir(Who);

const ATTRS: [&str; 6] = ["current", "exec", "fscreate", "keycreate", "prev", "sockcreate"];

impl Entries for AttrDir {
    fn lookup(&self, name: &[u8]) -> Result<InodeRef, Errno> {
        let i = ATTRS
            .iter()
            .position(|n| n.as_bytes() == name)
            .ok_or(Errno::ENOENT)?;
        Ok(TextFile::new(self.0.meta(ATTR + i as u64, 0o666), || {
            Err(Errno::EINVAL)
        }))
    }
    fn list(&self) -> Result<Vec<Entry>, Errno> {
        let entry =
            |(i, n): (usize, &&str)| Entry::new(n.as_bytes(), self.0.ino(ATTR + i as u64), FileType::Regular);
        Ok(ATTRS.iter().enumerate().map(entry).collect())
    }
}
