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
//! - `mmu::{BROADCAST, MAY_WAIT_FOREVER, init_cpu, current_root (aarch64: of the empty app half), activate(root), flush_page(va), flush_user, publish_tables, open_user, close_user}`
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

mod clock;
mod cpu;
mod frames;
mod host;
mod phys;
mod qcall;
mod random;
mod reads;
mod reclaim;
mod region;
mod sched;
pub(crate) mod space;
mod stack;
pub(crate) mod thread;
mod timers;
mod tlb;
mod traps;
mod user;
mod vdso;
mod window;

use crate::boot::{hooks, info};
use crate::contract::Threads;
use crate::native;
use crate::thread::{NewSpace, Thread};
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::Ordering;

/// Implements the contract on bare machines.
pub(crate) struct Bare;

/// Brings the machine up on the boot CPU. `sound`: the boot page is of this ABI version.
pub(crate) fn start(sound: bool) -> ! {
    let i = info();
    if !sound {
        native::ports::stop(ABI_MISMATCH);
    }
    phys::init(i.direct_map);
    qcall::init(i.rings.start);
    frames::init(i.ram_free, i.ram.end);
    crate::heap::init(frames::heap_source);
    crate::logger::init(i.log_level);
    clock::init(i.counter_hz);
    random::init(&i.entropy, &i.generation);
    window::init(i.window);
    cpu::init(i.cpus.max(1));
    native::trap_entry::init(&traps::HANDLERS);
    let root = native::mmu::current_root();
    vdso::init();
    sched::init(root.0);
    space::init(root);
    come_up(0);
    let boot = Arc::new(Thread::new("boot"));
    if Bare::spawn(&boot, NewSpace::Kernel, Box::new(|| (hooks().start)())).is_err() {
        panic!("no memory for the first thread");
    }
    reclaim::start();
    if cpu::all().len() > 1 {
        native::ports::start_cpus();
    }
    sched::idle()
}

/// Exit code when host and kernel image are of different versions.
const ABI_MISMATCH: u32 = 71;

/// Brings another CPU up.
pub(crate) fn start_secondary(id: u32) -> ! {
    come_up(id);
    sched::idle()
}

/// Sets up the CPU this runs on; its first stack becomes its idle thread's.
fn come_up(id: u32) {
    let Some(c) = cpu::all().get(id as usize) else {
        native::cpu::halt()
    };
    let idle = Arc::new(Thread::new("idle"));
    idle.stack.store(stack::header() as u64, Ordering::Relaxed);
    idle.machine.on_cpu.store(true, Ordering::Relaxed);
    let p = Arc::into_raw(idle);
    c.idle_thread.store(p.cast_mut(), Ordering::Relaxed);
    // SAFETY: this is the CPU's first stack, which lies in the direct map and is 64 KiB as all are.
    unsafe { stack::set_header(stack::header() as u64, p, c) };
    // SAFETY: the tables belong to this CPU and live forever.
    unsafe { native::cpu::init_cpu(c.tables.get()) };
    native::mmu::init_cpu();
    native::fp::init_cpu();
    native::irq::init_cpu(id);
    c.stamp.store(native::clock::counter(), Ordering::Relaxed);
}

/// What a waiting processor must look at meanwhile: nothing, because nobody waits for a CPU that is in the kernel ([`tlb`]).
pub(crate) fn poll_while_spinning() {}

/// Requests made of the host, and bytes of reads that needed none.
pub(crate) fn host_usage() -> crate::HostUsage {
    crate::HostUsage {
        requests: qcall::submitted(),
        window_read_bytes: reads::copied_bytes(),
    }
}

/// Stops the guest with a reason.
fn ports_stop(code: i32, reason: &str) -> ! {
    for c in cpu::all() {
        log::debug!("{c:?} now {:#x}", native::clock::counter());
    }
    qcall::put_line(0, reason.as_bytes());
    native::ports::stop(code as u32)
}
