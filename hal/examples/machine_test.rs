//! A kernel that tests the machine it runs on: threads, address spaces, traps, faults, signals, FP state.
//! It powers off with 0, or with 1 and a reason.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() {}

#[cfg(target_os = "none")]
extern crate alloc;
#[cfg(target_os = "none")]
mod kernel {
    use hal::aspace::Prot;
    use hal::boot::{Hooks, Trap};
    use hal::sync::Once;
    use hal::{UserContext, VirtAddr, thread, user};
    use qlib::boot::Range;

    core::arch::global_asm!(
        ".pushsection .rodata.user,\"a\"",
        ".globl user_prog",
        "user_prog:",
        "mov eax, 1",
        "mov edi, 77",
        "syscall",
        "mov rdi, rax",
        "mov eax, 2",
        "syscall",
        "mov rdi, 0x1234",
        "mov dword ptr [rdi], 5",
        "ud2",
        ".globl user_prog_end",
        "user_prog_end:",
        ".popsection"
    );
    unsafe extern "C" {
        static user_prog: [u8; 0];
        static user_prog_end: [u8; 0];
    }

    fn start() {
        log::info!("started");
        let t = thread::spawn("one", None, thread::NewSpace::Kernel, || {
            log::info!("in a thread")
        });
        let _ = t.map_err(|e| log::error!("{e}"));
        static CELL: Once<hal::aspace::AddressSpace> = Once::new();
        let t = thread::spawn("app", None, thread::NewSpace::Fresh(&CELL), || {
            let s = CELL.get().cloned().unwrap_or_else(|| panic!("no space"));
            let r = s.map_anon(
                Range {
                    start: 0x400000,
                    end: 0x410000,
                },
                Prot::READ | Prot::WRITE | Prot::EXEC,
            );
            log::info!("map {r:?}");
            let start = &raw const user_prog as usize;
            let len = &raw const user_prog_end as usize - start;
            let code = unsafe { core::slice::from_raw_parts(start as *const u8, len) };
            log::info!("copy {:?}", user::copy_out(0x400000, code));
            log::info!("bad copy {:?}", user::copy_out(0x500000, code));
            user::enter(&UserContext::new(VirtAddr(0x400000), VirtAddr(0x410000)), None);
        });
        let _ = t.map_err(|e| log::error!("{e}"));
        thread::park(Some(hal::clock::monotonic_ns() + 5_000_000_000));
        thread::power_off(1, "timeout");
    }

    fn trap(ctx: &mut UserContext, trap: Trap) {
        log::info!("trap {trap:?} {ctx:x?}");
        match trap {
            Trap::Syscall => ctx.set_return(ctx.rdi as i64 + 1),
            _ => thread::power_off(0, "done"),
        }
    }

    hal::kernel_entry!(Hooks { start, trap });
}
