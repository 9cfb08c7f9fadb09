//! execve. Source: `execve(2)`.

use super::elf::Image;
use super::privileges::{self, Privileges};
use super::stack::{self, Initial};
use crate::fs;
use crate::fs::file::File;
use crate::fs::mount_flags::NOEXEC;
use crate::fs::path::Path;
use crate::mm::Mm;
use crate::mm::ops::{Backing, MapRequest, Place};
use crate::mm::vma::Label;
use crate::signal::{SIG_IGN, SigAction, signo};
use crate::task::process::SigHandlers;
use crate::task::{Task, exit};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use hal::aspace::{Prot, reserved, user_range};
use hal::sync::SpinLock;
use hal::{FpState, UserContext, VirtAddr};
use qlib::{Errno, PAGE_SIZE};

/// Most interpreters of interpreters (`#!`).
const MAX_SCRIPTS: usize = 4;
/// Longest `#!` line (`BINPRM_BUF_SIZE`).
const SCRIPT_LINE: usize = 256;
/// Most bytes of one argument string (`MAX_ARG_STRLEN`).
pub const MAX_STRING: usize = 32 * PAGE_SIZE as usize;
/// RLIMIT_STACK.
const RLIMIT_STACK: usize = 3;
/// Bounds of the stack area, bytes.
const STACK_MIN: u64 = 1 << 20;
const STACK_MAX: u64 = 1 << 30;
const STACK_DEFAULT: u64 = 8 << 20;

/// A program found and checked, before anything of the caller is given up.
pub struct Program {
    image: Image,
    interpreter: Option<Image>,
    file: Arc<File>,
    args: Vec<Vec<u8>>,
    env: Vec<Vec<u8>>,
    path: Vec<u8>,
    privileges: Privileges,
}

/// Finds the program behind `path`, through `#!` lines, and checks that it can run.
///
/// # Errors
/// As `execve(2)`.
pub fn prepare(
    task: &Task,
    file: Arc<File>,
    path: &[u8],
    args: Vec<Vec<u8>>,
    env: Vec<Vec<u8>>,
) -> Result<Program, Errno> {
    let mut args = args;
    let mut file = file;
    let mut path_now = path.to_vec();
    for _ in 0..=MAX_SCRIPTS {
        check_executable(task, &file)?;
        let Some((interpreter, argument)) = script_line(&file)? else {
            let image = Image::parse(file.clone())?;
            let interpreter = match &image.interpreter {
                Some(p) => Some(open_interpreter(task, p)?),
                None => None,
            };
            let privileges = privileges::after_exec(task, &file)?;
            return Ok(Program {
                image,
                interpreter,
                file,
                args,
                env,
                path: path.to_vec(),
                privileges,
            });
        };
        let mut new_args = Vec::with_capacity(args.len() + 2);
        new_args.push(interpreter.clone());
        new_args.extend(argument);
        new_args.push(path_now);
        new_args.extend(args.into_iter().skip(1));
        args = new_args;
        file = fs::open_exec(task, &interpreter)?;
        path_now = interpreter;
    }
    Err(Errno::ELOOP)
}

fn open_interpreter(task: &Task, path: &[u8]) -> Result<Image, Errno> {
    let file = fs::open_exec(task, path)?;
    // As with Linux only the program itself stays protected from writers.
    file.set_text_use(None);
    check_executable(task, &file)?;
    // A wrong interpreter is reported as such, not as "exec format error".
    Image::parse(file).map_err(|e| if e == Errno::ENOEXEC { Errno(80) } else { e })
}

fn check_executable(task: &Task, file: &File) -> Result<(), Errno> {
    let stat = file.ops().stat(file)?;
    let flags = file.path().map_or(0, Path::mount_flags);
    let regular = fs::FileType::from_mode(stat.mode) == fs::FileType::Regular;
    if !regular || flags & NOEXEC != 0 || !task.creds().may_access(stat.mode, stat.uid, stat.gid, 1) {
        return Err(Errno::EACCES);
    }
    Ok(())
}

/// Parses `#! interpreter [argument]`.
fn script_line(file: &File) -> Result<Option<(Vec<u8>, Option<Vec<u8>>)>, Errno> {
    let mut head = [0u8; SCRIPT_LINE];
    let n = file.read_kernel(&mut head, 0)?;
    let head = &head[..n];
    if !head.starts_with(b"#!") {
        return Ok(None);
    }
    let end = head.iter().position(|b| *b == b'\n' || *b == 0).unwrap_or(n);
    let line = head[2..end].trim_ascii();
    if line.is_empty() || end == SCRIPT_LINE && !line.contains(&b' ') && !line.contains(&b'\t') {
        return Err(Errno::ENOEXEC);
    }
    let split = line
        .iter()
        .position(|b| *b == b' ' || *b == b'\t')
        .unwrap_or(line.len());
    let argument = line[split..].trim_ascii();
    Ok(Some((
        line[..split].to_vec(),
        (!argument.is_empty()).then(|| argument.to_vec()),
    )))
}

/// A number of pages below `2^bits`, as bytes.
fn random_pages(bits: u32) -> u64 {
    let mut b = [0u8; 8];
    hal::clock::random(&mut b);
    (u64::from_le_bytes(b) & ((1 << bits) - 1)) * PAGE_SIZE
}

/// Replaces the calling task's program. Past the point of no return an error kills the task.
///
/// # Errors
/// Those before the point of no return, as `execve(2)`.
pub fn run(task: &Arc<Task>, regs: &mut UserContext, program: Program) -> Result<(), Errno> {
    let total: usize = program.args.iter().chain(&program.env).map(|s| s.len() + 9).sum();
    let limit = task.process.rlimits.lock()[RLIMIT_STACK].0;
    let stack_len = if limit == u64::MAX {
        STACK_DEFAULT
    } else {
        limit.clamp(STACK_MIN, STACK_MAX)
    };
    let stack_len = stack_len & !(PAGE_SIZE - 1);
    if total as u64 > (stack_len / 4).max(128 << 10) {
        return Err(Errno::E2BIG);
    }
    exit::kill_other_tasks(task)?;
    // From here on there is no way back.
    match replace(task, regs, program, stack_len) {
        Ok(()) => Ok(()),
        Err(e) => {
            log::warn!(
                "pid {}: exec failed past the point of no return: {e}",
                task.process.pid
            );
            crate::signal::send::kill_group(&task.process, signo::SIGKILL as i32);
            Err(e)
        }
    }
}

fn replace(task: &Arc<Task>, regs: &mut UserContext, program: Program, stack_len: u64) -> Result<(), Errno> {
    let old_mm = task.mm.lock().clone().ok_or(Errno::ESRCH)?;
    crate::ipc::futex::exit_task(task);
    exit::clear_tid(task);
    let space = old_mm.space.replace()?;
    let mm = Mm::new(space, program.privileges.creds.clone());
    *task.mm.lock() = Some(mm.clone());
    drop(old_mm);
    task.end_vfork();

    let top = user_range().end - random_pages(22);
    let stack_at = {
        let mut vmas = mm.vmas.lock();
        vmas.find_free(stack_len, PAGE_SIZE * 16, top, reserved())
            .ok_or(Errno::ENOMEM)?
    };
    let stack_top = stack_at + stack_len;
    mm.layout.lock().mmap_base = stack_at - (1 << 20) - random_pages(16);
    let stack_area = MapRequest {
        place: Place::Fixed(stack_at),
        len: stack_len,
        prot: Prot::READ | Prot::WRITE,
        label: Label::Stack,
        grows_down: true,
        locked: false,
        limit: u64::MAX,
    };
    mm.map(&stack_area, Backing::Anonymous)?;

    // Position-independent programs go to two thirds of the address space, as Linux places them.
    let base = program
        .image
        .is_dynamic()
        .then(|| user_range().end / 3 * 2 + random_pages(20));
    let mapped = program.image.map(&mm, base)?;
    let mut entry = mapped.entry;
    let mut interpreter_base = 0;
    if let Some(image) = &program.interpreter {
        let at = image.map(&mm, None)?;
        entry = at.entry;
        interpreter_base = at.bias;
    }
    {
        let mut l = mm.layout.lock();
        (l.start_code, l.end_code) = mapped.code;
        (l.start_data, l.end_data) = mapped.data;
        l.start_brk = ((mapped.end + PAGE_SIZE - 1) & !(PAGE_SIZE - 1)) + random_pages(13);
        l.brk = l.start_brk;
    }
    let init = Initial {
        args: &program.args,
        env: &program.env,
        path: &program.path,
        program: mapped,
        interpreter_base,
        creds: &program.privileges.creds,
        secure: program.privileges.secure,
        vdso: crate::mm::vdso::map(&mm)?,
    };
    let sp = stack::build(&mm, stack_top, stack_len, &init)?;
    let layout = mm.layout.lock().shown();
    mm.space.show_layout(&layout);
    forget_old_program(task, &program);
    *regs = UserContext::new(VirtAddr(entry), VirtAddr(sp));
    hal::user::restore_fp(&FpState::initial());
    Ok(())
}

/// Resets what does not survive execve.
fn forget_old_program(task: &Arc<Task>, program: &Program) {
    let p = &task.process;
    // The signals asked for at the ends of this process and its children were for other programs.
    p.exit_signal.store(signo::SIGCHLD, Ordering::Relaxed);
    for child in &p.family.lock().children {
        child.parent_execed.store(true, Ordering::Relaxed);
    }
    let old = p.handlers.lock().clone();
    let mut actions = *old.actions.lock();
    for a in &mut actions {
        let ignored = a.handler == SIG_IGN;
        *a = SigAction {
            handler: if ignored { SIG_IGN } else { 0 },
            ..SigAction::default()
        };
    }
    *p.handlers.lock() = Arc::new(SigHandlers {
        actions: SpinLock::new(actions),
    });
    {
        let mut s = task.signals.lock();
        s.alt_stack = (0, 0, 0);
        s.saved = None;
    }
    // The descriptor table is the task's own after exec.
    let files = task.files();
    let own = if Arc::strong_count(&files) > 2 {
        files.copy()
    } else {
        files
    };
    for f in own.close_for_exec() {
        fs::fdtable::close(f);
    }
    *task.files.lock() = own;
    let new = &program.privileges;
    if new.secure || new.creds.gains_over(&task.creds()) {
        task.death_signal.store(0, Ordering::Relaxed);
    }
    *task.creds.lock() = new.creds.clone();
    task.robust_list.store(0, Ordering::Relaxed);
    task.clear_tid.store(0, Ordering::Relaxed);
    *task.restart.lock() = None;
    let name = program
        .path
        .rsplit(|b| *b == b'/')
        .next()
        .unwrap_or(&program.path);
    task.set_name(name);
    *p.exe.lock() = program.file.path().cloned();
    p.did_exec.store(true, Ordering::Relaxed);
    p.dumpable.store(u32::from(new.dumpable), Ordering::Relaxed);
    crate::time::timers::forget(p);
}
