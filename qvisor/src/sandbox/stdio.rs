//! The container's stdin, stdout and stderr: descriptors as they came, or a terminal.

use crate::error::{Context, OsError};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::net::SendFlags;
use rustix::pty::OpenptFlags;
use rustix::termios::{OptionalActions, Winsize};
use std::io::IoSlice;

/// A description of `fd` of the guest's own where the host gives one: pipes and terminals can then be non-blocking
/// without the caller's end becoming so. Files keep theirs, because the position is shared with the caller.
pub fn own_description(fd: BorrowedFd<'_>) -> std::io::Result<OwnedFd> {
    let kind = FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode);
    if matches!(kind, FileType::Fifo | FileType::CharacterDevice) {
        let now = rustix::fs::fcntl_getfl(fd)?;
        let keep = now & (OFlags::RWMODE | OFlags::APPEND);
        let flags = keep | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        // Not permitted for another user's pipe, not possible for a pipe without a reader: then as it came.
        if let Ok(own) = rustix::fs::open(path, flags, Mode::empty()) {
            return Ok(own);
        }
    }
    Ok(rustix::io::fcntl_dupfd_cloexec(fd, 3)?)
}

/// The caller's stdin, stdout and stderr for a guest; a closed one is `None`.
pub fn inherited() -> Vec<Option<OwnedFd>> {
    (0..3)
        .map(|number| match number {
            0 => own_description(std::io::stdin().as_fd()).ok(),
            1 => own_description(std::io::stdout().as_fd()).ok(),
            _ => own_description(std::io::stderr().as_fd()).ok(),
        })
        .collect()
}

/// A new terminal: `(master, slave)`. The slave is raw: the guest kernel has the line discipline.
pub fn new_terminal(rows: u32, cols: u32) -> Result<(OwnedFd, OwnedFd), OsError> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = rustix::pty::openpt(flags).doing("open a terminal")?;
    rustix::pty::unlockpt(&master).doing("unlock a terminal")?;
    let slave = rustix::pty::ioctl_tiocgptpeer(
        &master,
        flags | OpenptFlags::from_bits_retain(OFlags::NONBLOCK.bits()),
    )
    .doing("open a terminal")?;
    let mut mode = rustix::termios::tcgetattr(&slave).doing("read the terminal's modes")?;
    mode.make_raw();
    rustix::termios::tcsetattr(&slave, OptionalActions::Now, &mode).doing("set the terminal's modes")?;
    if rows != 0 || cols != 0 {
        let size = Winsize {
            ws_row: rows as u16,
            ws_col: cols as u16,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let _ = rustix::termios::tcsetwinsize(&master, size);
    }
    Ok((master, slave))
}

/// Makes `slave` the controlling terminal of this process (a session leader), so that SIGWINCH tells of its size.
pub fn control_terminal(slave: impl AsFd) {
    let _ = rustix::process::setsid();
    let _ = rustix::process::ioctl_tiocsctty(slave);
}

/// Rows and columns of a terminal.
pub fn size_of(terminal: impl AsFd) -> Option<(u32, u32)> {
    let size = rustix::termios::tcgetwinsize(terminal).ok()?;
    Some((size.ws_row.into(), size.ws_col.into()))
}

/// Connects to a console socket as `--console-socket` names it.
pub fn connect_console(path: &std::path::Path) -> Result<OwnedFd, OsError> {
    let stream = std::os::unix::net::UnixStream::connect(path).at("connect to console socket", path)?;
    Ok(stream.into())
}

/// Hands a terminal's master to whoever listens at the console socket.
pub fn send_master(console: impl AsFd, master: impl AsFd) -> Result<(), OsError> {
    let sent = super::socket::send(
        console,
        &[IoSlice::new(b"/dev/ptmx")],
        &[master.as_fd()],
        SendFlags::empty(),
    );
    sent.map(drop).doing("hand over the terminal")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_becomes_non_blocking_for_the_guest_only() {
        let (read, _write) = rustix::pipe::pipe().unwrap();
        let own = own_description(read.as_fd()).unwrap();
        assert!(rustix::fs::fcntl_getfl(&own).unwrap().contains(OFlags::NONBLOCK));
        assert!(!rustix::fs::fcntl_getfl(&read).unwrap().contains(OFlags::NONBLOCK));
    }

    #[test]
    fn a_file_keeps_its_shared_position() {
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        let own = own_description(file.as_fd()).unwrap();
        let mut bytes = [0; 4];
        rustix::io::read(&own, &mut bytes).unwrap();
        assert_eq!(rustix::fs::tell(&file), Ok(4));
    }

    #[test]
    fn terminals_are_raw_and_have_a_size() {
        let (_master, slave) = new_terminal(33, 44).unwrap();
        assert_eq!(size_of(&slave), Some((33, 44)));
        let mode = rustix::termios::tcgetattr(&slave).unwrap();
        assert!(!mode.local_modes.contains(rustix::termios::LocalModes::ECHO));
    }
}
