//! System calls: the table, and what handlers get.
//!
//! Each family lists its calls as [`Row`]s; a row says how complete the call is and the compatibility page is made from it.

pub mod absent;
pub mod aio;
pub mod creds;
pub mod dispatch;
pub mod epoll;
pub mod eventfd;
pub mod futex;
pub mod memory;
pub mod mqueue;
pub mod namespaces;
pub mod pipe;
pub mod poll;
pub mod process;
pub mod process_vm;
pub mod ptrace;
pub mod scheduler;
pub mod seccomp;
pub mod signals;
pub mod splice;
pub mod system;
pub mod sysv;
pub mod time;
pub mod timerfd;

pub mod file_control;
pub mod file_data;
pub mod file_io;
pub mod file_meta;
pub mod file_names;
pub mod file_open;
pub mod file_xattr;
pub mod files;
pub mod inotify;
pub mod mounts;
pub mod socket;
pub mod sockmsg;

#[cfg(test)]
mod page;

use crate::fs::fdtable::Fd;
use crate::task::Task;
use alloc::sync::Arc;
use hal::uapi::Plain;
use hal::user::{UserCStr, UserPtr, UserSlice};
use hal::{Sysno, UserContext};
use qlib::Errno;

/// What a handler returns: the value for the app, or an error.
pub type SysResult<T = u64> = Result<T, Errno>;

/// What a handler works on.
pub struct Ctx<'a> {
    /// The calling task.
    pub task: &'a Arc<Task>,
    /// Its registers.
    pub regs: &'a mut UserContext,
}

/// The six arguments, as the app gave them.
#[derive(Clone, Copy)]
pub struct Args(pub [u64; 6]);

impl Args {
    /// As a 64-bit value.
    pub fn u64(&self, i: usize) -> u64 {
        self.0[i]
    }
    /// As a signed 64-bit value.
    pub fn i64(&self, i: usize) -> i64 {
        self.0[i] as i64
    }
    /// As an `unsigned int`.
    pub fn u32(&self, i: usize) -> u32 {
        self.0[i] as u32
    }
    /// As an `int`.
    pub fn i32(&self, i: usize) -> i32 {
        self.0[i] as i32
    }
    /// As a descriptor.
    pub fn fd(&self, i: usize) -> Fd {
        Fd(self.0[i] as i32)
    }
    /// As a pointer to `T`.
    pub fn ptr<T: Plain>(&self, i: usize) -> UserPtr<T> {
        UserPtr::new(self.0[i])
    }
    /// As a string.
    pub fn cstr(&self, i: usize) -> UserCStr {
        UserCStr::new(self.0[i])
    }
    /// Arguments `i` (address) and `i + 1` (length) as a buffer.
    ///
    /// # Errors
    /// EFAULT when it leaves the app's part of the address space.
    pub fn slice(&self, i: usize) -> SysResult<UserSlice> {
        UserSlice::new(self.0[i], self.0[i + 1])
    }
}

/// How complete a call is.
#[derive(Clone, Copy, Debug)]
pub enum Support {
    /// All of it.
    Full,
    /// Works but for what the text says.
    Partial(&'static str),
    /// Always fails with this error, for the reason the text gives.
    Refused(Errno, &'static str),
}

/// One call of the table.
#[derive(Clone, Copy)]
pub struct Row {
    /// Which call.
    pub sysno: Sysno,
    /// How complete it is.
    pub support: Support,
    /// The handler; a refused call has none of its own.
    pub run: fn(&mut Ctx<'_>, Args) -> SysResult,
}

impl Row {
    /// Runs the call.
    ///
    /// # Errors
    /// The call's.
    pub fn call(&self, ctx: &mut Ctx<'_>, args: Args) -> SysResult {
        match self.support {
            Support::Refused(errno, _) => Err(errno),
            _ => (self.run)(ctx, args),
        }
    }
}

/// Makes a family's rows: `rows! { read: Full, |c, a| sys_read(c, a.fd(0), a.u64(1), a.u64(2)); … }`. A refused call has no
/// handler: `acct: Refused(Errno::ENOSYS, "no accounting");`.
#[macro_export]
macro_rules! rows {
    (@run) => { |_, _| Err(qlib::Errno::ENOSYS) };
    (@run $run:expr) => { $run };
    ($($name:ident : $support:expr $(, $run:expr)?;)*) => {
        /// The family's calls.
        pub const ROWS: &[$crate::syscall::Row] = &[
            $($crate::syscall::Row { sysno: hal::Sysno::$name, support: $support, run: $crate::rows!(@run $($run)?) },)*
        ];
    };
}

/// Every family's calls: all of [`Sysno`]. A number that has no name there is ENOSYS.
pub const FAMILIES: &[&[Row]] = &[
    absent::ROWS,
    aio::ROWS,
    creds::ROWS,
    epoll::ROWS,
    eventfd::ROWS,
    file_control::ROWS,
    file_data::ROWS,
    file_io::ROWS,
    file_meta::ROWS,
    file_names::ROWS,
    file_open::ROWS,
    file_xattr::ROWS,
    futex::ROWS,
    inotify::ROWS,
    memory::ROWS,
    mounts::ROWS,
    mqueue::ROWS,
    namespaces::ROWS,
    pipe::ROWS,
    poll::ROWS,
    process::ROWS,
    process_vm::ROWS,
    ptrace::ROWS,
    seccomp::ROWS,
    signals::ROWS,
    socket::ROWS,
    sockmsg::ROWS,
    splice::ROWS,
    scheduler::ROWS,
    system::ROWS,
    sysv::ROWS,
    time::ROWS,
    timerfd::ROWS,
];

/// Continues an interrupted wait (`restart_syscall`).
fn restart_wait(ctx: &mut Ctx<'_>, restart: crate::time::Restart) -> SysResult {
    use crate::time::Restart;
    match restart {
        Restart::Poll {
            fds,
            count,
            deadline_ns,
        } => poll::resume_poll(ctx, fds, count, deadline_ns),
        Restart::Futex {
            addr,
            value,
            bitset,
            private,
            deadline_ns,
        } => futex::resume_wait(ctx, addr, value, bitset, private, deadline_ns),
        Restart::Sleep { .. } | Restart::CpuSleep { .. } => Err(Errno::EINTR),
    }
}
