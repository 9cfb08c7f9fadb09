//! What is told of a host call that a thread's filter refuses: its number goes into a file, and the process ends by SIGSYS
//! as if nothing had been told. Nobody else can tell: a sandbox has no parent that waits for it.

use super::check;
use rustix::fd::{IntoRawFd, OwnedFd};
use std::io;
use std::sync::atomic::{AtomicI32, Ordering};

/// `si_code` of a filter's trap. Source: `include/uapi/asm-generic/siginfo.h`.
const SYS_SECCOMP: i32 = 1;
/// Where `si_syscall` lies in `siginfo_t`, in words of 32 bits: behind three numbers, padding and an address.
const SI_SYSCALL: usize = 6;

static FILE: AtomicI32 = AtomicI32::new(-1);

/// From now on a call that a filter of this thread, or of those it starts, traps is noted in `file`.
pub fn note_in(file: OwnedFd) -> io::Result<()> {
    FILE.store(file.into_raw_fd(), Ordering::SeqCst);
    // SAFETY: sigaction is plain data for which zero is valid: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = note as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO;
    // SAFETY: the handler makes host calls only; no old action is asked for.
    check(unsafe { libc::sigaction(libc::SIGSYS, &action, std::ptr::null_mut()) }.into())?;
    // SAFETY: an all-zero sigset_t is valid memory for sigemptyset to fill.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is a live local.
    unsafe { libc::sigemptyset(&mut set) };
    // SAFETY: the set is a live local.
    unsafe { libc::sigaddset(&mut set, libc::SIGSYS) };
    // SAFETY: the set was initialised above; no old set is asked for.
    match unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &set, std::ptr::null_mut()) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

extern "C" fn note(_: libc::c_int, info: *const libc::siginfo_t, _: *const libc::c_void) {
    // SAFETY: the kernel gives the handler a siginfo_t.
    if unsafe { (*info).si_code } != SYS_SECCOMP {
        return;
    }
    let at = info.cast::<u32>().wrapping_add(SI_SYSCALL);
    // SAFETY: a filter's trap has the call's number there.
    let mut number = unsafe { at.read() };
    let mut digits = [0u8; 10];
    let mut first = digits.len();
    loop {
        first -= 1;
        digits[first] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    let text = &digits[first..];
    // SAFETY: the bytes are a live local's; a descriptor that is none fails harmlessly.
    unsafe { libc::write(FILE.load(Ordering::SeqCst), text.as_ptr().cast(), text.len()) };
    // SIGSYS is blocked while it is handled, so another refused call ends the process.
    // SAFETY: a call that no list has; with a flag the kernel does not know it would do nothing either.
    unsafe { libc::syscall(libc::SYS_unshare, 1) };
}
