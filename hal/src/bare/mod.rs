//! The bare machine (`kvm`): QKernel in guest ring 0 / EL1.
//!
//! Everything here is portable; what differs between architectures lies in `arch::<arch>` under the same names:
//!
//! - data half: `paging::{Pte (table::Format), KERNEL_HALF, USER_END, SHARED_ROOT}`, `boot::{BootCpu, boot_cpu}`, `doorbell`
//! - `trap_entry::{init(&'static trap::Handlers<UserContext>), enter_user(&UserContext, stack_top)}`
//! - `cpu::{CpuTables (const new), init_cpu(*mut CpuTables), set_kernel_stack(*mut CpuTables, top), wait_for_interrupt, halt}`
//! - `irq::{init_cpu(cpu), set_timer(Option<counter value>), send_ipi(cpu)}`; interrupts are acknowledged by the entry code
//!   and arrive as `trap::Irq::{Timer, Host, Ipi, Spurious}`
//! - `switch::{switch(save, load), prepare(top, entry), FRAME_ROOM}`
//! - `fp::{init_cpu, save(&mut FpState), restore(&FpState)}`
//! - `mmu::{BROADCAST, init_cpu, activate(root), flush_page(va), flush_user, publish_tables, open_user, close_user}`
//! - `usercopy::{fixup(pc), copy_in, copy_out, zero, load_u32, cmpxchg_u32}`
//! - `ports::{ring, start_cpus, stop(code), log}`; `clock::counter`
//!
//! Rules of this machine. Kernel code runs with interrupts masked and is never preempted; only user mode and the idle loop
//! take interrupts. A kernel stack is 64 KiB, aligned to its size, in the direct map; its header (at the base) names the
//! thread and the CPU. Traps from user mode start at the stack's top, so a thread that leaves for user mode has an empty
//! stack. A trap in the kernel is a user copy that faulted (it may park, for a page that must be read in) or the end.
//!
//! The first instruction of every CPU is the image's `_start`, with registers from `arch::<arch>::boot::boot_cpu`; the boot
//! CPU sets the machine up and rings `ports::start_cpus` for the others.

mod absent;
pub(crate) mod space;
pub(crate) mod thread;

/// Implements the contract on bare machines.
pub(crate) struct Bare;

/// Brings the machine up. `sound`: the boot page is of this ABI version.
pub(crate) fn start(_sound: bool) -> ! {
    panic!("the bare machine is not built yet")
}

/// What a waiting processor must look at meanwhile (shootdown requests).
pub(crate) fn poll_while_spinning() {}
