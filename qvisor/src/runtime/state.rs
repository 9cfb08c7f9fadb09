//! A container's directory `<root>/<id>`: who it is (`state.json`) and what became of it (`status.json`).
//!
//! `state.json` is written by `create`; `status.json` by the sandbox process at each change. Whoever reads them also
//! looks at the sandbox process itself, so a process that was killed without a word reads as stopped.

use crate::error::{Context, OsError};
use oci_spec::runtime::Spec;
use rustix::fs::{AtFlags, Mode, OFlags};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Version of the OCI runtime specification that is reported.
pub const OCI_VERSION: &str = "1.2.0";
/// The sandbox's control socket inside the container's directory.
pub const CONTROL_SOCKET: &str = "control.sock";
const STATE_FILE: &str = "state.json";
const STATUS_FILE: &str = "status.json";
const SPEC_FILE: &str = "config.json";
/// Holds the number of the host call for which the sandbox process was ended.
const REFUSED_FILE: &str = "refused";

/// Why a container could not be looked up or recorded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The id is not a file name.
    #[error(
        "invalid container id {0:?}: use letters, digits and any of _+-. (at most 1024, not starting with a dot)"
    )]
    BadId(String),
    /// The id is taken.
    #[error("container with id exists: {0}")]
    Exists(String),
    /// There is no such container. The words are those that callers of runc look for.
    #[error("container {0:?} does not exist")]
    Missing(String),
    /// A file in the container's directory is damaged.
    #[error("state of container {id:?} is unreadable ({why}); `quark delete --force {id}` removes it")]
    Damaged {
        /// The container.
        id: String,
        /// What is wrong.
        why: String,
    },
    /// A host call failed.
    #[error(transparent)]
    Os(#[from] OsError),
}

/// Where a container is in its life. The words are the OCI specification's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// `create` has not finished.
    Creating,
    /// Set up, its program not started.
    Created,
    /// Its program runs.
    Running,
    /// Its cgroup is frozen.
    Paused,
    /// Its program has ended.
    Stopped,
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        })
    }
}

/// What the sandbox process last said about itself (`status.json`).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StatusRecord {
    /// The container's state.
    pub status: Status,
    /// Exit code of its program, once stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Why it stopped, when not by its program's end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What `create` records of a container (`state.json`).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Container id.
    pub id: String,
    /// The sandbox process; the creator's until there is one.
    pub pid: i32,
    /// When that process started, clock ticks after boot: tells it from a later process of the same number.
    pub pid_start: u64,
    /// Absolute path of the bundle.
    pub bundle: PathBuf,
    /// Absolute path of the root file system.
    pub rootfs: PathBuf,
    /// Creation time, RFC 3339.
    pub created: String,
    /// User who created it.
    pub owner: u32,
    /// The machine: `kvm` or `process`.
    pub platform: String,
    /// Directories of its cgroups on the host.
    pub cgroups: Vec<PathBuf>,
    /// The bundle's annotations.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// The systemd unit that is its cgroup, if systemd made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// The container whose sandbox it has joined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<String>,
}

/// Whether `id` may name a container.
pub fn check_id(id: &str) -> Result<(), Error> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "_+-.".contains(c);
    if id.is_empty() || id.len() > 1024 || id.starts_with('.') || !id.chars().all(fits) {
        return Err(Error::BadId(id.to_owned()));
    }
    Ok(())
}

/// Start time of process `pid` in clock ticks after boot, or `None` when there is none (or only a zombie is left).
pub fn process_start(pid: i32) -> Option<u64> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    let stat = String::from_utf8_lossy(&stat);
    // The command name is in parentheses and may hold anything, so fields are counted after the last one.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// A container's directory.
pub struct ContainerDir {
    id: String,
    path: PathBuf,
}

impl ContainerDir {
    /// Makes the directory of a new container. Fails when the id is taken.
    pub fn create(root: &Path, id: &str) -> Result<Self, Error> {
        check_id(id)?;
        std::fs::create_dir_all(root).at("create", root)?;
        let _ = rustix::fs::chmod(root, Mode::from_raw_mode(0o711));
        let path = root.join(id);
        match rustix::fs::mkdir(&path, Mode::from_raw_mode(0o700)) {
            Ok(()) => Ok(Self {
                id: id.to_owned(),
                path,
            }),
            Err(rustix::io::Errno::EXIST) => Err(Error::Exists(id.to_owned())),
            Err(e) => Ok(Err(e).at("create", &path)?),
        }
    }

    /// The directory of an existing container.
    pub fn open(root: &Path, id: &str) -> Result<Self, Error> {
        check_id(id)?;
        let path = root.join(id);
        if !path.is_dir() {
            return Err(Error::Missing(id.to_owned()));
        }
        Ok(Self {
            id: id.to_owned(),
            path,
        })
    }

    /// Ids of all containers below `root`, sorted.
    pub fn list(root: &Path) -> Result<Vec<String>, Error> {
        let entries = match std::fs::read_dir(root) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Ok(Err(e).at("read", root)?),
        };
        let mut ids: Vec<String> = entries
            .flatten()
            .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
            .filter_map(|e| e.file_name().into_string().ok())
            .filter(|id| check_id(id).is_ok())
            .collect();
        ids.sort();
        Ok(ids)
    }

    /// The directory `path` of container `id`, which the caller knows to exist.
    pub fn at(id: &str, path: &Path) -> Self {
        Self {
            id: id.to_owned(),
            path: path.to_path_buf(),
        }
    }

    /// The path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A descriptor of the directory, which stays good after the mount namespace changed.
    pub fn descriptor(&self) -> Result<OwnedFd, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(rustix::fs::open(&self.path, flags, Mode::empty()).at("open", &self.path)?)
    }

    fn load<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<T, Error> {
        let damaged = |why: String| Error::Damaged {
            id: self.id.clone(),
            why,
        };
        let text = std::fs::read(self.path.join(name)).map_err(|e| damaged(format!("{name}: {e}")))?;
        serde_json::from_slice(&text).map_err(|e| damaged(format!("{name}: {e}")))
    }

    /// What `create` recorded.
    pub fn record(&self) -> Result<Record, Error> {
        self.load(STATE_FILE)
    }

    /// Writes `state.json`.
    pub fn set_record(&self, record: &Record) -> Result<(), Error> {
        let dir = self.descriptor()?;
        Ok(write_json(&dir, STATE_FILE, record).at("write the state of", &self.path)?)
    }

    /// The configuration the container was created with.
    pub fn spec(&self) -> Result<Spec, Error> {
        self.load(SPEC_FILE)
    }

    /// Keeps the configuration: a bundle may change or go while the container lives.
    pub fn set_spec(&self, spec: &Spec) -> Result<(), Error> {
        let dir = self.descriptor()?;
        Ok(write_json(&dir, SPEC_FILE, spec).at("write the state of", &self.path)?)
    }

    /// What the sandbox last reported, checked against whether its process lives.
    pub fn status(&self, record: &Record) -> StatusRecord {
        let told = self.load::<StatusRecord>(STATUS_FILE).ok();
        let alive = record.pid > 0 && process_start(record.pid) == Some(record.pid_start);
        match told {
            Some(told) if told.status == Status::Stopped => told,
            Some(mut told) if alive => {
                if crate::cgroup::is_frozen(&record.cgroups) {
                    told.status = Status::Paused;
                }
                told
            }
            None if alive => StatusRecord {
                status: Status::Creating,
                exit_code: None,
                reason: None,
            },
            _ => self.unreported(),
        }
    }

    /// How a sandbox ended that could not say so itself.
    fn unreported(&self) -> StatusRecord {
        let text = std::fs::read_to_string(self.path.join(REFUSED_FILE)).unwrap_or_default();
        let (exit_code, reason) = match text.parse() {
            Ok(number) => (
                Some(128 + libc::SIGSYS),
                format!(
                    "QVisor made a host call that its filter forbids, {}: the sandbox was ended (SIGSYS)",
                    crate::seccomp::describe(number)
                ),
            ),
            Err(_) => (
                None,
                "the sandbox process ended without a report (it was killed)".to_owned(),
            ),
        };
        StatusRecord {
            status: Status::Stopped,
            exit_code,
            reason: Some(reason),
        }
    }

    /// Removes the directory and all in it.
    pub fn remove(&self) -> Result<(), Error> {
        match std::fs::remove_dir_all(&self.path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e).at("remove", &self.path)?,
            _ => Ok(()),
        }
    }
}

/// Writes `status.json` below the container's directory, atomically.
pub fn write_status(dir: impl AsFd, record: &StatusRecord) -> std::io::Result<()> {
    write_json(dir, STATUS_FILE, record)
}

/// Makes the file into which the number of a refused host call goes ([`crate::sys::refused`]).
pub fn refused_file(dir: impl AsFd) -> std::io::Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(
        dir,
        REFUSED_FILE,
        flags,
        Mode::from_raw_mode(0o600),
    )?)
}

fn write_json(dir: impl AsFd, name: &str, value: &impl Serialize) -> std::io::Result<()> {
    let dir = dir.as_fd();
    let draft = format!(".{name}.new");
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, &draft, flags, Mode::from_raw_mode(0o600))?;
    let mut file = std::fs::File::from(file);
    serde_json::to_writer(&mut file, value)?;
    file.flush()?;
    drop(file);
    match rustix::fs::renameat(dir, &draft, dir, name) {
        Ok(()) => Ok(()),
        Err(e) => {
            let _ = rustix::fs::unlinkat(dir, &draft, AtFlags::empty());
            Err(e.into())
        }
    }
}

/// The present time as RFC 3339 in UTC, with nanoseconds.
pub fn now_rfc3339() -> String {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    let (days, rest) = (now.tv_sec.div_euclid(86_400), now.tv_sec.rem_euclid(86_400));
    // Civil date from a day count. Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + i64::from(month <= 2);
    let (h, m, s) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!(
        "{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{:09}Z",
        now.tv_nsec
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("quark-state-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        path
    }

    fn record(pid: i32, pid_start: u64) -> Record {
        Record {
            id: "a".into(),
            pid,
            pid_start,
            bundle: "/b".into(),
            rootfs: "/b/rootfs".into(),
            created: now_rfc3339(),
            owner: 0,
            platform: "process".into(),
            cgroups: Vec::new(),
            annotations: BTreeMap::new(),
            unit: None,
            sandbox: None,
        }
    }

    #[test]
    fn ids() {
        for good in ["a", "A-b_c+d.e", "0123"] {
            assert!(check_id(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a b", "ä", ".hidden"] {
            assert!(check_id(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn second_create_of_an_id_is_refused() {
        let root = scratch("twice");
        let dir = ContainerDir::create(&root, "a").unwrap();
        assert!(matches!(ContainerDir::create(&root, "a"), Err(Error::Exists(_))));
        assert_eq!(ContainerDir::list(&root).unwrap(), ["a"]);
        dir.remove().unwrap();
        assert!(matches!(ContainerDir::open(&root, "a"), Err(Error::Missing(_))));
        std::fs::remove_dir(&root).unwrap();
    }

    #[test]
    fn a_dead_sandbox_reads_as_stopped_with_a_reason() {
        let root = scratch("dead");
        let dir = ContainerDir::create(&root, "a").unwrap();
        let own_pid = std::process::id() as i32;
        let own_start = process_start(own_pid).unwrap();
        write_status(
            dir.descriptor().unwrap(),
            &StatusRecord {
                status: Status::Running,
                exit_code: None,
                reason: None,
            },
        )
        .unwrap();
        assert_eq!(dir.status(&record(own_pid, own_start)).status, Status::Running);
        // The same number with another start time is another process.
        let gone = dir.status(&record(own_pid, own_start + 1));
        assert_eq!(gone.status, Status::Stopped);
        assert!(gone.reason.unwrap().contains("without a report"));
        let mut refused = std::fs::File::from(refused_file(dir.descriptor().unwrap()).unwrap());
        write!(refused, "{}", libc::SYS_prctl).unwrap();
        let gone = dir.status(&record(own_pid, own_start + 1));
        assert_eq!(gone.exit_code, Some(128 + libc::SIGSYS));
        assert!(
            gone.reason
                .unwrap()
                .contains(&format!("forbids, prctl ({})", libc::SYS_prctl))
        );
        std::fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn damaged_state_is_told_not_guessed() {
        let root = scratch("damaged");
        let dir = ContainerDir::create(&root, "a").unwrap();
        std::fs::write(dir.path().join(STATE_FILE), "{").unwrap();
        assert!(dir.record().unwrap_err().to_string().contains("delete --force a"));
        std::fs::remove_dir_all(&root).unwrap();
    }
}
