//! `quark exec`: another program in a running container.

use super::{Error, Global, foreground};
use crate::error::Context;
use crate::runtime::config;
use crate::runtime::state::{ContainerDir, Status};
use crate::sandbox::client::Client;
use crate::sandbox::create::{is_open, write_pid_file};
use crate::sandbox::order::Answer;
use crate::sandbox::protocol::{Request, Response};
use crate::sandbox::{Error as SandboxError, socket, stdio};
use crate::{logging, sys};
use oci_spec::runtime::Process;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::MemfdFlags;
use rustix::io::FdFlags;
use rustix::net::{RecvFlags, SendFlags};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::io::{IoSlice, Read, Write};
use std::path::PathBuf;

/// Options: runc's.
#[derive(clap::Args)]
pub struct Args {
    /// Working directory
    #[arg(long)]
    cwd: Option<String>,
    /// Further environment, NAME=value
    #[arg(short, long)]
    env: Vec<String>,
    /// User as UID[:GID]
    #[arg(short, long)]
    user: Option<String>,
    /// Further group ids
    #[arg(short = 'g', long)]
    additional_gids: Vec<u32>,
    /// Give the program a terminal
    #[arg(short, long)]
    tty: bool,
    /// Unix socket that gets the terminal's master
    #[arg(long)]
    console_socket: Option<PathBuf>,
    /// File with the OCI process object
    #[arg(short, long)]
    process: Option<PathBuf>,
    /// Return once the program runs
    #[arg(short, long)]
    detach: bool,
    /// File that gets the id of a process that stands for the program
    #[arg(long)]
    pid_file: Option<PathBuf>,
    /// The program and what it starts gain no privileges
    #[arg(long)]
    no_new_privs: bool,
    /// Further capabilities
    #[arg(short, long)]
    cap: Vec<String>,
    /// Descriptors from 3 on that are passed to the program
    #[arg(long, default_value_t = 0)]
    preserve_fds: u32,
    /// For callers that pass it; the program starts when the container is resumed
    #[arg(long)]
    ignore_paused: bool,
    /// For callers that pass it; a guest has no AppArmor
    #[arg(long, hide = true)]
    apparmor: Option<String>,
    /// For callers that pass it; a guest has no SELinux
    #[arg(long, hide = true)]
    process_label: Option<String>,
    /// For callers that pass it
    #[arg(long, hide = true)]
    no_subreaper: bool,
    /// The container's id
    id: String,
    /// The program and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// The process object that `args` describe, starting from the container's own.
fn process_of(args: &Args, own: &Process) -> Result<Process, Error> {
    let wrong = |what, value: &str| Error::Value {
        what,
        value: value.to_owned(),
    };
    let mut p: Value = match &args.process {
        Some(file) => serde_json::to_value(config::load_process(file)?).unwrap_or_default(),
        None => serde_json::to_value(own).unwrap_or_default(),
    };
    if args.process.is_none() {
        if args.command.is_empty() {
            return Err(Error::Usage("exec: names no program"));
        }
        p["terminal"] = args.tty.into();
        p["consoleSize"] = Value::Null;
    } else if args.tty {
        p["terminal"] = true.into();
    }
    if !args.command.is_empty() {
        p["args"] = json!(args.command);
    }
    if let Some(cwd) = &args.cwd {
        p["cwd"] = json!(cwd);
    }
    if !args.env.is_empty() {
        let mut env = p["env"].as_array().cloned().unwrap_or_default();
        env.extend(args.env.iter().map(|e| Value::from(e.as_str())));
        p["env"] = env.into();
    }
    if let Some(user) = &args.user {
        let (uid, gid) = user
            .split_once(':')
            .map_or((user.as_str(), None), |(u, g)| (u, Some(g)));
        let number = |text: &str| {
            text.parse::<u32>()
                .map_err(|_| wrong("--user: not a number", text))
        };
        p["user"]["uid"] = number(uid)?.into();
        if let Some(gid) = gid {
            p["user"]["gid"] = number(gid)?.into();
        }
    }
    if !args.additional_gids.is_empty() {
        p["user"]["additionalGids"] = json!(args.additional_gids);
    }
    if args.no_new_privs {
        p["noNewPrivileges"] = true.into();
    }
    for cap in &args.cap {
        for set in ["bounding", "effective", "permitted", "inheritable", "ambient"] {
            let mut list = p["capabilities"][set].as_array().cloned().unwrap_or_default();
            if !list.iter().any(|c| c == cap.as_str()) {
                list.push(cap.as_str().into());
            }
            p["capabilities"][set] = list.into();
        }
    }
    config::ease(&mut p);
    let process: Process = serde_json::from_value(p).map_err(|e| wrong("exec", &e.to_string()))?;
    crate::runtime::process::to_guest(&process).map_err(SandboxError::from)?;
    Ok(process)
}

/// The descriptors the program gets as 0, 1, 2, …; a terminal's slave if it has one.
fn own_stdio(preserve: u32) -> Result<Vec<OwnedFd>, Error> {
    let mut fds = Vec::new();
    let null = || {
        std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/null")
            .map(OwnedFd::from)
    };
    for fd in stdio::inherited() {
        fds.push(match fd {
            Some(fd) => fd,
            None => null().doing("open /dev/null")?,
        });
    }
    for number in 0..preserve {
        fds.push(sys::adopt(3 + number as i32).doing("find a preserved descriptor")?);
    }
    Ok(fds)
}

fn borrowed(fds: &[OwnedFd]) -> Vec<BorrowedFd<'_>> {
    fds.iter().map(AsFd::as_fd).collect()
}

/// `quark exec`.
pub fn main(global: &Global, args: Args) -> Result<i32, Error> {
    let dir = ContainerDir::open(&global.root, &args.id)?;
    let record = dir.record()?;
    match dir.status(&record).status {
        Status::Running | Status::Created => {}
        Status::Paused if args.ignore_paused => {}
        Status::Paused => {
            return Err(Error::Usage(
                "cannot exec in a paused container (use --ignore-paused)",
            ));
        }
        _ => return Err(Error::Usage("cannot exec in a container that is not running")),
    }
    log::debug!("exec in container {}", args.id);
    let spec = dir.spec()?;
    let own = spec
        .process()
        .as_ref()
        .ok_or(Error::Usage("the container has no process object"))?;
    let process = process_of(&args, own)?;
    let tty = process.terminal() == Some(true);
    if args.console_socket.is_some() && !tty {
        return Err(Error::Usage(
            "--console-socket is given, but the program gets no terminal (--tty)",
        ));
    }
    for fd in 3..3 + args.preserve_fds.min(1024) as i32 {
        if !is_open(fd) {
            return Err(Error::Value {
                what: "--preserve-fds: not open",
                value: fd.to_string(),
            });
        }
    }
    if args.detach {
        if tty && args.console_socket.is_none() {
            return Err(Error::Usage(
                "--tty and --detach are given: --console-socket must be too",
            ));
        }
        return detach(global, &args, process);
    }
    let client = Client::connect(&dir)?;
    let signals = foreground::catch_signals()?;
    let (fds, terminal) = match (tty, &args.console_socket) {
        (false, _) => (own_stdio(args.preserve_fds)?, None),
        (true, Some(path)) => {
            let (master, slave) = stdio::new_terminal(0, 0)?;
            stdio::send_master(stdio::connect_console(path)?, &master)?;
            (three(&slave)?, None)
        }
        (true, None) => {
            let (rows, cols) = stdio::size_of(std::io::stdin()).unwrap_or((0, 0));
            let (master, slave) = stdio::new_terminal(rows, cols)?;
            (three(&slave)?, Some(master))
        }
    };
    let request = Request::Exec {
        process: Box::new(process),
        kill_on_close: false,
    };
    client.send(&request, &borrowed(&fds))?;
    // Our copies go now: the program's closing its end is to be seen.
    drop(fds);
    started(&client)?;
    if let Some(path) = &args.pid_file {
        write_pid_file(path, std::process::id() as i32)?;
    }
    let terminal = terminal.map(foreground::Terminal::new).transpose()?;
    attend(&client, &signals, terminal)
}

fn three(slave: &OwnedFd) -> Result<Vec<OwnedFd>, Error> {
    let copy = || rustix::io::fcntl_dupfd_cloexec(slave, 3).doing("copy the terminal");
    Ok(vec![copy()?, copy()?, copy()?])
}

fn started(client: &Client) -> Result<(), Error> {
    match client.receive()? {
        Response::Started { .. } => Ok(()),
        _ => Err(SandboxError::Protocol.into()),
    }
}

/// Attends the program until it has ended; gives its exit code.
fn attend(client: &Client, signals: &OwnedFd, terminal: Option<foreground::Terminal>) -> Result<i32, Error> {
    let signal = |signo: u32| drop(client.send(&Request::Signal { signo, all: false }, &[]));
    let resize = |rows: u32, cols: u32| drop(client.send(&Request::Resize { rows, cols }, &[]));
    let session = foreground::Session {
        done: client.waiter(),
        signal: &signal,
        resize: &resize,
    };
    foreground::pump(&session, signals, terminal)?;
    match client.receive()? {
        Response::Exited { code } => Ok(code),
        _ => Err(SandboxError::Protocol.into()),
    }
}

/// What a detached program's proxy needs to know.
#[derive(Serialize, Deserialize)]
struct ProxyOrder {
    root: PathBuf,
    id: String,
    process: Process,
    console_fd: Option<i32>,
    preserve_fds: u32,
    sync_fd: i32,
}

/// Leaves a process behind that stands for the program: it has its exit code, and signals sent to it reach the program.
fn detach(global: &Global, args: &Args, process: Process) -> Result<i32, Error> {
    let (sync, theirs) = socket::message_pair().doing("make the start-up channel")?;
    let keep = |fd: OwnedFd| -> Result<OwnedFd, Error> {
        let high =
            rustix::io::fcntl_dupfd_cloexec(&fd, 3 + args.preserve_fds as i32).doing("copy a descriptor")?;
        rustix::io::fcntl_setfd(&high, FdFlags::empty()).doing("keep a descriptor")?;
        Ok(high)
    };
    let theirs = keep(theirs)?;
    let console = args
        .console_socket
        .as_deref()
        .map(stdio::connect_console)
        .transpose()?
        .map(keep)
        .transpose()?;
    let order = ProxyOrder {
        root: global.root.clone(),
        id: args.id.clone(),
        process,
        console_fd: console.as_ref().map(AsRawFd::as_raw_fd),
        preserve_fds: args.preserve_fds,
        sync_fd: theirs.as_raw_fd(),
    };
    let memory = rustix::fs::memfd_create("quark-exec", MemfdFlags::CLOEXEC).doing("make a memory file")?;
    let mut file = std::fs::File::from(memory);
    file.write_all(&serde_json::to_vec(&order).unwrap_or_default())
        .doing("write the order")?;
    let memory = keep(OwnedFd::from(file))?;
    rustix::fs::seek(&memory, rustix::fs::SeekFrom::Start(0)).doing("rewind the order")?;
    let mut command = std::process::Command::new("/proc/self/exe");
    command.arg("exec-proxy").arg(memory.as_raw_fd().to_string());
    let mut child = command.spawn().doing("start the program's proxy")?;
    drop((theirs, console, memory));
    let mut buffer = vec![0; 64 << 10];
    let got =
        socket::receive(&sync, &mut buffer, RecvFlags::empty()).doing("hear from the program's proxy")?;
    match serde_json::from_slice(&buffer[..got.len]) {
        Ok(Answer::Created) => {}
        Ok(Answer::Failed(why)) => {
            let _ = child.wait();
            return Err(SandboxError::Told(why).into());
        }
        _ => {
            let how = child.wait().map(|s| s.to_string()).unwrap_or_default();
            return Err(SandboxError::Died(how).into());
        }
    }
    if let Some(path) = &args.pid_file {
        write_pid_file(path, child.id() as i32)?;
    }
    Ok(0)
}

/// Runs the proxy of a detached program; gives the program's exit code.
pub fn proxy_main(order_fd: i32) -> i32 {
    logging::init(None, false, 0, None);
    let order: Option<ProxyOrder> = sys::adopt(order_fd).ok().and_then(|fd| {
        let mut text = Vec::new();
        std::fs::File::from(fd).read_to_end(&mut text).ok()?;
        serde_json::from_slice(&text).ok()
    });
    let Some(order) = order else { return 1 };
    let Ok(sync) = sys::adopt(order.sync_fd) else {
        return 1;
    };
    let tell = |answer: &Answer| {
        let bytes = serde_json::to_vec(answer).unwrap_or_default();
        let _ = socket::send(&sync, &[IoSlice::new(&bytes)], &[], SendFlags::empty());
    };
    match proxy_start(order) {
        Ok((client, signals, slave)) => {
            tell(&Answer::Created);
            drop(sync);
            proxy_attend(&client, &signals, slave.as_ref())
        }
        Err(e) => {
            tell(&Answer::Failed(e.to_string()));
            1
        }
    }
}

fn proxy_start(order: ProxyOrder) -> Result<(Client, OwnedFd, Option<OwnedFd>), Error> {
    let dir = ContainerDir::open(&order.root, &order.id)?;
    let client = Client::connect(&dir)?;
    let signals = foreground::catch_signals()?;
    let _ = rustix::process::setsid();
    let mut terminal = None;
    let fds = match order.console_fd {
        None => own_stdio(order.preserve_fds)?,
        Some(console) => {
            let (master, slave) = stdio::new_terminal(0, 0)?;
            stdio::send_master(sys::adopt(console).doing("find the console socket")?, &master)?;
            stdio::control_terminal(&slave);
            let fds = three(&slave)?;
            terminal = Some(slave);
            fds
        }
    };
    let request = Request::Exec {
        process: Box::new(order.process),
        kill_on_close: true,
    };
    client.send(&request, &borrowed(&fds))?;
    drop(fds);
    started(&client)?;
    let null = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")
        .doing("open /dev/null")?;
    rustix::stdio::dup2_stdin(&null).doing("let stdin go")?;
    rustix::stdio::dup2_stdout(&null).doing("let stdout go")?;
    rustix::stdio::dup2_stderr(&null).doing("let stderr go")?;
    Ok((client, signals, terminal))
}

fn proxy_attend(client: &Client, signals: &OwnedFd, slave: Option<&OwnedFd>) -> i32 {
    use rustix::event::{PollFd, PollFlags};
    loop {
        let ended = {
            let mut fds = [
                PollFd::from_borrowed_fd(client.waiter(), PollFlags::IN),
                PollFd::new(signals, PollFlags::IN),
            ];
            let _ = rustix::event::poll(&mut fds, None);
            !fds[0].revents().is_empty()
        };
        while let Some(signo) = sys::next_signal(signals.as_fd()) {
            let request = match signo {
                libc::SIGCHLD | libc::SIGPIPE | libc::SIGURG => continue,
                libc::SIGHUP if slave.is_some() => continue,
                libc::SIGWINCH => match slave.and_then(stdio::size_of) {
                    Some((rows, cols)) => Request::Resize { rows, cols },
                    None => continue,
                },
                other => Request::Signal {
                    signo: other as u32,
                    all: false,
                },
            };
            let _ = client.send(&request, &[]);
        }
        if ended {
            return match client.receive() {
                Ok(Response::Exited { code }) => code,
                _ => 137,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn process(line: &[&str]) -> Result<Process, Error> {
        let args = Line::parse_from(std::iter::once(&"exec").chain(line)).args;
        let spec: oci_spec::runtime::Spec =
            serde_json::from_value(crate::runtime::template::spec(false)).unwrap();
        process_of(&args, spec.process().as_ref().unwrap())
    }

    #[test]
    fn starts_from_the_containers_process() {
        let p = process(&[
            "-u", "5:6", "-e", "A=b", "--cwd", "/w", "-g", "7", "id", "ls", "-l", "--all",
        ])
        .unwrap();
        assert_eq!(p.args().as_ref().unwrap(), &["ls", "-l", "--all"]);
        assert_eq!((p.user().uid(), p.user().gid()), (5, 6));
        assert_eq!(p.user().additional_gids().as_ref().unwrap(), &[7]);
        assert_eq!(p.env().as_ref().unwrap().last().unwrap(), "A=b");
        assert_eq!(p.terminal(), Some(false), "the container's terminal is its own");
    }

    #[test]
    fn wrong_values_are_told() {
        assert!(
            process(&["id"])
                .unwrap_err()
                .to_string()
                .contains("names no program")
        );
        assert!(
            process(&["-u", "root", "id", "ls"])
                .unwrap_err()
                .to_string()
                .contains("--user")
        );
        assert!(
            process(&["--cwd", "w", "id", "ls"])
                .unwrap_err()
                .to_string()
                .contains("process.cwd")
        );
    }
}
