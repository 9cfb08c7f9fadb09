//! Signals: sets, actions, queues.

pub mod deliver;
pub mod info;
pub mod send;

pub use info::SigInfo;

use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// Signal numbers (the same on x86_64 and aarch64).
#[allow(missing_docs)]
pub mod signo {
    pub const SIGHUP: u32 = 1;
    pub const SIGINT: u32 = 2;
    pub const SIGQUIT: u32 = 3;
    pub const SIGILL: u32 = 4;
    pub const SIGTRAP: u32 = 5;
    pub const SIGABRT: u32 = 6;
    pub const SIGBUS: u32 = 7;
    pub const SIGFPE: u32 = 8;
    pub const SIGKILL: u32 = 9;
    pub const SIGUSR1: u32 = 10;
    pub const SIGSEGV: u32 = 11;
    pub const SIGUSR2: u32 = 12;
    pub const SIGPIPE: u32 = 13;
    pub const SIGALRM: u32 = 14;
    pub const SIGTERM: u32 = 15;
    pub const SIGSTKFLT: u32 = 16;
    pub const SIGCHLD: u32 = 17;
    pub const SIGCONT: u32 = 18;
    pub const SIGSTOP: u32 = 19;
    pub const SIGTSTP: u32 = 20;
    pub const SIGTTIN: u32 = 21;
    pub const SIGTTOU: u32 = 22;
    pub const SIGURG: u32 = 23;
    pub const SIGXCPU: u32 = 24;
    pub const SIGXFSZ: u32 = 25;
    pub const SIGVTALRM: u32 = 26;
    pub const SIGPROF: u32 = 27;
    pub const SIGWINCH: u32 = 28;
    pub const SIGIO: u32 = 29;
    pub const SIGPWR: u32 = 30;
    pub const SIGSYS: u32 = 31;
    /// First real-time signal.
    pub const SIGRTMIN: u32 = 32;
    /// Largest signal number.
    pub const MAX: u32 = 64;
}

/// A set of signals, one bit each (bit 0 = signal 1).
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct SigSet(pub u64);

impl SigSet {
    /// The set with only `sig`.
    pub const fn of(sig: u32) -> Self {
        Self(1 << (sig - 1))
    }
    /// Whether `sig` is in it.
    pub const fn has(self, sig: u32) -> bool {
        self.0 & (1 << (sig - 1)) != 0
    }
    /// With `sig` added.
    #[must_use]
    pub const fn with(self, sig: u32) -> Self {
        Self(self.0 | 1 << (sig - 1))
    }
    /// With `other` taken out.
    #[must_use]
    pub const fn without(self, other: SigSet) -> Self {
        Self(self.0 & !other.0)
    }
    /// The union.
    #[must_use]
    pub const fn union(self, other: SigSet) -> Self {
        Self(self.0 | other.0)
    }
    /// SIGKILL and SIGSTOP, which cannot be blocked, caught or ignored.
    pub const UNBLOCKABLE: SigSet = SigSet(1 << (signo::SIGKILL - 1) | 1 << (signo::SIGSTOP - 1));
}

/// `SIG_DFL`.
pub const SIG_DFL: u64 = 0;
/// `SIG_IGN`.
pub const SIG_IGN: u64 = 1;

/// `sa_flags`.
#[allow(missing_docs)]
pub mod sa {
    pub const NOCLDSTOP: u64 = 1;
    pub const NOCLDWAIT: u64 = 2;
    pub const SIGINFO: u64 = 4;
    pub const RESTORER: u64 = 0x0400_0000;
    pub const ONSTACK: u64 = 0x0800_0000;
    pub const RESTART: u64 = 0x1000_0000;
    pub const NODEFER: u64 = 0x4000_0000;
    pub const RESETHAND: u64 = 0x8000_0000;
}

/// What to do with a signal: the kernel's `struct sigaction`.
#[derive(Clone, Copy, Default, Debug)]
pub struct SigAction {
    /// SIG_DFL, SIG_IGN or the handler's address.
    pub handler: u64,
    /// [`sa`] bits.
    pub flags: u64,
    /// Restorer address.
    pub restorer: u64,
    /// Blocked while the handler runs.
    pub mask: SigSet,
}

/// What an unhandled signal does. Source: `signal(7)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefaultAction {
    /// Ends the process.
    Terminate,
    /// Ends the process; Linux would write a core.
    Core,
    /// Nothing.
    Ignore,
    /// Stops the process.
    Stop,
    /// Continues it.
    Continue,
}

/// The default action of a signal.
pub fn default_action(sig: u32) -> DefaultAction {
    use signo::*;
    match sig {
        SIGCHLD | SIGURG | SIGWINCH => DefaultAction::Ignore,
        SIGCONT => DefaultAction::Continue,
        SIGSTOP | SIGTSTP | SIGTTIN | SIGTTOU => DefaultAction::Stop,
        SIGQUIT | SIGILL | SIGTRAP | SIGABRT | SIGBUS | SIGFPE | SIGSEGV | SIGXCPU | SIGXFSZ | SIGSYS => {
            DefaultAction::Core
        }
        _ => DefaultAction::Terminate,
    }
}

/// Queued signals. A standard signal is queued once, a real-time signal as often as it is sent.
#[derive(Default)]
pub struct PendingSignals {
    set: SigSet,
    queue: VecDeque<SigInfo>,
}

impl PendingSignals {
    /// Which signals are pending.
    pub fn set(&self) -> SigSet {
        self.set
    }
    /// Number queued.
    pub fn len(&self) -> usize {
        self.queue.len()
    }
    /// Whether none is pending.
    pub fn is_empty(&self) -> bool {
        self.set.0 == 0
    }
    /// Queues; `false` when a standard signal was pending already.
    pub fn push(&mut self, info: SigInfo) -> bool {
        let sig = info.signo;
        if sig < signo::SIGRTMIN && self.set.has(sig) {
            return false;
        }
        self.set = self.set.with(sig);
        self.queue.push_back(info);
        true
    }
    /// Takes the next signal in `wanted`: faults first, then the lowest number, oldest first.
    pub fn take(&mut self, wanted: SigSet) -> Option<SigInfo> {
        use signo::*;
        let ready = self.set.0 & wanted.0;
        if ready == 0 {
            return None;
        }
        let faults = SigSet::of(SIGSEGV)
            .with(SIGBUS)
            .with(SIGILL)
            .with(SIGTRAP)
            .with(SIGFPE)
            .with(SIGSYS);
        let pick = if ready & faults.0 != 0 {
            ready & faults.0
        } else {
            ready
        };
        let sig = pick.trailing_zeros() + 1;
        let at = self.queue.iter().position(|i| i.signo == sig)?;
        let info = self.queue.remove(at);
        if !self.queue.iter().any(|i| i.signo == sig) {
            self.set = self.set.without(SigSet::of(sig));
        }
        info
    }
    /// Drops every signal in `set`; returns the POSIX timers whose signals were among them.
    pub fn discard(&mut self, set: SigSet) -> Vec<i32> {
        let mut timers = Vec::new();
        if self.set.0 & set.0 != 0 {
            self.queue.retain(|i| {
                let dropped = set.has(i.signo);
                if let (true, info::Fields::Timer { id, .. }) = (dropped, i.fields) {
                    timers.push(id);
                }
                !dropped
            });
            self.set = self.set.without(set);
        }
        timers
    }
}
