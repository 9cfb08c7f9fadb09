//! `quark features`: runc's JSON.

use super::Error;
use serde_json::json;

/// `quark features`. Source: `features.md` of the OCI runtime specification.
pub fn main() -> Result<i32, Error> {
    let mount_options = vec![
        "async",
        "atime",
        "bind",
        "defaults",
        "dev",
        "diratime",
        "dirsync",
        "exec",
        "iversion",
        "mand",
        "noatime",
        "nodev",
        "nodiratime",
        "noexec",
        "noiversion",
        "nomand",
        "norelatime",
        "nostrictatime",
        "nosuid",
        "private",
        "rbind",
        "relatime",
        "rnodev",
        "rnoexec",
        "rnosuid",
        "ro",
        "rprivate",
        "rro",
        "rshared",
        "rslave",
        "runbindable",
        "rw",
        "shared",
        "slave",
        "strictatime",
        "suid",
        "sync",
        "tmpcopyup",
        "unbindable",
    ];
    let mut capabilities: Vec<String> = caps::all().iter().map(ToString::to_string).collect();
    capabilities.sort();
    let document = json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": crate::runtime::state::OCI_VERSION,
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": mount_options,
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "user", "uts"],
            "capabilities": capabilities,
            "cgroup": {"v1": true, "v2": true, "systemd": false, "systemdUser": false, "rdma": false},
            "seccomp": {"enabled": false},
            "apparmor": {"enabled": false},
            "selinux": {"enabled": false},
            "intelRdt": {"enabled": false},
            "mountExtensions": {"idmap": {"enabled": false}}
        },
        "annotations": {
            "dev.quark.version": env!("CARGO_PKG_VERSION"),
            "dev.quark.platforms": "process"
        },
        "potentiallyUnsafeConfigAnnotations": []
    });
    println!("{document:#}");
    Ok(0)
}
