//! `/proc/PID` and `/proc/PID/task/TID`.

use super::memfile::MemFile;
use super::users::Which;
use super::who::Who;
use super::{limits, map_files, maps, mounts, net, pid_dirs, stat, status, users};
use crate::fs::file::{File, MagicTarget};
use crate::fs::inode::{FileType, InodeRef};
use crate::fs::pseudo::{Dir, Entries, Entry, Magic, TextFile, parse_written};
use crate::mm::{Mm, remote};
use crate::ns::user as id;
use crate::put;
use crate::task::Process;
use crate::task::creds::cap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use qlib::Errno;

type Show = fn(&Who) -> Result<Vec<u8>, Errno>;
type Store = fn(&Who, &[u8]) -> Result<(), Errno>;

/// What an entry of the directory is.
enum Kind {
    /// A text for everyone.
    Text(Show),
    /// A text for those who may look inside.
    Secret(Show),
    /// A text that takes writes.
    Knob(Show, Store),
    /// A map of users or groups, or what belongs to it.
    Users(Which),
    /// A link to a place or an object.
    Link(Show, fn(&Who) -> Result<MagicTarget, Errno>),
    /// The memory.
    Memory,
    /// A directory.
    Dir(fn(&Who, u64) -> InodeRef),
}

use Kind::{Knob, Link, Secret, Text, Users};

/// Name, permission bits, kind, and whether only the process's directory has it (not a thread's).
const ENTRIES: &[(&str, u32, Kind, bool)] = &[
    ("attr", 0o555, Kind::Dir(pid_dirs::attr), false),
    ("auxv", 0o400, Secret(auxv), false),
    ("cgroup", 0o444, Text(cgroup), false),
    ("clear_refs", 0o200, Knob(empty, accept), true),
    ("cmdline", 0o444, Text(cmdline), false),
    ("comm", 0o644, Knob(comm, set_comm), false),
    ("coredump_filter", 0o644, Text(coredump_filter), true),
    ("cpuset", 0o444, Text(|_| Ok(b"/\n".to_vec())), false),
    ("cwd", 0o777, Link(cwd_text, cwd), false),
    ("environ", 0o400, Secret(environ), false),
    ("exe", 0o777, Link(exe_text, exe), false),
    ("fd", 0o500, Kind::Dir(pid_dirs::fd), false),
    ("fdinfo", 0o500, Kind::Dir(pid_dirs::fdinfo), false),
    ("gid_map", 0o644, Users(Which::Map(id::Kind::Gid)), false),
    ("io", 0o400, Secret(io), false),
    ("limits", 0o444, Text(limits::show), false),
    ("loginuid", 0o644, Text(|_| Ok(b"4294967295".to_vec())), false),
    ("map_files", 0o500, Kind::Dir(map_files::dir), true),
    ("maps", 0o444, Secret(maps::maps), false),
    ("mem", 0o600, Kind::Memory, false),
    ("mountinfo", 0o444, Text(mounts::mountinfo), false),
    ("mounts", 0o444, Text(mounts::mounts), false),
    ("mountstats", 0o400, Text(mounts::mountstats), true),
    ("net", 0o555, Kind::Dir(net::dir), false),
    ("ns", 0o511, Kind::Dir(pid_dirs::ns), false),
    ("oom_adj", 0o644, Text(oom_adj), false),
    ("oom_score", 0o444, Text(oom_score), false),
    (
        "oom_score_adj",
        0o644,
        Knob(oom_score_adj, set_oom_score_adj),
        false,
    ),
    ("pagemap", 0o400, Secret(refused), false),
    ("personality", 0o400, Secret(personality), false),
    ("projid_map", 0o644, Text(users::projid_map), false),
    ("root", 0o777, Link(root_text, root), false),
    ("sched", 0o644, Text(sched), false),
    ("schedstat", 0o444, Text(schedstat), false),
    ("sessionid", 0o444, Text(|_| Ok(b"4294967295".to_vec())), false),
    ("setgroups", 0o644, Users(Which::Setgroups), false),
    ("smaps", 0o444, Secret(maps::smaps), false),
    ("smaps_rollup", 0o444, Secret(maps::rollup), false),
    ("stack", 0o400, Secret(empty), false),
    ("stat", 0o444, Text(stat::show), false),
    ("statm", 0o444, Text(stat::statm), false),
    ("status", 0o444, Text(status::show), false),
    ("syscall", 0o400, Secret(|_| Ok(b"running\n".to_vec())), false),
    ("task", 0o555, Kind::Dir(pid_dirs::task), true),
    ("timerslack_ns", 0o666, Text(timerslack), true),
    ("uid_map", 0o644, Users(Which::Map(id::Kind::Uid)), false),
    ("wchan", 0o444, Text(|_| Ok(b"0".to_vec())), false),
];

/// The directory of a process or thread.
pub fn process_dir(who: &Who) -> InodeRef {
    Dir::new(who.meta(0, 0o555), PidDir(who.clone()))
}

/// The process whose directory an open file is.
///
/// # Errors
/// EBADF when it is none, ESRCH when the process is gone.
pub fn process_of(file: &File) -> Result<Arc<Process>, Errno> {
    let inode = file.path().map(|p| p.inode());
    let dir = inode.and_then(|i| i.as_any().downcast_ref::<Dir>());
    let entries = dir.and_then(|d| d.entries::<PidDir>()).filter(|d| !d.0.thread);
    entries.ok_or(Errno::EBADF)?.0.get().map_err(|_| Errno::ESRCH)
}

struct PidDir(Who);

impl Entries for PidDir {
    fn lookup(&self, name: &[u8]) -> Result<InodeRef, Errno> {
        let who = &self.0;
        who.get().map_err(|_| Errno::ENOENT)?;
        let (i, e) = ENTRIES
            .iter()
            .enumerate()
            .find(|(_, e)| e.0.as_bytes() == name && !(e.3 && who.thread))
            .ok_or(Errno::ENOENT)?;
        Ok(make(who, i as u64 + 1, e))
    }
    fn list(&self) -> Result<Vec<Entry>, Errno> {
        self.0.get().map_err(|_| Errno::ENOENT)?;
        let shown = ENTRIES
            .iter()
            .enumerate()
            .filter(|(_, e)| !(e.3 && self.0.thread));
        Ok(shown
            .map(|(i, e)| {
                let kind = match e.2 {
                    Kind::Link(..) => FileType::Symlink,
                    Kind::Dir(_) => FileType::Directory,
                    _ => FileType::Regular,
                };
                Entry::new(e.0.as_bytes(), self.0.ino(i as u64 + 1), kind)
            })
            .collect())
    }
    fn nlink(&self) -> Option<u32> {
        Some(9)
    }
}

fn make(who: &Who, k: u64, entry: &'static (&str, u32, Kind, bool)) -> InodeRef {
    let w = who.clone();
    match &entry.2 {
        Text(show) => TextFile::new(who.meta(k, entry.1), move || show(&w)),
        Secret(show) => TextFile::new(who.meta(k, entry.1), move || {
            w.inspect()?;
            show(&w)
        }),
        Knob(show, store) => {
            let v = who.clone();
            TextFile::writable(who.meta(k, entry.1), move || show(&w), move |b| store(&v, b))
        }
        Users(which) => users::file(who, who.meta(k, entry.1), *which),
        Link(text, jump) => {
            let v = who.clone();
            let text = move || {
                w.inspect()?;
                text(&w)
            };
            let jump = move || {
                v.inspect()?;
                jump(&v)
            };
            Magic::new(who.meta(k, entry.1), text, jump)
        }
        Kind::Memory => MemFile::inode(who.meta(k, entry.1), w),
        Kind::Dir(f) => f(who, k),
    }
}

fn empty(_: &Who) -> Result<Vec<u8>, Errno> {
    Ok(Vec::new())
}

fn refused(_: &Who) -> Result<Vec<u8>, Errno> {
    // Frames are the machine's secret.
    Err(Errno::EPERM)
}

fn accept(who: &Who, bytes: &[u8]) -> Result<(), Errno> {
    who.inspect()?;
    match parse_written(bytes)? {
        1..=5 => Ok(()),
        _ => Err(Errno::EINVAL),
    }
}

fn coredump_filter(_: &Who) -> Result<Vec<u8>, Errno> {
    Ok(b"00000033\n".to_vec())
}

fn with_mm(who: &Who, f: impl FnOnce(&Arc<Mm>) -> Result<Vec<u8>, Errno>) -> Result<Vec<u8>, Errno> {
    who.get()?;
    match who.mm() {
        Some(mm) => f(&mm),
        None => Ok(Vec::new()),
    }
}

fn auxv(who: &Who) -> Result<Vec<u8>, Errno> {
    with_mm(who, |mm| Ok(mm.layout.lock().auxv.clone()))
}

/// The command line as the program shows it: what is in its argument area now, and past it when the program wrote over the
/// end (`setproctitle`). Source: Linux `get_mm_cmdline`.
fn cmdline(who: &Who) -> Result<Vec<u8>, Errno> {
    with_mm(who, |mm| {
        let (start, end, env_end, first) = {
            let l = mm.layout.lock();
            (l.arg_start, l.arg_end, l.env_end, l.args.clone())
        };
        let task = who.live()?;
        let Ok(args) = remote::read(&task, start, end.saturating_sub(start)) else {
            return Ok(first);
        };
        if args.last().is_none_or(|b| *b == 0) || env_end <= end {
            return Ok(args);
        }
        let mut all = args;
        all.extend(remote::read(&task, end, (env_end - end).min(4096)).unwrap_or_default());
        let len = all.iter().position(|b| *b == 0).unwrap_or(all.len());
        all.truncate(len);
        Ok(all)
    })
}

fn environ(who: &Who) -> Result<Vec<u8>, Errno> {
    with_mm(who, |mm| {
        let (start, end, first) = {
            let l = mm.layout.lock();
            (l.env_start, l.env_end, l.env.clone())
        };
        Ok(remote::read(&who.live()?, start, end.saturating_sub(start)).unwrap_or(first))
    })
}

fn comm(who: &Who) -> Result<Vec<u8>, Errno> {
    let mut name = status::name(who)?;
    name.push(b'\n');
    Ok(name)
}

fn set_comm(who: &Who, bytes: &[u8]) -> Result<(), Errno> {
    let me = crate::task::current().ok_or(Errno::EPERM)?;
    let task = who.live()?;
    if !Arc::ptr_eq(&me.process, &task.process) {
        return Err(Errno::EINVAL);
    }
    // A new line counts, as with Linux.
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    let mut name = [0; 16];
    let n = end.min(15);
    name[..n].copy_from_slice(&bytes[..n]);
    task.set_comm(name);
    Ok(())
}

fn cgroup(_: &Who) -> Result<Vec<u8>, Errno> {
    Ok(b"0::/\n".to_vec())
}

fn cwd(who: &Who) -> Result<MagicTarget, Errno> {
    let fs = who.live()?.fs();
    let path = fs.cwd.lock().clone();
    Ok(MagicTarget::Path(path))
}

fn cwd_text(who: &Who) -> Result<Vec<u8>, Errno> {
    let fs = who.live()?.fs();
    let path = fs.cwd.lock().clone();
    Ok(mounts::shown(&path))
}

fn root(who: &Who) -> Result<MagicTarget, Errno> {
    let fs = who.live()?.fs();
    let path = fs.root.lock().clone();
    Ok(MagicTarget::Path(path))
}

fn root_text(who: &Who) -> Result<Vec<u8>, Errno> {
    let fs = who.live()?.fs();
    let path = fs.root.lock().clone();
    Ok(mounts::shown(&path))
}

fn exe(who: &Who) -> Result<MagicTarget, Errno> {
    let exe = who.get()?.exe.lock().clone();
    exe.map(MagicTarget::Path).ok_or(Errno::ENOENT)
}

fn exe_text(who: &Who) -> Result<Vec<u8>, Errno> {
    let exe = who.get()?.exe.lock().clone();
    exe.map(|p| mounts::shown(&p)).ok_or(Errno::ENOENT)
}

fn io(who: &Who) -> Result<Vec<u8>, Errno> {
    let p = who.get()?;
    let n = |i: usize| p.io[i].load(Ordering::Relaxed);
    let mut t = crate::fs::pseudo::Text::new();
    put!(
        t,
        "rchar: {}\nwchar: {}\nsyscr: {}\nsyscw: {}\n",
        n(0),
        n(1),
        n(2),
        n(3)
    );
    put!(t, "read_bytes: 0\nwrite_bytes: 0\ncancelled_write_bytes: 0\n");
    Ok(t.finish())
}

fn oom_score_adj(who: &Who) -> Result<Vec<u8>, Errno> {
    let v = who.get()?.oom_score_adj.load(Ordering::Relaxed);
    Ok(alloc::format!("{v}\n").into_bytes())
}

fn set_oom_score_adj(who: &Who, bytes: &[u8]) -> Result<(), Errno> {
    let v = parse_written(bytes)?;
    if !(-1000..=1000).contains(&v) {
        return Err(Errno::EINVAL);
    }
    who.inspect()?;
    let p = who.get()?;
    let old = p.oom_score_adj.load(Ordering::Relaxed);
    let privileged = crate::task::current().is_some_and(|t| t.creds().capable(cap::SYS_RESOURCE));
    if (v as i32) < old && !privileged {
        return Err(Errno::EACCES);
    }
    p.oom_score_adj.store(v as i32, Ordering::Relaxed);
    Ok(())
}

fn oom_adj(who: &Who) -> Result<Vec<u8>, Errno> {
    let v = who.get()?.oom_score_adj.load(Ordering::Relaxed);
    let adj = if v == 1000 { 15 } else { v * 17 / 1000 };
    Ok(alloc::format!("{adj}\n").into_bytes())
}

fn oom_score(who: &Who) -> Result<Vec<u8>, Errno> {
    let p = who.get()?;
    let rss = stat::rss_pages(who) * 4;
    let total = super::memory::figures().total.max(1);
    let score = (rss * 1000 / total) as i64 + i64::from(p.oom_score_adj.load(Ordering::Relaxed));
    let score = if score < 0 {
        0
    } else {
        (score + 1000).min(2000) * 2 / 3
    };
    Ok(alloc::format!("{score}\n").into_bytes())
}

fn personality(who: &Who) -> Result<Vec<u8>, Errno> {
    let v = who.get()?.personality.load(Ordering::Relaxed);
    Ok(alloc::format!("{v:08x}\n").into_bytes())
}

fn timerslack(who: &Who) -> Result<Vec<u8>, Errno> {
    let v = who.live()?.timer_slack_ns.load(Ordering::Relaxed);
    Ok(alloc::format!("{v}\n").into_bytes())
}

fn schedstat(who: &Who) -> Result<Vec<u8>, Errno> {
    let (user, system) = stat::cpu_ns(who)?;
    Ok(alloc::format!("{} 0 0\n", user + system).into_bytes())
}

fn sched(who: &Who) -> Result<Vec<u8>, Errno> {
    let p = who.get()?;
    let (user, system) = stat::cpu_ns(who)?;
    let ms = |ns: u64| (ns / 1_000_000, ns % 1_000_000);
    let (run, start) = (ms(user + system), ms(p.start_ns));
    let mut t = crate::fs::pseudo::Text::new();
    t.bytes(&status::name(who)?);
    put!(
        t,
        " ({}, #threads: {})\n",
        who.numbers(&p).shown(&who.ns),
        p.tasks.lock().len().max(1)
    );
    put!(
        t,
        "-------------------------------------------------------------------\n"
    );
    put!(
        t,
        "se.exec_start                                : {:>17}.{:06}\n",
        start.0,
        start.1
    );
    put!(
        t,
        "se.sum_exec_runtime                          : {:>17}.{:06}\n",
        run.0,
        run.1
    );
    put!(
        t,
        "nr_switches                                  : {:>24}\n",
        super::ident::usage(&p).counts.voluntary
    );
    put!(t, "prio                                         : {:>24}\n", 120);
    Ok(t.finish())
}
