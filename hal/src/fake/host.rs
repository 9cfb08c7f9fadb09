//! Host services of the fake machine: files are those of the machine the tests run on, a handle is a descriptor number.
//! Sockets and control messages answer ENOSYS; a container's service is a directory, with the texts by the names of their groups,
//! and whatever is to be had for a socket by the name of `socket`.

use super::Fake;
use crate::contract::HostService;
use crate::host::{Dest, Handle, MessageIn, Owner, PollItem, Received, Src};
use alloc::ffi::CString;
use alloc::format;
use alloc::vec;
use alloc::vec::Vec;
use qlib::Errno;
use qlib::qcall::{HostStat, HostStatFs, SystemGroup};
use rustix::fd::{BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid};

fn fd(h: Handle) -> BorrowedFd<'static> {
    // SAFETY: the kernel closes a handle only when nothing uses it any more.
    unsafe { BorrowedFd::borrow_raw(h.0 as i32) }
}

fn errno(e: rustix::io::Errno) -> Errno {
    Errno(e.raw_os_error())
}

fn cstring(name: &[u8]) -> Result<CString, Errno> {
    CString::new(name).map_err(|_| Errno::EINVAL)
}

/// A path that names `name` under `dir`, or `dir` itself, for calls that take no descriptor.
fn by_path(dir: Handle, name: &[u8]) -> Result<CString, Errno> {
    let mut path = format!("/proc/self/fd/{}", dir.0).into_bytes();
    if !name.is_empty() {
        path.push(b'/');
        path.extend_from_slice(name);
    }
    cstring(&path)
}

/// Whether the tests may give files to others.
fn privileged() -> bool {
    static ROOT: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *ROOT.get_or_init(|| {
        std::fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0)
    })
}

/// Gives a new file its owner and mode, which the process's umask must not change.
fn own(dir: Handle, name: &[u8], mode: Option<u32>, owner: Owner) -> Result<(), Errno> {
    if privileged() {
        let ids = (Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)));
        fs::chownat(fd(dir), cstring(name)?, ids.0, ids.1, AtFlags::SYMLINK_NOFOLLOW).map_err(errno)?;
    }
    match mode {
        Some(mode) => Fake::chmod(dir, name, mode),
        None => Ok(()),
    }
}

fn handle(fd: OwnedFd) -> Handle {
    qlib::qcall::HandleId(fd.into_raw_fd() as u64)
}

/// What a container's service has by that name.
fn of_service(service: Handle, name: &str) -> Result<Handle, Errno> {
    if service == Handle::NONE {
        return Err(Errno::ENOSYS);
    }
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    fs::openat(fd(service), name, flags, Mode::empty())
        .map(handle)
        .map_err(errno)
}

impl HostService for Fake {
    fn open(dir: Handle, name: &[u8], flags: u32, mode: u32, owner: Owner) -> Result<Handle, Errno> {
        let flags = OFlags::from_bits_retain(flags) | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOFOLLOW;
        let flags = if flags.contains(OFlags::PATH) {
            flags & (OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC)
        } else {
            flags
        };
        let temporary = flags.contains(OFlags::TMPFILE);
        let new = temporary
            || flags.contains(OFlags::CREATE)
                && fs::statat(fd(dir), cstring(name)?, AtFlags::SYMLINK_NOFOLLOW).is_err();
        let opened =
            fs::openat(fd(dir), cstring(name)?, flags, Mode::from_raw_mode(mode & 0o7777)).map_err(errno)?;
        if new {
            if privileged() {
                let ids = (Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)));
                fs::fchown(&opened, ids.0, ids.1).map_err(errno)?;
            }
            fs::fchmod(&opened, Mode::from_raw_mode(mode & 0o7777)).map_err(errno)?;
        }
        Ok(handle(opened))
    }
    fn close(h: Handle) {
        // SAFETY: the handle is a descriptor that the kernel owns and gives up here.
        drop(unsafe { OwnedFd::from_raw_fd(h.0 as i32) });
    }
    fn stat(dir: Handle, name: &[u8]) -> Result<HostStat, Errno> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
        let want = fs::StatxFlags::BASIC_STATS | fs::StatxFlags::BTIME;
        let s = fs::statx(fd(dir), cstring(name)?, flags, want).map_err(errno)?;
        Ok(HostStat {
            dev: fs::makedev(s.stx_dev_major, s.stx_dev_minor),
            ino: s.stx_ino,
            mode: u32::from(s.stx_mode),
            nlink: s.stx_nlink,
            uid: s.stx_uid,
            gid: s.stx_gid,
            rdev: fs::makedev(s.stx_rdev_major, s.stx_rdev_minor),
            size: s.stx_size,
            blksize: u64::from(s.stx_blksize),
            blocks: s.stx_blocks,
            atime_s: s.stx_atime.tv_sec,
            atime_ns: u64::from(s.stx_atime.tv_nsec),
            mtime_s: s.stx_mtime.tv_sec,
            mtime_ns: u64::from(s.stx_mtime.tv_nsec),
            ctime_s: s.stx_ctime.tv_sec,
            ctime_ns: u64::from(s.stx_ctime.tv_nsec),
            btime_s: s.stx_btime.tv_sec,
            btime_ns: u64::from(s.stx_btime.tv_nsec),
        })
    }
    fn read_link(dir: Handle, name: &[u8]) -> Result<Vec<u8>, Errno> {
        let target = fs::readlinkat(fd(dir), cstring(name)?, Vec::new()).map_err(errno)?;
        Ok(target.into_bytes())
    }
    fn mkdir(dir: Handle, name: &[u8], mode: u32, owner: Owner) -> Result<(), Errno> {
        fs::mkdirat(fd(dir), cstring(name)?, Mode::from_raw_mode(mode)).map_err(errno)?;
        own(dir, name, Some(mode), owner)
    }
    fn mknod(dir: Handle, name: &[u8], mode: u32, rdev: u64, owner: Owner) -> Result<(), Errno> {
        let kind = match FileType::from_raw_mode(mode) {
            FileType::Unknown => FileType::RegularFile,
            kind => kind,
        };
        let bits = Mode::from_raw_mode(mode & 0o7777);
        fs::mknodat(fd(dir), cstring(name)?, kind, bits, rdev).map_err(errno)?;
        own(dir, name, Some(mode & 0o7777), owner)
    }
    fn symlink(dir: Handle, name: &[u8], target: &[u8], owner: Owner) -> Result<(), Errno> {
        fs::symlinkat(cstring(target)?, fd(dir), cstring(name)?).map_err(errno)?;
        own(dir, name, None, owner)
    }
    fn link(old_dir: Handle, old: &[u8], new_dir: Handle, new: &[u8]) -> Result<(), Errno> {
        if old.is_empty() {
            let path = by_path(old_dir, b"")?;
            return fs::linkat(fs::CWD, path, fd(new_dir), cstring(new)?, AtFlags::SYMLINK_FOLLOW)
                .map_err(errno);
        }
        fs::linkat(
            fd(old_dir),
            cstring(old)?,
            fd(new_dir),
            cstring(new)?,
            AtFlags::empty(),
        )
        .map_err(errno)
    }
    fn unlink(dir: Handle, name: &[u8], is_dir: bool) -> Result<(), Errno> {
        let flags = if is_dir {
            AtFlags::REMOVEDIR
        } else {
            AtFlags::empty()
        };
        fs::unlinkat(fd(dir), cstring(name)?, flags).map_err(errno)
    }
    fn rename(old_dir: Handle, old: &[u8], new_dir: Handle, new: &[u8], flags: u32) -> Result<(), Errno> {
        let flags = fs::RenameFlags::from_bits_retain(flags);
        fs::renameat_with(fd(old_dir), cstring(old)?, fd(new_dir), cstring(new)?, flags).map_err(errno)
    }
    fn chmod(dir: Handle, name: &[u8], mode: u32) -> Result<(), Errno> {
        fs::chmod(by_path(dir, name)?, Mode::from_raw_mode(mode)).map_err(errno)
    }
    fn chown(dir: Handle, name: &[u8], uid: u32, gid: u32) -> Result<(), Errno> {
        let id = |n: u32| (n != u32::MAX).then_some(n);
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
        let (uid, gid) = (id(uid).map(Uid::from_raw), id(gid).map(Gid::from_raw));
        fs::chownat(fd(dir), cstring(name)?, uid, gid, flags).map_err(errno)
    }
    fn set_times(dir: Handle, name: &[u8], times: [(i64, i64); 2]) -> Result<(), Errno> {
        let stamp = |(tv_sec, tv_nsec): (i64, i64)| Timespec { tv_sec, tv_nsec };
        let times = Timestamps {
            last_access: stamp(times[0]),
            last_modification: stamp(times[1]),
        };
        if name.is_empty() {
            return fs::utimensat(fs::CWD, by_path(dir, b"")?, &times, AtFlags::empty()).map_err(errno);
        }
        fs::utimensat(fd(dir), cstring(name)?, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(errno)
    }
    fn truncate(h: Handle, len: u64) -> Result<(), Errno> {
        fs::ftruncate(fd(h), len).map_err(errno)
    }
    fn allocate(h: Handle, mode: u32, offset: u64, len: u64) -> Result<(), Errno> {
        fs::fallocate(fd(h), fs::FallocateFlags::from_bits_retain(mode), offset, len).map_err(errno)
    }
    fn sync(h: Handle, data_only: bool) -> Result<(), Errno> {
        if data_only {
            fs::fdatasync(fd(h))
        } else {
            fs::fsync(fd(h))
        }
        .map_err(errno)
    }
    fn statfs(h: Handle) -> Result<HostStatFs, Errno> {
        let s = fs::fstatfs(fd(h)).map_err(errno)?;
        Ok(HostStatFs {
            kind: s.f_type as u64,
            bsize: s.f_bsize as u64,
            blocks: s.f_blocks as u64,
            bfree: s.f_bfree as u64,
            bavail: s.f_bavail as u64,
            files: s.f_files as u64,
            ffree: s.f_ffree as u64,
            namelen: s.f_namelen as u64,
            flags: s.f_flags as u64,
        })
    }
    fn get_xattr(dir: Handle, name: &[u8], attr: &[u8]) -> Result<Vec<u8>, Errno> {
        let mut buf = vec![0; 65536];
        let n = fs::getxattr(by_path(dir, name)?, cstring(attr)?, &mut buf).map_err(errno)?;
        buf.truncate(n);
        Ok(buf)
    }
    fn set_xattr(dir: Handle, name: &[u8], attr: &[u8], value: &[u8], flags: u32) -> Result<(), Errno> {
        let flags = fs::XattrFlags::from_bits_retain(flags);
        fs::setxattr(by_path(dir, name)?, cstring(attr)?, value, flags).map_err(errno)
    }
    fn list_xattr(dir: Handle, name: &[u8]) -> Result<Vec<u8>, Errno> {
        let mut buf = vec![0u8; 65536];
        let n = fs::listxattr(by_path(dir, name)?, &mut buf).map_err(errno)?;
        buf.truncate(n);
        Ok(buf)
    }
    fn remove_xattr(dir: Handle, name: &[u8], attr: &[u8]) -> Result<(), Errno> {
        fs::removexattr(by_path(dir, name)?, cstring(attr)?).map_err(errno)
    }
    fn read_dir(h: Handle, buf: &mut [u8]) -> Result<usize, Errno> {
        let mut raw = Vec::with_capacity(buf.len());
        let mut dir = fs::RawDir::new(fd(h), raw.spare_capacity_mut());
        // Records are written again in the host's own layout.
        let mut at = 0;
        loop {
            match dir.next() {
                None => break,
                Some(Err(e)) => return Err(errno(e)),
                Some(Ok(e)) => {
                    let name = e.file_name().to_bytes();
                    let len = (19 + name.len() + 1).next_multiple_of(8);
                    let record = buf.get_mut(at..at + len).ok_or(Errno::EINVAL)?;
                    record.fill(0);
                    record[..8].copy_from_slice(&e.ino().to_le_bytes());
                    record[8..16].copy_from_slice(&e.next_entry_cookie().to_le_bytes());
                    record[16..18].copy_from_slice(&(len as u16).to_le_bytes());
                    record[18] = (e.file_type().as_raw_mode() >> 12) as u8;
                    record[19..19 + name.len()].copy_from_slice(name);
                    at += len;
                }
            }
            if dir.is_buffer_empty() {
                break;
            }
        }
        Ok(at)
    }
    fn seek(h: Handle, offset: i64, whence: u32) -> Result<u64, Errno> {
        let to = match whence {
            0 => fs::SeekFrom::Start(offset as u64),
            1 => fs::SeekFrom::Current(offset),
            2 => fs::SeekFrom::End(offset),
            3 => fs::SeekFrom::Data(offset as u64),
            4 => fs::SeekFrom::Hole(offset as u64),
            _ => return Err(Errno::EINVAL),
        };
        fs::seek(fd(h), to).map_err(errno)
    }
    fn read(h: Handle, dest: &mut Dest<'_>, offset: Option<u64>) -> Result<usize, Errno> {
        let mut buf = vec![0; dest.remaining().min(1 << 20)];
        let n = match offset {
            Some(at) => rustix::io::pread(fd(h), &mut buf, at),
            None => rustix::io::read(fd(h), &mut buf),
        }
        .map_err(errno)?;
        dest.put(&buf[..n])
    }
    fn write(h: Handle, src: &mut Src<'_>, offset: Option<u64>, append: bool) -> Result<usize, Errno> {
        let mut buf = vec![0; src.remaining().min(1 << 20)];
        let got = src.take(&mut buf)?;
        let bytes = &buf[..got];
        let n = match offset {
            _ if append => {
                let end = fs::fstat(fd(h)).map_err(errno)?.st_size as u64;
                rustix::io::pwrite(fd(h), bytes, end)
            }
            Some(at) => rustix::io::pwrite(fd(h), bytes, at),
            None => rustix::io::write(fd(h), bytes),
        }
        .map_err(errno)?;
        src.rewind(got - n);
        Ok(n)
    }
    fn mem_file(name: &[u8]) -> Result<Handle, Errno> {
        fs::memfd_create(cstring(name)?, fs::MemfdFlags::CLOEXEC)
            .map(handle)
            .map_err(errno)
    }
    fn ready(_items: &mut [PollItem]) -> Result<usize, Errno> {
        Err(Errno::ENOSYS)
    }
    fn wait_ready(_items: &mut [PollItem], _deadline_ns: Option<u64>) -> Result<usize, Errno> {
        Err(Errno::ENOSYS)
    }
    fn ioctl(_h: Handle, _request: u32, _arg: &mut [u8]) -> Result<u64, Errno> {
        Err(Errno::ENOSYS)
    }
    fn socket(service: Handle, _domain: u32, _kind: u32, _protocol: u32) -> Result<Handle, Errno> {
        of_service(service, "socket")
    }
    fn system_file(service: Handle, group: SystemGroup, name: &[u8]) -> Result<Handle, Errno> {
        let name = core::str::from_utf8(name).map_err(|_| Errno::EINVAL)?;
        of_service(service, &format!("{group:?}/{name}"))
    }
    fn bind(_h: Handle, _addr: &[u8]) -> Result<(), Errno> {
        Err(Errno::ENOSYS)
    }
    fn connect(_h: Handle, _addr: &[u8]) -> Result<(), Errno> {
        Err(Errno::ENOSYS)
    }
    fn listen(_h: Handle, _backlog: u32) -> Result<(), Errno> {
        Err(Errno::ENOSYS)
    }
    fn accept(_h: Handle) -> Result<(Handle, Vec<u8>), Errno> {
        Err(Errno::ENOSYS)
    }
    fn send_msg(
        _h: Handle,
        _addr: &[u8],
        _control: &[u8],
        _src: &mut Src<'_>,
        _flags: u32,
    ) -> Result<usize, Errno> {
        Err(Errno::ENOSYS)
    }
    fn recv_msg(
        _h: Handle,
        _dest: &mut Dest<'_>,
        _control_room: usize,
        _flags: u32,
    ) -> Result<Received, Errno> {
        Err(Errno::ENOSYS)
    }
    fn shutdown(_h: Handle, _how: u32) -> Result<(), Errno> {
        Err(Errno::ENOSYS)
    }
    fn sock_name(_h: Handle) -> Result<Vec<u8>, Errno> {
        Err(Errno::ENOSYS)
    }
    fn peer_name(_h: Handle) -> Result<Vec<u8>, Errno> {
        Err(Errno::ENOSYS)
    }
    fn get_sock_opt(_h: Handle, _level: u32, _name: u32, _room: usize) -> Result<Vec<u8>, Errno> {
        Err(Errno::ENOSYS)
    }
    fn set_sock_opt(_h: Handle, _level: u32, _name: u32, _value: &[u8]) -> Result<(), Errno> {
        Err(Errno::ENOSYS)
    }
    fn control_recv() -> Result<MessageIn, Errno> {
        Err(Errno::ENOSYS)
    }
    fn control_send(_event: &[u8]) -> Result<(), Errno> {
        Err(Errno::ENOSYS)
    }
    fn log(_level: u32, _line: &[u8]) {}
}
