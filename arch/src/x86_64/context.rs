//! The app's registers and floating-point state.

use qlib::VirtAddr;

/// The app's integer registers as a trap leaves them.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
#[allow(missing_docs)]
pub struct UserContext {
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub rdi: u64,
    pub rsi: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub rdx: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rsp: u64,
    pub rip: u64,
    pub rflags: u64,
    pub fs_base: u64,
    pub gs_base: u64,
    /// The system-call number of the current trap; `u64::MAX` when it is not a system call.
    pub orig_rax: u64,
}

/// RFLAGS bits an app may set: CF PF AF ZF SF TF DF OF NT RF AC ID.
const USER_RFLAGS: u64 = 0x25_4dd5;
/// RFLAGS bits that are always set in user mode: IF and the fixed bit 1.
const FIXED_RFLAGS: u64 = 0x202;

impl UserContext {
    /// Registers of a fresh program: zero but for entry point and stack pointer.
    pub fn new(entry: VirtAddr, stack: VirtAddr) -> Self {
        Self {
            rip: entry.0,
            rsp: stack.0,
            rflags: FIXED_RFLAGS,
            orig_rax: u64::MAX,
            ..Self::default()
        }
    }
    /// The system-call number (as the kernel sees it: 64-bit ABI, upper half ignored).
    pub fn syscall_number(&self) -> u64 {
        self.orig_rax & 0xffff_ffff
    }
    /// The six system-call arguments.
    pub fn syscall_args(&self) -> [u64; 6] {
        [self.rdi, self.rsi, self.rdx, self.r10, self.r8, self.r9]
    }
    /// Whether the current trap is a system call.
    pub fn in_syscall(&self) -> bool {
        self.orig_rax != u64::MAX
    }
    /// Marks the system call as done, so that it is not restarted again.
    pub fn end_syscall(&mut self) {
        self.orig_rax = u64::MAX;
    }
    /// Sets the system call's result.
    pub fn set_return(&mut self, value: i64) {
        self.rax = value as u64;
    }
    /// The system call's result.
    pub fn return_value(&self) -> i64 {
        self.rax as i64
    }
    /// Puts the registers that hold the number and the arguments back as they were at the call.
    pub fn rollback_syscall(&mut self) {
        self.rax = self.orig_rax;
    }
    /// Winds back so that the app issues the same system call again.
    pub fn restart_syscall(&mut self) {
        self.rax = self.orig_rax;
        self.rip = self.rip.wrapping_sub(2);
    }
    /// Winds back so that the app issues system call `nr` (`restart_syscall`).
    pub fn restart_with(&mut self, nr: u64) {
        self.rax = nr;
        self.rip = self.rip.wrapping_sub(2);
    }
    /// Program counter.
    pub fn pc(&self) -> u64 {
        self.rip
    }
    /// Sets the program counter.
    pub fn set_pc(&mut self, pc: u64) {
        self.rip = pc;
    }
    /// Stack pointer.
    pub fn sp(&self) -> u64 {
        self.rsp
    }
    /// Sets the stack pointer.
    pub fn set_sp(&mut self, sp: u64) {
        self.rsp = sp;
    }
    /// Thread pointer (FS base).
    pub fn tls(&self) -> u64 {
        self.fs_base
    }
    /// Sets the thread pointer (FS base).
    pub fn set_tls(&mut self, tls: u64) {
        self.fs_base = tls;
    }
    /// The second thread pointer (GS base).
    ///
    /// # Errors
    /// None here; the other architecture has none.
    pub fn second_tls(&self) -> Result<u64, qlib::Errno> {
        Ok(self.gs_base)
    }
    /// Sets the second thread pointer (GS base).
    ///
    /// # Errors
    /// None here; the other architecture has none.
    pub fn set_second_tls(&mut self, v: u64) -> Result<(), qlib::Errno> {
        self.gs_base = v;
        Ok(())
    }
    /// Forces flags the app may not choose.
    pub fn sanitize(&mut self) {
        self.rflags = self.rflags & USER_RFLAGS | FIXED_RFLAGS;
    }
}

/// Room for the largest XSAVE area of a CPU Quark runs on (AVX-512, PKRU; AMX is not enabled), bytes.
pub const FP_BYTES: usize = 4096;

/// Floating-point and vector state in XSAVE layout (legacy area, header, extended components), without
/// Linux's trailing magic.
#[derive(Clone)]
#[repr(C, align(64))]
pub struct FpState {
    /// The image; only the first `len` bytes mean anything.
    pub bytes: [u8; FP_BYTES],
    /// Bytes used: 512 (FXSAVE) or the XSAVE size.
    pub len: usize,
    /// The XFEATURE mask the image was saved with; 0 for FXSAVE.
    pub features: u64,
}

impl FpState {
    /// The state of a fresh program: x87 control word 0x37f, MXCSR 0x1f80, all else in its initial state.
    pub const fn initial() -> Self {
        let mut bytes = [0; FP_BYTES];
        bytes[0] = 0x7f;
        bytes[1] = 0x03;
        bytes[24] = 0x80;
        bytes[25] = 0x1f;
        Self {
            bytes,
            len: 512 + 64,
            features: 3,
        }
    }
}
