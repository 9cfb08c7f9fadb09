//! Finds the sandbox that a container is to share: one whose pid or ipc namespace its configuration names.
//!
//! These namespaces live in a guest kernel. On the host a container's ipc namespace is one of its own all the same, and is
//! known by its inode; of its pid namespace there is only the way to it, `/proc/PID/ns/pid`, where PID is the container's.

use super::Error;
use super::client::Client;
use super::link::SocketLink;
use super::protocol::{Request, Response};
use crate::error::Context;
use crate::runtime::state::{ContainerDir, Record, Status};
use oci_spec::runtime::{LinuxNamespaceType as Type, LinuxResources, Spec};
use qlib::control::ContainerId;
use serde::{Deserialize, Serialize};
use std::os::linux::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The sandbox to join, and what to share in it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Join {
    /// Id of the container that the sandbox was made for.
    pub sandbox: String,
    /// Its directory.
    pub dir: PathBuf,
    /// Its machine.
    pub platform: String,
    /// Its process.
    pub pid: i32,
    /// Id of the container whose pid namespace is shared.
    pub pid_of: Option<String>,
    /// Id of the container whose ipc namespace is shared.
    pub ipc_of: Option<String>,
}

fn refuse(why: impl Into<String>) -> Error {
    Error::Join(why.into())
}

/// Device and inode number of what `path` leads to.
fn identity(path: &Path) -> Option<(u64, u64)> {
    path.metadata().ok().map(|m| (m.st_dev(), m.st_ino()))
}

/// The process that `/proc/PID/ns/KIND` names.
fn pid_in(path: &Path) -> Option<i32> {
    let rest = path.strip_prefix("/proc").ok()?;
    rest.components().next()?.as_os_str().to_str()?.parse().ok()
}

/// The records of the containers below `root` that run, but for `own`.
fn live(root: &Path, own: &str) -> Vec<Record> {
    let ids = ContainerDir::list(root).unwrap_or_default();
    let others = ids.into_iter().filter(|id| id != own);
    let record = |id: String| {
        let dir = ContainerDir::open(root, &id).ok()?;
        let record = dir.record().ok()?;
        let there = matches!(dir.status(&record).status, Status::Created | Status::Running);
        there.then_some(record)
    };
    others.filter_map(record).collect()
}

/// Finds what container `own` of `root` is to join as `spec` says; `None`: it is to have a sandbox of its own.
///
/// # Errors
/// A namespace that is no running container's, or two of different sandboxes.
pub fn find(root: &Path, own: &str, spec: &Spec) -> Result<Option<Join>, Error> {
    let listed = spec.linux().as_ref().and_then(|l| l.namespaces().as_ref());
    let path_of = |kind: Type| {
        let named = listed.into_iter().flatten().find(|n| n.typ() == kind);
        named.and_then(|n| n.path().clone())
    };
    let (pid, ipc) = (path_of(Type::Pid), path_of(Type::Ipc));
    if pid.is_none() && ipc.is_none() {
        return Ok(None);
    }
    let live = live(root, own);
    let by_pid = match &pid {
        Some(path) => {
            let found = pid_in(path).and_then(|pid| live.iter().find(|r| r.pid == pid));
            Some(found.ok_or_else(|| {
                refuse(format!(
                    "pid: {} is not of a running container of this runtime: name it by /proc/PID/ns/pid, with the \
                     container's PID as `quark state` tells it",
                    path.display()
                ))
            })?)
        }
        None => None,
    };
    let by_ipc = match &ipc {
        Some(path) => {
            let wanted =
                identity(path).ok_or_else(|| refuse(format!("ipc: cannot find {}", path.display())))?;
            let has = |r: &&Record| identity(&ns(r.pid, "ipc")) == Some(wanted);
            // Several have it when one has joined another; with the same process it is the one that is meant.
            let named = live.iter().find(|r| Some(r.pid) == pid_in(path)).filter(has);
            let found = named.or_else(|| live.iter().find(has));
            Some(found.ok_or_else(|| {
                refuse(format!(
                    "ipc: {} is not of a running container of this runtime",
                    path.display()
                ))
            })?)
        }
        None => None,
    };
    let Some(of) = by_pid.or(by_ipc) else {
        return Ok(None);
    };
    let sandbox = |r: &Record| r.sandbox.clone().unwrap_or_else(|| r.id.clone());
    if let Some(other) = by_ipc.filter(|o| sandbox(o) != sandbox(of)) {
        return Err(refuse(format!(
            "containers {} and {} do not share a sandbox: the pid namespace of one and the ipc namespace of the other \
             cannot be had together",
            of.id, other.id
        )));
    }
    let dir = ContainerDir::open(root, &sandbox(of))?;
    let first = dir.record()?;
    check(spec, &first)?;
    Ok(Some(Join {
        sandbox: first.id,
        dir: dir.path().canonicalize().at("find", dir.path())?,
        platform: first.platform,
        pid: first.pid,
        pid_of: by_pid.map(|r| r.id.clone()),
        ipc_of: by_ipc.map(|r| r.id.clone()),
    }))
}

fn ns(pid: i32, kind: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/ns/{kind}"))
}

/// Refuses what cannot be honoured for a container in another one's sandbox.
fn check(spec: &Spec, first: &Record) -> Result<(), Error> {
    let linux = spec.linux().as_ref();
    let settings = linux.and_then(|l| l.sysctl().as_ref());
    let of_kernel = |name: &&String| !name.replace('/', ".").starts_with("net.");
    if let Some(name) = settings.and_then(|s| s.keys().find(of_kernel)) {
        return Err(refuse(format!(
            "sysctl {name} is a setting of the guest kernel, which is container {}'s",
            first.id
        )));
    }
    match linux.and_then(|l| l.resources().as_ref()) {
        Some(limits) => check_limits(limits, &first.platform, &first.id),
        None => Ok(()),
    }
}

/// Refuses limits that cannot be held for one container alone in the `sandbox` that it shares.
///
/// # Errors
/// Which.
pub fn check_limits(limits: &LinuxResources, platform: &str, sandbox: &str) -> Result<(), Error> {
    if platform == "process" {
        return Ok(());
    }
    let memory = limits.memory().as_ref().and_then(|m| m.limit());
    let cpu = limits.cpu().as_ref();
    let cpus = cpu.and_then(|c| c.cpus().as_ref());
    let given = [
        ("memory.limit", memory.is_some_and(|l| l > 0)),
        ("cpu.quota", cpu.and_then(|c| c.quota()).is_some_and(|q| q > 0)),
        ("cpu.cpus", cpus.is_some_and(|c| !c.is_empty())),
    ];
    match given.iter().find(|(_, given)| *given) {
        Some((name, _)) => Err(refuse(format!(
            "resources.{name}: on a kvm machine the limits of container {sandbox}, whose sandbox is shared, hold for all \
             in it"
        ))),
        None => Ok(()),
    }
}

/// Inode numbers of the user and the network namespace of process `pid`.
fn users_and_network(pid: i32) -> [Option<(u64, u64)>; 2] {
    ["user", "net"].map(|kind| identity(&ns(pid, kind)))
}

/// A sandbox that said yes.
pub struct Joined {
    /// Where the container's commands go, and events come from.
    pub link: SocketLink,
    /// The container whose pid namespace it shares.
    pub pid_of: ContainerId,
    /// The container whose ipc namespace it shares.
    pub ipc_of: ContainerId,
    join: Join,
    /// [`users_and_network`] of the sandbox, taken while they can be seen.
    theirs: [Option<(u64, u64)>; 2],
}

impl Joined {
    /// Asks for container `id` to join, while the host's files can be reached.
    ///
    /// # Errors
    /// The sandbox's, and what keeps it from being reached.
    pub fn ask(join: &Join, id: &str) -> Result<Self, Error> {
        let client = Client::connect(&ContainerDir::at(&join.sandbox, &join.dir))?;
        let request = Request::Join {
            id: id.to_owned(),
            pid_of: join.pid_of.clone(),
            ipc_of: join.ipc_of.clone(),
        };
        let Response::Joined { pid_of, ipc_of } = client.ask(&request, &[])? else {
            return Err(Error::Protocol);
        };
        Ok(Self {
            link: SocketLink::to_sandbox(client.into_socket()),
            pid_of: ContainerId(pid_of),
            ipc_of: ContainerId(ipc_of),
            join: join.clone(),
            theirs: users_and_network(join.pid),
        })
    }

    /// Checks, in the namespaces of the joining container, that its users are those of the sandbox.
    ///
    /// # Errors
    /// They are not: the guest kernel's files would be of other owners.
    pub fn check_users(&self) -> Result<(), Error> {
        let own = users_and_network(std::process::id() as i32);
        if own[0] == self.theirs[0] {
            return Ok(());
        }
        Err(refuse(format!(
            "user: it must have the user namespace of container {}: name it by /proc/{}/ns/user",
            self.join.sandbox, self.join.pid
        )))
    }

    /// Whether the joining container, in whose namespaces the caller stands, has the network of the sandbox.
    pub fn shares_network(&self) -> bool {
        users_and_network(std::process::id() as i32)[1] == self.theirs[1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(namespaces: serde_json::Value) -> Spec {
        let mut spec = crate::runtime::template::spec(false);
        spec["linux"]["namespaces"] = namespaces;
        serde_json::from_value(spec).unwrap()
    }

    #[test]
    fn without_a_path_there_is_nothing_to_join() {
        let none =
            spec(json!([{"type": "pid"}, {"type": "ipc"}, {"type": "network", "path": "/proc/1/ns/net"}]));
        assert!(find(Path::new("/nowhere"), "a", &none).unwrap().is_none());
    }

    #[test]
    fn a_namespace_of_nobody_is_refused_by_name() {
        for (kind, path) in [("pid", "/proc/1/ns/pid"), ("ipc", "/proc/self/ns/ipc")] {
            let one = spec(json!([{"type": kind, "path": path}]));
            let said = find(Path::new("/nowhere"), "a", &one).unwrap_err().to_string();
            assert!(
                said.contains(kind) && said.contains("running container"),
                "{said}"
            );
        }
    }

    #[test]
    fn a_virtual_machine_has_no_limits_of_memory_for_one_of_its_containers() {
        let limits = |text: &str| serde_json::from_str::<LinuxResources>(text).unwrap();
        let memory = limits(r#"{"memory": {"limit": 1000000}}"#);
        let said = check_limits(&memory, "kvm", "first").unwrap_err().to_string();
        assert!(said.contains("memory.limit") && said.contains("first"), "{said}");
        assert!(check_limits(&memory, "process", "first").is_ok());
        let others = limits(r#"{"cpu": {"shares": 512}, "pids": {"limit": 9}, "memory": {"limit": -1}}"#);
        assert!(check_limits(&others, "kvm", "first").is_ok());
    }

    #[test]
    fn the_process_is_read_from_the_path() {
        assert_eq!(pid_in(Path::new("/proc/17/ns/pid")), Some(17));
        assert_eq!(pid_in(Path::new("/run/netns/17")), None);
        assert_eq!(pid_in(Path::new("/proc/self/ns/pid")), None);
    }
}
