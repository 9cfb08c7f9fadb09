//! What the `process` machine needs of the architecture: host calls, host threads, the way into a fresh host process,
//! and user-memory access whose faults the signal handler fixes up.

use core::arch::{asm, global_asm};

/// Issues a host system call.
///
/// # Safety
/// As the call itself: the arguments must be fit for `nr`.
#[inline(always)]
pub unsafe fn syscall(nr: u32, a: [u64; 6]) -> i64 {
    let ret: i64;
    // SAFETY: the host changes nothing but rax, rcx, r11 and the memory the caller vouches for.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") nr as u64 => ret,
            in("rdi") a[0], in("rsi") a[1], in("rdx") a[2],
            in("r10") a[3], in("r8") a[4], in("r9") a[5],
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    ret
}

// clone(rdi = flags, rsi = top of the new stack): the child calls quark_thread_main(its sp), which never returns.
//
// quark_thread_exit(rdi = free-list head, rsi = slot, rdx = address of the slot's link): pushes the slot on the free list
// and ends the host thread, without touching the stack, which may be in use again from the push on.
//
// quark_hand_over(rdi = slot {u32 word; u64 sp at +8}): saves what a call preserves, passes the stack to the thread that
// sleeps on the word, and ends this one. Returns in that thread, when it calls quark_take_over(rdi = sp).
//
// quark_sigreturn(rdi = ucontext): leaves by a signal frame.
global_asm!(
    ".pushsection .text.quark_hosted, \"ax\"",
    ".globl quark_clone",
    "quark_clone:",
    "mov eax, 56",
    "xor edx, edx",
    "xor r10d, r10d",
    "xor r8d, r8d",
    "syscall",
    "test rax, rax",
    "jz 2f",
    "ret",
    "2:",
    "xor ebp, ebp",
    "mov rdi, rsp",
    "call quark_thread_main",
    "ud2",
    "",
    ".globl quark_thread_exit",
    "quark_thread_exit:",
    "mov rax, [rdi]",
    "2:",
    "mov [rdx], rax",
    "lock cmpxchg [rdi], rsi",
    "jne 2b",
    "mov eax, 60",
    "xor edi, edi",
    "syscall",
    "ud2",
    "",
    ".globl quark_hand_over",
    "quark_hand_over:",
    "push rbp",
    "push rbx",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "mov [rdi + 8], rsp",
    "mov eax, 1",
    "xchg [rdi], eax",
    "mov eax, 202", // futex(word, FUTEX_WAKE, 1)
    "mov esi, 1",
    "mov edx, 1",
    "syscall",
    "mov eax, 60",
    "xor edi, edi",
    "syscall",
    "ud2",
    "",
    ".globl quark_take_over",
    "quark_take_over:",
    "mov rsp, rdi",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbx",
    "pop rbp",
    "ret",
    "",
    ".globl quark_sigreturn",
    "quark_sigreturn:",
    "mov rsp, rdi",
    ".globl quark_restorer",
    "quark_restorer:",
    "mov eax, 15",
    "syscall",
    "ud2",
    ".popsection",
);

unsafe extern "C" {
    fn quark_clone(flags: u64, stack_top: u64) -> i64;
    fn quark_thread_exit(head: *mut u64, slot: u64, link: *mut u64) -> !;
    fn quark_hand_over(slot: *mut HandOver);
    fn quark_take_over(sp: u64) -> !;
    fn quark_sigreturn(uc: u64) -> !;
    fn quark_restorer();
}

/// Where a thread waits for the stack of another one.
#[repr(C)]
pub struct HandOver {
    /// 0 = wait, 1 = `sp` is there. A futex.
    pub word: core::sync::atomic::AtomicU32,
    /// Saved stack pointer.
    pub sp: core::cell::UnsafeCell<u64>,
}

/// Starts a host thread or process (`clone(2)` flags) on `stack_top`, where it calls `quark_thread_main(sp)`.
///
/// # Safety
/// The stack is unused and stays so until the new thread ends; the flags leave the kernel's region shared.
pub unsafe fn clone(flags: u64, stack_top: u64) -> i64 {
    // SAFETY: the caller vouches for stack and flags.
    unsafe { quark_clone(flags, stack_top) }
}

/// Pushes `slot` on the list at `head` (its link is the word at `link`) and ends the host thread.
///
/// # Safety
/// The calling thread runs on the stack in `slot`, and nothing on it is needed any more.
pub unsafe fn exit_thread(head: *mut u64, slot: u64, link: *mut u64) -> ! {
    // SAFETY: the caller vouches for the pointers.
    unsafe { quark_thread_exit(head, slot, link) }
}

/// Gives the calling thread's stack to the thread waiting at `slot` and ends the host thread; returns in the other.
///
/// # Safety
/// A thread waits at `slot` and will call [`take_over`].
pub unsafe fn hand_over(slot: *mut HandOver) {
    // SAFETY: the caller vouches for the slot.
    unsafe { quark_hand_over(slot) }
}

/// Continues on a stack that was handed over.
///
/// # Safety
/// `sp` comes from [`HandOver::sp`].
pub unsafe fn take_over(sp: u64) -> ! {
    // SAFETY: the caller vouches for `sp`.
    unsafe { quark_take_over(sp) }
}

/// Leaves by the signal frame whose `ucontext` lies at `uc`.
///
/// # Safety
/// The frame is complete and belongs to the calling thread.
pub unsafe fn sigreturn(uc: u64) -> ! {
    // SAFETY: the caller vouches for the frame.
    unsafe { quark_sigreturn(uc) }
}

/// Address of the code that ends a signal handler.
pub fn restorer() -> u64 {
    quark_restorer as *const () as u64
}

/// The stack pointer.
#[inline(always)]
pub fn stack_pointer() -> u64 {
    let sp: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, rsp", out(reg) sp, options(nomem, nostack, preserves_flags)) };
    sp
}

/// Adds a pair to the table of instructions that may fault on user memory: where to go on, for each.
macro_rules! fixup {
    () => {
        ".pushsection extable, \"aR\"\n.balign 4\n.long 2b - .\n.long 3b - .\n.popsection"
    };
}

/// Copies `len` bytes; returns how many were left at a fault.
///
/// # Safety
/// The kernel's side of the copy is valid memory of `len` bytes; the app's side lies in user addresses.
#[inline]
pub unsafe fn copy_bytes(dst: u64, src: u64, len: usize) -> usize {
    let left: usize;
    // SAFETY: the caller vouches for the kernel's side; faults on the other are fixed up.
    unsafe {
        asm!(
            "2: rep movsb",
            "3:",
            fixup!(),
            inout("rdi") dst => _, inout("rsi") src => _, inout("rcx") len => left,
            options(nostack, preserves_flags),
        );
    }
    left
}

/// Zeroes `len` bytes of user memory; returns how many were left at a fault.
///
/// # Safety
/// The range lies in user addresses.
#[inline]
pub unsafe fn zero_bytes(dst: u64, len: usize) -> usize {
    let left: usize;
    // SAFETY: the range is the app's; faults are fixed up.
    unsafe {
        asm!(
            "2: rep stosb",
            "3:",
            fixup!(),
            inout("rdi") dst => _, in("al") 0u8, inout("rcx") len => left,
            options(nostack, preserves_flags),
        );
    }
    left
}

/// Loads an aligned `u32`; `None` at a fault.
///
/// # Safety
/// The address lies in user addresses.
#[inline]
pub unsafe fn load_u32(addr: u64) -> Option<u32> {
    let (mut value, mut fault): (u32, u32) = (0, 1);
    // SAFETY: reads the app's memory; a fault is fixed up.
    unsafe {
        asm!(
            "2: mov {v:e}, dword ptr [{a}]",
            "xor {f:e}, {f:e}",
            "3:",
            fixup!(),
            v = inout(reg) value, f = inout(reg) fault, a = in(reg) addr,
            options(nostack),
        );
    }
    (fault == 0).then_some(value)
}

/// Compares and exchanges an aligned `u32`; the value found, or `None` at a fault.
///
/// # Safety
/// The address lies in user addresses.
#[inline]
pub unsafe fn cmpxchg_u32(addr: u64, old: u32, new: u32) -> Option<u32> {
    let (mut found, mut fault): (u32, u32) = (old, 1);
    // SAFETY: changes the app's memory; a fault is fixed up.
    unsafe {
        asm!(
            "2: lock cmpxchg dword ptr [{a}], {n:e}",
            "mov {f:e}, 0",
            "3:",
            fixup!(),
            inout("eax") found, f = inout(reg) fault, a = in(reg) addr, n = in(reg) new,
            options(nostack),
        );
    }
    (fault == 0).then_some(found)
}

/// Where to go on after a fault at `pc`, if that instruction may fault.
pub fn fixup_of(pc: u64) -> Option<u64> {
    unsafe extern "C" {
        static __start_extable: [i32; 2];
        static __stop_extable: [i32; 2];
    }
    let start = &raw const __start_extable;
    let count = (&raw const __stop_extable as usize - start as usize) / size_of::<[i32; 2]>();
    // SAFETY: the linker puts the table's bounds around pairs of the `fixup` macro.
    let table = unsafe { core::slice::from_raw_parts(start, count) };
    let at = |word: &i32| (word as *const i32 as u64).wrapping_add_signed(*word as i64);
    table
        .iter()
        .find(|pair| at(&pair[0]) == pc)
        .map(|pair| at(&pair[1]))
}

/// FS and GS base of the calling thread, by instruction; only where the host allows it (FSGSBASE).
#[inline(always)]
pub fn read_bases() -> (u64, u64) {
    let (fs, gs): (u64, u64);
    // SAFETY: reads two registers; the machine checked that the host enabled the instructions.
    unsafe {
        asm!("rdfsbase {}", "rdgsbase {}", out(reg) fs, out(reg) gs, options(nomem, nostack, preserves_flags))
    };
    (fs, gs)
}

/// Sets FS and GS base; only where the host allows it (FSGSBASE).
#[inline(always)]
pub fn write_bases(fs: u64, gs: u64) {
    // SAFETY: the kernel's code uses neither register.
    unsafe { asm!("wrfsbase {}", "wrgsbase {}", in(reg) fs, in(reg) gs, options(nostack, preserves_flags)) };
}

/// Clears EFLAGS.AC, which an app may have set and which would make unaligned accesses of the kernel fault.
pub fn clear_alignment_check() {
    // SAFETY: changes one flag; the stack has room for a word.
    unsafe { asm!("pushfq", "and dword ptr [rsp], 0xfffbffff", "popfq") };
}

/// `SA_RESTORER`: `sigaction.restorer` is set.
pub const SA_RESTORER: u64 = 0x0400_0000;

/// Sets FS base by a host call.
pub fn set_fs_base(base: u64) {
    const ARCH_SET_FS: u64 = 0x1002;
    // SAFETY: the kernel's code does not use FS.
    let _ = unsafe { syscall(158, [ARCH_SET_FS, base, 0, 0, 0, 0]) };
}

/// Sets GS base by a host call.
pub fn set_gs_base(base: u64) {
    const ARCH_SET_GS: u64 = 0x1001;
    // SAFETY: the kernel's code does not use GS.
    let _ = unsafe { syscall(158, [ARCH_SET_GS, base, 0, 0, 0, 0]) };
}

/// Name of the vDSO's `clock_gettime`.
pub const VDSO_CLOCK_GETTIME: &str = "__vdso_clock_gettime";
