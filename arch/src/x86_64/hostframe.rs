//! The host's signal frame, as the `process` machine reads and builds it: `struct rt_sigframe` of
//! `arch/x86/include/asm/sigframe.h`, seen from its `ucontext`.

use super::context::{FP_BYTES, FpState, UserContext};

/// Magic of an extended FP frame (`FP_XSTATE_MAGIC1`).
const XSTATE_MAGIC1: u32 = 0x4650_5853;
/// Magic behind the XSAVE area (`FP_XSTATE_MAGIC2`).
const XSTATE_MAGIC2: u32 = 0x4650_5845;
/// Offset of `_fpx_sw_bytes` in the legacy area.
const SW_BYTES: usize = 464;
/// Offset of the XSAVE header.
const XSAVE_HEADER: usize = 512;
/// Legacy area and XSAVE header.
const XSAVE_MIN: usize = 576;
/// `UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS`.
const UC_FLAGS: u64 = 7;
/// Selectors: ss, fs, gs, cs as `sigcontext` packs them.
const SELECTORS: u64 = 0x002b_0000_0000_0033;
/// Number of registers that [`UserContext`] and `gregs` hold in the same order.
const SHARED_REGS: usize = 18;

/// Kernel-visible `struct ucontext`.
#[repr(C)]
pub struct HostFrame {
    flags: u64,
    link: u64,
    stack: [u64; 3],
    /// r8 … r15 rdi rsi rbp rbx rdx rax rcx rsp rip eflags
    gregs: [u64; SHARED_REGS],
    selectors: u64,
    err: u64,
    trapno: u64,
    oldmask: u64,
    cr2: u64,
    fpstate: u64,
    reserved: [u64; 8],
    sigmask: u64,
}

/// What the host tells of a trap besides the registers.
pub struct HostTrap {
    /// `siginfo.si_signo`.
    pub signo: u32,
    /// `siginfo.si_code`.
    pub code: i32,
    /// `siginfo.si_addr` (faults).
    pub addr: u64,
    /// `siginfo.si_syscall` (SIGSYS).
    pub syscall: u32,
    /// `siginfo.si_arch` (SIGSYS).
    pub arch: u32,
}

pub use super::AUDIT_ARCH;

impl HostTrap {
    /// Reads a `siginfo_t`.
    ///
    /// # Safety
    /// `info` is the pointer a signal handler got.
    pub unsafe fn read(info: *const u8) -> Self {
        // SAFETY: a siginfo_t has 128 bytes and is aligned to 8.
        let w = unsafe { &*info.cast::<[u32; 32]>() };
        Self {
            signo: w[0],
            code: w[2] as i32,
            addr: w[4] as u64 | (w[5] as u64) << 32,
            syscall: w[6],
            arch: w[7],
        }
    }
}

impl HostFrame {
    /// Program counter.
    pub fn pc(&self) -> u64 {
        self.gregs[16]
    }
    /// Sets the program counter.
    pub fn set_pc(&mut self, pc: u64) {
        self.gregs[16] = pc;
    }
    /// Stack pointer.
    pub fn sp(&self) -> u64 {
        self.gregs[15]
    }
    /// Result register of a host call.
    pub fn set_return(&mut self, value: i64) {
        self.gregs[13] = value as u64;
    }
    /// The six arguments of a host call.
    pub fn syscall_args(&self) -> [u64; 6] {
        let g = &self.gregs;
        [g[8], g[9], g[12], g[2], g[0], g[1]]
    }
    /// Whether a page fault was a store.
    pub fn fault_is_write(&self) -> bool {
        self.err & 2 != 0
    }
    /// Whether a page fault was an instruction fetch.
    pub fn fault_is_fetch(&self) -> bool {
        self.err & 16 != 0
    }
    /// The processor's exception number.
    pub fn trapno(&self) -> u64 {
        self.trapno
    }
    /// Whether the app runs with alignment checks on.
    pub fn has_alignment_check(&self) -> bool {
        self.gregs[17] & 0x4_0000 != 0
    }
    /// Copies the registers out; the bases are those given.
    pub fn load(&self, orig_rax: u64, bases: (u64, u64)) -> UserContext {
        let g = &self.gregs;
        UserContext {
            r8: g[0],
            r9: g[1],
            r10: g[2],
            r11: g[3],
            r12: g[4],
            r13: g[5],
            r14: g[6],
            r15: g[7],
            rdi: g[8],
            rsi: g[9],
            rbp: g[10],
            rbx: g[11],
            rdx: g[12],
            rax: g[13],
            rcx: g[14],
            rsp: g[15],
            rip: g[16],
            rflags: g[17],
            fs_base: bases.0,
            gs_base: bases.1,
            orig_rax,
        }
    }
    /// Copies the registers in, with flags an app may have.
    pub fn store(&mut self, c: &UserContext) {
        let mut clean = *c;
        clean.sanitize();
        let c = &clean;
        self.gregs = [
            c.r8, c.r9, c.r10, c.r11, c.r12, c.r13, c.r14, c.r15, c.rdi, c.rsi, c.rbp, c.rbx, c.rdx, c.rax,
            c.rcx, c.rsp, c.rip, c.rflags,
        ];
        self.selectors = SELECTORS;
    }

    /// Copies the FP state out.
    ///
    /// # Safety
    /// The frame is one the host wrote and did not take back yet.
    pub unsafe fn save_fp(&self, fp: &mut FpState) {
        if self.fpstate == 0 {
            *fp = FpState::initial();
            return;
        }
        let image = self.fpstate as *const u8;
        // SAFETY: the host's frame points at its FP image, 512 bytes at least.
        let (features, len) = unsafe { xstate(image) };
        fp.len = len;
        fp.features = features;
        let (head, _) = fp.bytes.split_at_mut(len.max(512));
        // SAFETY: the image is as long as its own header says.
        unsafe { core::ptr::copy_nonoverlapping(image, head.as_mut_ptr(), head.len()) };
        fp.bytes[SW_BYTES..512].fill(0);
    }

    /// Replaces the FP state that the frame restores.
    ///
    /// # Safety
    /// As [`HostFrame::save_fp`].
    pub unsafe fn restore_fp(&mut self, fp: &FpState) {
        if self.fpstate == 0 {
            return;
        }
        // SAFETY: the host's frame points at its FP image.
        let (features, len) = unsafe { xstate(self.fpstate as *const u8) };
        // SAFETY: the image has the length it says, aligned to 64; only this thread's frame points at it.
        let image = unsafe { core::slice::from_raw_parts_mut(self.fpstate as *mut u8, len) };
        // The legacy area's tail is the host's own.
        image[..SW_BYTES].copy_from_slice(&fp.bytes[..SW_BYTES]);
        image[24..28].copy_from_slice(&clean_mxcsr(fp).to_le_bytes());
        if features == 0 {
            return;
        }
        // Components behind `used` stay, masked off by the header.
        let used = fp.len.min(len).max(XSAVE_MIN);
        image[XSAVE_HEADER..used].copy_from_slice(&fp.bytes[XSAVE_HEADER..used]);
        put_header(image, header(fp, features));
    }

    /// A frame that enters the app at `ctx` with an empty signal mask and this alternate stack. Its FP image, if any,
    /// is `image`.
    pub fn build(
        &mut self,
        ctx: &UserContext,
        alt_stack: (u64, u64),
        fp: Option<&FpState>,
        image: &mut FpImage,
    ) {
        *self = Self {
            flags: UC_FLAGS,
            link: 0,
            stack: [alt_stack.0, 0, alt_stack.1],
            gregs: [0; SHARED_REGS],
            selectors: SELECTORS,
            err: 0,
            trapno: 0,
            oldmask: 0,
            cr2: 0,
            fpstate: 0,
            reserved: [0; 8],
            sigmask: 0,
        };
        self.store(ctx);
        let Some(fp) = fp else { return };
        let extended = fp.features != 0 && fp.len >= XSAVE_MIN;
        let len = if extended { fp.len } else { 512 };
        image.0[..len].copy_from_slice(&fp.bytes[..len]);
        image.0[24..28].copy_from_slice(&clean_mxcsr(fp).to_le_bytes());
        image.0[SW_BYTES..512].fill(0);
        if extended {
            let sw = &mut image.0[SW_BYTES..512];
            sw[0..4].copy_from_slice(&XSTATE_MAGIC1.to_le_bytes());
            sw[4..8].copy_from_slice(&(len as u32 + 4).to_le_bytes());
            sw[8..16].copy_from_slice(&fp.features.to_le_bytes());
            sw[16..20].copy_from_slice(&(len as u32).to_le_bytes());
            put_header(&mut image.0, header(fp, fp.features));
            image.0[len..len + 4].copy_from_slice(&XSTATE_MAGIC2.to_le_bytes());
        }
        self.fpstate = image.0.as_ptr() as u64;
    }
}

/// Room for the FP image of a frame built here.
#[repr(C, align(64))]
pub struct FpImage([u8; FP_BYTES + 64]);

impl FpImage {
    /// Room, zeroed.
    pub const fn new() -> Self {
        Self([0; FP_BYTES + 64])
    }
}

impl Default for FpImage {
    fn default() -> Self {
        Self::new()
    }
}

/// Reserved MXCSR bits fault on restore.
fn clean_mxcsr(fp: &FpState) -> u32 {
    let b = &fp.bytes;
    u32::from_le_bytes([b[24], b[25], b[26], b[27]]) & 0xffff
}

fn put_header(image: &mut [u8], words: [u64; 8]) {
    for (to, word) in image[XSAVE_HEADER..XSAVE_MIN].chunks_exact_mut(8).zip(words) {
        to.copy_from_slice(&word.to_le_bytes());
    }
}

/// The XSAVE header for an image of `features`: standard format, only components that are there.
fn header(fp: &FpState, features: u64) -> [u64; 8] {
    let mut bv = [0; 8];
    bv.copy_from_slice(&fp.bytes[XSAVE_HEADER..XSAVE_HEADER + 8]);
    let bv = if fp.features == 0 {
        3
    } else {
        u64::from_le_bytes(bv) & fp.features
    };
    [bv & features, 0, 0, 0, 0, 0, 0, 0]
}

/// Features and length of the host's FP image; (0, 512) for one without XSAVE. Components that do not fit
/// [`FpState`] are left out.
///
/// # Safety
/// `image` is an FP image the host wrote.
unsafe fn xstate(image: *const u8) -> (u64, usize) {
    let at = image.wrapping_add(SW_BYTES).cast::<[u32; 5]>();
    // SAFETY: the legacy area has 512 bytes, aligned to 64.
    let sw = unsafe { *at };
    if sw[0] != XSTATE_MAGIC1 {
        return (0, 512);
    }
    let features = sw[2] as u64 | (sw[3] as u64) << 32;
    let len = sw[4] as usize;
    if len <= FP_BYTES {
        (features, len)
    } else {
        (features & 3, XSAVE_MIN)
    }
}
