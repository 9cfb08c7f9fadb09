//! Opening, making, removing and renaming files.

use super::super::sys;
use super::broker::{self, Request};
use super::done;
use super::names::{self, At};
use crate::host::{Handle, Owner};
use crate::uapi::general as g;
use alloc::vec::Vec;
use qlib::Errno;
use qlib::qcall::Op;

/// Flags `openat2` accepts beside O_PATH.
const WITH_PATH: u32 = g::O_PATH | g::O_DIRECTORY | g::O_NOFOLLOW | g::O_CLOEXEC;

pub(super) fn open(dir: Handle, name: &[u8], flags: u32, mode: u32, owner: Owner) -> Result<Handle, Errno> {
    let mut flags = flags | g::O_CLOEXEC | g::O_NONBLOCK | g::O_NOFOLLOW | g::O_NOCTTY;
    if flags & g::O_PATH != 0 {
        flags &= WITH_PATH;
    }
    // An empty name is the directory itself, opened anew.
    let name = if name.is_empty() { b"." } else { name };
    let request = || {
        let args = [
            flags as u64,
            mode as u64,
            owner.uid as u64,
            owner.gid as u64,
            0,
            0,
        ];
        let reply = broker::call(
            &Request {
                op: Op::Open,
                handle: dir,
                args,
                payload: [name, b""],
                ..Request::NONE
            },
            &mut [],
        )?;
        reply.handle.ok_or(Errno::EIO)
    };
    let creates = flags & g::O_CREAT != 0 || flags & g::O_TMPFILE == g::O_TMPFILE;
    if creates && broker::must_own(owner) {
        if flags & g::O_EXCL == 0 && flags & g::O_CREAT != 0 {
            // What is there already has an owner.
            match raw_open(dir, name, flags & !g::O_CREAT, 0) {
                Err(Errno::ENOENT) | Err(Errno::EPERM) | Err(Errno::EACCES) => {}
                other => return other,
            }
        }
        return request();
    }
    broker::or(raw_open(dir, name, flags, mode), request)
}

fn raw_open(dir: Handle, name: &[u8], flags: u32, mode: u32) -> Result<Handle, Errno> {
    let mode = if flags & (g::O_CREAT | g::O_TMPFILE & !g::O_DIRECTORY) != 0 {
        mode & 0o7777
    } else {
        0
    };
    if name.contains(&b'/') {
        return names::open_beneath(dir, name, flags as u64, mode as u64).map(qlib::qcall::HandleId);
    }
    names::with_nul(name, |p| {
        // SAFETY: the host reads the name.
        unsafe { sys::call(g::__NR_openat, [dir.0, p, flags as u64, mode as u64]) }
    })
    .map(qlib::qcall::HandleId)
}

/// A host call on a directory and a name, with up to three arguments more.
fn call_at(nr: u32, dir: Handle, name: &[u8], more: [u64; 3]) -> Result<(), Errno> {
    names::at(dir, name, |At { dir, name }| {
        // SAFETY: the host reads the name.
        done(unsafe { sys::call(nr, [dir, name, more[0], more[1], more[2]]) })
    })
}

/// Makes something: by the broker when another is to own it, else directly and by the broker when that is forbidden.
fn make(owner: Owner, direct: impl FnOnce() -> Result<(), Errno>, request: Request<'_>) -> Result<(), Errno> {
    let asked = || broker::call(&request, &mut []).map(|_| ());
    if broker::must_own(owner) {
        asked()
    } else {
        broker::or(direct(), asked)
    }
}

pub(super) fn mkdir(dir: Handle, name: &[u8], mode: u32, owner: Owner) -> Result<(), Errno> {
    let args = [mode as u64, owner.uid as u64, owner.gid as u64, 0, 0, 0];
    let request = Request {
        op: Op::MkDir,
        handle: dir,
        args,
        payload: [name, b""],
        ..Request::NONE
    };
    make(
        owner,
        || call_at(g::__NR_mkdirat, dir, name, [mode as u64, 0, 0]),
        request,
    )
}

pub(super) fn mknod(dir: Handle, name: &[u8], mode: u32, rdev: u64, owner: Owner) -> Result<(), Errno> {
    let args = [mode as u64, rdev, owner.uid as u64, owner.gid as u64, 0, 0];
    let request = Request {
        op: Op::MkNod,
        handle: dir,
        args,
        payload: [name, b""],
        ..Request::NONE
    };
    make(
        owner,
        || call_at(g::__NR_mknodat, dir, name, [mode as u64, rdev, 0]),
        request,
    )
}

pub(super) fn symlink(dir: Handle, name: &[u8], target: &[u8], owner: Owner) -> Result<(), Errno> {
    let args = [name.len() as u64, owner.uid as u64, owner.gid as u64, 0, 0, 0];
    let request = Request {
        op: Op::SymLink,
        handle: dir,
        args,
        payload: [name, target],
        ..Request::NONE
    };
    let direct = || {
        names::with_nul(target, |t| {
            names::at(dir, name, |At { dir, name }| {
                // SAFETY: the host reads both names.
                done(unsafe { sys::call(g::__NR_symlinkat, [t, dir, name]) })
            })
        })
    };
    make(owner, direct, request)
}

pub(super) fn link(old_dir: Handle, old: &[u8], new_dir: Handle, new: &[u8]) -> Result<(), Errno> {
    let flags = if old.is_empty() {
        g::AT_EMPTY_PATH as u64
    } else {
        0
    };
    let direct = names::at(old_dir, old, |o| {
        names::at(new_dir, new, |n| {
            // SAFETY: the host reads both names.
            done(unsafe { sys::call(g::__NR_linkat, [o.dir, o.name, n.dir, n.name, flags]) })
        })
    });
    // Linking a handle needs a right of its own, whose lack the host calls ENOENT.
    let direct = if old.is_empty() && direct == Err(Errno::ENOENT) {
        Err(Errno::EPERM)
    } else {
        direct
    };
    broker::or(direct, || {
        let args = [old.len() as u64, 0, 0, 0, 0, 0];
        let request = Request {
            op: Op::Link,
            handle: old_dir,
            handle2: new_dir,
            args,
            payload: [old, new],
        };
        broker::call(&request, &mut []).map(|_| ())
    })
}

pub(super) fn unlink(dir: Handle, name: &[u8], is_dir: bool) -> Result<(), Errno> {
    let flags = if is_dir { g::AT_REMOVEDIR as u64 } else { 0 };
    broker::or(call_at(g::__NR_unlinkat, dir, name, [flags, 0, 0]), || {
        let args = [flags, 0, 0, 0, 0, 0];
        let request = Request {
            op: Op::Unlink,
            handle: dir,
            args,
            payload: [name, b""],
            ..Request::NONE
        };
        broker::call(&request, &mut []).map(|_| ())
    })
}

pub(super) fn rename(
    old_dir: Handle,
    old: &[u8],
    new_dir: Handle,
    new: &[u8],
    flags: u32,
) -> Result<(), Errno> {
    let direct = names::at(old_dir, old, |o| {
        names::at(new_dir, new, |n| {
            // SAFETY: the host reads both names.
            done(unsafe { sys::call(g::__NR_renameat2, [o.dir, o.name, n.dir, n.name, flags as u64]) })
        })
    });
    broker::or(direct, || {
        let args = [old.len() as u64, flags as u64, 0, 0, 0, 0];
        let request = Request {
            op: Op::Rename,
            handle: old_dir,
            handle2: new_dir,
            args,
            payload: [old, new],
        };
        broker::call(&request, &mut []).map(|_| ())
    })
}

pub(super) fn read_link(dir: Handle, name: &[u8]) -> Result<Vec<u8>, Errno> {
    let mut target = alloc::vec![0; 4096];
    let direct = names::at(dir, name, |At { dir, name }| {
        let args = [dir, name, target.as_mut_ptr() as u64, target.len() as u64];
        // SAFETY: the host reads the name and writes into the vector.
        unsafe { sys::call(g::__NR_readlinkat, args) }
    });
    let len = broker::or(direct, || {
        let request = Request {
            op: Op::ReadLink,
            handle: dir,
            payload: [name, b""],
            ..Request::NONE
        };
        broker::call(&request, &mut target).map(|r| r.len as u64)
    })?;
    target.truncate(len as usize);
    target.shrink_to_fit();
    Ok(target)
}

pub(super) fn mem_file(name: &[u8]) -> Result<Handle, Errno> {
    // The host takes 249 bytes, which are for people only.
    let name = &name[..name.len().min(200)];
    names::with_nul(name, |p| {
        // SAFETY: the host reads the name.
        unsafe {
            sys::call(
                g::__NR_memfd_create,
                [p, (g::MFD_CLOEXEC | g::MFD_ALLOW_SEALING) as u64],
            )
        }
    })
    .map(qlib::qcall::HandleId)
}
