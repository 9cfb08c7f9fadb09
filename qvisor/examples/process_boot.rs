//! Boots a kernel image on the process machine without a container around it: for tests of the machine.
//! `process_boot KERNEL [LOG_LEVEL]`; the exit status is the kernel's.
#![allow(dead_code, unused_imports, clippy::unwrap_used, clippy::expect_used)]

#[path = "../src/vm/process.rs"]
mod process;
#[path = "../src/vcpu/mod.rs"]
mod vcpu;

use process::{BootParams, Error, Launch, prepare};
use qlib::boot::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const JUMP_GREATER: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
const JUMP_NOT_LESS: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

/// Lets host calls pass only from `text`, which must not cross a 4 GiB boundary.
fn filter(text: Range) -> Result<(), Error> {
    let (high, low, end) = (
        (text.start >> 32) as u32,
        text.start as u32,
        (text.end - 1) as u32,
    );
    assert_eq!(high, ((text.end - 1) >> 32) as u32);
    let op = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut program = [
        op(LOAD, 0, 0, 12), // instruction pointer, high half
        op(JUMP_EQUAL, 0, 4, high),
        op(LOAD, 0, 0, 8), // low half
        op(JUMP_GREATER, 2, 0, end),
        op(JUMP_NOT_LESS, 0, 1, low),
        op(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
        op(RETURN, 0, 0, libc::SECCOMP_RET_TRAP),
    ];
    let program = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: plain flags.
    unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    // SAFETY: the program outlives the call.
    let r = unsafe { libc::syscall(libc::SYS_seccomp, 1, 0, &raw const program) };
    if r == 0 {
        Ok(())
    } else {
        Err(Error::Host("seccomp", rustix::io::Errno::INVAL))
    }
}

fn main() {
    let mut args = std::env::args_os().skip(1);
    let path = args.next().expect("usage: process_boot KERNEL [LOG_LEVEL]");
    let kernel = std::fs::File::open(path).expect("the kernel image").into();
    let log_level = args
        .next()
        .and_then(|l| l.to_str().and_then(|l| l.parse().ok()))
        .unwrap_or(3);
    let (control, _ours) = UnixStream::pair().expect("a socket pair");
    let log: OwnedFd = std::io::stderr()
        .as_fd()
        .try_clone_to_owned()
        .expect("a descriptor");
    let prepared = prepare(Launch {
        kernel,
        boot: BootParams {
            cpus: 2,
            log_level,
            memory_limit: u64::MAX,
            pids_limit: u64::MAX,
            patch_calls: false,
        },
        control: control.into(),
        log,
        channels: Vec::new(),
    });
    let prepared = prepared.unwrap_or_else(|e| panic!("{e}"));
    // SAFETY: plain flags; needs CAP_SYS_ADMIN.
    assert_eq!(
        unsafe { libc::unshare(libc::CLONE_NEWPID) },
        0,
        "a pid namespace needs root"
    );
    // SAFETY: this process has one thread.
    let child = unsafe { libc::fork() };
    if child == 0 {
        prepared.enter(filter);
    }
    let mut status = 0;
    // SAFETY: waits for the child just made.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    std::process::exit(if libc::WIFEXITED(status) {
        libc::WEXITSTATUS(status)
    } else {
        128 + libc::WTERMSIG(status)
    });
}
