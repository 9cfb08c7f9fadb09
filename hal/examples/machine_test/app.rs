//! The tests' app: programs in assembly, and the little kernel that serves them.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use hal::aspace::{AddressSpace, Prot};
use hal::boot::Trap;
use hal::host::{self, HostFile};
use hal::sync::{Once, SpinLock};
use hal::thread::{self, NewSpace, ThreadRef};
use hal::{FpState, UserContext, VirtAddr, user};
use qlib::Errno;
use qlib::boot::Range;

/// Where programs lie in the app's memory.
pub const CODE: Range = Range {
    start: 0x40_0000,
    end: 0x40_4000,
};
/// Their data and stacks.
pub const DATA: Range = Range {
    start: 0x50_0000,
    end: 0x54_0000,
};
/// Pages nothing is mapped at.
pub const HOLE: u64 = 0x60_0000;

/// Where the file is mapped that [`call::RESIZE`] makes.
pub const FILE: Range = Range {
    start: 0x70_0000,
    end: 0x70_2000,
};

macro_rules! programs {
    ($($name:ident = $symbol:ident;)*) => {
        unsafe extern "C" { $(safe static $symbol: u8;)* safe static programs: u8; safe static programs_end: u8; }
        /// A program: its entry point in the app.
        #[derive(Clone, Copy, Debug)]
        #[allow(missing_docs)]
        pub enum Program { $($name),* }
        impl Program {
            /// Address in the app.
            pub fn entry(self) -> VirtAddr {
                let at = match self { $(Program::$name => &raw const $symbol),* };
                VirtAddr(CODE.start + (at as u64 - &raw const programs as u64))
            }
        }
    };
}

programs! {
    Registers = program_registers;
    Vectors = program_vectors;
    Spin = program_spin;
    Faults = program_faults;
    Short = program_short;
    Fork = program_fork;
    Threads = program_threads;
    ThreadBody = program_thread_body;
    Exec = program_exec;
    AfterExec = program_after_exec;
    Exit = program_exit;
    Calls = program_calls;
    Tls = program_tls;
    Forks = program_forks;
}

/// System calls of the tests' kernel.
pub mod call {
    pub const NOP: u64 = 0;
    pub const REPORT: u64 = 1;
    pub const EXIT: u64 = 2;
    pub const FORK: u64 = 3;
    pub const THREAD: u64 = 4;
    pub const EXEC: u64 = 5;
    pub const SET_TLS: u64 = 6;
    pub const LOST: u64 = 7;
    pub const RESIZE: u64 = 8;
}

/// What an app thread leaves for the test.
pub struct App {
    /// Its address space; exec changes it.
    pub space: SpinLock<Option<AddressSpace>>,
    /// Values it reported.
    pub reports: SpinLock<Vec<u64>>,
    /// Traps other than system calls.
    pub traps: SpinLock<Vec<(Trap, u64)>>,
    /// Time of the last interrupt, ns.
    pub interrupted: AtomicU64,
    /// Who waits for the end of it and of its children.
    pub parent: ThreadRef,
    /// Threads and processes of this test still alive.
    pub alive: AtomicU64,
}

/// Maps programs and data into the calling thread's empty address space.
fn load(space: &AddressSpace) {
    let len = &raw const programs_end as usize - &raw const programs as usize;
    // SAFETY: the assembler puts the programs between the two symbols.
    let code = unsafe { core::slice::from_raw_parts(&raw const programs, len) };
    let mapped = space
        .map_anon(CODE, Prot::READ | Prot::WRITE)
        .and_then(|()| user::copy_out(CODE.start, code))
        .and_then(|()| space.protect(CODE, Prot::READ | Prot::EXEC))
        .and_then(|()| space.map_anon(DATA, Prot::READ | Prot::WRITE));
    assert!(mapped.is_ok(), "loading: {mapped:?}");
}

/// Starts `program` in a fresh address space.
pub fn spawn(program: Program) -> (Arc<App>, ThreadRef) {
    let app = Arc::new(App {
        space: SpinLock::new(None),
        reports: SpinLock::new(Vec::new()),
        traps: SpinLock::new(Vec::new()),
        interrupted: AtomicU64::new(0),
        parent: thread::current(),
        alive: AtomicU64::new(1),
    });
    let cell = Box::leak(Box::new(Once::new()));
    let shared: &'static Once<AddressSpace> = cell;
    let body = app.clone();
    let t = thread::spawn("app", Some(app.clone()), NewSpace::Fresh(shared), move || {
        let space = shared.get().cloned();
        *body.space.lock() = space.clone();
        drop(body);
        if let Some(s) = &space {
            load(s);
        }
        drop(space);
        user::enter(&UserContext::new(program.entry(), VirtAddr(DATA.end - 64)), None);
    });
    match t {
        Ok(t) => (app, t),
        Err(e) => panic!("starting {program:?}: {e}"),
    }
}

/// Runs `program` and waits for its end, and that of all it started.
pub fn run(program: Program) -> Arc<App> {
    let (app, _) = spawn(program);
    wait(&app);
    app
}

/// Waits for the end of a program.
pub fn wait(app: &App) {
    let deadline = hal::clock::monotonic_ns() + 20_000_000_000;
    while app.alive.load(Ordering::SeqCst) > 0 {
        assert!(hal::clock::monotonic_ns() < deadline, "an app does not end");
        thread::park(Some(deadline));
    }
}

fn exit(app: &App) -> ! {
    let parent = app.parent.clone();
    if app.alive.fetch_sub(1, Ordering::SeqCst) == 1 {
        parent.unpark();
    }
    drop(parent);
    thread::exit()
}

/// The trap hook.
pub fn trap(ctx: &mut UserContext, trap: Trap) {
    let me = thread::current();
    let Some(app) = me.data::<App>() else {
        panic!("a trap of no app: {trap:?}")
    };
    if trap != Trap::Syscall {
        if trap == Trap::Interrupt {
            app.interrupted
                .store(hal::clock::monotonic_ns(), Ordering::SeqCst);
            // The program spins until this changes.
            ctx.set_return(1);
        } else {
            app.traps.lock().push((trap, ctx.pc()));
            crate::native::skip_instruction(ctx, trap);
        }
        return;
    }
    let [a, b, ..] = ctx.syscall_args();
    let result = match ctx.syscall_number() {
        call::NOP => a as i64 + 1,
        call::REPORT => {
            app.reports.lock().push(a);
            0
        }
        call::EXIT => exit(app),
        call::FORK => fork(&me, app, ctx),
        call::THREAD => new_thread(&me, app, a, b),
        call::EXEC => exec(app, ctx, a),
        call::SET_TLS => {
            ctx.set_tls(a);
            0
        }
        call::LOST => {
            ctx.set_pc(crate::native::NOWHERE);
            0
        }
        call::RESIZE => resize(app, a).map_or_else(|e| -(e.0 as i64), |()| 0),
        _ => -38,
    };
    ctx.set_return(result);
}

fn fork(me: &ThreadRef, app: &App, ctx: &UserContext) -> i64 {
    let mut child = *ctx;
    child.set_return(0);
    child.end_syscall();
    let mut fp = Box::new(FpState::initial());
    user::save_fp(&mut fp);
    let cell = Box::leak(Box::new(Once::new()));
    app.alive.fetch_add(1, Ordering::SeqCst);
    let r = thread::spawn(
        "fork",
        me.data_arc::<App>().map(|a| a as _),
        NewSpace::Fork(cell),
        move || {
            let fp_here: FpState = (*fp).clone();
            drop(fp);
            user::enter(&child, Some(&fp_here));
        },
    );
    if r.is_err() {
        app.alive.fetch_sub(1, Ordering::SeqCst);
    }
    r.map_or_else(|e| -(e.0 as i64), |_| 1)
}

fn new_thread(me: &ThreadRef, app: &App, pc: u64, sp: u64) -> i64 {
    app.alive.fetch_add(1, Ordering::SeqCst);
    let r = thread::spawn(
        "thread",
        me.data_arc::<App>().map(|a| a as _),
        NewSpace::Shared,
        move || {
            user::enter(&UserContext::new(VirtAddr(pc), VirtAddr(sp)), None);
        },
    );
    if r.is_err() {
        app.alive.fetch_sub(1, Ordering::SeqCst);
    }
    r.map_or_else(|e| -(e.0 as i64), |_| 1)
}

/// Sets the length of the mapped file, which the first call makes.
fn resize(app: &App, len: u64) -> Result<(), Errno> {
    static MAPPED: Once<HostFile> = Once::new();
    if let Some(file) = MAPPED.get() {
        return host::truncate(file.handle(), len);
    }
    let file = host::mem_file(b"mapped")?;
    host::truncate(file.handle(), len)?;
    let space = app.space.lock().clone().ok_or(Errno::EINVAL)?;
    space.map_file(FILE, Prot::READ | Prot::WRITE, file.handle(), 0, true)?;
    MAPPED.call_once(|| file);
    Ok(())
}

fn exec(app: &App, ctx: &mut UserContext, pc: u64) -> i64 {
    let old = app.space.lock().clone();
    let Some(old) = old else { return -22 };
    match old.replace() {
        Ok(new) => {
            load(&new);
            *app.space.lock() = Some(new);
            let mut fresh = UserContext::new(VirtAddr(pc), VirtAddr(DATA.end - 64));
            crate::native::keep_call(ctx, &mut fresh);
            *ctx = fresh;
            0
        }
        Err(e) => -(e.0 as i64),
    }
}
