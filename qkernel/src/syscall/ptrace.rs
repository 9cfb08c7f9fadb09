//! `ptrace(2)`: the tracer's requests.

use super::Support::Partial;
use super::process::may_inspect;
use super::{Args, Ctx, SysResult};
use crate::mm::remote;
use crate::rows;
use crate::signal::info::code;
use crate::signal::{SigInfo, SigSet, signo};
use crate::task::process::StopState;
use crate::task::task::work;
use crate::task::{Task, table};
use crate::trace::{Kind, Resume, Stop, event, option, tracer};
use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use hal::FpState;
use hal::native::ptrace as native;
use hal::user::{UserPtr, copy_in, copy_out};
use qlib::Errno;

#[allow(missing_docs)]
mod request {
    pub const TRACEME: u32 = 0;
    pub const PEEKTEXT: u32 = 1;
    pub const PEEKDATA: u32 = 2;
    pub const PEEKUSER: u32 = 3;
    pub const POKETEXT: u32 = 4;
    pub const POKEDATA: u32 = 5;
    pub const POKEUSER: u32 = 6;
    pub const CONT: u32 = 7;
    pub const KILL: u32 = 8;
    pub const SINGLESTEP: u32 = 9;
    pub const GETREGS: u32 = 12;
    pub const SETREGS: u32 = 13;
    pub const GETFPREGS: u32 = 14;
    pub const SETFPREGS: u32 = 15;
    pub const ATTACH: u32 = 16;
    pub const DETACH: u32 = 17;
    pub const SYSCALL: u32 = 24;
    pub const SETOPTIONS: u32 = 0x4200;
    pub const GETEVENTMSG: u32 = 0x4201;
    pub const GETSIGINFO: u32 = 0x4202;
    pub const SETSIGINFO: u32 = 0x4203;
    pub const GETREGSET: u32 = 0x4204;
    pub const SETREGSET: u32 = 0x4205;
    pub const SEIZE: u32 = 0x4206;
    pub const INTERRUPT: u32 = 0x4207;
    pub const LISTEN: u32 = 0x4208;
    pub const GETSIGMASK: u32 = 0x420a;
    pub const SETSIGMASK: u32 = 0x420b;
    pub const GET_SYSCALL_INFO: u32 = 0x420e;
}

/// NT_PRSTATUS, NT_PRFPREG.
const NT_PRSTATUS: u32 = 1;
const NT_PRFPREG: u32 = 2;

fn sys_ptrace(ctx: &mut Ctx<'_>, a: Args) -> SysResult {
    use request::*;
    let (what, pid, addr, data) = (a.u32(0), a.i32(1), a.u64(2), a.u64(3));
    if what == TRACEME {
        return trace_me(ctx);
    }
    let task = u32::try_from(pid)
        .ok()
        .and_then(|n| table::task_in(ctx.task.pid_ns(), n))
        .ok_or(Errno::ESRCH)?;
    match what {
        ATTACH => return attach(ctx, &task, false, 0),
        SEIZE if addr != 0 || data & !u64::from(option::ALL) != 0 => return Err(Errno::EIO),
        SEIZE => return attach(ctx, &task, true, data as u32),
        _ => {}
    }
    let mine = |w: &Weak<crate::task::Process>| core::ptr::eq(w.as_ptr(), Arc::as_ptr(&ctx.task.process));
    if !task.trace.lock().tracer.as_ref().is_some_and(mine) {
        return Err(Errno::ESRCH);
    }
    match what {
        KILL => {
            crate::signal::send::kill_group(&task.process, signo::SIGKILL as i32);
            return Ok(0);
        }
        INTERRUPT => return interrupt(&task),
        _ => {}
    }
    // Everything else needs the task stopped.
    if task.trace.lock().stop.as_ref().is_none_or(|s| s.listening) {
        return Err(Errno::ESRCH);
    }
    match what {
        PEEKTEXT | PEEKDATA => peek(&task, addr, data),
        POKETEXT | POKEDATA => {
            remote::write(&task, addr, &data.to_le_bytes(), true).map_err(|_| Errno::EIO)?;
            Ok(0)
        }
        PEEKUSER => peek_user(&task, addr, data),
        POKEUSER => poke_user(&task, addr, data),
        CONT | SYSCALL | SINGLESTEP => go_on(&task, what, data),
        DETACH => {
            check_signal(data)?;
            tracer::unlink(&task, data as u32);
            Ok(0)
        }
        GETREGS | GETFPREGS | SETREGS | SETFPREGS if !native::HAS_GETREGS => Err(Errno::EIO),
        GETREGS => {
            copy_out(data, &get_set(&task, NT_PRSTATUS)?)?;
            Ok(0)
        }
        SETREGS => {
            let mut b = [0u8; native::REGS * 8];
            copy_in(&mut b, data)?;
            set_set(&task, NT_PRSTATUS, b.to_vec())
        }
        GETFPREGS => {
            copy_out(data, &get_set(&task, NT_PRFPREG)?)?;
            Ok(0)
        }
        SETFPREGS => {
            let mut b = alloc::vec![0u8; 512];
            copy_in(&mut b, data)?;
            set_set(&task, NT_PRFPREG, b)
        }
        GETREGSET | SETREGSET => regset(&task, addr as u32, data, what == SETREGSET),
        SETOPTIONS if data & !u64::from(option::ALL) != 0 => Err(Errno::EINVAL),
        SETOPTIONS => {
            task.trace.lock().options = data as u32;
            Ok(0)
        }
        GETEVENTMSG => {
            let message = task.trace.lock().message;
            UserPtr::new(data).write(&message)?;
            Ok(0)
        }
        GETSIGINFO => {
            let info = with_stop(&task, |s| s.info)?;
            copy_out(data, &info.to_bytes())?;
            Ok(0)
        }
        SETSIGINFO => {
            let mut b = [0u8; 128];
            copy_in(&mut b, data)?;
            let info = SigInfo::from_bytes(u32::from_le_bytes([b[0], b[1], b[2], b[3]]), &b);
            with_stop(&task, |s| s.info = info)?;
            task.trace.lock().last_info = Some(info);
            Ok(0)
        }
        GETSIGMASK if addr == 8 => {
            let mask = task.signals.lock().blocked.0;
            UserPtr::new(data).write(&mask)?;
            Ok(0)
        }
        SETSIGMASK if addr == 8 => {
            let mask = UserPtr::<u64>::new(data).read()?;
            crate::signal::deliver::set_mask(&task, SigSet(mask));
            Ok(0)
        }
        GETSIGMASK | SETSIGMASK => Err(Errno::EINVAL),
        LISTEN => listen(&task),
        GET_SYSCALL_INFO => syscall_info(&task, addr, data),
        _ => Err(Errno::EIO),
    }
}

fn with_stop<T>(task: &Task, f: impl FnOnce(&mut Stop) -> T) -> SysResult<T> {
    task.trace.lock().stop.as_mut().map(f).ok_or(Errno::ESRCH)
}

fn trace_me(ctx: &Ctx<'_>) -> SysResult {
    if ctx.task.traced() {
        return Err(Errno::EPERM);
    }
    let parent = ctx
        .task
        .process
        .family
        .lock()
        .parent
        .as_ref()
        .and_then(Weak::upgrade);
    let parent = parent.ok_or(Errno::EPERM)?;
    tracer::link(&parent, ctx.task, false, 0);
    Ok(0)
}

fn attach(ctx: &Ctx<'_>, task: &Arc<Task>, seize: bool, options: u32) -> SysResult {
    if Arc::ptr_eq(&task.process, &ctx.task.process) || !may_inspect(ctx, task) || task.traced() {
        return Err(Errno::EPERM);
    }
    if task.exited.load(Ordering::SeqCst) || task.process.zombie.load(Ordering::SeqCst) {
        return Err(Errno::EPERM);
    }
    tracer::link(&ctx.task.process, task, seize, options);
    if !seize {
        let info = SigInfo::user(
            signo::SIGSTOP,
            code::SI_USER,
            ctx.task.process.pid,
            ctx.task.creds().uid,
        );
        crate::signal::send::to_task(task, info);
    }
    // A stopped process looks again, and finds that it is traced now.
    task.process.signal_wait.wake_all();
    Ok(0)
}

fn interrupt(task: &Arc<Task>) -> SysResult {
    {
        let mut t = task.trace.lock();
        if !t.seized {
            return Err(Errno::EIO);
        }
        match &mut t.stop {
            // A task that is only listening reports anew.
            Some(s) if s.listening => {
                s.listening = false;
                s.told = false;
            }
            Some(_) => {}
            None => t.interrupt = true,
        }
    }
    task.notify(work::TRACE);
    if let Some(p) = crate::trace::tracer_of(task) {
        p.child_wait.wake_all();
    }
    Ok(0)
}

/// A stopped process's task stays stopped without a tracer at work, until the stop ends.
fn listen(task: &Arc<Task>) -> SysResult {
    let seized = task.trace.lock().seized;
    let good = with_stop(task, |s| {
        s.listening = seized && s.code >> 8 == event::STOP;
        s.listening
    })?;
    if !good {
        return Err(Errno::EIO);
    }
    // The stop may have ended between its report and now: then the next report is due.
    if task.process.stop.lock().0 == StopState::Running {
        tracer::continued(&task.process);
    }
    Ok(0)
}

fn check_signal(sig: u64) -> SysResult<()> {
    if sig <= u64::from(signo::MAX) {
        Ok(())
    } else {
        Err(Errno::EIO)
    }
}

fn go_on(task: &Arc<Task>, what: u32, sig: u64) -> SysResult {
    check_signal(sig)?;
    let step = what == request::SINGLESTEP;
    if step && !native::set_single_step(&mut hal::UserContext::default(), true) {
        return Err(Errno::EIO);
    }
    if sig == u64::from(signo::SIGKILL) {
        crate::signal::send::kill_group(&task.process, signo::SIGKILL as i32);
    }
    tracer::resume(
        task,
        Resume {
            syscalls: what == request::SYSCALL,
            step,
            signal: sig as u32,
        },
    );
    Ok(0)
}

fn peek(task: &Arc<Task>, addr: u64, data: u64) -> SysResult {
    let got = remote::read(task, addr, 8).map_err(|_| Errno::EIO)?;
    if got.len() < 8 {
        return Err(Errno::EIO);
    }
    copy_out(data, &got)?;
    Ok(0)
}

fn peek_user(task: &Task, offset: u64, data: u64) -> SysResult {
    if !native::in_user(offset) {
        return Err(Errno::EIO);
    }
    let word = with_stop(task, |s| native::user_word(&s.regs, offset))?;
    UserPtr::new(data).write(&word)?;
    Ok(0)
}

fn poke_user(task: &Task, offset: u64, value: u64) -> SysResult {
    if !native::in_user(offset) {
        return Err(Errno::EIO);
    }
    let limit = hal::aspace::user_range().end;
    with_stop(task, |s| {
        let mut regs = native::regs(&s.regs);
        match regs.get_mut(offset as usize / 8) {
            Some(r) => {
                *r = value;
                native::set_regs(&mut s.regs, &regs, limit);
                Ok(0)
            }
            // Clearing what is clear already; there are no hardware breakpoints.
            None if value == 0 => Ok(0),
            None => Err(Errno::EINVAL),
        }
    })?
}

/// The bytes of a register set.
fn get_set(task: &Arc<Task>, note: u32) -> SysResult<Vec<u8>> {
    if note == NT_PRSTATUS {
        let regs = with_stop(task, |s| native::regs(&s.regs))?;
        return Ok(regs.iter().flat_map(|r| r.to_le_bytes()).collect());
    }
    if let Some(v) = with_stop(task, |s| native::other_set(note, &s.regs))? {
        let width = if note == 0x404 { 4 } else { 8 };
        return Ok(v.to_le_bytes()[..width].to_vec());
    }
    let bytes = remote::ask(task, move || {
        let mut fp = Box::new(FpState::initial());
        hal::user::save_fp(&mut fp);
        native::show_fp(&mut fp);
        native::fp_bytes(note, &fp)
    })?;
    bytes.ok_or(Errno::EINVAL)
}

fn set_set(task: &Arc<Task>, note: u32, bytes: Vec<u8>) -> SysResult {
    if !bytes.len().is_multiple_of(4) {
        return Err(Errno::EINVAL);
    }
    if note == NT_PRSTATUS {
        let limit = hal::aspace::user_range().end;
        with_stop(task, |s| {
            let mut regs = native::regs(&s.regs);
            for (r, b) in regs.iter_mut().zip(bytes.as_chunks::<8>().0) {
                *r = u64::from_le_bytes(*b);
            }
            native::set_regs(&mut s.regs, &regs, limit);
        })?;
        return Ok(0);
    }
    let mut word = [0u8; 8];
    let n = bytes.len().min(8);
    word[..n].copy_from_slice(&bytes[..n]);
    if with_stop(task, |s| {
        native::set_other(note, &mut s.regs, u64::from_le_bytes(word))
    })? {
        return Ok(0);
    }
    let done = remote::ask(task, move || {
        let mut fp = Box::new(FpState::initial());
        hal::user::save_fp(&mut fp);
        let good = native::set_fp_bytes(note, &mut fp, &bytes);
        if good {
            hal::user::restore_fp(&fp);
        }
        good
    })?;
    if done { Ok(0) } else { Err(Errno::EINVAL) }
}

/// `data` is a `struct iovec`, whose length becomes what was moved.
fn regset(task: &Arc<Task>, note: u32, data: u64, set: bool) -> SysResult {
    let iov = UserPtr::<u64>::new(data);
    let (base, len) = (iov.read()?, iov.at(1).read()?);
    let whole = get_set(task, note)?;
    let n = whole.len().min(len as usize);
    if set {
        let mut bytes = alloc::vec![0u8; n];
        copy_in(&mut bytes, base)?;
        set_set(task, note, bytes)?;
    } else {
        copy_out(base, &whole[..n])?;
    }
    iov.at(1).write(&(n as u64))?;
    Ok(0)
}

/// `struct ptrace_syscall_info`; returns the bytes there are.
fn syscall_info(task: &Task, room: u64, data: u64) -> SysResult {
    let message = task.trace.lock().message;
    let bytes = with_stop(task, |s| {
        let mut b: Vec<u8> = Vec::with_capacity(88);
        let op = match s.kind {
            Kind::Entry => 1u32,
            Kind::Exit => 2,
            Kind::Seccomp => 3,
            _ => 0,
        };
        b.extend_from_slice(&op.to_le_bytes());
        b.extend_from_slice(&hal::native::AUDIT_ARCH.to_le_bytes());
        b.extend_from_slice(&s.regs.pc().to_le_bytes());
        b.extend_from_slice(&s.regs.sp().to_le_bytes());
        match s.kind {
            Kind::Entry | Kind::Seccomp => {
                b.extend_from_slice(&s.call.0.to_le_bytes());
                for arg in s.call.1 {
                    b.extend_from_slice(&arg.to_le_bytes());
                }
                if s.kind == Kind::Seccomp {
                    b.extend_from_slice(&message.to_le_bytes());
                }
            }
            Kind::Exit => {
                let value = s.regs.return_value();
                b.extend_from_slice(&value.to_le_bytes());
                b.push(u8::from((-4095..0).contains(&value)));
            }
            _ => {}
        }
        b
    })?;
    copy_out(data, &bytes[..bytes.len().min(room as usize)])?;
    Ok(bytes.len() as u64)
}

rows! {
    ptrace: Partial("no PTRACE_SYSEMU, no hardware breakpoints, no PTRACE_PEEKSIGINFO; PTRACE_SINGLESTEP on x86_64 only; a tracer is a process, any of its threads may ask"), sys_ptrace;
}
