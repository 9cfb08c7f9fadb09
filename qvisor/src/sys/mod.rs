//! The few host calls that `rustix` has no safe form of. With `net` and `refused` the only files of QVisor's front half with
//! unsafe code.

pub mod net;
pub mod refused;

use rustix::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use rustix::io::Errno;
use std::io;

fn check(ret: libc::c_long) -> io::Result<i64> {
    if ret < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(ret)
    }
}

/// Takes ownership of descriptor `fd`, which was inherited by number.
///
/// Fails with `EBADF` when it is not open. The caller names a number that nothing else in the process owns.
pub fn adopt(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_GETFD only inspects the descriptor table.
    check(unsafe { libc::fcntl(fd, libc::F_GETFD) }.into())?;
    // SAFETY: the descriptor is open, and by this function's contract nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Borrows descriptor `fd`, which is named by number because its owner lies in a value that may not be touched.
///
/// Fails with `EBADF` when it is not open. The caller knows that it stays open as long as the result is used.
pub fn borrow(fd: RawFd) -> io::Result<BorrowedFd<'static>> {
    // SAFETY: F_GETFD only inspects the descriptor table.
    check(unsafe { libc::fcntl(fd, libc::F_GETFD) }.into())?;
    // SAFETY: the descriptor is open now, and by this function's contract while it is used.
    Ok(unsafe { BorrowedFd::borrow_raw(fd) })
}

/// Forks like `fork(2)` with extra `CLONE_NEW*` flags for the child. Returns 0 in the child, its pid in the parent.
///
/// Where the process has several threads the child may only make host calls: locks held by others stay locked in it.
pub fn fork_into(namespaces: libc::c_int) -> io::Result<i32> {
    let flags = i64::from(namespaces | libc::SIGCHLD);
    // SAFETY: without CLONE_VM and with a null stack this is fork(2): the child gets a copy of everything.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) })?;
    Ok(pid as i32)
}

/// Uses memory for a moment and ends: for a child that a process with several threads has forked, so nothing here takes a
/// lock or allocates.
pub fn use_memory_and_exit(bytes: usize) -> ! {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
    // SAFETY: a new anonymous mapping touches no memory that is in use.
    unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            flags,
            -1,
            0,
        )
    };
    exit_now(0)
}

/// Closes every descriptor but those in `keep`.
pub fn close_all_but(keep: &[RawFd]) -> io::Result<()> {
    let mut keep: Vec<u32> = keep.iter().filter_map(|fd| u32::try_from(*fd).ok()).collect();
    keep.sort_unstable();
    let mut first = 0u32;
    for fd in keep {
        if fd > first {
            // SAFETY: only the caller's descriptors are affected; the caller gives up all that it does not keep.
            check(unsafe { libc::syscall(libc::SYS_close_range, first, fd - 1, 0) })?;
        }
        first = fd.saturating_add(1);
    }
    // SAFETY: as above.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) })?;
    Ok(())
}

/// Blocks every signal that can be blocked (`blocked`), or none, for this thread.
pub fn block_signals(blocked: bool) -> io::Result<()> {
    // SAFETY: an all-zero sigset_t is valid memory for sigfillset/sigemptyset to fill.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    if blocked {
        // SAFETY: the set is a live local.
        unsafe { libc::sigfillset(&mut set) };
    } else {
        // SAFETY: the set is a live local.
        unsafe { libc::sigemptyset(&mut set) };
    }
    // SAFETY: the set was initialised above; no old set is asked for.
    let err = unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &set, std::ptr::null_mut()) };
    if err == 0 {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(err))
    }
}

/// A descriptor that reads every blocked signal, non-blocking.
pub fn signal_fd() -> io::Result<OwnedFd> {
    // SAFETY: an all-zero sigset_t is valid memory for sigfillset to fill.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is a live local.
    unsafe { libc::sigfillset(&mut set) };
    // SAFETY: the set was initialised above.
    let fd = check(unsafe { libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) }.into())?;
    // SAFETY: the descriptor was just made for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Next signal number waiting on a [`signal_fd`], if any.
pub fn next_signal(fd: BorrowedFd<'_>) -> Option<i32> {
    // `signalfd_siginfo` begins with the signal number; its size is fixed by the ABI.
    let mut info = [0u8; std::mem::size_of::<libc::signalfd_siginfo>()];
    let n = rustix::io::read(fd, &mut info).ok()?;
    if n < 4 {
        return None;
    }
    Some(u32::from_ne_bytes([info[0], info[1], info[2], info[3]]) as i32)
}

/// Sets the default action for every signal, as a program expects it after `execve`.
pub fn default_signal_actions() {
    for signo in 1..=64 {
        // SAFETY: SIG_DFL installs no code; signals that cannot be changed fail harmlessly.
        unsafe { libc::signal(signo, libc::SIG_DFL) };
    }
}

/// Sends signal `signo` to process `pid`.
pub fn kill(pid: i32, signo: i32) -> io::Result<()> {
    // SAFETY: kill touches no memory of ours.
    check(unsafe { libc::kill(pid, signo) }.into()).map(drop)
}

/// Whether there is a process `pid`, be it one that has ended and that its parent has not heard of.
pub fn exists(pid: i32) -> bool {
    pid > 0 && !kill(pid, 0).is_err_and(|e| e.raw_os_error() == Some(libc::ESRCH))
}

/// Brings network interface `name` of the current network namespace up.
pub fn interface_up(name: &[u8]) -> io::Result<()> {
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    // SAFETY: ifreq is plain data for which zero is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request
        .ifr_name
        .iter_mut()
        .zip(name.iter().take(libc::IFNAMSIZ - 1))
    {
        *to = *from as libc::c_char;
    }
    // SAFETY: the request is a live ifreq, which both calls read and the first one writes.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS as _, &mut request) }.into())?;
    // SAFETY: SIOCGIFFLAGS filled the flags member of the union.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    request.ifr_ifru.ifru_flags = flags | (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: as for the first call.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &request) }.into())?;
    Ok(())
}

/// Installs a seccomp filter on the calling thread (`no_new_privs` must be set).
pub fn install_filter(program: &[libc::sock_filter]) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
    let prog = libc::sock_fprog {
        len,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: the program lives for the duration of the call; the kernel copies it and only reads.
    check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &prog) })?;
    Ok(())
}

/// Forces the send buffer of a socket to `bytes`, past the system limit where permitted.
pub fn force_send_buffer(fd: impl AsFd, bytes: i32) {
    for option in [libc::SO_SNDBUFFORCE, libc::SO_SNDBUF] {
        // SAFETY: the value is a live i32 of the given size.
        let r = unsafe {
            libc::setsockopt(
                fd.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                option,
                (&raw const bytes).cast(),
                std::mem::size_of::<i32>() as libc::socklen_t,
            )
        };
        if r == 0 {
            return;
        }
    }
}

/// The peer of a connected unix socket: its effective user id.
pub fn peer_uid(fd: BorrowedFd<'_>) -> Result<u32, Errno> {
    Ok(rustix::net::sockopt::socket_peercred(fd)?.uid.as_raw())
}

/// The process that connected a socket's other end.
pub fn peer_pid(fd: BorrowedFd<'_>) -> Result<i32, Errno> {
    let pid = rustix::net::sockopt::socket_peercred(fd)?.pid;
    Ok(pid.as_raw_nonzero().get())
}

/// Fills `sched_getaffinity`'s answer: how many CPUs this process may use, at least 1.
pub fn usable_cpus() -> u32 {
    match rustix::thread::sched_getaffinity(None) {
        Ok(set) => set.count().max(1),
        Err(_) => 1,
    }
}

/// Attributes for [`set_mount_attributes`]. Source: `mount_setattr(2)`.
pub mod mount_attr {
    /// Read-only.
    pub const RDONLY: u64 = 0x1;
    /// Ignore set-user-id bits.
    pub const NOSUID: u64 = 0x2;
    /// No access to device nodes.
    pub const NODEV: u64 = 0x4;
    /// No execution.
    pub const NOEXEC: u64 = 0x8;
    /// Mask of the access-time modes.
    pub const ATIME: u64 = 0x70;
    /// Never update access times.
    pub const NOATIME: u64 = 0x10;
    /// Always update access times.
    pub const STRICTATIME: u64 = 0x20;
    /// No access times of directories.
    pub const NODIRATIME: u64 = 0x80;
}

/// Changes attributes (`set`, `clear`) and propagation (0 = keep) of the mount at `path`, with all below it if `recursive`.
pub fn set_mount_attributes(
    path: &std::ffi::CStr,
    recursive: bool,
    set: u64,
    clear: u64,
    propagation: u64,
) -> io::Result<()> {
    const AT_RECURSIVE: libc::c_int = 0x8000;
    let attr = libc::mount_attr {
        attr_set: set,
        attr_clr: clear,
        propagation,
        userns_fd: 0,
    };
    // SAFETY: the path is NUL-terminated and the structure is live and of the given size; the kernel only reads them.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            if recursive { AT_RECURSIVE } else { 0 },
            &raw const attr,
            std::mem::size_of::<libc::mount_attr>(),
        )
    })?;
    Ok(())
}

/// Moves the calling thread into new namespaces.
pub fn unshare(flags: rustix::thread::UnshareFlags) -> io::Result<()> {
    let flags = flags.difference(rustix::thread::UnshareFlags::FILES);
    // SAFETY: the one hazard is a descriptor table split between threads, and CLONE_FILES was taken out.
    unsafe { rustix::thread::unshare_unsafe(flags) }?;
    Ok(())
}

/// Ends the process at once: no destructors, no buffers flushed. For forked children.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit takes no pointers and does not return.
    unsafe { libc::_exit(code) }
}

/// Writes at the end of a file, wherever its position is.
pub fn append(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    let part = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: the one buffer is live for the call, which only reads it.
    let n = check(unsafe {
        // The offset is two words; on 64 bits the second is ignored.
        libc::syscall(
            libc::SYS_pwritev2,
            fd.as_raw_fd(),
            &raw const part,
            1,
            0,
            0,
            libc::RWF_APPEND,
        )
    })?;
    Ok(n as usize)
}

/// Reads directory entries as `getdents64(2)` gives them.
pub fn read_directory(fd: BorrowedFd<'_>, records: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the buffer is live and of the given length.
    let n = check(unsafe {
        libc::syscall(
            libc::SYS_getdents64,
            fd.as_raw_fd(),
            records.as_mut_ptr(),
            records.len(),
        )
    })?;
    Ok(n as usize)
}

/// Device control with an argument by address. The caller has checked that `request` reads and writes no more than
/// `argument` holds, and that nothing in it is an address.
pub fn device_control(fd: BorrowedFd<'_>, request: u64, argument: &mut [u8; 128]) -> io::Result<i64> {
    // SAFETY: the argument is live, and larger than what the request touches, by this function's contract.
    check(unsafe { libc::syscall(libc::SYS_ioctl, fd.as_raw_fd(), request, argument.as_mut_ptr()) })
}

/// Changes the mode of what `fd` stands for, also when it was opened by place only. `ENOSYS` before Linux 6.6.
pub fn change_mode_of(fd: BorrowedFd<'_>, mode: u32) -> io::Result<()> {
    const FCHMODAT2: libc::c_long = 452;
    // SAFETY: the path is a NUL-terminated literal.
    check(unsafe { libc::syscall(FCHMODAT2, fd.as_raw_fd(), c"".as_ptr(), mode, libc::AT_EMPTY_PATH) })?;
    Ok(())
}
