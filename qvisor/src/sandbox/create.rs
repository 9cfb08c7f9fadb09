//! The creator's side of a sandbox: prepares its directory and cgroup, starts its process, helps it up, cleans up
//! after a failure.

use super::order::{Answer, GO, Order, OwnLog};
use super::{Error, join, socket};
use crate::cgroup::Cgroup;
use crate::cgroup::systemd::Unit;
use crate::error::{Context, OsError};
use crate::runtime::hooks;
use crate::runtime::state::{ContainerDir, Record, Status, now_rfc3339, process_start};
use crate::runtime::validate;
use crate::settings::Settings;
use crate::vm;
use oci_spec::runtime::{LinuxIdMapping, Spec};
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::fs::MemfdFlags;
use rustix::io::FdFlags;
use rustix::net::{RecvFlags, SendFlags};
use std::io::{IoSlice, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// What to create.
pub struct Request<'a> {
    /// Directory of all containers.
    pub root: &'a Path,
    /// Id of this one.
    pub id: &'a str,
    /// Its bundle, absolute.
    pub bundle: &'a Path,
    /// Its configuration.
    pub spec: Spec,
    /// The root becomes an overlay in memory.
    pub overlay: bool,
    /// systemd makes the cgroup.
    pub systemd_cgroup: bool,
    /// The machine asked for.
    pub platform: vm::Request,
    /// Who does the data operations of a `kvm` guest.
    pub engine: vm::Engine,
    /// How system calls enter the guest kernel.
    pub call_sites: vm::CallSites,
    /// Gets the terminal's master.
    pub console: Option<OwnedFd>,
    /// Descriptors from 3 on that go to the program.
    pub preserve_fds: u32,
    /// The log file.
    pub log: Option<OwnedFd>,
    /// Its lines are JSON.
    pub log_json: bool,
    /// 0 off … 5 trace.
    pub log_level: u32,
    /// The operator's settings, and what annotations set of them.
    pub settings: Settings,
}

/// A created container.
#[derive(Debug)]
pub struct Created {
    /// Its directory.
    pub dir: ContainerDir,
    /// What was recorded.
    pub record: Record,
    /// The sandbox process, a child of ours.
    pub child: Child,
}

impl std::fmt::Debug for ContainerDir {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ContainerDir").field(&self.path()).finish()
    }
}

/// Undoes what was done when creation fails at a later step.
struct Undo {
    dir: Option<ContainerDir>,
    cgroup: Option<Cgroup>,
    child: Option<Child>,
    joined: bool,
}

impl Drop for Undo {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
        if let Some(cgroup) = &self.cgroup {
            if self.joined {
                // What runs in the sandbox it joined is ended there.
                crate::cgroup::wait_until_empty(&cgroup.paths(), Duration::from_secs(5));
            }
            // The jail dies with its parent, but not before the parent's end is seen.
            let server = self.child.as_ref().map_or(0, |c| c.id() as i32);
            crate::cgroup::kill_all(&cgroup.paths(), server);
            let _ = cgroup.remove();
        }
        if let Some(dir) = &self.dir {
            let _ = dir.remove();
        }
    }
}

/// Creates a container. On failure nothing of it is left.
pub fn create(request: Request<'_>) -> Result<Created, Error> {
    for warning in validate::check(&request.spec)? {
        log::warn!("config.json: {warning}");
    }
    let rootfs = rootfs_of(&request)?;
    let spec = request.spec;
    let join = join::find(request.root, request.id, &spec)?;
    let platform = match &join {
        Some(join) => {
            log::debug!("machine: that of container {}", join.sandbox);
            join.platform.clone()
        }
        None => {
            let choice = vm::choose(request.platform)?;
            log::debug!("machine: {} ({})", choice.platform, choice.reason);
            choice.platform.to_string()
        }
    };
    let mut undo = Undo {
        dir: None,
        cgroup: None,
        child: None,
        joined: join.is_some(),
    };
    let dir = undo.dir.insert(ContainerDir::create(request.root, request.id)?);
    dir.set_spec(&spec)?;
    let linux = spec.linux().as_ref();
    let at = linux.and_then(|l| l.cgroups_path().as_deref());
    let unit = match request.systemd_cgroup {
        true => Some(Unit::of(at, request.id).map_err(crate::cgroup::Error::from)?),
        false => None,
    };
    let unit_path = unit.as_ref().map(Unit::path);
    let at = unit_path.as_deref().or(at);
    let limits = linux.and_then(|l| l.resources().as_ref());
    // Until there is a sandbox process, ours stands for it: should it be killed before then, what it made is on record.
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let mut record = Record {
        id: request.id.to_owned(),
        pid: own,
        pid_start: process_start(own).unwrap_or(0),
        bundle: request.bundle.to_path_buf(),
        rootfs: rootfs.clone(),
        created: now_rfc3339(),
        owner: rustix::process::getuid().as_raw(),
        platform: platform.clone(),
        cgroups: Cgroup::planned(at, request.id)?,
        annotations: spec
            .annotations()
            .clone()
            .unwrap_or_default()
            .into_iter()
            .collect(),
        unit: unit.as_ref().map(|u| u.name.clone()),
        sandbox: join.as_ref().map(|j| j.sandbox.clone()),
    };
    dir.set_record(&record)?;
    if unit.is_none() {
        undo.cgroup = Some(Cgroup::create(at, request.id, limits)?);
    }

    let (sync, child_sync) = socket::message_pair().doing("make the start-up channel")?;
    let hooks = spec.hooks().as_ref();
    let some = |list: Option<&Vec<_>>| list.is_some_and(|l| !l.is_empty());
    let runtime_hooks =
        hooks.is_some_and(|h| some(h.prestart().as_ref()) || some(h.create_runtime().as_ref()));
    let lowest = 3 + request.preserve_fds as i32;
    let child_sync = for_child(child_sync, lowest)?;
    let console = request.console.map(|fd| for_child(fd, lowest)).transpose()?;
    let log = request.log.map(|fd| for_child(fd, lowest)).transpose()?;
    let log_dir = match request.settings.debug_level {
        0 => None,
        _ => log_directory(&request.settings)
            .map(|fd| for_child(fd, lowest))
            .transpose()?,
    };
    let own_log = log_dir.as_ref().map(|dir| OwnLog {
        dir_fd: dir.as_raw_fd(),
        level: request.settings.debug_level,
        max_bytes: request.settings.log_max_bytes,
        keep: request.settings.log_keep,
    });
    let order = Order {
        join,
        own_log,
        kernel: request.settings.kernel.clone(),
        id: request.id.to_owned(),
        state_dir: dir.path().canonicalize().at("find", dir.path())?,
        bundle: request.bundle.to_path_buf(),
        rootfs,
        overlay: request.overlay,
        platform,
        engine: request.engine,
        patch_calls: request.call_sites == vm::CallSites::Patch,
        cgroups: record.cgroups.clone(),
        sync_fd: child_sync.as_raw_fd(),
        console_fd: console.as_ref().map(AsRawFd::as_raw_fd),
        preserve_fds: request.preserve_fds,
        runtime_hooks,
        log_level: request.log_level,
        log_fd: log.as_ref().map(AsRawFd::as_raw_fd),
        log_json: request.log_json,
        spec,
    };
    let order_fd = for_child(memory_file(&order)?, lowest)?;
    let child = undo.child.insert(spawn(&order_fd)?);
    drop((child_sync, console, log, log_dir, order_fd));
    let pid = child.id() as i32;
    if let Some(unit) = &unit {
        // systemd makes the cgroup around the process; what it leaves out is made here.
        let unified = crate::cgroup::is_unified()?;
        let limits = order.spec.linux().as_ref().and_then(|l| l.resources().as_ref());
        unit.start(pid, limits, unified)
            .map_err(crate::cgroup::Error::from)?;
        undo.cgroup = Some(Cgroup::create(unit_path.as_deref(), &order.id, limits)?);
    }
    let Some(cgroup) = &undo.cgroup else {
        return Err(Error::Protocol);
    };
    cgroup.add(pid)?;
    record.pid = pid;
    record.pid_start = process_start(pid).unwrap_or(0);
    record.cgroups = cgroup.paths();
    dir.set_record(&record)?;
    go(&sync)?;
    attend(&sync, child, &order.spec, &record, |pid| {
        Ok(cgroup.add(in_a_jail(pid)?)?)
    })?;
    match (undo.dir.take(), undo.child.take()) {
        (Some(dir), Some(child)) => {
            undo.cgroup = None;
            Ok(Created { dir, record, child })
        }
        _ => Err(Error::Protocol),
    }
}

/// The directory of the sandboxes' logs; none where it cannot be made, which is no reason to fail.
fn log_directory(settings: &Settings) -> Option<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    let path = &settings.log_dir;
    let made = std::fs::create_dir_all(path);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match made.and_then(|()| Ok(rustix::fs::open(path, flags, Mode::empty())?)) {
        Ok(fd) => Some(fd),
        Err(e) => {
            log::debug!("no logs of sandboxes in {}: {e}", path.display());
            None
        }
    }
}

fn rootfs_of(request: &Request<'_>) -> Result<PathBuf, Error> {
    let root = request
        .spec
        .root()
        .as_ref()
        .map(|r| request.bundle.join(r.path()))
        .unwrap_or_default();
    match root.canonicalize() {
        Ok(path) if path.is_dir() => Ok(path),
        _ => Err(Error::NoRootfs(root)),
    }
}

/// Keeps `fd` open across the start of the child, above the descriptors that are passed to the program.
fn for_child(fd: OwnedFd, lowest: i32) -> Result<OwnedFd, OsError> {
    let high = rustix::io::fcntl_dupfd_cloexec(&fd, lowest).doing("copy a descriptor")?;
    rustix::io::fcntl_setfd(&high, FdFlags::empty()).doing("keep a descriptor")?;
    Ok(high)
}

fn memory_file(order: &Order) -> Result<OwnedFd, Error> {
    let fd = rustix::fs::memfd_create("quark-order", MemfdFlags::CLOEXEC).doing("make a memory file")?;
    let text = serde_json::to_vec(order).map_err(|_| Error::Protocol)?;
    let mut file = std::fs::File::from(fd);
    file.write_all(&text).doing("write the order")?;
    let fd = OwnedFd::from(file);
    rustix::fs::seek(&fd, rustix::fs::SeekFrom::Start(0)).doing("rewind the order")?;
    Ok(fd)
}

fn spawn(order: &OwnedFd) -> Result<Child, Error> {
    let mut command = Command::new("/proc/self/exe");
    command.arg("sandbox").arg(order.as_raw_fd().to_string());
    command
        .stdin(Stdio::inherit())
        .stdout(Stdio::inherit())
        .stderr(Stdio::inherit());
    Ok(command.spawn().doing("start the sandbox process")?)
}

fn go(sync: &OwnedFd) -> Result<(), Error> {
    // A sandbox that is gone already is noticed, with its reason, by the next read.
    match socket::send(sync, &[IoSlice::new(&[GO])], &[], SendFlags::empty()) {
        Ok(_) | Err(rustix::io::Errno::PIPE) => Ok(()),
        Err(e) => Err(e).doing("speak to the sandbox process")?,
    }
}

/// Answers the sandbox process until it says that the container is created, or why not.
fn attend(
    sync: &OwnedFd,
    child: &mut Child,
    spec: &Spec,
    record: &Record,
    place: impl Fn(u32) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let got =
            socket::receive(sync, &mut buffer, RecvFlags::empty()).doing("hear from the sandbox process")?;
        if got.len == 0 {
            let how = child.wait().map(|s| s.to_string()).unwrap_or_default();
            return Err(Error::Died(how));
        }
        match serde_json::from_slice(&buffer[..got.len]) {
            Ok(Answer::Created) => return Ok(()),
            Ok(Answer::Failed(why)) => return Err(Error::Told(why)),
            Ok(Answer::NeedMappings) => {
                write_mappings(child.id(), spec)?;
                go(sync)?;
            }
            Ok(Answer::NeedCgroup(pid)) => {
                place(pid)?;
                go(sync)?;
            }
            Ok(Answer::NeedHooks) => {
                let state = hooks::state_document(record, Status::Creating);
                if let Some(h) = spec.hooks() {
                    hooks::run_all("prestart", h.prestart().as_ref(), &state)?;
                    hooks::run_all("createRuntime", h.create_runtime().as_ref(), &state)?;
                }
                go(sync)?;
            }
            Err(_) => return Err(Error::Protocol),
        }
    }
}

/// The process `pid` that a sandbox names, checked to be of a guest: no other is put anywhere by a guest's word.
fn in_a_jail(pid: u32) -> Result<i32, Error> {
    let path = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(&path).at("read", &path)?;
    let levels = status.lines().find_map(|l| l.strip_prefix("NSpid:"));
    if levels.is_some_and(|l| l.split_whitespace().count() > 1) {
        Ok(pid as i32)
    } else {
        Err(Error::Protocol)
    }
}

fn mapping_text(list: Option<&Vec<LinuxIdMapping>>) -> String {
    let line = |m: &LinuxIdMapping| format!("{} {} {}\n", m.container_id(), m.host_id(), m.size());
    list.into_iter().flatten().map(line).collect()
}

fn write_mappings(pid: u32, spec: &Spec) -> Result<(), Error> {
    let linux = spec.linux().as_ref();
    let proc = PathBuf::from(format!("/proc/{pid}"));
    let write = |name: &str, text: String| {
        let file = proc.join(name);
        std::fs::write(&file, text).at("write", file)
    };
    if !rustix::process::geteuid().is_root() {
        // The kernel asks this of whoever may not change groups.
        write("setgroups", "deny".to_owned())?;
    }
    write(
        "uid_map",
        mapping_text(linux.and_then(|l| l.uid_mappings().as_ref())),
    )?;
    write(
        "gid_map",
        mapping_text(linux.and_then(|l| l.gid_mappings().as_ref())),
    )?;
    Ok(())
}

/// Writes `--pid-file` atomically.
pub fn write_pid_file(path: &Path, pid: i32) -> Result<(), OsError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let draft = path.with_file_name(format!(".{name}"));
    std::fs::write(&draft, pid.to_string()).at("write", &draft)?;
    std::fs::rename(&draft, path).at("write", path)
}

/// Whether descriptor `fd` is open: `--preserve-fds` names some that must be.
pub fn is_open(fd: i32) -> bool {
    // Looked up, not opened: no ownership is taken.
    Path::new("/proc/self/fd")
        .join(fd.to_string())
        .symlink_metadata()
        .is_ok()
}

/// Sends a message and keeps nothing: used by tests of the start-up channel.
#[cfg(test)]
fn say(sync: impl rustix::fd::AsFd, answer: &Answer) {
    let bytes = serde_json::to_vec(answer).unwrap();
    socket::send(sync, &[IoSlice::new(&bytes)], &[], SendFlags::empty()).unwrap();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        serde_json::from_value(serde_json::json!({
            "id": "a", "pid": 1, "pidStart": 1, "bundle": "/b", "rootfs": "/b/r", "created": "", "owner": 0,
            "platform": "process", "patch_calls": false, "cgroups": []
        }))
        .unwrap()
    }

    fn spec() -> Spec {
        serde_json::from_value(crate::runtime::template::spec(false)).unwrap()
    }

    #[test]
    fn the_sandbox_processs_own_words_reach_the_caller() {
        let (ours, theirs) = socket::message_pair().unwrap();
        let mut child = Command::new("true").spawn().unwrap();
        say(&theirs, &Answer::Failed("no luck".into()));
        let said = attend(&ours, &mut child, &spec(), &record(), |_| Ok(()))
            .unwrap_err()
            .to_string();
        assert_eq!(said, "no luck");
        drop(theirs);
        let said = attend(&ours, &mut child, &spec(), &record(), |_| Ok(()))
            .unwrap_err()
            .to_string();
        assert!(said.contains("ended during start-up (exit status: 0)"), "{said}");
    }

    #[test]
    fn mappings_are_written_as_the_kernel_reads_them() {
        let list = serde_json::from_str(
            r#"[{"containerID":0,"hostID":1000,"size":1},{"containerID":1,"hostID":5,"size":9}]"#,
        );
        assert_eq!(mapping_text(Some(&list.unwrap())), "0 1000 1\n1 5 9\n");
    }
}
