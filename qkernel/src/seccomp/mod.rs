//! Seccomp of apps: a task's mode and filters. Source: `seccomp(2)`.

pub mod bpf;
pub mod filter;

use crate::signal::info::{Fields, code};
use crate::signal::send::kill_group;
use crate::signal::{SigInfo, signo};
use crate::syscall::Ctx;
use crate::task::Task;
use crate::task::task::{entry, work};
use alloc::sync::Arc;
use core::sync::atomic::Ordering;
use filter::{Chain, Filter};
use hal::Sysno;
use hal::sync::SpinLock;
use qlib::Errno;

/// Return values of filters.
#[allow(missing_docs)]
pub mod ret {
    pub const KILL_PROCESS: u32 = 0x8000_0000;
    pub const KILL_THREAD: u32 = 0;
    pub const TRAP: u32 = 0x0003_0000;
    pub const ERRNO: u32 = 0x0005_0000;
    pub const USER_NOTIF: u32 = 0x7fc0_0000;
    pub const TRACE: u32 = 0x7ff0_0000;
    pub const LOG: u32 = 0x7ffc_0000;
    pub const ALLOW: u32 = 0x7fff_0000;
    pub const ACTION: u32 = 0xffff_0000;
    pub const DATA: u32 = 0xffff;
}

/// Largest error number a filter can return.
const MAX_ERRNO: u32 = 4095;
/// Most instructions of all filters of a task, each filter counted with [`PENALTY`] more.
const MAX_TOTAL: usize = 32768;
const PENALTY: usize = 4;

/// What confines a task.
#[derive(Clone, Default)]
pub enum Mode {
    /// Nothing.
    #[default]
    Off,
    /// Only read, write, exit and rt_sigreturn.
    Strict,
    /// Filters.
    Filter(Arc<Chain>),
}

impl Mode {
    /// The number `PR_GET_SECCOMP` and `/proc` give.
    pub fn number(&self) -> u32 {
        match self {
            Mode::Off => 0,
            Mode::Strict => 1,
            Mode::Filter(_) => 2,
        }
    }
    /// How many filters there are.
    pub fn filters(&self) -> usize {
        match self {
            Mode::Filter(c) => c.len(),
            _ => 0,
        }
    }
}

/// Serialises changes of modes: a thread group that takes a filter together must not gain a member meanwhile.
/// Lock order: before the task list of a process and the task's own locks.
static CHANGE: SpinLock<()> = SpinLock::new(());

/// Puts a mode into force.
pub fn set(task: &Task, mode: Mode) {
    let on = !matches!(mode, Mode::Off);
    *task.seccomp.lock() = mode;
    if on {
        task.entry.fetch_or(entry::SECCOMP, Ordering::SeqCst);
    }
}

/// Gives a new task, which is published but does not run yet, the mode of its creator.
pub fn inherit(parent: &Task, child: &Task) {
    let _change = CHANGE.lock();
    let mode = parent.seccomp.lock().clone();
    // Another thread may have given the child a filter already, together with the whole group.
    if child.seccomp.lock().filters() <= mode.filters() {
        set(child, mode);
    }
}

/// Whether the call may go on; otherwise its result is in the registers, or the task ends.
pub fn check(ctx: &mut Ctx<'_>) -> bool {
    filtered(ctx, false)
}

/// `traced`: the tracer has seen the call already, and may have made it another one.
fn filtered(ctx: &mut Ctx<'_>, traced: bool) -> bool {
    let number = ctx.regs.syscall_number();
    let chain = match &*ctx.task.seccomp.lock() {
        Mode::Off => return true,
        Mode::Strict => return strict(ctx, number),
        Mode::Filter(chain) if chain.always_allows(number) => return true,
        Mode::Filter(chain) => chain.clone(),
    };
    let data = filter::data(number, ctx.regs.pc(), ctx.regs.syscall_args());
    act(ctx, number, chain.verdict(&data), traced)
}

fn strict(ctx: &Ctx<'_>, number: u64) -> bool {
    let allowed = matches!(
        hal::native::sysno(number),
        Some(Sysno::read | Sysno::write | Sysno::exit | Sysno::rt_sigreturn)
    );
    if !allowed {
        end_thread(ctx.task, signo::SIGKILL);
    }
    allowed
}

/// Ends the calling thread, and with the last thread the process, by `sig`.
fn end_thread(task: &Task, sig: u32) {
    task.exit_status.store(sig as i32, Ordering::Relaxed);
    task.work.fetch_or(work::KILL, Ordering::SeqCst);
}

fn act(ctx: &mut Ctx<'_>, number: u64, verdict: u32, traced: bool) -> bool {
    let data = verdict & ret::DATA;
    match verdict & ret::ACTION {
        ret::ALLOW => true,
        ret::LOG => {
            log_call(ctx.task, number, "allowed");
            true
        }
        ret::ERRNO => {
            ctx.regs.set_return(-i64::from(data.min(MAX_ERRNO)));
            false
        }
        ret::TRAP => {
            let info = SigInfo {
                signo: signo::SIGSYS,
                errno: data as i32,
                code: code::SYS_SECCOMP,
                fields: Fields::Syscall {
                    addr: ctx.regs.pc(),
                    number: number as i32,
                    arch: hal::native::AUDIT_ARCH,
                },
            };
            // The handler sees the registers of the call.
            ctx.regs.rollback_syscall();
            ctx.regs.end_syscall();
            crate::signal::send::force(ctx.task, info);
            false
        }
        ret::TRACE if traced => true,
        ret::TRACE => match crate::trace::seccomp_stop(ctx, data) {
            Some(goes_on) => goes_on && filtered(ctx, true),
            None => {
                ctx.regs.set_return(-i64::from(Errno::ENOSYS.0));
                false
            }
        },
        ret::USER_NOTIF => {
            // Nobody can listen: listeners are refused when a filter is installed.
            ctx.regs.set_return(-i64::from(Errno::ENOSYS.0));
            false
        }
        ret::KILL_THREAD => {
            log_call(ctx.task, number, "thread killed");
            let last = ctx.task.process.tasks.lock().len() == 1;
            if last {
                kill_group(&ctx.task.process, signo::SIGSYS as i32);
            } else {
                end_thread(ctx.task, signo::SIGSYS);
            }
            false
        }
        _ => {
            log_call(ctx.task, number, "process killed");
            kill_group(&ctx.task.process, signo::SIGSYS as i32);
            false
        }
    }
}

fn log_call(task: &Task, number: u64, what: &str) {
    let name = hal::native::sysno(number).map_or("?", Sysno::name);
    log::info!("seccomp: pid {} call {number} ({name}): {what}", task.process.pid);
}

/// Enters strict mode.
///
/// # Errors
/// EINVAL when filters are in force.
pub fn enter_strict(task: &Task) -> Result<(), Errno> {
    let _change = CHANGE.lock();
    if matches!(&*task.seccomp.lock(), Mode::Filter(_)) {
        return Err(Errno::EINVAL);
    }
    set(task, Mode::Strict);
    Ok(())
}

/// Why a filter was not added.
pub enum Refusal {
    /// As `seccomp(2)`.
    Error(Errno),
    /// This thread cannot take it.
    Thread(u32),
}

/// Adds a filter to the calling task, or to all threads of its process.
///
/// # Errors
/// EINVAL in strict mode; ENOMEM when there are too many; the thread that has filters of its own.
pub fn add(task: &Arc<Task>, filter: Filter, whole_process: bool) -> Result<(), Refusal> {
    let _change = CHANGE.lock();
    let old = match &*task.seccomp.lock() {
        Mode::Strict => return Err(Refusal::Error(Errno::EINVAL)),
        Mode::Off => None,
        Mode::Filter(c) => Some(c.clone()),
    };
    let total = old.as_ref().map_or(0, |c| c.total()) + filter.len() + PENALTY;
    if total > MAX_TOTAL {
        return Err(Refusal::Error(Errno::ENOMEM));
    }
    let chain = Arc::new(Chain::with(old.as_deref(), filter));
    if whole_process {
        let others = task.process.tasks.lock().clone();
        for t in &others {
            let fits = match &*t.seccomp.lock() {
                Mode::Off => true,
                Mode::Strict => false,
                Mode::Filter(c) => old.as_ref().is_some_and(|o| o.begins_with(c)),
            };
            if !fits {
                return Err(Refusal::Thread(t.own_tid()));
            }
        }
        let bound = task.creds().no_new_privs;
        for t in others.iter().filter(|t| !Arc::ptr_eq(t, task)) {
            if bound {
                let mut creds = t.creds.lock();
                let mut c = (**creds).clone();
                c.no_new_privs = true;
                *creds = Arc::new(c);
            }
            set(t, Mode::Filter(chain.clone()));
        }
    }
    set(task, Mode::Filter(chain));
    Ok(())
}
