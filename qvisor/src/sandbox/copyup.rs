//! `tmpcopyup`: a new tmpfs begins with what lay beneath it. Source: runc's `tmpcopyup` extension of mount options.

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid};
use rustix::io::{Errno, Result};
use std::ffi::CStr;
use std::fs::File;

/// Directories within each other that are followed.
const MAX_DEPTH: usize = 64;

fn open(at: BorrowedFd<'_>, name: &CStr, flags: OFlags) -> Result<OwnedFd> {
    rustix::fs::openat(
        at,
        name,
        flags | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

/// Gives `to` the owner, the mode and the times that `stat` tells.
fn copy_attributes(to: &OwnedFd, stat: &Stat) -> Result<()> {
    rustix::fs::fchown(
        to,
        Some(Uid::from_raw(stat.st_uid)),
        Some(Gid::from_raw(stat.st_gid)),
    )?;
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    let time = |seconds, nanoseconds| Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds,
    };
    let times = Timestamps {
        last_access: time(stat.st_atime as _, stat.st_atime_nsec as _),
        last_modification: time(stat.st_mtime as _, stat.st_mtime_nsec as _),
    };
    rustix::fs::futimens(to, &times)
}

/// Copies what is in directory `from` into directory `to`, and its attributes: files, directories, links, named pipes.
/// Devices are left out: those of a container are its guest kernel's.
pub fn copy(from: &OwnedFd, to: &OwnedFd) -> Result<()> {
    copy_directory(from, to, 0)
}

fn copy_directory(from: &OwnedFd, to: &OwnedFd, depth: usize) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(Errno::NAMETOOLONG);
    }
    for entry in Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if !matches!(name.to_bytes(), b"." | b"..") {
            copy_entry(from.as_fd(), to.as_fd(), name, depth)?;
        }
    }
    copy_attributes(to, &rustix::fs::fstat(from)?)
}

fn copy_entry(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, depth: usize) -> Result<()> {
    let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let owner = (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)));
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            rustix::fs::mkdirat(to, name, Mode::from_raw_mode(0o700))?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            copy_directory(&open(from, name, flags)?, &open(to, name, flags)?, depth + 1)
        }
        FileType::RegularFile => {
            // Not blocking: the name may have become a pipe's since.
            let mut source = File::from(open(from, name, OFlags::RDONLY | OFlags::NONBLOCK)?);
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut target = File::from(rustix::fs::openat(to, name, flags, Mode::from_raw_mode(0o600))?);
            let copied = std::io::copy(&mut source, &mut target);
            copied.map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
            copy_attributes(&target.into(), &stat)
        }
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(from, name, Vec::new())?;
            rustix::fs::symlinkat(target.as_c_str(), to, name)?;
            rustix::fs::chownat(to, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)
        }
        FileType::Fifo => {
            let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
            rustix::fs::mknodat(to, name, FileType::Fifo, mode, 0)?;
            rustix::fs::chownat(to, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    #[test]
    fn a_tree_is_copied_with_its_modes() {
        let base = std::env::temp_dir().join(format!("quark-copyup-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&base);
        let (from, to) = (base.join("from"), base.join("to"));
        std::fs::create_dir_all(from.join("d/e")).unwrap();
        std::fs::create_dir_all(&to).unwrap();
        std::fs::write(from.join("d/f"), "text").unwrap();
        symlink("/nowhere", from.join("d/l")).unwrap();
        std::fs::set_permissions(from.join("d/f"), PermissionsExt::from_mode(0o4711)).unwrap();
        std::fs::set_permissions(&from, PermissionsExt::from_mode(0o1777)).unwrap();
        let fd = |path| rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        copy(&fd(&from), &fd(&to)).unwrap();
        assert_eq!(std::fs::read_to_string(to.join("d/f")).unwrap(), "text");
        assert_eq!(std::fs::metadata(to.join("d/f")).unwrap().mode() & 0o7777, 0o4711);
        assert_eq!(std::fs::metadata(&to).unwrap().mode() & 0o7777, 0o1777);
        assert_eq!(
            std::fs::read_link(to.join("d/l")).unwrap().to_str(),
            Some("/nowhere")
        );
        assert!(to.join("d/e").is_dir());
        std::fs::remove_dir_all(base).unwrap();
    }
}
