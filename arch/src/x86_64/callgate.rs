//! The way from a patched call site into the kernel and back, on the `process` machine.
//!
//! The stub jumps to `quark_call_entry` with r11 = address of its record {end of the site, the stub's own `syscall`} and
//! everything else as for the instruction; rcx and r11 are the call's to change. The kernel stack is found by GS base,
//! which points at its slot while the app does not use GS: a magic word there tells. Where it does not, or the access
//! faults, the call is made by the stub's `syscall` instruction and traps.
//!
//! Flags are not touched before they are saved. On the way back the registers come from a frame that stays above the
//! stack pointer to the very end, so that a signal in between can have it done again.

use super::context::{FP_BYTES, FpState, UserContext};
use core::arch::{asm, global_asm, x86_64::__cpuid_count};
use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// What GS:[[`MAGIC_AT`]] holds in a slot.
pub const MAGIC: u32 = 0x5155_4b31;
/// Offset of the magic word in a slot.
pub const MAGIC_AT: usize = 8;
/// Offset of the word for the app's stack pointer.
pub const USER_SP_AT: usize = 16;
/// Bytes of a slot; the stack ends there.
pub const SLOT_BYTES: usize = 64 << 10;
/// The thread's mode while in the app, and the bit that says it was kicked.
pub const USER: u32 = 1;
/// See [`USER`].
pub const KICKED: u32 = 4;

/// The frame at the top of the kernel stack during a call.
#[repr(C, align(16))]
pub struct CallFrame {
    /// For `iretq`: rip, cs, rflags, rsp, ss.
    iret: [u64; 5],
    /// The app's registers.
    pub ctx: UserContext,
    /// The thread's mode, which the way back sets.
    pub mode: *const AtomicU32,
    /// The stub's own `syscall`.
    pub slow: u64,
}

const CTX: usize = core::mem::offset_of!(CallFrame, ctx);
const FRAME: usize = size_of::<CallFrame>();

global_asm!(
    ".pushsection .text.quark_callgate, \"ax\"",
    ".globl quark_call_entry",
    "quark_call_entry:",
    "2: mov ecx, dword ptr gs:[{magic_at}]",
    "lea rcx, [rcx - {magic}]",
    "jrcxz 4f",
    "3: jmp qword ptr [r11 + 8]",
    ".pushsection extable, \"aR\"",
    ".balign 4",
    ".long 2b - .",
    ".long 3b - .",
    ".popsection",
    "4: mov qword ptr gs:[{user_sp_at}], rsp",
    "rdgsbase rsp",
    "lea rsp, [rsp + {top}]",
    "pushfq",
    "mov [rsp + 8 + {ctx} + 0], r8",
    "mov [rsp + 8 + {ctx} + 8], r9",
    "mov [rsp + 8 + {ctx} + 16], r10",
    "pop rcx",
    "mov [rsp + {ctx} + 24], rcx",
    "mov [rsp + {ctx} + 136], rcx",
    // The stub may be gone, by another thread's doing: then the way back leads nowhere.
    "6: mov rcx, [r11 + 8]",
    "7: mov r11, [r11]",
    "8: mov [rsp + {slow}], rcx",
    "mov [rsp + {ctx} + 112], r11",
    "mov [rsp + {ctx} + 128], r11",
    "mov [rsp + {ctx} + 32], r12",
    "mov [rsp + {ctx} + 40], r13",
    "mov [rsp + {ctx} + 48], r14",
    "mov [rsp + {ctx} + 56], r15",
    "mov [rsp + {ctx} + 64], rdi",
    "mov [rsp + {ctx} + 72], rsi",
    "mov [rsp + {ctx} + 80], rbp",
    "mov [rsp + {ctx} + 88], rbx",
    "mov [rsp + {ctx} + 96], rdx",
    "mov [rsp + {ctx} + 104], rax",
    "mov [rsp + {ctx} + 160], rax",
    "mov rcx, qword ptr gs:[{user_sp_at}]",
    "mov [rsp + {ctx} + 120], rcx",
    // AC would make unaligned accesses of the kernel fault, and NT the way back.
    "test dword ptr [rsp + {ctx} + 136], 0x44000",
    "jz 5f",
    "push 0x202",
    "popfq",
    "5: cld",
    "xor ebp, ebp",
    "mov rdi, rsp",
    "call quark_call",
    "",
    ".globl quark_call_leave",
    "quark_call_leave:",
    "mov rdx, [rsp + {mode}]",
    "mov eax, {user}",
    "xchg [rdx], eax",
    "test eax, {kicked}",
    "jnz quark_call_again",
    "mov rcx, [rsp + {ctx} + 128]",
    "mov [rsp], rcx",
    "mov qword ptr [rsp + 8], 0x33",
    "mov rcx, [rsp + {ctx} + 136]",
    "mov [rsp + 16], rcx",
    "mov rcx, [rsp + {ctx} + 120]",
    "mov [rsp + 24], rcx",
    "mov qword ptr [rsp + 32], 0x2b",
    "mov r8, [rsp + {ctx} + 0]",
    "mov r9, [rsp + {ctx} + 8]",
    "mov r10, [rsp + {ctx} + 16]",
    "mov r11, [rsp + {ctx} + 24]",
    "mov r12, [rsp + {ctx} + 32]",
    "mov r13, [rsp + {ctx} + 40]",
    "mov r14, [rsp + {ctx} + 48]",
    "mov r15, [rsp + {ctx} + 56]",
    "mov rdi, [rsp + {ctx} + 64]",
    "mov rsi, [rsp + {ctx} + 72]",
    "mov rbp, [rsp + {ctx} + 80]",
    "mov rbx, [rsp + {ctx} + 88]",
    "mov rdx, [rsp + {ctx} + 96]",
    "mov rax, [rsp + {ctx} + 104]",
    "mov rcx, [rsp + {ctx} + 112]",
    "iretq",
    ".globl quark_call_left",
    "quark_call_left:",
    "",
    ".globl quark_call_again",
    "quark_call_again:",
    "mov rdi, rsp",
    "call quark_call_again_rust",
    "jmp quark_call_leave",
    "",
    "9: xor r11d, r11d",
    "xor ecx, ecx",
    "jmp 8b",
    ".pushsection extable, \"aR\"",
    ".long 6b - .",
    ".long 9b - .",
    ".long 7b - .",
    ".long 9b - .",
    ".popsection",
    ".popsection",
    magic_at = const MAGIC_AT,
    magic = const MAGIC,
    user_sp_at = const USER_SP_AT,
    top = const SLOT_BYTES - FRAME,
    ctx = const CTX,
    mode = const core::mem::offset_of!(CallFrame, mode),
    slow = const core::mem::offset_of!(CallFrame, slow),
    user = const USER,
    kicked = const KICKED,
);

unsafe extern "C" {
    fn quark_call_entry();
    fn quark_call_leave();
    fn quark_call_left();
    fn quark_call_again();
}

/// Where stubs enter.
pub fn entry() -> u64 {
    quark_call_entry as *const () as u64
}

/// Where a thread that was interrupted at `pc` on its way back goes on, so that it looks again whether it was kicked;
/// `None` when it is not on that way. The stack pointer stays.
pub fn again(pc: u64) -> Option<u64> {
    let (from, to) = (
        quark_call_leave as *const () as u64,
        quark_call_left as *const () as u64,
    );
    (from <= pc && pc < to).then_some(quark_call_again as *const () as u64)
}

/// XSAVE components of AMX, which apps are not given and whose size no buffer here has.
const AMX: u64 = 3 << 17;

/// What [`components`] found: the mask, and the bytes. Asking the processor costs an exit each in a virtual machine.
static COMPONENTS: (AtomicU64, AtomicUsize) = (AtomicU64::new(0), AtomicUsize::new(0));

/// The components the host enabled, and the bytes they take in the standard format.
fn components() -> (u64, usize) {
    let known = COMPONENTS.0.load(Ordering::Acquire);
    if known != 0 {
        return (known, COMPONENTS.1.load(Ordering::Relaxed));
    }
    let (mask, len) = ask_components();
    COMPONENTS.1.store(len, Ordering::Relaxed);
    COMPONENTS.0.store(mask, Ordering::Release);
    (mask, len)
}

fn ask_components() -> (u64, usize) {
    let (low, high): (u32, u32);
    // SAFETY: XSAVE is enabled wherever FSGSBASE is, which the machine checked.
    unsafe {
        asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags))
    };
    let enabled = (u64::from(high) << 32 | u64::from(low)) & !AMX;
    let end = (2..63)
        .filter(|i| enabled >> i & 1 != 0)
        .map(|i| {
            let c = __cpuid_count(0xd, i);
            c.eax as usize + c.ebx as usize
        })
        .max()
        .unwrap_or(0)
        .max(576);
    if end <= FP_BYTES { (enabled, end) } else { (3, 576) }
}

/// Saves the FP state that is in the registers.
pub fn save_fp(fp: &mut FpState) {
    let (mask, len) = components();
    fp.features = mask;
    fp.len = len;
    // The instruction leaves the rest of the header as it is.
    fp.bytes[512..576].fill(0);
    // SAFETY: the image is aligned to 64 and as long as the components of the mask need.
    unsafe {
        asm!("xsave64 [{}]", in(reg) fp.bytes.as_mut_ptr(), in("eax") mask as u32, in("edx") (mask >> 32) as u32, options(nostack, preserves_flags))
    };
}

/// Loads the FP state into the registers; components that are not in it become initial.
pub fn restore_fp(fp: &FpState) {
    let (mask, _) = components();
    let mut image = fp.clone();
    let word = |b: &[u8]| b.iter().rev().fold(0u64, |w, b| w << 8 | u64::from(*b));
    let there = if fp.features == 0 {
        3
    } else {
        word(&fp.bytes[512..520]) & fp.features & mask
    };
    image.bytes[512..576].fill(0);
    image.bytes[512..520].copy_from_slice(&there.to_le_bytes());
    // Reserved bits of MXCSR fault.
    let mxcsr = word(&fp.bytes[24..28]) as u32 & 0xffff;
    image.bytes[24..28].copy_from_slice(&mxcsr.to_le_bytes());
    // SAFETY: the image is aligned to 64, its header names only components it has and that are enabled.
    unsafe {
        asm!("xrstor64 [{}]", in(reg) image.bytes.as_ptr(), in("eax") mask as u32, in("edx") (mask >> 32) as u32, options(nostack, preserves_flags))
    };
}
