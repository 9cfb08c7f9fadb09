//! Turns the OCI `process` object into the plain data QKernel takes.

use oci_spec::runtime::{Capabilities as CapabilityNames, Process};
use qlib::control::{Capabilities, ProcessSpec, Rlimit};
use rustix::process::Resource;
use std::os::unix::ffi::OsStrExt;
use std::str::FromStr;
use std::sync::OnceLock;

/// What is wrong with a `process` object; the text begins with the JSON path.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A field has a value that cannot be.
    #[error("{at}: {why}")]
    Field {
        /// JSON path.
        at: &'static str,
        /// What is wrong.
        why: String,
    },
}

fn wrong<T>(at: &'static str, why: impl Into<String>) -> Result<T, Error> {
    Err(Error::Field { at, why: why.into() })
}

/// The rlimits, each at its number. Source: `include/uapi/asm-generic/resource.h`.
const RLIMITS: [(&str, Resource); 16] = [
    ("RLIMIT_CPU", Resource::Cpu),
    ("RLIMIT_FSIZE", Resource::Fsize),
    ("RLIMIT_DATA", Resource::Data),
    ("RLIMIT_STACK", Resource::Stack),
    ("RLIMIT_CORE", Resource::Core),
    ("RLIMIT_RSS", Resource::Rss),
    ("RLIMIT_NPROC", Resource::Nproc),
    ("RLIMIT_NOFILE", Resource::Nofile),
    ("RLIMIT_MEMLOCK", Resource::Memlock),
    ("RLIMIT_AS", Resource::As),
    ("RLIMIT_LOCKS", Resource::Locks),
    ("RLIMIT_SIGPENDING", Resource::Sigpending),
    ("RLIMIT_MSGQUEUE", Resource::Msgqueue),
    ("RLIMIT_NICE", Resource::Nice),
    ("RLIMIT_RTPRIO", Resource::Rtprio),
    ("RLIMIT_RTTIME", Resource::Rttime),
];

/// The limits that `quark` was started under, as they were when first asked: they hold where a spec names none, as with
/// any child.
fn inherited() -> &'static [Rlimit] {
    static LIMITS: OnceLock<Vec<Rlimit>> = OnceLock::new();
    LIMITS.get_or_init(|| {
        let limit = |(number, (_, resource)): (usize, &(&str, Resource))| {
            let l = rustix::process::getrlimit(*resource);
            Rlimit {
                resource: number as u32,
                soft: l.current.unwrap_or(u64::MAX),
                hard: l.maximum.unwrap_or(u64::MAX),
            }
        };
        RLIMITS.iter().enumerate().map(limit).collect()
    })
}

/// Bit mask, by capability number, of a set of names.
fn mask(names: &Option<CapabilityNames>) -> Result<u64, Error> {
    let mut bits = 0;
    for name in names.iter().flatten() {
        match caps::Capability::from_str(&caps::to_canonical(&name.to_string())) {
            Ok(cap) => bits |= 1u64 << cap.index(),
            Err(_) => return wrong("process.capabilities", format!("unknown capability {name}")),
        }
    }
    Ok(bits)
}

fn text(at: &'static str, value: &str) -> Result<Vec<u8>, Error> {
    if value.as_bytes().contains(&0) {
        return wrong(at, "a NUL byte cannot be passed to a program");
    }
    Ok(value.as_bytes().to_vec())
}

/// Converts `process`; the stdio handles are left to the caller.
pub fn to_guest(process: &Process) -> Result<ProcessSpec, Error> {
    let mut args = Vec::new();
    for arg in process.args().iter().flatten() {
        args.push(text("process.args", arg)?);
    }
    if args.is_empty() || args[0].is_empty() {
        return wrong("process.args", "names no program");
    }
    let mut env = Vec::new();
    for entry in process.env().iter().flatten() {
        env.push(text("process.env", entry)?);
    }
    let cwd = process.cwd().as_os_str().as_bytes().to_vec();
    if cwd.first() != Some(&b'/') {
        return wrong("process.cwd", "must be an absolute path");
    }
    let mut rlimits: Vec<Rlimit> = Vec::new();
    for limit in process.rlimits().iter().flatten() {
        let name = limit.typ().to_string();
        let Some(resource) = RLIMITS.iter().position(|(n, _)| *n == name) else {
            return wrong("process.rlimits", format!("unknown type {name}"));
        };
        let resource = resource as u32;
        if rlimits.iter().any(|r| r.resource == resource) {
            return wrong("process.rlimits", format!("{name} is given twice"));
        }
        if limit.soft() > limit.hard() {
            return wrong(
                "process.rlimits",
                format!("{name}: the soft limit is above the hard limit"),
            );
        }
        rlimits.push(Rlimit {
            resource,
            soft: limit.soft(),
            hard: limit.hard(),
        });
    }
    for limit in inherited() {
        if !rlimits.iter().any(|r| r.resource == limit.resource) {
            rlimits.push(limit.clone());
        }
    }
    let mut caps = Capabilities::default();
    if let Some(sets) = process.capabilities() {
        caps = Capabilities {
            bounding: mask(sets.bounding())?,
            effective: mask(sets.effective())?,
            inheritable: mask(sets.inheritable())?,
            permitted: mask(sets.permitted())?,
            ambient: mask(sets.ambient())?,
        };
    }
    let user = process.user();
    let size = process.console_size();
    Ok(ProcessSpec {
        args,
        env,
        cwd,
        uid: user.uid(),
        gid: user.gid(),
        groups: user.additional_gids().clone().unwrap_or_default(),
        umask: user.umask().unwrap_or(u32::MAX),
        caps,
        rlimits,
        no_new_privs: process.no_new_privileges().unwrap_or(false),
        oom_score_adj: process.oom_score_adj().unwrap_or(0),
        terminal: process.terminal().unwrap_or(false),
        rows: size.map_or(0, |b| b.height().min(u16::MAX.into()) as u32),
        cols: size.map_or(0, |b| b.width().min(u16::MAX.into()) as u32),
        stdio: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<ProcessSpec, Error> {
        to_guest(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn carries_every_field_over() {
        let p = parse(
            r#"{"args":["sh","-c","x"],"env":["A=b"],"cwd":"/w","terminal":true,"consoleSize":{"height":3,"width":4},
            "user":{"uid":1,"gid":2,"additionalGids":[5],"umask":18},"noNewPrivileges":true,
            "capabilities":{"bounding":["CAP_CHOWN","CAP_KILL"],"effective":["CAP_CHOWN"]},
            "rlimits":[{"type":"RLIMIT_NOFILE","soft":10,"hard":20}]}"#,
        )
        .unwrap();
        assert_eq!(
            (p.args.len(), p.env.len(), p.cwd.as_slice()),
            (3, 1, b"/w".as_slice())
        );
        assert_eq!((p.uid, p.gid, p.umask, p.rows, p.cols), (1, 2, 18, 3, 4));
        assert_eq!((p.caps.bounding, p.caps.effective), (0b100001, 1));
        assert_eq!(
            p.rlimits[0],
            Rlimit {
                resource: 7,
                soft: 10,
                hard: 20
            }
        );
        // The others are those this process has.
        assert_eq!(p.rlimits.len(), RLIMITS.len());
        let core = rustix::process::getrlimit(Resource::Core).current;
        let given = p.rlimits.iter().find(|l| l.resource == 4).map(|l| l.soft);
        assert_eq!(given, Some(core.unwrap_or(u64::MAX)));
        assert!(p.terminal && p.no_new_privs && p.groups == [5]);
    }

    #[test]
    fn wrong_fields_are_named() {
        let base = r#""user":{"uid":0,"gid":0}"#;
        for (json, says) in [
            (format!(r#"{{"cwd":"/",{base}}}"#), "process.args"),
            (format!(r#"{{"cwd":"w","args":["a"],{base}}}"#), "process.cwd"),
            (
                format!(r#"{{"cwd":"/","args":["a\u0000b"],{base}}}"#),
                "process.args",
            ),
            (
                format!(
                    r#"{{"cwd":"/","args":["a"],"rlimits":[{{"type":"RLIMIT_CPU","soft":2,"hard":1}}],{base}}}"#
                ),
                "process.rlimits",
            ),
        ] {
            let said = parse(&json).unwrap_err().to_string();
            assert!(said.starts_with(says), "{said}");
        }
    }
}
