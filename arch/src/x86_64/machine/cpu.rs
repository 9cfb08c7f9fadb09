//! Per-CPU tables: segments, the task state with the stack for traps from user mode, and the block the system-call
//! entry finds through GS.

use super::irq::wrmsr;
use crate::x86_64::boot::{KERNEL_CS, KERNEL_DS, TSS_SELECTOR, USER32_CS};
use core::arch::asm;

const IA32_STAR: u32 = 0xc000_0081;
const IA32_LSTAR: u32 = 0xc000_0082;
const IA32_CSTAR: u32 = 0xc000_0083;
const IA32_FMASK: u32 = 0xc000_0084;
const IA32_KERNEL_GS_BASE: u32 = 0xc000_0102;
/// RFLAGS a system call clears: all that an app may set (CF … ID) and IF.
const SYSCALL_MASK: u64 = 0x25_7fd5;

const CODE64: u64 = 0x00af_9b00_0000_ffff;
const DATA: u64 = 0x00cf_9300_0000_ffff;
const USER_CODE32: u64 = 0x00cf_fb00_0000_ffff;
const USER_DATA: u64 = 0x00cf_f300_0000_ffff;
const USER_CODE64: u64 = 0x00af_fb00_0000_ffff;

/// Bytes of the stack for double faults and other traps that cannot trust the current stack.
const FAULT_STACK: usize = 8192;

/// What one CPU needs in fixed places. The first two fields are known to the assembly in `trap_entry`.
#[repr(C, align(64))]
pub struct CpuTables {
    /// Top of the kernel stack a system call starts on (gs:0).
    kernel_stack: u64,
    /// The app's stack pointer while the entry has no other place (gs:8).
    scratch: u64,
    gdt: [u64; 10],
    tss: Tss,
    fault_stack: [u8; FAULT_STACK],
}

#[repr(C, packed(4))]
struct Tss {
    reserved0: u32,
    rsp: [u64; 3],
    reserved1: u64,
    ist: [u64; 7],
    reserved2: u64,
    reserved3: u16,
    iomap_base: u16,
}

#[repr(C, packed)]
struct TablePointer {
    limit: u16,
    base: u64,
}

impl CpuTables {
    /// Empty tables.
    pub const fn new() -> Self {
        Self {
            kernel_stack: 0,
            scratch: 0,
            gdt: [0, 0, CODE64, DATA, USER_CODE32, USER_DATA, USER_CODE64, 0, 0, 0],
            tss: Tss {
                reserved0: 0,
                rsp: [0; 3],
                reserved1: 0,
                ist: [0; 7],
                reserved2: 0,
                reserved3: 0,
                iomap_base: size_of::<Tss>() as u16,
            },
            fault_stack: [0; FAULT_STACK],
        }
    }
}

impl Default for CpuTables {
    fn default() -> Self {
        Self::new()
    }
}

/// Loads this CPU's tables and the system-call registers.
///
/// # Safety
/// `tables` belongs to this CPU alone and is never moved or freed. `trap_entry::init` was called on some CPU.
pub unsafe fn init_cpu(tables: *mut CpuTables) {
    // SAFETY: the caller gives the tables to this CPU.
    let t = unsafe { &mut *tables };
    let fault_top = (&raw const t.fault_stack) as u64 + FAULT_STACK as u64;
    t.tss.ist[0] = fault_top & !15;
    let tss = (&raw const t.tss) as u64;
    let limit = size_of::<Tss>() as u64 - 1;
    // An available 64-bit TSS (SDM volume 3A, section 7.2.3).
    t.gdt[8] = limit & 0xffff | (tss & 0xff_ffff) << 16 | 0x89 << 40 | (tss >> 24 & 0xff) << 56;
    t.gdt[9] = tss >> 32;
    let gdtr = TablePointer {
        limit: size_of_val(&t.gdt) as u16 - 1,
        base: (&raw const t.gdt) as u64,
    };
    // SAFETY: the table holds the selectors loaded here, and lives forever.
    unsafe {
        asm!(
            "lgdt [{gdtr}]",
            "push {cs}",
            "lea {tmp}, [rip + 2f]",
            "push {tmp}",
            "retfq",
            "2:",
            "mov ss, {ds:e}",
            "mov {tmp:e}, 0",
            "mov ds, {tmp:e}",
            "mov es, {tmp:e}",
            "mov fs, {tmp:e}",
            "mov gs, {tmp:e}",
            "mov {tmp:e}, {tss}",
            "ltr {tmp:x}",
            gdtr = in(reg) &gdtr,
            cs = in(reg) KERNEL_CS as u64,
            ds = in(reg) KERNEL_DS as u64,
            tss = const TSS_SELECTOR,
            tmp = out(reg) _,
        )
    };
    super::trap_entry::load_idt();
    let star = (KERNEL_CS as u64) << 32 | (USER32_CS as u64) << 48;
    let settings = [
        (IA32_STAR, star),
        (IA32_LSTAR, super::trap_entry::syscall_entry()),
        (IA32_CSTAR, super::trap_entry::syscall32_entry()),
        (IA32_FMASK, SYSCALL_MASK),
        (IA32_KERNEL_GS_BASE, tables as u64),
    ];
    for (msr, value) in settings {
        // SAFETY: architectural registers of 64-bit mode; the entries are the kernel's own.
        unsafe { wrmsr(msr, value) };
    }
}

/// Sets the stack (its top, 16-byte aligned) on which the next trap from user mode starts.
///
/// # Safety
/// `tables` is this CPU's; the stack is the current thread's.
pub unsafe fn set_kernel_stack(tables: *mut CpuTables, top: u64) {
    // SAFETY: the tables are this CPU's alone.
    let t = unsafe { &mut *tables };
    t.kernel_stack = top;
    t.tss.rsp[0] = top;
}

/// Waits for an interrupt and takes it: returns after its handler ran, with interrupts masked again. One that was pending
/// when the caller last looked ends the wait at once.
pub fn wait_for_interrupt() {
    // SAFETY: STI takes effect after the next instruction, so no interrupt is lost between the two; gates are loaded.
    unsafe { asm!("sti", "hlt", "cli", options(nostack)) };
}

/// Stops this CPU forever.
pub fn halt() -> ! {
    loop {
        // SAFETY: HLT with interrupts masked waits for nothing that the kernel expects.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) };
    }
}
