//! The control thread: QVisor's commands, and events for it.

mod start;

use crate::container::{self, Container};
use crate::fs::tty::WinSize;
use crate::signal::info::code;
use crate::signal::send::from_host;
use crate::signal::{SigInfo, signo};
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use hal::host::{self, MessageIn};
use hal::thread;
use qlib::Errno;
use qlib::control::{Command, ContainerId, Event, ExecId, ProcessEntry, ProcessSpec};
use qlib::qcall::HandleId;

pub use start::check_program;

/// Why a command failed: an error number and what went wrong, for a person.
pub struct Failure(pub Errno, pub String);

/// Sends an event of a container to QVisor; without QVisor the sandbox ends.
pub fn send(of: ContainerId, event: &Event) {
    if host::control_send(&event.encode(of)).is_err() {
        thread::power_off(1, "the control channel to QVisor is closed");
    }
}

/// Serves commands until QVisor closes the channel.
pub fn serve() {
    crate::net::tables::init();
    send(ContainerId::FIRST, &Event::Ready);
    loop {
        match host::control_recv() {
            Ok(message) => handle(message),
            Err(e) => {
                log::info!("control channel: {e}");
                thread::power_off(0, "QVisor closed the control channel");
            }
        }
    }
}

/// The first container's init ended: the guest stops.
pub fn init_ended(status: i32) {
    let code = match status & 0x7f {
        0 => status >> 8 & 0xff,
        sig => 128 + sig,
    };
    thread::power_off(code, "");
}

fn handle(message: MessageIn) {
    let (to, command) = match Command::decode(&message.bytes) {
        Ok(c) => c,
        Err(e) => {
            log::error!("undecodable control message: {e:?}");
            return;
        }
    };
    if let Command::Create(mut spec) = command {
        take_handles(&mut spec.process, &message);
        for m in &mut spec.mounts {
            m.handle = resolve(m.handle, &message);
        }
        spec.service = resolve(spec.service, &message);
        match container::create(to, spec) {
            Ok(container) => container.send(&Event::Created),
            Err(f) => fail(to, ExecId::INIT, f),
        }
        return;
    }
    let Some(container) = container::find(to) else {
        // Its end and a command for it have crossed.
        let gone = || Failure(Errno::ESRCH, String::from("the container is not running"));
        match command {
            Command::Start => fail(to, ExecId::INIT, gone()),
            Command::Exec(exec, _) => fail(to, exec, gone()),
            Command::End => send(to, &Event::Ended),
            _ => {}
        }
        return;
    };
    serve_one(&container, command, &message);
}

fn serve_one(c: &Arc<Container>, command: Command, message: &MessageIn) {
    match command {
        Command::Create(_) => {}
        Command::Start => start::init(c),
        Command::Exec(id, mut spec) => {
            take_handles(&mut spec, message);
            start::further(c, id, &spec);
        }
        Command::Signal { exec, signo, all } => signal(c, exec, signo, all),
        Command::Resize { exec, rows, cols } => resize(c, exec, rows, cols),
        Command::OutOfMemory => c.out_of_memory(),
        Command::Limits { memory, pids } => c.change_limits(memory, pids),
        Command::Processes => c.send(&Event::Processes(list(c))),
        Command::Metrics => c.send(&Event::Metrics(crate::metrics::all())),
        Command::End => c.end(),
        Command::Freeze(stop) => {
            c.freeze(stop);
            c.send(&Event::Frozen(stop));
        }
    }
}

fn fail(of: ContainerId, exec: ExecId, Failure(errno, message): Failure) {
    send(
        of,
        &Event::Failed {
            exec,
            errno: errno.0,
            message: message.into_bytes(),
        },
    );
}

/// The message's handles are indices on machines that pass descriptors along; QVisor's own ids otherwise.
fn resolve(h: HandleId, message: &MessageIn) -> HandleId {
    if message.handles.is_empty() || h == HandleId::NONE {
        return h;
    }
    usize::try_from(h.0)
        .ok()
        .and_then(|i| message.handles.get(i))
        .copied()
        .unwrap_or(HandleId::NONE)
}

fn take_handles(spec: &mut ProcessSpec, message: &MessageIn) {
    for h in &mut spec.stdio {
        *h = resolve(*h, message);
    }
}

/// Sets a terminal's size. Before init is started the size is kept for its terminal.
fn resize(c: &Container, exec: ExecId, rows: u32, cols: u32) {
    let tty = c.terminals.lock().get(&exec.0).and_then(Weak::upgrade);
    let size = WinSize {
        rows: rows as u16,
        cols: cols as u16,
        ..WinSize::default()
    };
    match tty {
        Some(tty) => tty.set_size(size),
        None if exec == ExecId::INIT => *c.init_size.lock() = size,
        None => {}
    }
}

fn signal(c: &Arc<Container>, exec: ExecId, sig: u32, all: bool) {
    if sig == 0 || sig > signo::MAX {
        return;
    }
    let info = SigInfo::user(sig, code::SI_USER, 0, 0);
    if all {
        for p in c.processes() {
            from_host(&p, info);
        }
    } else if let Some(p) = c.by_exec_id(exec) {
        from_host(&p, info);
    }
}

fn list(c: &Arc<Container>) -> Vec<ProcessEntry> {
    let booted_ns = hal::clock::realtime_ns().saturating_sub(hal::clock::monotonic_ns());
    c.processes()
        .iter()
        .map(|p| {
            let session = p.family.lock().session.clone();
            let tty = session.and_then(|s| s.tty.lock().as_ref().map(|t| t.rdev() as u32));
            let task = p.tasks.lock().first().cloned();
            let usage = crate::syscall::process::process_usage(p);
            ProcessEntry {
                pid: p.pid,
                ppid: p
                    .family
                    .lock()
                    .parent
                    .as_ref()
                    .and_then(|w| w.upgrade())
                    .map_or(0, |q| q.pid),
                uid: task.as_ref().map_or(0, |t| t.creds().euid),
                state: task.as_ref().map_or(b'Z', |t| t.state_letter()),
                start_s: (booted_ns + p.start_ns) / crate::time::SECOND_NS,
                tty: tty.unwrap_or(0),
                cpu_ms: (usage.user_ns + usage.system_ns) / 1_000_000,
                cmdline: task.map_or(Vec::new(), |t| t.name()),
            }
        })
        .collect()
}
