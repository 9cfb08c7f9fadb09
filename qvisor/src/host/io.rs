//! Data and positions of open files. Nothing here waits for a guest's other end.

use super::{Call, Served, errno};
use crate::sys;
use qlib::Errno;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fd::BorrowedFd;
use rustix::fs::FileType;

/// Offset that stands for the file's own position.
const CURRENT: u64 = u64::MAX;
/// What a pipe that has room takes without waiting. Source: `pipe(7)`, `PIPE_BUF`.
const PIPE_CHUNK: usize = 4096;
/// Flag of `Write`: at the end of the file.
pub const APPEND: u64 = 1;

fn kind(fd: BorrowedFd<'_>) -> Result<FileType, Errno> {
    Ok(FileType::from_raw_mode(
        rustix::fs::fstat(fd).map_err(errno)?.st_mode,
    ))
}

fn ready(fd: BorrowedFd<'_>, events: PollFlags) -> Result<PollFlags, Errno> {
    let mut fds = [PollFd::from_borrowed_fd(fd, events)];
    rustix::event::poll(
        &mut fds,
        Some(&Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        }),
    )
    .map_err(errno)?;
    Ok(fds[0].revents())
}

pub fn serve_read(c: &mut Call<'_>) -> Served {
    let length = c.room_for(c.arg(1));
    let offset = c.arg(0);
    let fd = c.fd()?;
    let mut bytes = vec![0u8; length];
    let n = match kind(fd)? {
        FileType::RegularFile | FileType::Directory | FileType::BlockDevice => {
            if offset == CURRENT {
                rustix::io::read(fd, &mut bytes).map_err(errno)?
            } else {
                rustix::io::pread(fd, &mut bytes, position(offset)?).map_err(errno)?
            }
        }
        _ if offset != CURRENT => return Err(Errno::ESPIPE),
        FileType::Socket => {
            sys::net::receive_message(fd, &mut [], &mut [], &mut bytes, 0)
                .map_err(errno)?
                .data
        }
        _ => {
            without_waiting(fd, false, length)?;
            rustix::io::read(fd, &mut bytes).map_err(errno)?
        }
    };
    c.put(&bytes[..n])?;
    Ok(n as u64)
}

/// How many of `len` bytes a pipe or terminal takes or gives without waiting, as far as can be told; EAGAIN: none.
pub fn without_waiting(fd: BorrowedFd<'_>, write: bool, len: usize) -> Result<usize, Errno> {
    let events = if write { PollFlags::OUT } else { PollFlags::IN };
    if ready(fd, events)?.is_empty() {
        return Err(Errno::EAGAIN);
    }
    let waits = || {
        let flags = rustix::fs::fcntl_getfl(fd).map_err(errno)?;
        Ok::<bool, Errno>(!flags.contains(rustix::fs::OFlags::NONBLOCK))
    };
    Ok(if write && waits()? {
        len.min(PIPE_CHUNK)
    } else {
        len
    })
}

fn position(offset: u64) -> Result<u64, Errno> {
    if offset > i64::MAX as u64 {
        Err(Errno::EINVAL)
    } else {
        Ok(offset)
    }
}

pub fn serve_write(c: &mut Call<'_>) -> Served {
    let offset = c.arg(0);
    let fd = c.fd()?;
    let bytes = c.payload;
    let n = match kind(fd)? {
        FileType::RegularFile | FileType::BlockDevice => {
            if c.arg(3) == APPEND {
                sys::append(fd, bytes).map_err(errno)?
            } else if offset == CURRENT {
                rustix::io::write(fd, bytes).map_err(errno)?
            } else {
                rustix::io::pwrite(fd, bytes, position(offset)?).map_err(errno)?
            }
        }
        FileType::Directory => return Err(Errno::EISDIR),
        _ if offset != CURRENT => return Err(Errno::ESPIPE),
        FileType::Socket => sys::net::send_message(fd, &[], &[], bytes, 0).map_err(errno)?,
        _ => {
            let most = without_waiting(fd, true, bytes.len())?;
            rustix::io::write(fd, &bytes[..most]).map_err(errno)?
        }
    };
    Ok(n as u64)
}

pub fn serve_read_dir(c: &mut Call<'_>) -> Served {
    let mut records = vec![0u8; c.room()];
    let n = sys::read_directory(c.fd()?, &mut records).map_err(errno)?;
    c.put(&records[..n])?;
    Ok(n as u64)
}

pub fn serve_seek(c: &mut Call<'_>) -> Served {
    use rustix::fs::SeekFrom;
    let offset = c.arg(0) as i64;
    let start = |v: i64| u64::try_from(v).map_err(|_| Errno::EINVAL);
    let to = match c.arg(1) as i32 {
        libc::SEEK_SET => SeekFrom::Start(start(offset)?),
        libc::SEEK_CUR => SeekFrom::Current(offset),
        libc::SEEK_END => SeekFrom::End(offset),
        libc::SEEK_DATA => SeekFrom::Data(start(offset)?),
        libc::SEEK_HOLE => SeekFrom::Hole(start(offset)?),
        _ => return Err(Errno::EINVAL),
    };
    rustix::fs::seek(c.fd()?, to).map_err(errno)
}

pub fn serve_poll(c: &mut Call<'_>) -> Served {
    let events = PollFlags::from_bits_retain(c.arg(0) as u16);
    Ok(ready(c.fd()?, events)?.bits().into())
}

/// Device controls a guest may ask for, with the size of what they read or write. None carries a pointer.
const CONTROLS: [(u64, usize); 19] = [
    (libc::FIONREAD as u64, 4),
    (libc::TIOCOUTQ as u64, 4),
    (libc::TIOCGWINSZ as u64, 8),
    (libc::TIOCSWINSZ as u64, 8),
    // struct termios of the kernel, which is smaller than the C library's.
    (libc::TCGETS as u64, 36),
    (libc::TCSETS as u64, 36),
    (libc::TCSETSW as u64, 36),
    (libc::TCSETSF as u64, 36),
    // struct ifreq, reading only.
    (0x8910, 40),
    (0x8913, 40),
    (0x8915, 40),
    (0x8917, 40),
    (0x8919, 40),
    (0x891b, 40),
    (0x891d, 40),
    (0x8921, 40),
    (0x8927, 40),
    (0x8933, 40),
    (0x8942, 40),
];

pub fn serve_ioctl(c: &mut Call<'_>) -> Served {
    let request = c.arg(0);
    let Some((_, size)) = CONTROLS.iter().find(|(r, _)| *r == request) else {
        return Err(Errno::ENOTTY);
    };
    if c.payload.len() > *size {
        return Err(Errno::EINVAL);
    }
    // One cache line more than any of them, so that a host with a larger structure cannot write past the end.
    let mut argument = [0u8; 128];
    argument[..c.payload.len()].copy_from_slice(c.payload);
    let value = sys::device_control(c.fd()?, request, &mut argument).map_err(errno)?;
    let room = c.room_for(*size as u64);
    c.put(&argument[..room])?;
    Ok(value as u64)
}
