//! `ioctl` of terminals. Source: `ioctl_tty(2)`, `ioctl_console(2)`.

use super::{Tty, WinSize, job};
use crate::fs::fdtable::FdTable;
use crate::fs::file::File;
use crate::sched::wait::{Events, wait_until};
use crate::signal::signo;
use crate::task::Task;
use crate::task::creds::cap;
use alloc::sync::Arc;
use hal::uapi::general::{self as g, termio, termios, termios2, winsize};
use hal::uapi::{Plain, ioctl as io};
use hal::user::UserPtr;
use qlib::Errno;

fn put<T: Plain>(arg: u64, v: T) -> Result<u64, Errno> {
    UserPtr::new(arg).write(&v).map(|()| 0)
}

fn get<T: Plain>(arg: u64) -> Result<T, Errno> {
    UserPtr::new(arg).read()
}

/// Requests at the app's side.
pub(super) fn slave(tty: &Arc<Tty>, task: &Arc<Task>, request: u32, arg: u64) -> Result<u64, Errno> {
    match request {
        io::TIOCGPGRP => put(arg, task.pid_ns().shown(job::foreground(tty, task)?) as i32),
        io::TIOCGSID => {
            job::foreground(tty, task)?;
            put(arg, job::session_id(tty)? as i32)
        }
        io::TIOCSCTTY => job::set_controlling(tty, task, arg == 1).map(|()| 0),
        io::TIOCNOTTY => job::give_up(tty, task).map(|()| 0),
        io::FIONREAD => {
            let i = tty.inner.lock();
            let n = i.ldisc.available(&i.termios);
            drop(i);
            put(arg, n as i32)
        }
        io::TIOCOUTQ => {
            // What a pty's other side got counts as sent; only the host's terminal can lag behind.
            let n = match tty.console {
                Some(_) => tty.inner.lock().output.len(),
                None => 0,
            };
            put(arg, n as i32)
        }
        _ => common(tty, task, request, arg, true),
    }
}

/// Requests at a pty's master.
pub(super) fn master(
    tty: &Arc<Tty>,
    file: &File,
    task: &Arc<Task>,
    request: u32,
    arg: u64,
) -> Result<u64, Errno> {
    let _ = file;
    match request {
        io::TIOCGPTN => put(arg, tty.index),
        io::TIOCSPTLCK => {
            let v: i32 = get(arg)?;
            tty.inner.lock().locked = v != 0;
            Ok(0)
        }
        io::TIOCGPTLCK => {
            let v = i32::from(tty.inner.lock().locked);
            put(arg, v)
        }
        io::TIOCPKT => {
            let v: i32 = get(arg)?;
            let mut i = tty.inner.lock();
            i.packet = v != 0;
            i.status = 0;
            Ok(0)
        }
        io::TIOCGPKT => {
            let v = i32::from(tty.inner.lock().packet);
            put(arg, v)
        }
        io::TIOCGPTPEER => {
            let flags = arg as u32;
            let ops = {
                let was = core::mem::replace(&mut tty.inner.lock().locked, false);
                let ops = super::open_slave(tty, flags, &task.creds());
                tty.inner.lock().locked = was;
                ops?
            };
            let peer = File::new(ops, None, flags & !(g::O_CLOEXEC | g::O_NOCTTY));
            let limit = task.process.rlimits.lock()[g::RLIMIT_NOFILE as usize].0;
            let files: Arc<FdTable> = task.files();
            let fd = files.insert(peer, flags & g::O_CLOEXEC != 0, 0, limit)?;
            Ok(fd.0 as u64)
        }
        io::TIOCSIG => {
            let sig = arg as u32;
            if sig == 0 || sig > signo::MAX {
                return Err(Errno::EINVAL);
            }
            job::signal_group(tty.foreground(), sig);
            Ok(0)
        }
        io::TIOCGPGRP => put(arg, task.pid_ns().shown(tty.foreground()) as i32),
        io::TIOCGSID => put(arg, job::session_id(tty)? as i32),
        io::FIONREAD => {
            let n = tty.inner.lock().output.len();
            put(arg, n as i32)
        }
        io::TIOCOUTQ => put(arg, 0i32),
        io::TCFLSH => {
            // Seen from the master, its input is the app's output.
            let (input, output) = queues(arg)?;
            flush(tty, output, input);
            Ok(0)
        }
        _ => common(tty, task, request, arg, false),
    }
}

/// TCFLSH's argument: whether input and output go.
fn queues(arg: u64) -> Result<(bool, bool), Errno> {
    match arg as u32 {
        g::TCIFLUSH => Ok((true, false)),
        g::TCOFLUSH => Ok((false, true)),
        g::TCIOFLUSH => Ok((true, true)),
        _ => Err(Errno::EINVAL),
    }
}

fn flush(tty: &Tty, input: bool, output: bool) {
    {
        let mut i = tty.inner.lock();
        if input {
            i.input.clear();
            i.ldisc.flush();
            i.say(g::TIOCPKT_FLUSHREAD);
        }
        if output {
            i.output.clear();
            i.held.clear();
            i.say(g::TIOCPKT_FLUSHWRITE);
        }
    }
    tty.wait.wake(Events::OUT | Events::WRNORM);
    tty.master_wait
        .wake(Events::OUT | Events::WRNORM | Events::PRI | Events::IN);
}

/// Waits until the host has taken all output; a pty's output counts as sent at once.
fn drain(tty: &Tty) -> Result<(), Errno> {
    if tty.console.is_none() {
        return Ok(());
    }
    let empty = || {
        let i = tty.inner.lock();
        (i.output.is_empty() || i.master_closed).then_some(())
    };
    wait_until(&tty.wait, Events::OUT | Events::WRNORM, None, empty).map_err(|_| Errno::ERESTARTSYS)
}

fn set_termios(
    tty: &Tty,
    request_drains: bool,
    request_flushes: bool,
    change: impl FnOnce(&super::termios::Termios) -> super::termios::Termios,
) -> Result<u64, Errno> {
    if request_drains {
        drain(tty)?;
    }
    if request_flushes {
        flush(tty, true, false);
    }
    let fx = {
        let mut i = tty.inner.lock();
        let old = i.termios;
        let mut new = change(&old);
        if new.line > 30 {
            return Err(Errno::EINVAL);
        }
        // Only N_TTY exists; TIOCSETD tells so.
        new.line = 0;
        i.termios = new;
        i.ldisc.settings_changed(&old, &new);
        let extproc = (old.lflag | new.lflag) & g::EXTPROC != 0;
        let flow = |t: &super::termios::Termios| {
            t.input(g::IXON) && t.cc(g::VSTOP) == 0x13 && t.cc(g::VSTART) == 0x11
        };
        if extproc {
            i.say(g::TIOCPKT_IOCTL);
        }
        if flow(&old) != flow(&new) {
            i.say(if flow(&new) {
                g::TIOCPKT_DOSTOP
            } else {
                g::TIOCPKT_NOSTOP
            });
        }
        i.process()
    };
    tty.apply(fx);
    // Whoever waits may see another mode now.
    tty.wait.wake_all();
    Ok(0)
}

/// Requests that mean the same at both sides. `check`: a background process is stopped first.
fn common(tty: &Arc<Tty>, task: &Arc<Task>, request: u32, arg: u64, check: bool) -> Result<u64, Errno> {
    let changes = matches!(
        request,
        io::TCSETS
            | io::TCSETSW
            | io::TCSETSF
            | io::TCSETA
            | io::TCSETAW
            | io::TCSETAF
            | io::TCSETS2
            | io::TCSETSW2
            | io::TCSETSF2
            | io::TCSBRK
            | io::TCSBRKP
            | io::TCXONC
            | io::TCFLSH
            | io::TIOCSETD
    );
    if changes && check {
        job::check(tty, signo::SIGTTOU)?;
    }
    match request {
        io::TCGETS => {
            let t = tty.inner.lock().termios.to_user();
            put(arg, t)
        }
        io::TCGETA => {
            let t = tty.inner.lock().termios.to_old_user();
            put(arg, t)
        }
        io::TCSETA | io::TCSETAW | io::TCSETAF => {
            let t: termio = get(arg)?;
            let f = request == io::TCSETAF;
            set_termios(tty, f || request == io::TCSETAW, f, |old| old.set_old_user(&t))
        }
        io::TCGETS2 => {
            let t = tty.inner.lock().termios.to_user2();
            put(arg, t)
        }
        io::TCSETS | io::TCSETSW | io::TCSETSF => {
            let t: termios = get(arg)?;
            let f = request == io::TCSETSF;
            set_termios(tty, f || request == io::TCSETSW, f, |old| old.set_user(&t))
        }
        io::TCSETS2 | io::TCSETSW2 | io::TCSETSF2 => {
            let t: termios2 = get(arg)?;
            let f = request == io::TCSETSF2;
            set_termios(tty, f || request == io::TCSETSW2, f, |old| old.set_user2(&t))
        }
        io::TIOCGWINSZ => {
            let s = tty.size();
            let mut w = winsize::zeroed();
            w.ws_row = s.rows;
            w.ws_col = s.cols;
            w.ws_xpixel = s.xpixel;
            w.ws_ypixel = s.ypixel;
            put(arg, w)
        }
        io::TIOCSWINSZ => {
            let w: winsize = get(arg)?;
            tty.set_size(WinSize {
                rows: w.ws_row,
                cols: w.ws_col,
                xpixel: w.ws_xpixel,
                ypixel: w.ws_ypixel,
            });
            Ok(0)
        }
        io::TIOCSPGRP => {
            let pgid: i32 = get(arg)?;
            job::set_foreground(tty, task, pgid).map(|()| 0)
        }
        io::TCFLSH => {
            let (input, output) = queues(arg)?;
            flush(tty, input, output);
            Ok(0)
        }
        io::TCXONC => flow(tty, arg as u32),
        io::TCSBRK | io::TCSBRKP => drain(tty).map(|()| 0),
        io::TIOCSBRK | io::TIOCCBRK => Ok(0),
        io::TIOCEXCL => {
            tty.inner.lock().exclusive = true;
            Ok(0)
        }
        io::TIOCNXCL => {
            tty.inner.lock().exclusive = false;
            Ok(0)
        }
        io::TIOCGEXCL => {
            let v = i32::from(tty.inner.lock().exclusive);
            put(arg, v)
        }
        io::TIOCGETD => put(arg, 0i32),
        io::TIOCSETD => match get::<i32>(arg)? {
            0 => Ok(0),
            _ => Err(Errno::EINVAL),
        },
        io::TIOCGDEV => put(arg, tty.rdev() as u32),
        io::TIOCVHANGUP => {
            if !task.creds().capable(cap::SYS_ADMIN) {
                return Err(Errno::EPERM);
            }
            tty.hang_up(false);
            Ok(0)
        }
        // Input of others cannot be faked: as with dev.tty.legacy_tiocsti = 0.
        io::TIOCSTI => Err(Errno::EIO),
        _ => Err(Errno::ENOTTY),
    }
}

/// TCXONC.
fn flow(tty: &Tty, action: u32) -> Result<u64, Errno> {
    let t = tty.inner.lock().termios;
    let to_terminal = |which| {
        let c = t.cc(which);
        if c != 0 {
            tty.inner.lock().output.push_back(c);
            tty.output_changed();
        }
    };
    match action {
        g::TCOOFF => {
            let mut i = tty.inner.lock();
            i.tco_stopped = true;
            i.say(g::TIOCPKT_STOP);
        }
        g::TCOON => {
            let fx = {
                let mut i = tty.inner.lock();
                i.tco_stopped = false;
                i.ldisc.stopped = false;
                i.say(g::TIOCPKT_START);
                i.process()
            };
            tty.apply(fx);
            tty.wait.wake(Events::OUT | Events::WRNORM);
        }
        g::TCIOFF => to_terminal(g::VSTOP),
        g::TCION => to_terminal(g::VSTART),
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}
