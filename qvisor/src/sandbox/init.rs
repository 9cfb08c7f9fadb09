//! The sandbox process: `quark create` starts it, its pid is the container's, it ends with the container's exit code.

use super::inside::InsideHook;
use super::join::Joined;
use super::logfile::LogFile;
use super::mounts;
use super::order::{Answer, GO, Order, OwnLog};
use super::server::{Parts, Server};
use super::{Error, machine, namespaces, rootfs, socket, stdio};
use crate::cgroup::MemoryWatch;
use crate::error::Context;
use crate::runtime::hooks;
use crate::runtime::state::{self, CONTROL_SOCKET, ContainerDir, Record, Status, process_start};
use crate::runtime::validate;
use crate::{logging, sys};
use oci_spec::runtime::LinuxDeviceType;
use qlib::control::{ContainerId, ContainerSpec, Device, ProcessSpec};
use qlib::qcall::HandleId;
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use std::io::{IoSlice, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Runs the sandbox process whose order lies in descriptor `order_fd`; gives its exit code.
pub fn main(order_fd: i32) -> i32 {
    let order = match read_order(order_fd) {
        Ok(order) => order,
        Err(e) => {
            eprintln!("quark: sandbox: {e}");
            return 1;
        }
    };
    let log_file = order.log_fd.and_then(|fd| sys::adopt(fd).ok());
    let own = order.own_log.as_ref().and_then(|own| own_log(&order, own));
    logging::init(log_file, order.log_json, order.log_level, own);
    let sync = match sys::adopt(order.sync_fd) {
        Ok(fd) => fd,
        Err(e) => {
            eprintln!("quark: sandbox: {e}");
            return 1;
        }
    };
    match start(order, &sync) {
        Ok(server) => {
            drop(sync);
            server.run()
        }
        Err(e) => {
            let answer = serde_json::to_vec(&Answer::Failed(e.to_string())).unwrap_or_default();
            let _ = socket::send(&sync, &[IoSlice::new(&answer)], &[], SendFlags::empty());
            1
        }
    }
}

/// The sandbox's own log and its level.
fn own_log(order: &Order, own: &OwnLog) -> Option<(LogFile, u32)> {
    let dir = sys::adopt(own.dir_fd).ok()?;
    let mut log = LogFile::new(dir, &order.id, own.max_bytes, own.keep);
    let mapped = order
        .spec
        .linux()
        .as_ref()
        .and_then(|l| l.uid_mappings().as_ref());
    if mapped.is_some_and(|m| !m.is_empty()) {
        // Root of a user namespace may not make files there.
        log.make();
    }
    Some((log, own.level))
}

fn read_order(fd: i32) -> Result<Order, Error> {
    let mut file = std::fs::File::from(sys::adopt(fd).doing("find the order")?);
    let mut text = Vec::new();
    file.read_to_end(&mut text).doing("read the order")?;
    serde_json::from_slice(&text).map_err(|_| Error::Protocol)
}

/// Says `what` to the creator and waits until it lets us go on.
pub(super) fn handshake(sync: &OwnedFd, what: Option<&Answer>) -> Result<(), Error> {
    if let Some(what) = what {
        let bytes = serde_json::to_vec(what).unwrap_or_default();
        socket::send(sync, &[IoSlice::new(&bytes)], &[], SendFlags::empty()).doing("speak to the creator")?;
    }
    let mut byte = [0];
    let got = socket::receive(sync, &mut byte, RecvFlags::empty()).doing("hear from the creator")?;
    if got.len == 1 && byte[0] == GO {
        Ok(())
    } else {
        Err(Error::Told("the creator gave up".to_owned()))
    }
}

fn start(order: Order, sync: &OwnedFd) -> Result<Server, Error> {
    let _ = rustix::process::setsid();
    let _ = rustix::thread::set_name(c"quark-sandbox");
    // The creator moves us into the cgroup before the first allocation that counts.
    handshake(sync, None)?;
    sys::block_signals(true).doing("block signals")?;
    let signals = sys::signal_fd().doing("make a signal descriptor")?;
    let dir = ContainerDir::at(&order.id, &order.state_dir);
    let state_dir = dir.descriptor()?;
    let refused = state::refused_file(&state_dir).doing("make a file")?;
    sys::refused::note_in(refused).doing("handle SIGSYS")?;
    let ground = Ground::find(&order)?;
    let mut planned = mounts::plan(&order.spec, &order.bundle)?;
    if namespaces::other_user(&order.spec) {
        mounts::take_sources(&mut planned)?;
    }
    let (stdio, terminal) = open_stdio(&order)?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .at("open", "/dev/null")?;
    let boot = machine::boot_params(&order);
    let memory = match boot.memory_limit {
        u64::MAX => None,
        limit => MemoryWatch::new(&order.cgroups, limit)?,
    };
    let listener = listen(&state_dir)?;
    // Who we are to ourselves, seen from inside a user namespace: requests come from the same.
    let (witness, _other) = socket::message_pair().doing("make a socket pair")?;
    raise_oom_score(&order);

    give_to_namespace_root(&order, &state_dir)?;
    enter_namespaces(&order, sync)?;
    let service = match &ground {
        Ground::Joined(joined) => {
            joined.check_users()?;
            Some(socket::message_pair().doing("make the service channel")?)
        }
        _ => None,
    };
    let (service, guest_service) = service.unzip();
    let shares_network = match &ground {
        Ground::Joined(joined) => joined.shares_network(),
        _ => true,
    };
    let record = record_of(&order);
    if order.runtime_hooks {
        handshake(sync, Some(&Answer::NeedHooks))?;
    }
    crate::host::system::open(&order.cgroups);
    let tree = rootfs::build(&order, &planned)?;
    if let Some(list) = order
        .spec
        .hooks()
        .as_ref()
        .and_then(|h| h.create_container().as_ref())
    {
        let state = hooks::state_document(&record, Status::Creating);
        // Their working directory is the root file system, as runc has it: hooks name what lies there by relative paths.
        rustix::process::chdir(tree.rootfs()).at("enter", &order.rootfs)?;
        hooks::run_all("createContainer", Some(list), &state)?;
    }
    rootfs::enter(&tree)?;
    let owner = sys::peer_uid(witness.as_fd())
        .map_err(std::io::Error::from)
        .doing("read credentials")?;

    let mut container = container_spec(&order, tree, stdio)?;
    let bounding = container.0.process.caps.bounding;
    let machine = match (ground, service) {
        (Ground::Process { kernel }, _) => machine::start_process(kernel, boot, bounding)?,
        (Ground::Kvm { kvm, kernel }, _) => machine::start_kvm(kvm, kernel, boot, order.engine, bounding)?,
        (Ground::Joined(joined), Some(service)) => {
            (container.0.pid_of, container.0.ipc_of) = (joined.pid_of, joined.ipc_of);
            (container.0.memory_limit, container.0.pids_limit) = (boot.memory_limit, boot.pids_limit);
            container.0.share_network = shares_network;
            container.0.service = HandleId(container.1.len() as u64);
            container.1.extend(guest_service);
            machine::join(joined.link, service, bounding)?
        }
        (Ground::Joined(_), None) => return Err(Error::Protocol),
    };
    let inside = order
        .spec
        .hooks()
        .as_ref()
        .and_then(|h| h.start_container().as_ref());
    let state = hooks::state_document(&record, Status::Created);
    let start_hooks = inside
        .into_iter()
        .flatten()
        .map(|hook| InsideHook::new(hook, &container.0.process, &state))
        .collect::<Result<_, _>>()?;
    detach_stdio(&null)?;
    if terminal.is_some() {
        logging::leave_stderr();
    }
    let sync = rustix::io::fcntl_dupfd_cloexec(sync, 3).doing("keep the start-up channel")?;
    let parts = Parts {
        id: order.id.clone(),
        machine,
        container,
        state_dir,
        listener,
        owner,
        sync,
        terminal,
        memory,
        start_hooks,
    };
    Server::new(parts, signals)
}

/// What the container's machine is to be.
enum Ground {
    /// A process machine with this kernel.
    Process { kernel: OwnedFd },
    /// A virtual machine.
    Kvm { kvm: OwnedFd, kernel: OwnedFd },
    /// That of the sandbox it joins.
    Joined(Box<Joined>),
}

impl Ground {
    /// Opens what it takes, or asks the sandbox, while the host's files can be reached.
    fn find(order: &Order) -> Result<Self, Error> {
        if let Some(join) = &order.join {
            return Ok(Self::Joined(Box::new(Joined::ask(join, &order.id)?)));
        }
        let kernel = machine::open_kernel(order.kernel.as_deref())?;
        match order.platform.as_str() {
            "kvm" => Ok(Self::Kvm {
                kvm: crate::vm::kvm::open()?,
                kernel,
            }),
            _ => Ok(Self::Process { kernel }),
        }
    }
}

fn record_of(order: &Order) -> Record {
    let pid = std::process::id() as i32;
    Record {
        id: order.id.clone(),
        pid,
        pid_start: process_start(pid).unwrap_or(0),
        bundle: order.bundle.clone(),
        rootfs: order.rootfs.clone(),
        created: String::new(),
        owner: 0,
        platform: order.platform.clone(),
        cgroups: order.cgroups.clone(),
        annotations: order
            .spec
            .annotations()
            .clone()
            .unwrap_or_default()
            .into_iter()
            .collect(),
        unit: None,
        sandbox: order.join.as_ref().map(|j| j.sandbox.clone()),
    }
}

fn raise_oom_score(order: &Order) {
    if let Some(score) = order.spec.process().as_ref().and_then(|p| p.oom_score_adj())
        && let Err(e) = std::fs::write("/proc/self/oom_score_adj", score.to_string())
    {
        log::warn!("process.oomScoreAdj: {score} cannot be set: {e}");
    }
}

/// In a new user namespace this process is another user of the host: the container's directory becomes theirs, so that
/// mounts and the status can be made in it.
fn give_to_namespace_root(order: &Order, state_dir: &OwnedFd) -> Result<(), Error> {
    use rustix::fs::{Gid, Uid};
    let linux = order.spec.linux().as_ref();
    let host = |list: Option<&Vec<oci_spec::runtime::LinuxIdMapping>>| {
        let root = list
            .into_iter()
            .flatten()
            .find(|m| m.container_id() == 0 && m.size() > 0);
        root.map(|m| m.host_id())
    };
    let uid = host(linux.and_then(|l| l.uid_mappings().as_ref()));
    let gid = host(linux.and_then(|l| l.gid_mappings().as_ref()));
    if uid.is_some() || gid.is_some() {
        rustix::fs::fchown(state_dir, uid.map(Uid::from_raw), gid.map(Gid::from_raw))
            .at("hand over", &order.state_dir)?;
    }
    Ok(())
}

fn enter_namespaces(order: &Order, sync: &OwnedFd) -> Result<(), Error> {
    let wanted = namespaces::Wanted::of(&order.spec)?;
    let own_uts = wanted.own_uts();
    let own_net = wanted.own_net();
    wanted.enter(|| handshake(sync, Some(&Answer::NeedMappings)))?;
    if own_net {
        tune_network(order)?;
    }
    if own_uts {
        if let Some(name) = order.spec.hostname() {
            rustix::system::sethostname(name.as_bytes()).doing("set the host name")?;
        }
        if let Some(name) = order.spec.domainname() {
            rustix::system::setdomainname(name.as_bytes()).doing("set the domain name")?;
        }
    }
    rootfs::detach_from_host(
        order
            .spec
            .linux()
            .as_ref()
            .and_then(|l| l.rootfs_propagation().as_deref()),
    )
}

/// Settings of the network are the network namespace's, on the host: the guest kernel's sockets live there.
fn tune_network(order: &Order) -> Result<(), Error> {
    let settings = order.spec.linux().as_ref().and_then(|l| l.sysctl().as_ref());
    for (name, value) in settings.into_iter().flatten() {
        let path = name.replace('.', "/");
        let plain = path.split('/').all(|p| !p.is_empty());
        if path.starts_with("net/") && plain {
            let file = Path::new("/proc/sys").join(path);
            std::fs::write(&file, value).at("linux.sysctl: write", &file)?;
        }
    }
    Ok(())
}

fn listen(state_dir: &OwnedFd) -> Result<OwnedFd, Error> {
    // A socket's name has 108 bytes at most; the way through the directory's descriptor is always short.
    let path = PathBuf::from(format!(
        "/proc/self/fd/{}/{CONTROL_SOCKET}",
        state_dir.as_raw_fd()
    ));
    let address = SocketAddrUnix::new(&path).doing("name the control socket")?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let listener = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
        .doing("make the control socket")?;
    let old = rustix::process::umask(Mode::from_raw_mode(0o177));
    let bound = rustix::net::bind(&listener, &address);
    rustix::process::umask(old);
    bound.doing("bind the control socket")?;
    rustix::net::listen(&listener, 128).doing("listen on the control socket")?;
    Ok(listener)
}

/// The program's stdio, and its terminal if it has one.
type Stdio = (Vec<Option<OwnedFd>>, Option<OwnedFd>);

fn open_stdio(order: &Order) -> Result<Stdio, Error> {
    let process = order.spec.process().as_ref();
    let mut stdio;
    let mut terminal = None;
    if process.and_then(|p| p.terminal()) == Some(true) {
        let size = process.and_then(|p| p.console_size());
        let (rows, cols) = size.map_or((0, 0), |s| (s.height() as u32, s.width() as u32));
        let (master, slave) = stdio::new_terminal(rows, cols)?;
        let console = order
            .console_fd
            .ok_or(Error::WrongState("a terminal needs --console-socket"))?;
        let console = sys::adopt(console).doing("find the console socket")?;
        stdio::send_master(&console, &master)?;
        stdio::control_terminal(&slave);
        let copy = || rustix::io::fcntl_dupfd_cloexec(&slave, 3).doing("copy the terminal");
        stdio = vec![Some(copy()?), Some(copy()?), Some(copy()?)];
        terminal = Some(slave);
    } else {
        stdio = stdio::inherited();
    }
    for number in 0..order.preserve_fds {
        stdio.push(sys::adopt(3 + number as i32).ok());
    }
    Ok((stdio, terminal))
}

/// Lets go of the caller's stdin, stdout and stderr: whoever reads them sees their end when the guest closes them.
fn detach_stdio(null: &OwnedFd) -> Result<(), Error> {
    rustix::stdio::dup2_stdin(null).doing("let stdin go")?;
    rustix::stdio::dup2_stdout(null).doing("let stdout go")?;
    rustix::stdio::dup2_stderr(null).doing("let stderr go")?;
    Ok(())
}

fn container_spec(
    order: &Order,
    tree: rootfs::Tree,
    stdio: Vec<Option<OwnedFd>>,
) -> Result<(ContainerSpec, Vec<OwnedFd>), Error> {
    let spec = &order.spec;
    let mut handles = tree.handles;
    let process = spec.process().as_ref().ok_or(Error::Protocol)?;
    let mut process: ProcessSpec = crate::runtime::process::to_guest(process)?;
    for fd in stdio {
        process.stdio.push(match fd {
            Some(fd) => {
                handles.push(fd);
                HandleId(handles.len() as u64 - 1)
            }
            None => HandleId::NONE,
        });
    }
    let linux = spec.linux().as_ref();
    let paths = |list: Option<&Vec<String>>| -> Vec<Vec<u8>> {
        list.into_iter()
            .flatten()
            .map(|p| p.clone().into_bytes())
            .collect()
    };
    let sysctl = linux.and_then(|l| l.sysctl().as_ref());
    let mut sysctls: Vec<Vec<u8>> = sysctl
        .into_iter()
        .flatten()
        .filter(|(n, _)| !(n.replace('/', ".").starts_with("net.") && own_net(spec)))
        .map(|(n, v)| format!("{}={v}", n.replace('/', ".")).into_bytes())
        .collect();
    sysctls.sort();
    let devices = linux
        .and_then(|l| l.devices().as_ref())
        .into_iter()
        .flatten()
        .map(device)
        .collect();
    let seccomp = match linux.and_then(|l| l.seccomp().as_ref()) {
        Some(profile) => crate::seccomp::profile::compile(profile).map_err(validate::Error::from)?,
        None => Default::default(),
    };
    let names = rustix::system::uname();
    let container = ContainerSpec {
        id: order.id.clone().into_bytes(),
        // Set in our own uts namespace if the container has one; else it has the names of the one it shares.
        hostname: names.nodename().to_bytes().to_vec(),
        domainname: names.domainname().to_bytes().to_vec(),
        mounts: tree.mounts,
        masked_paths: paths(linux.and_then(|l| l.masked_paths().as_ref())),
        readonly_paths: paths(linux.and_then(|l| l.readonly_paths().as_ref())),
        sysctls,
        devices,
        seccomp: seccomp.program,
        seccomp_log: seccomp.log,
        // Of one that joins a sandbox more is told once it is known.
        pid_of: ContainerId::FIRST,
        ipc_of: ContainerId::FIRST,
        share_network: true,
        service: HandleId::NONE,
        memory_limit: u64::MAX,
        pids_limit: u64::MAX,
        process,
    };
    Ok((container, handles))
}

/// Whether the container's network namespace is not the host's.
fn own_net(spec: &oci_spec::runtime::Spec) -> bool {
    let listed = spec.linux().as_ref().and_then(|l| l.namespaces().as_ref());
    let network = oci_spec::runtime::LinuxNamespaceType::Network;
    listed.into_iter().flatten().any(|n| n.typ() == network)
}

fn device(d: &oci_spec::runtime::LinuxDevice) -> Device {
    let kind = match d.typ() {
        LinuxDeviceType::B => libc::S_IFBLK,
        LinuxDeviceType::P => libc::S_IFIFO,
        _ => libc::S_IFCHR,
    };
    Device {
        path: Path::new("/").join(d.path()).as_os_str().as_bytes().to_vec(),
        mode: kind | (d.file_mode().unwrap_or(0o666) & 0o7777),
        major: d.major() as u32,
        minor: d.minor() as u32,
        uid: d.uid().unwrap_or(0),
        gid: d.gid().unwrap_or(0),
    }
}
