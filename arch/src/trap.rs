//! What the trap entries of both architectures tell the machine above.

/// Why user mode ended, or what happened in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A system call.
    Syscall,
    /// A page fault.
    PageFault {
        /// Address touched.
        addr: u64,
        /// A store.
        write: bool,
        /// An instruction fetch.
        exec: bool,
    },
    /// Memory that does not answer (aarch64: an external abort).
    BusError {
        /// Address touched.
        addr: u64,
    },
    /// The host has no memory behind a page that was touched, and cannot tell at which address (x86_64).
    MemoryGone,
    /// Unaligned access.
    Alignment {
        /// Address touched.
        addr: u64,
    },
    /// Undefined instruction.
    Illegal,
    /// Privileged instruction, non-canonical address.
    GeneralProtection,
    /// Breakpoint instruction.
    Breakpoint,
    /// Single step.
    Step,
    /// Arithmetic error; `si_code` (FPE_*).
    Arithmetic(i32),
    /// A device or inter-processor interrupt, already acknowledged.
    Interrupt(Irq),
}

/// Interrupts the machine knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Irq {
    /// This CPU's timer.
    Timer,
    /// The host completed something, or wants attention.
    Host,
    /// Another CPU asks this one to look at its request word.
    Ipi,
    /// Nothing that concerns anyone.
    Spurious,
}

/// What the machine above wants called; `C` is the architecture's `UserContext`. All run with interrupts masked.
pub struct Handlers<C: 'static> {
    /// User mode was left; on return the CPU goes back with the registers in the context.
    pub user: fn(&mut C, Cause),
    /// An interrupt came while the idle loop waited.
    pub idle_interrupt: fn(Irq),
    /// The kernel touched app address `addr` in a user copy and faulted: `true` = try again, `false` = fail the copy.
    pub copy_fault: fn(addr: u64, write: bool) -> bool,
    /// The kernel itself is broken.
    pub fatal: fn(&KernelFault) -> !,
}

/// A trap in the kernel that must not happen.
#[derive(Clone, Copy, Debug)]
pub struct KernelFault {
    /// What it was, for the log.
    pub what: &'static str,
    /// Architecture's own number (vector, or exception class).
    pub code: u64,
    /// Error code or syndrome.
    pub error: u64,
    /// Instruction.
    pub pc: u64,
    /// Stack pointer.
    pub sp: u64,
    /// Fault address.
    pub addr: u64,
}
