//! `quark do`: a command in a throw-away sandbox over the host's files. Nothing it writes reaches them.

use super::{Error, Global, create, foreground};
use crate::error::Context;
use oci_spec::runtime::Spec;
use rustix::termios::isatty;
use serde_json::json;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

/// Options.
#[derive(clap::Args)]
pub struct Args {
    /// Network: none (loopback only) or host
    #[arg(long, default_value = "none", value_parser = ["none", "host"])]
    network: String,
    /// Working directory; the present one by default
    #[arg(long)]
    cwd: Option<String>,
    /// The command
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    command: Vec<String>,
}

/// Capabilities of the sandbox's root over its own files: those Docker gives.
const CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SYS_CHROOT",
    "CAP_MKNOD",
    "CAP_AUDIT_WRITE",
    "CAP_SETFCAP",
];

/// File systems that show the host's kernel and processes: never inside, wherever they are mounted.
const KERNEL: [&str; 20] = [
    "proc",
    "sysfs",
    "devpts",
    "devtmpfs",
    "mqueue",
    "cgroup",
    "cgroup2",
    "debugfs",
    "tracefs",
    "securityfs",
    "bpf",
    "pstore",
    "configfs",
    "fusectl",
    "binfmt_misc",
    "hugetlbfs",
    "nsfs",
    "rpc_pipefs",
    "efivarfs",
    "autofs",
];

/// Trees that are the guest's own inside.
const GUEST: [&str; 3] = ["/proc", "/sys", "/dev"];

/// Mount points of `mountinfo` that are to be shown read-only inside, in mounting order.
fn submounts(mountinfo: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for line in mountinfo.lines() {
        let Some(point) = line.split(' ').nth(4) else {
            continue;
        };
        let kind = line
            .split_once(" - ")
            .and_then(|(_, r)| r.split(' ').next())
            .unwrap_or("");
        let point = unescape(point);
        let guest = GUEST.iter().any(|g| Path::new(&point).starts_with(g));
        if point == "/" || guest || KERNEL.contains(&kind) || found.contains(&point) {
            continue;
        }
        found.push(point);
    }
    found
}

/// Undoes the octal escapes of `/proc/self/mountinfo`.
fn unescape(text: &str) -> String {
    let mut out = Vec::new();
    let bytes = text.as_bytes();
    let mut i = 0;
    while i < bytes.len() {
        let octal = (bytes[i] == b'\\').then(|| text.get(i + 1..i + 4)).flatten();
        match octal.and_then(|o| u8::from_str_radix(o, 8).ok()) {
            Some(byte) => {
                out.push(byte);
                i += 4;
            }
            None => {
                out.push(bytes[i]);
                i += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn spec_of(args: &Args, terminal: bool) -> Result<Spec, Error> {
    let root = rustix::process::geteuid().is_root();
    let mut spec = crate::runtime::template::spec(!root);
    let cwd = match &args.cwd {
        Some(cwd) => cwd.clone(),
        None => std::env::current_dir().map_or_else(|_| "/".to_owned(), |d| d.to_string_lossy().into_owned()),
    };
    let env: Vec<String> = std::env::vars_os()
        .map(|(n, v)| {
            let (n, v) = (n.into_vec(), v.into_vec());
            format!("{}={}", String::from_utf8_lossy(&n), String::from_utf8_lossy(&v))
        })
        .collect();
    spec["process"] = json!({
        "terminal": terminal,
        "user": {"uid": 0, "gid": 0},
        "args": args.command,
        "env": env,
        "cwd": cwd,
        "capabilities": {"bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES},
    });
    spec["root"] = json!({"path": "/", "readonly": false});
    spec["hostname"] = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
        .into();
    let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").doing("read the mount table")?;
    if let Some(mounts) = spec["mounts"].as_array_mut() {
        for point in submounts(&mountinfo) {
            if Path::new(&point).exists() {
                mounts.push(
                    json!({"destination": point, "type": "bind", "source": point, "options": ["bind", "ro"]}),
                );
            }
        }
    }
    let keep_network = args.network == "none";
    if let Some(list) = spec["linux"]["namespaces"].as_array_mut() {
        list.retain(|n| n["type"] != "network");
        if keep_network {
            list.push(json!({"type": "network"}));
        }
    }
    serde_json::from_value::<Spec>(spec).map_err(|e| Error::Value {
        what: "do",
        value: e.to_string(),
    })
}

/// `quark do`.
pub fn main(global: &Global, args: Args) -> Result<i32, Error> {
    // A terminal joins stdout and stderr and changes line ends: only where there is one on both sides.
    let terminal = isatty(std::io::stdin()) && isatty(std::io::stdout());
    let spec = spec_of(&args, terminal)?;
    let mut salt = [0u8; 4];
    rustix::rand::getrandom(&mut salt, rustix::rand::GetRandomFlags::empty()).doing("get random bytes")?;
    let id = format!("do-{}-{:08x}", std::process::id(), u32::from_ne_bytes(salt));
    let (ours, theirs) = foreground::console(terminal)?;
    let created = create::create_spec(global, &id, Path::new("/"), spec.clone(), true, theirs, 0)?;
    create::finish(created, &spec, ours, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_mounts_but_not_what_is_the_guests() {
        let table = "\
1 0 8:1 / / rw - ext4 /dev/vda rw
2 1 0:5 / /proc rw - proc proc rw
3 1 0:6 / /dev/shm rw - tmpfs tmpfs rw
4 1 8:2 / /my\\040home rw - ext4 /dev/vdb rw
5 1 8:2 / /my\\040home rw - ext4 /dev/vdb rw
6 1 8:2 / /process rw - ext4 /dev/vdb rw
7 1 0:9 / /auto rw - autofs auto rw
8 1 0:9 / /chroot/proc rw - proc proc rw
";
        assert_eq!(submounts(table), ["/my home", "/process"]);
    }

    #[test]
    fn the_configuration_is_valid() {
        let args = Args {
            network: "none".into(),
            cwd: None,
            command: vec!["true".into()],
        };
        let spec = spec_of(&args, false).unwrap();
        assert!(crate::runtime::validate::check(&spec).unwrap().is_empty());
    }
}
