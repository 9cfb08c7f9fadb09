//! Decides what of a configuration is honoured. What is not is refused with its JSON path, or, where leaving it out
//! takes nothing from the container's confinement, accepted with a warning. Nothing is dropped silently.

use crate::seccomp;
use oci_spec::runtime::{LinuxNamespaceType, LinuxResources, Spec};

/// A configuration that cannot be honoured; the text begins with the JSON path.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A field's value cannot be, or is not supported.
    #[error("config.json: {at}: {why}")]
    Field {
        /// JSON path.
        at: &'static str,
        /// What is wrong.
        why: String,
    },
    /// The process object is wrong.
    #[error("config.json: {0}")]
    Process(#[from] super::process::Error),
    /// The seccomp profile cannot be enforced.
    #[error("config.json: {0}")]
    Seccomp(#[from] seccomp::profile::Error),
}

fn refuse<T>(at: &'static str, why: impl Into<String>) -> Result<T, Error> {
    Err(Error::Field { at, why: why.into() })
}

/// Checks `spec`; gives the warnings for what is accepted without effect.
pub fn check(spec: &Spec) -> Result<Vec<String>, Error> {
    let mut warnings = Vec::new();
    let version = spec.version();
    if version.split('.').next() != Some("1") {
        return refuse("ociVersion", format!("{version:?} is not supported: 1.x is"));
    }
    for (at, given) in [
        ("solaris", spec.solaris().is_some()),
        ("windows", spec.windows().is_some()),
        ("zos", spec.zos().is_some()),
        ("vm", spec.vm().is_some()),
    ] {
        if given {
            return refuse(at, "is for another kind of container");
        }
    }
    let Some(root) = spec.root() else {
        return refuse("root", "is missing");
    };
    if root.path().as_os_str().is_empty() {
        return refuse("root.path", "is empty");
    }
    if let Some(name) = spec.hostname()
        && (name.len() > 64 || name.as_bytes().contains(&0))
    {
        return refuse("hostname", "is longer than 64 bytes or holds a NUL");
    }
    if spec.domainname().as_ref().is_some_and(|n| n.len() > 64) {
        return refuse("domainname", "is longer than 64 bytes");
    }
    check_process(spec, &mut warnings)?;
    for mount in spec.mounts().iter().flatten() {
        if !mount.destination().is_absolute() {
            // Old engines write relative destinations, which runc takes from the root; so do we.
            warnings.push(format!(
                "mounts: destination {} is not absolute",
                mount.destination().display()
            ));
        }
    }
    check_linux(spec, &mut warnings)?;
    Ok(warnings)
}

fn check_process(spec: &Spec, warnings: &mut Vec<String>) -> Result<(), Error> {
    let Some(process) = spec.process() else {
        return refuse("process", "is missing");
    };
    super::process::to_guest(process)?;
    if process.command_line().is_some() {
        return refuse("process.commandLine", "is for Windows");
    }
    if process.apparmor_profile().as_ref().is_some_and(|p| !p.is_empty()) {
        warnings.push(
            "process.apparmorProfile: AppArmor confines host programs; the guest kernel has none".into(),
        );
    }
    if process.selinux_label().as_ref().is_some_and(|l| !l.is_empty()) {
        warnings.push("process.selinuxLabel: SELinux labels are not applied to guest processes".into());
    }
    if process.io_priority().is_some() {
        warnings.push("process.ioPriority is not applied inside the guest".into());
    }
    if process.scheduler().is_some() {
        return refuse("process.scheduler", "is not supported");
    }
    if process.exec_cpu_affinity().is_some() {
        return refuse("process.execCPUAffinity", "is not supported");
    }
    if process
        .oom_score_adj()
        .is_some_and(|v| !(-1000..=1000).contains(&v))
    {
        return refuse("process.oomScoreAdj", "must be between -1000 and 1000");
    }
    if process.terminal() != Some(true) && process.console_size().is_some_and(|s| s.height() + s.width() > 0)
    {
        warnings.push("process.consoleSize has no effect without process.terminal".into());
    }
    Ok(())
}

fn check_linux(spec: &Spec, warnings: &mut Vec<String>) -> Result<(), Error> {
    let Some(linux) = spec.linux() else {
        return Ok(());
    };
    let mut seen = Vec::new();
    for ns in linux.namespaces().iter().flatten() {
        if seen.contains(&ns.typ()) {
            return refuse("linux.namespaces", format!("{} is given twice", ns.typ()));
        }
        seen.push(ns.typ());
        let joined = ns.path().is_some();
        match ns.typ() {
            LinuxNamespaceType::Mount if joined => {
                return refuse(
                    "linux.namespaces",
                    "joining a mount namespace by path is not supported",
                );
            }
            LinuxNamespaceType::Time => {
                return refuse("linux.namespaces", "time namespaces are not supported");
            }
            _ => {}
        }
    }
    for (kind, shown) in [
        (LinuxNamespaceType::Pid, "processes"),
        (LinuxNamespaceType::Ipc, "IPC objects"),
    ] {
        if !seen.contains(&kind) {
            warnings.push(format!(
                "linux.namespaces: without {kind} the host's {shown} are not seen all the same: the guest kernel has its own"
            ));
        }
    }
    let mapped = linux.uid_mappings().as_ref().is_some_and(|m| !m.is_empty());
    if mapped && !seen.contains(&LinuxNamespaceType::User) {
        return refuse("linux.uidMappings", "needs a user namespace in linux.namespaces");
    }
    if seen.contains(&LinuxNamespaceType::User) {
        let joined = linux.namespaces().iter().flatten();
        let joined = joined
            .filter(|n| n.typ() == LinuxNamespaceType::User)
            .any(|n| n.path().is_some());
        if !mapped && !joined {
            return refuse("linux.uidMappings", "a new user namespace needs mappings");
        }
    }
    if let Some(profile) = linux.seccomp() {
        seccomp::profile::compile(profile)?;
    }
    if linux.mount_label().as_ref().is_some_and(|l| !l.is_empty()) {
        warnings.push("linux.mountLabel: SELinux labels are not applied".into());
    }
    if linux.intel_rdt().is_some() {
        return refuse("linux.intelRdt", "is not supported");
    }
    if linux.memory_policy().is_some() {
        return refuse("linux.memoryPolicy", "is not supported");
    }
    if linux.personality().is_some() {
        return refuse("linux.personality", "is not supported");
    }
    if linux.net_devices().as_ref().is_some_and(|d| !d.is_empty()) {
        return refuse("linux.netDevices", "is not supported");
    }
    if linux.time_offsets().as_ref().is_some_and(|t| !t.is_empty()) {
        return refuse("linux.timeOffsets", "is not supported");
    }
    match linux.rootfs_propagation().as_deref() {
        None
        | Some(
            "" | "private" | "rprivate" | "slave" | "rslave" | "shared" | "rshared" | "unbindable"
            | "runbindable",
        ) => {}
        Some(other) => {
            return refuse(
                "linux.rootfsPropagation",
                format!("{other:?} is not a propagation type"),
            );
        }
    }
    let has = |kind| linux.namespaces().iter().flatten().any(|n| n.typ() == kind);
    for (name, _) in linux.sysctl().iter().flatten() {
        let name = name.replace('/', ".");
        let own = match name.as_str() {
            // The field `hostname` is for this one.
            "kernel.hostname" => false,
            "kernel.domainname" => has(LinuxNamespaceType::Uts),
            n if n.starts_with("kernel.") || n.starts_with("fs.mqueue.") => has(LinuxNamespaceType::Ipc),
            n if n.starts_with("net.") => has(LinuxNamespaceType::Network),
            _ => false,
        };
        if !own {
            return refuse(
                "linux.sysctl",
                format!("{name} is not in a separate kernel namespace"),
            );
        }
    }
    match linux.resources() {
        Some(resources) => check_resources(resources),
        None => Ok(()),
    }
}

/// Checks limits; also those of `update`.
pub fn check_resources(resources: &LinuxResources) -> Result<(), Error> {
    if resources
        .network()
        .as_ref()
        .is_some_and(|n| n.class_id().is_some() || n.priorities().is_some())
    {
        return refuse("linux.resources.network", "is not supported");
    }
    if resources.rdma().as_ref().is_some_and(|r| !r.is_empty()) {
        return refuse("linux.resources.rdma", "is not supported");
    }
    if let Some(memory) = resources.memory()
        && memory.disable_oom_killer() == Some(true)
    {
        return refuse(
            "linux.resources.memory.disableOOMKiller",
            "is not supported: the guest's own \
                 out-of-memory killer must act before the host's",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn check_with(path: &str, value: Value) -> Result<Vec<String>, Error> {
        let mut spec = crate::runtime::template::spec(false);
        *spec.pointer_mut(path).unwrap() = value;
        check(&serde_json::from_value(spec).unwrap())
    }

    #[test]
    fn what_cannot_be_honoured_is_refused_by_name() {
        for (path, value, says) in [
            ("/ociVersion", json!("2.0.0"), "ociVersion"),
            (
                "/linux/namespaces",
                json!([{"type": "mount", "path": "/proc/1/ns/mnt"}]),
                "linux.namespaces",
            ),
            (
                "/linux/namespaces",
                json!([{"type": "mount"}, {"type": "mount"}]),
                "given twice",
            ),
            (
                "/linux/namespaces",
                json!([{"type": "user"}]),
                "linux.uidMappings",
            ),
            (
                "/linux/resources",
                json!({"memory": {"disableOOMKiller": true}}),
                "disableOOMKiller",
            ),
            ("/hostname", json!("x".repeat(65)), "hostname"),
            ("/process/args", json!([]), "process.args"),
        ] {
            let said = check_with(path, value).unwrap_err().to_string();
            assert!(said.contains(says), "{said}");
        }
    }

    #[test]
    fn what_is_accepted_without_effect_is_warned_of() {
        let found = check_with(
            "/process",
            json!({"args": ["a"], "cwd": "/", "user": {"uid": 0, "gid": 0},
            "apparmorProfile": "docker-default"}),
        )
        .unwrap();
        assert!(found[0].starts_with("process.apparmorProfile"), "{found:?}");
    }
}
