//! Starts the machine of a sandbox: channels, the jail's process, the guest kernel in it.

use super::link::{ControlLink, SocketLink};
use super::order::Order;
use super::{Error, jail, socket};
use crate::error::Context;
use crate::host::channel;
use crate::seccomp::Role;
use crate::sys;
use crate::vm::kvm;
use crate::vm::process::{self, BootParams, Launch};
use qlib::control::{Command, ContainerId, Event};
use rustix::fd::{AsRawFd, OwnedFd, RawFd};
use rustix::fs::{Mode, OFlags};
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, WaitId, WaitIdOptions, WaitOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Broker channels of a `process` machine: requests on different channels do not wait for each other.
const CHANNELS: usize = 2;

/// A started machine, seen from the host.
pub struct Machine {
    /// The control channel.
    pub link: Box<dyn ControlLink>,
    /// The guest kernel's log lines, if they are ours to read.
    pub log: Option<OwnedFd>,
    body: Body,
    gate: Option<Gate>,
}

/// What a machine is to the server that has it.
enum Body {
    /// Its first process (pid in our namespace), a child of ours.
    Own(i32),
    /// Another sandbox's, which the container joined; whether that has said that nothing of the container is left.
    Joined { over: bool },
}

/// How long what is left of a container may take to end in the sandbox it joined.
const LEAVE_TIME: Duration = Duration::from_secs(2);

impl Machine {
    /// The machine of the sandbox at the other end of `link`.
    pub fn joined(link: impl ControlLink + 'static) -> Self {
        Self {
            link: Box::new(link),
            log: None,
            body: Body::Joined { over: false },
            gate: None,
        }
    }

    /// Ends it; one that was joined ends what is the container's.
    pub fn kill(&mut self) {
        match self.body {
            Body::Own(child) => {
                let _ = sys::kill(child, libc::SIGKILL);
            }
            // Where this does not arrive, the sandbox has ended.
            Body::Joined { .. } => {
                let _ = self.link.send(ContainerId::FIRST, &Command::End, &[]);
            }
        }
    }

    /// Nothing of the container is left in the sandbox it joined, or the sandbox is gone.
    pub fn left(&mut self) {
        if let Body::Joined { over } = &mut self.body {
            *over = true;
        }
    }

    /// Whether it is another sandbox's.
    pub fn is_joined(&self) -> bool {
        matches!(self.body, Body::Joined { .. })
    }

    /// Whether it is another sandbox's, where nothing of the container is left.
    pub fn has_left(&self) -> bool {
        matches!(self.body, Body::Joined { over: true })
    }

    /// Whether it has ended. A first process stays a zombie until [`Self::wait`] asks how it went.
    pub fn has_ended(&self) -> bool {
        match self.body {
            Body::Own(child) => {
                let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
                match Pid::from_raw(child) {
                    Some(pid) => !matches!(rustix::process::waitid(WaitId::Pid(pid), options), Ok(None)),
                    None => true,
                }
            }
            Body::Joined { over } => over,
        }
    }

    /// Waits for the end of a machine that was killed or has ended, and tells how it went.
    pub fn wait(&mut self) -> String {
        match self.body {
            Body::Own(child) => how_it_went(child),
            Body::Joined { .. } => {
                let until = Instant::now() + LEAVE_TIME;
                while !self.has_ended() && Instant::now() < until {
                    match self.link.receive() {
                        Ok(Some(told)) if told.event == Event::Ended => self.left(),
                        Ok(Some(_)) => {}
                        Ok(None) => std::thread::sleep(Duration::from_millis(1)),
                        Err(_) => self.left(),
                    }
                }
                "the sandbox it shares has ended (SIGKILL)".to_owned()
            }
        }
    }

    /// Lets the machine run, once the host side is confined.
    pub fn let_go(&mut self) {
        if let Some(gate) = self.gate.take() {
            gate.open();
        }
    }
}

/// Where the machine's process waits until the host side is confined.
struct Gate {
    wait: OwnedFd,
    open: OwnedFd,
}

impl Gate {
    fn new() -> Result<Self, Error> {
        let (wait, open) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).doing("make a pipe")?;
        Ok(Self { wait, open })
    }

    /// The descriptor that [`Self::wait`] needs.
    fn survivor(&self) -> RawFd {
        self.wait.as_raw_fd()
    }

    /// In the machine's process, which has no other copy of the gate: waits; ends the process when the host side is gone.
    fn wait(self) {
        // Its other end was closed with all that the machine does not need, and its number may be another's.
        std::mem::forget(self.open);
        let mut byte = [0];
        if rustix::io::retry_on_intr(|| rustix::io::read(&self.wait, &mut byte)) != Ok(1) {
            sys::exit_now(1);
        }
    }

    /// On the host side: lets the machine go.
    fn open(self) {
        // A machine that is gone already is noticed by its end.
        let _ = rustix::io::write(&self.open, &[1]);
    }
}

/// Finds the guest kernel's image: the operator's `setting`, or `$QUARK_KERNEL`, or beside the program, or where it is installed.
pub fn kernel_path(setting: Option<&Path>) -> Result<PathBuf, Error> {
    let mut places: Vec<PathBuf> = Vec::new();
    if let Some(path) = setting {
        places.push(path.to_path_buf());
    } else if let Some(path) = std::env::var_os("QUARK_KERNEL") {
        places.push(path.into());
    } else {
        let exe = std::env::current_exe().doing("find the own program")?;
        if let Some(dir) = exe.parent() {
            places.push(dir.join("qkernel"));
            places.push(dir.join("../lib/quark/qkernel"));
            // In a build tree the kernel lies in its own target's directory, under the same profile.
            let target = dir
                .ancestors()
                .find(|a| a.file_name().is_some_and(|n| n == "target"));
            if let (Some(target), Some(profile)) = (target, dir.file_name()) {
                for triple in ["unknown-none", "unknown-none-softfloat"] {
                    let triple = format!("{}-{triple}", std::env::consts::ARCH);
                    places.push(target.join(triple).join(profile).join("qkernel"));
                }
            }
        }
        places.push("/usr/local/lib/quark/qkernel".into());
        places.push("/usr/lib/quark/qkernel".into());
    }
    if let Some(found) = places.iter().find(|p| p.is_file()) {
        return Ok(found.clone());
    }
    let list: Vec<String> = places.iter().map(|p| p.display().to_string()).collect();
    Err(Error::NoKernel(list.join(", ")))
}

/// Opens the guest kernel's image.
pub fn open_kernel(setting: Option<&Path>) -> Result<OwnedFd, Error> {
    let path = kernel_path(setting)?;
    Ok(rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).at("open", &path)?)
}

/// What the guest is told at boot.
pub fn boot_params(order: &Order) -> BootParams {
    let resources = order.spec.linux().as_ref().and_then(|l| l.resources().as_ref());
    let positive = |v: Option<i64>| {
        v.and_then(|v| u64::try_from(v).ok())
            .filter(|v| *v > 0)
            .unwrap_or(u64::MAX)
    };
    BootParams {
        cpus: sys::usable_cpus(),
        log_level: order.log_level.max(order.own_log.as_ref().map_or(0, |l| l.level)),
        memory_limit: positive(
            resources
                .and_then(|r| r.memory().as_ref())
                .and_then(|m| m.limit()),
        ),
        pids_limit: positive(resources.and_then(|r| r.pids().as_ref()).map(|p| p.limit())),
        patch_calls: order.patch_calls,
    }
}

/// Starts the `process` machine. The calling process is single-threaded, in the container's namespaces, and gives up
/// its capabilities here but for those the broker needs; `bounding` are the container's own.
pub fn start_process(kernel: OwnedFd, boot: BootParams, bounding: u64) -> Result<Machine, Error> {
    let (control, guest_control) = socket::message_pair().doing("make the control channel")?;
    let flags = PipeFlags::CLOEXEC | PipeFlags::NONBLOCK;
    let (log, guest_log) = rustix::pipe::pipe_with(flags).doing("make the log pipe")?;
    let mut channels = Vec::new();
    let mut guest_channels = Vec::new();
    for _ in 0..CHANNELS {
        let (host, guest) = socket::message_pair().doing("make a broker channel")?;
        crate::sys::force_send_buffer(&host, 256 << 10);
        crate::sys::force_send_buffer(&guest, 256 << 10);
        channels.push(host);
        guest_channels.push(guest);
    }
    // The guest's commands come from us, ours go to it: both ends hold long messages.
    sys::force_send_buffer(&guest_control, 4 << 20);
    let link = SocketLink::to_guest(control);
    let log_fd = guest_log.as_raw_fd();
    let gate = Gate::new()?;
    let prepared = process::prepare(Launch {
        kernel,
        boot,
        control: guest_control,
        log: guest_log,
        channels: guest_channels,
    })?;
    let child = sys::fork_into(libc::CLONE_NEWPID).doing("start the jail")?;
    if child == 0 {
        let mut keep = prepared.survivors();
        keep.push(gate.survivor());
        if let Err(e) = jail::confine(&keep) {
            complain(log_fd, &e.to_string());
        }
        gate.wait();
        prepared.enter(jail::install_filter);
    }
    drop(prepared);
    jail::confine_host_side(bounding)?;
    for (index, host) in channels.into_iter().enumerate() {
        channel::spawn(index, host, || confine_thread(Role::Broker)).doing("start a broker thread")?;
    }
    Ok(Machine {
        link: Box::new(link),
        log: Some(log),
        body: Body::Own(child),
        gate: Some(gate),
    })
}

/// Starts the `kvm` machine: one process that runs the virtual CPUs and serves their requests. As [`start_process`] else.
pub fn start_kvm(
    kvm: OwnedFd,
    kernel: OwnedFd,
    boot: BootParams,
    engine: crate::vm::Engine,
    bounding: u64,
) -> Result<Machine, Error> {
    let (control, guest_control) = socket::message_pair().doing("make the control channel")?;
    let flags = PipeFlags::CLOEXEC | PipeFlags::NONBLOCK;
    let (log, guest_log) = rustix::pipe::pipe_with(flags).doing("make the log pipe")?;
    sys::force_send_buffer(&guest_control, 4 << 20);
    let link = SocketLink::to_guest(control);
    let log_fd = guest_log.as_raw_fd();
    let gate = Gate::new()?;
    let prepared = kvm::prepare(kvm::Launch {
        kvm,
        kernel,
        boot,
        control: guest_control,
        log: guest_log,
        engine,
    })?;
    let child = sys::fork_into(libc::CLONE_NEWPID).doing("start the virtual machine's process")?;
    if child == 0 {
        let mut keep = prepared.survivors();
        keep.extend(crate::host::system::descriptors());
        keep.push(gate.survivor());
        if let Err(e) = jail::confine_machine(&keep, bounding) {
            complain(log_fd, &e.to_string());
        }
        gate.wait();
        prepared.enter(Arc::new(confine_thread));
    }
    drop(prepared);
    jail::confine_host_side(bounding)?;
    Ok(Machine {
        link: Box::new(link),
        log: Some(log),
        body: Body::Own(child),
        gate: Some(gate),
    })
}

/// Takes the machine at the other end of `link`, which the container joins, and serves its guest what is the container's own
/// over `service`: sockets of its network, texts of its cgroup. As [`start_process`] else.
pub fn join(link: SocketLink, service: OwnedFd, bounding: u64) -> Result<Machine, Error> {
    jail::confine_host_side(bounding)?;
    channel::spawn_service(service, || confine_thread(Role::Service)).doing("start the service thread")?;
    Ok(Machine::joined(link))
}

/// How the machine's first process ended.
fn how_it_went(child: i32) -> String {
    match rustix::process::waitpid(Pid::from_raw(child), WaitOptions::empty()) {
        Ok(Some((_, status))) => match (status.exit_status(), status.terminating_signal()) {
            (_, Some(libc::SIGSYS)) => "it made a host call that its filter forbids".to_owned(),
            (_, Some(libc::SIGKILL)) => "it was killed (SIGKILL)".to_owned(),
            (_, Some(signal)) => format!("signal {signal}"),
            (Some(code), _) => format!("exit status {code}"),
            _ => "no status".to_owned(),
        },
        _ => "no status".to_owned(),
    }
}

fn confine_thread(role: Role) -> std::io::Result<()> {
    jail::confine_thread(role).map_err(std::io::Error::other)
}

/// Says why the jail cannot be entered, and ends.
fn complain(log: i32, why: &str) -> ! {
    if let Ok(fd) = sys::borrow(log) {
        let _ = rustix::io::write(fd, format!("ERROR {why}\n").as_bytes());
    }
    sys::exit_now(1)
}
