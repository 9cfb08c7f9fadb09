//! The app's registers and floating-point state.

use qlib::VirtAddr;

/// The app's general registers as a trap leaves them.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
#[allow(missing_docs)]
pub struct UserContext {
    pub x: [u64; 31],
    pub sp_el0: u64,
    pub elr: u64,
    pub spsr: u64,
    pub tpidr: u64,
    /// x0 before the system call; restored when it is restarted.
    pub orig_x0: u64,
    /// The system-call number of the current trap; `u64::MAX` when it is not a system call.
    pub syscallno: u64,
}

/// PSTATE bits an app may set: NZCV, SSBS, TCO, DIT, BTYPE.
const USER_PSTATE: u64 = 0xf000_0000 | 1 << 12 | 1 << 25 | 1 << 24 | 3 << 10;

impl UserContext {
    /// Registers of a fresh program: zero but for entry point and stack pointer.
    pub fn new(entry: VirtAddr, stack: VirtAddr) -> Self {
        Self {
            elr: entry.0,
            sp_el0: stack.0,
            syscallno: u64::MAX,
            ..Self::default()
        }
    }
    /// The system-call number.
    pub fn syscall_number(&self) -> u64 {
        self.syscallno & 0xffff_ffff
    }
    /// The six system-call arguments.
    pub fn syscall_args(&self) -> [u64; 6] {
        [
            self.orig_x0,
            self.x[1],
            self.x[2],
            self.x[3],
            self.x[4],
            self.x[5],
        ]
    }
    /// Whether the current trap is a system call.
    pub fn in_syscall(&self) -> bool {
        self.syscallno != u64::MAX
    }
    /// Marks the system call as done, so that it is not restarted again.
    pub fn end_syscall(&mut self) {
        self.syscallno = u64::MAX;
    }
    /// Sets the system call's result.
    pub fn set_return(&mut self, value: i64) {
        self.x[0] = value as u64;
    }
    /// The system call's result.
    pub fn return_value(&self) -> i64 {
        self.x[0] as i64
    }
    /// Puts the registers that hold the number and the arguments back as they were at the call.
    pub fn rollback_syscall(&mut self) {
        self.x[0] = self.orig_x0;
    }
    /// Winds back so that the app issues the same system call again.
    pub fn restart_syscall(&mut self) {
        self.x[0] = self.orig_x0;
        self.elr = self.elr.wrapping_sub(4);
    }
    /// Winds back so that the app issues system call `nr` (`restart_syscall`).
    pub fn restart_with(&mut self, nr: u64) {
        self.x[0] = self.orig_x0;
        self.x[8] = nr;
        self.elr = self.elr.wrapping_sub(4);
    }
    /// Program counter.
    pub fn pc(&self) -> u64 {
        self.elr
    }
    /// Sets the program counter.
    pub fn set_pc(&mut self, pc: u64) {
        self.elr = pc;
    }
    /// Stack pointer.
    pub fn sp(&self) -> u64 {
        self.sp_el0
    }
    /// Sets the stack pointer.
    pub fn set_sp(&mut self, sp: u64) {
        self.sp_el0 = sp;
    }
    /// Thread pointer (TPIDR_EL0).
    pub fn tls(&self) -> u64 {
        self.tpidr
    }
    /// Sets the thread pointer (TPIDR_EL0).
    pub fn set_tls(&mut self, tls: u64) {
        self.tpidr = tls;
    }
    /// The second thread pointer: there is none.
    ///
    /// # Errors
    /// ENOSYS.
    pub fn second_tls(&self) -> Result<u64, qlib::Errno> {
        Err(qlib::Errno::ENOSYS)
    }
    /// Sets the second thread pointer: there is none.
    ///
    /// # Errors
    /// ENOSYS.
    pub fn set_second_tls(&mut self, _v: u64) -> Result<(), qlib::Errno> {
        Err(qlib::Errno::ENOSYS)
    }
    /// Forces flags the app may not choose: EL0t, AArch64, interrupts unmasked.
    pub fn sanitize(&mut self) {
        self.spsr &= USER_PSTATE;
    }
}

/// FP/SIMD state: V0–V31, FPSR, FPCR.
#[derive(Clone)]
#[repr(C, align(16))]
pub struct FpState {
    /// V registers.
    pub v: [u128; 32],
    /// FPSR.
    pub fpsr: u32,
    /// FPCR.
    pub fpcr: u32,
}

impl FpState {
    /// The state of a fresh program: all zero.
    pub const fn initial() -> Self {
        Self {
            v: [0; 32],
            fpsr: 0,
            fpcr: 0,
        }
    }
}
