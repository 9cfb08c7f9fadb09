//! `siginfo_t`.

use arch_signal::SigInfoBytes;
use hal::signal as arch_signal;

/// `si_code` values.
#[allow(missing_docs)]
pub mod code {
    pub const SI_USER: i32 = 0;
    pub const SI_KERNEL: i32 = 0x80;
    pub const SI_QUEUE: i32 = -1;
    pub const SI_TIMER: i32 = -2;
    pub const SI_TKILL: i32 = -6;
    pub const SEGV_MAPERR: i32 = 1;
    pub const SEGV_ACCERR: i32 = 2;
    pub const BUS_ADRALN: i32 = 1;
    pub const BUS_ADRERR: i32 = 2;
    pub const ILL_ILLOPN: i32 = 2;
    pub const TRAP_BRKPT: i32 = 1;
    pub const TRAP_TRACE: i32 = 2;
    pub const CLD_EXITED: i32 = 1;
    pub const CLD_KILLED: i32 = 2;
    pub const CLD_DUMPED: i32 = 3;
    pub const CLD_TRAPPED: i32 = 4;
    pub const CLD_STOPPED: i32 = 5;
    pub const CLD_CONTINUED: i32 = 6;
    pub const SI_SIGIO: i32 = -5;
    pub const POLL_IN: i32 = 1;
    pub const POLL_OUT: i32 = 2;
    pub const POLL_ERR: i32 = 4;
    pub const POLL_PRI: i32 = 5;
    pub const POLL_HUP: i32 = 6;
    pub const SYS_SECCOMP: i32 = 1;
}

/// A signal with what `siginfo_t` says of it.
#[derive(Clone, Copy, Debug)]
pub struct SigInfo {
    /// Signal number, 1..=64.
    pub signo: u32,
    /// `si_errno`.
    pub errno: i32,
    /// `si_code`, see [`code`].
    pub code: i32,
    /// The union behind it.
    pub fields: Fields,
}

/// The union of `siginfo_t`.
#[derive(Clone, Copy, Debug)]
pub enum Fields {
    /// `si_pid`, `si_uid`, `si_value`.
    Sender {
        /// Sending process.
        pid: u32,
        /// Its user.
        uid: u32,
        /// `sigqueue` value.
        value: u64,
    },
    /// `si_pid`, `si_uid`, `si_status`, `si_utime`, `si_stime` (clock ticks).
    Child {
        /// The child.
        pid: u32,
        /// Its user.
        uid: u32,
        /// Exit code or signal.
        status: i32,
        /// User time.
        utime: i64,
        /// System time.
        stime: i64,
    },
    /// `si_addr`.
    Fault {
        /// Address.
        addr: u64,
    },
    /// `si_timerid`, `si_overrun`, `si_value`.
    Timer {
        /// Timer id.
        id: i32,
        /// Overrun count.
        overrun: i32,
        /// Value.
        value: u64,
    },
    /// `si_band`, `si_fd`.
    Poll {
        /// Events.
        band: i64,
        /// Descriptor.
        fd: i32,
    },
    /// `si_call_addr`, `si_syscall`, `si_arch`.
    Syscall {
        /// Behind the call's instruction.
        addr: u64,
        /// Number.
        number: i32,
        /// `AUDIT_ARCH_*`.
        arch: u32,
    },
    /// Bytes from `rt_sigqueueinfo`, from offset 12 on.
    Raw([u8; 116]),
}

impl SigInfo {
    /// A signal the kernel raises.
    pub fn kernel(signo: u32) -> Self {
        Self {
            signo,
            errno: 0,
            code: code::SI_KERNEL,
            fields: Fields::Sender {
                pid: 0,
                uid: 0,
                value: 0,
            },
        }
    }
    /// A signal a process sends with `kill` (`code` SI_USER) or `tkill` (SI_TKILL).
    pub fn user(signo: u32, code: i32, pid: u32, uid: u32) -> Self {
        Self {
            signo,
            errno: 0,
            code,
            fields: Fields::Sender { pid, uid, value: 0 },
        }
    }
    /// A fault.
    pub fn fault(signo: u32, code: i32, addr: u64) -> Self {
        Self {
            signo,
            errno: 0,
            code,
            fields: Fields::Fault { addr },
        }
    }
    /// From an app's `siginfo_t`.
    pub fn from_bytes(signo: u32, bytes: &SigInfoBytes) -> Self {
        let word = |at: usize| i32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let mut raw = [0; 116];
        raw.copy_from_slice(&bytes[12..]);
        Self {
            signo,
            errno: word(4),
            code: word(8),
            fields: Fields::Raw(raw),
        }
    }
    /// As `siginfo_t`. Source: `uapi/asm-generic/siginfo.h`.
    pub fn to_bytes(&self) -> SigInfoBytes {
        let mut b = [0u8; 128];
        let user = |uid: u32| crate::ns::shown_owner(uid, 0).0;
        b[0..4].copy_from_slice(&self.signo.to_le_bytes());
        b[4..8].copy_from_slice(&self.errno.to_le_bytes());
        b[8..12].copy_from_slice(&self.code.to_le_bytes());
        match self.fields {
            Fields::Sender { pid, uid, value } => {
                b[16..20].copy_from_slice(&pid.to_le_bytes());
                b[20..24].copy_from_slice(&user(uid).to_le_bytes());
                b[24..32].copy_from_slice(&value.to_le_bytes());
            }
            Fields::Child {
                pid,
                uid,
                status,
                utime,
                stime,
            } => {
                b[16..20].copy_from_slice(&pid.to_le_bytes());
                b[20..24].copy_from_slice(&user(uid).to_le_bytes());
                b[24..28].copy_from_slice(&status.to_le_bytes());
                b[32..40].copy_from_slice(&utime.to_le_bytes());
                b[40..48].copy_from_slice(&stime.to_le_bytes());
            }
            Fields::Fault { addr } => b[16..24].copy_from_slice(&addr.to_le_bytes()),
            Fields::Timer { id, overrun, value } => {
                b[16..20].copy_from_slice(&id.to_le_bytes());
                b[20..24].copy_from_slice(&overrun.to_le_bytes());
                b[24..32].copy_from_slice(&value.to_le_bytes());
            }
            Fields::Poll { band, fd } => {
                b[16..24].copy_from_slice(&band.to_le_bytes());
                b[24..28].copy_from_slice(&fd.to_le_bytes());
            }
            Fields::Syscall { addr, number, arch } => {
                b[16..24].copy_from_slice(&addr.to_le_bytes());
                b[24..28].copy_from_slice(&number.to_le_bytes());
                b[28..32].copy_from_slice(&arch.to_le_bytes());
            }
            Fields::Raw(raw) => b[12..].copy_from_slice(&raw),
        }
        b
    }
}
