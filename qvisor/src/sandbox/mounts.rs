//! Plans a container's mounts: which the guest kernel makes itself, which the host makes.

use super::Error;
use super::options::{self, Options};
use oci_spec::runtime::{Mount, Spec};
use qlib::control::MountKind;
use rustix::fd::OwnedFd;
use rustix::mount::{OpenTreeFlags, open_tree};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where a mount's content comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum From {
    /// The guest kernel.
    Guest(MountKind),
    /// A directory or file of the host.
    Bind(PathBuf),
    /// A file system that the host mounts.
    HostFs,
    /// A tmpfs that begins with what lay beneath it.
    CopiedTmpfs,
}

/// A mount to be made.
#[derive(Clone, Debug)]
pub struct Planned {
    /// Index in the configuration's `mounts`, for messages.
    pub index: usize,
    /// Who makes it.
    pub from: From,
    /// Path in the container, absolute.
    pub destination: PathBuf,
    /// Source as `/proc/mounts` shows it.
    pub source: Vec<u8>,
    /// Type as `/proc/mounts` shows it.
    pub fstype: Vec<u8>,
    /// Options.
    pub options: Options,
    /// A bind's source, taken while this process could still reach it; see [`take_sources`].
    pub taken: Option<Arc<OwnedFd>>,
}

fn wrong(index: usize, mount: &Mount, why: impl Into<String>) -> Error {
    Error::Mount {
        index,
        destination: mount.destination().display().to_string(),
        why: why.into(),
    }
}

fn plan_one(index: usize, mount: &Mount, bundle: &Path) -> Result<Planned, Error> {
    let words = mount.options().iter().flatten().map(String::as_str);
    let mut options = options::parse(words).map_err(|e| wrong(index, mount, e.to_string()))?;
    let destination = Path::new("/").join(mount.destination());
    let kind = mount.typ().as_deref().unwrap_or("");
    let source = mount.source().clone().unwrap_or_default();
    let from = match kind {
        _ if options.bind || kind == "bind" => {
            if source.as_os_str().is_empty() {
                return Err(wrong(index, mount, "a bind mount needs a source"));
            }
            From::Bind(bundle.join(&source))
        }
        "proc" => From::Guest(MountKind::Proc),
        "sysfs" => From::Guest(MountKind::Sysfs),
        "tmpfs" if destination == Path::new("/dev") => From::Guest(MountKind::Dev),
        "devtmpfs" => From::Guest(MountKind::Dev),
        // What lies beneath is the host's to copy, so this one is the host's.
        "tmpfs" if options.data.iter().any(|word| word == "tmpcopyup") => From::CopiedTmpfs,
        "tmpfs" | "ramfs" => From::Guest(MountKind::Tmpfs),
        "devpts" => From::Guest(MountKind::DevPts),
        "mqueue" => From::Guest(MountKind::Mqueue),
        "cgroup" | "cgroup2" => From::Guest(MountKind::Cgroup),
        "" => return Err(wrong(index, mount, "has no type")),
        _ => From::HostFs,
    };
    options.data.retain(|word| word != "tmpcopyup");
    let fstype = if matches!(from, From::Bind(_)) {
        b"none".to_vec()
    } else {
        kind.as_bytes().to_vec()
    };
    Ok(Planned {
        index,
        from,
        destination,
        source: source.as_os_str().as_bytes().to_vec(),
        fstype,
        options,
        taken: None,
    })
}

/// Plans the mounts of `spec`. A container without a `/dev` mount gets the guest's `/dev` all the same: it has no
/// other device nodes.
pub fn plan(spec: &Spec, bundle: &Path) -> Result<Vec<Planned>, Error> {
    let mut planned = Vec::new();
    for (index, mount) in spec.mounts().iter().flatten().enumerate() {
        planned.push(plan_one(index, mount, bundle)?);
    }
    if !planned.iter().any(|p| p.destination == Path::new("/dev")) {
        planned.insert(
            0,
            Planned {
                index: usize::MAX,
                from: From::Guest(MountKind::Dev),
                destination: PathBuf::from("/dev"),
                source: b"tmpfs".to_vec(),
                fstype: b"tmpfs".to_vec(),
                options: Options {
                    flags: libc::MS_NOSUID | libc::MS_STRICTATIME,
                    data: vec!["mode=755".to_owned()],
                    ..Options::default()
                },
                taken: None,
            },
        );
    }
    Ok(planned)
}

/// Takes copies of the mounts that binds ask for, unattached: the root of a new user namespace may not search the host's
/// directories on the way to them.
///
/// # Errors
/// Why a source cannot be opened.
pub fn take_sources(planned: &mut [Planned]) -> Result<(), Error> {
    for p in planned {
        let From::Bind(source) = &p.from else { continue };
        let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        flags.set(OpenTreeFlags::AT_RECURSIVE, p.options.recursive_bind);
        let tree = open_tree(rustix::fs::CWD, source, flags).map_err(|e| Error::Mount {
            index: p.index,
            destination: p.destination.display().to_string(),
            why: format!("source {}: {e}", source.display()),
        })?;
        p.taken = Some(Arc::new(tree));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(mounts: &str) -> Result<Vec<Planned>, Error> {
        let mut spec = crate::runtime::template::spec(false);
        spec["mounts"] = serde_json::from_str(mounts).unwrap();
        plan(&serde_json::from_value(spec).unwrap(), Path::new("/bundle"))
    }

    #[test]
    fn the_guest_makes_its_own_file_systems() {
        let p = planned(
            r#"[{"destination":"/dev","type":"tmpfs","source":"tmpfs"},{"destination":"/dev/shm","type":"tmpfs"},
            {"destination":"/proc","type":"proc"},{"destination":"/d","source":"x","options":["rbind","ro"]},
            {"destination":"/e","type":"bind","source":"/x"},{"destination":"/f","type":"ext4","source":"/dev/vdb"}]"#,
        )
        .unwrap();
        let kinds: Vec<&From> = p.iter().map(|p| &p.from).collect();
        assert_eq!(
            kinds,
            [
                &From::Guest(MountKind::Dev),
                &From::Guest(MountKind::Tmpfs),
                &From::Guest(MountKind::Proc),
                &From::Bind("/bundle/x".into()),
                &From::Bind("/x".into()),
                &From::HostFs
            ]
        );
    }

    #[test]
    fn dev_is_always_the_guests() {
        let p = planned("[]").unwrap();
        assert_eq!((p.len(), &p[0].from), (1, &From::Guest(MountKind::Dev)));
    }

    #[test]
    fn a_wrong_mount_is_named() {
        let said =
            planned(r#"[{"destination":"/proc","type":"proc"},{"destination":"/a","options":["bind"]}]"#);
        let said = said.unwrap_err().to_string();
        assert_eq!(said, "config.json: mounts[1] (/a): a bind mount needs a source");
    }
}
