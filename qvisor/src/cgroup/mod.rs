//! The container's cgroup, written directly: version 1, version 2 and the hybrid of both.

mod dbus;
mod hierarchy;
mod limits;
mod memory;
pub mod stats;
pub mod systemd;

pub use hierarchy::Error;
pub use memory::{MemoryWatch, Verdict, memory_directory};

use crate::error::Context;
use crate::runtime::state::process_start;
use hierarchy::{Hierarchy, Version};
use oci_spec::runtime::LinuxResources;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// One directory of the container's cgroup: one per hierarchy.
#[derive(Clone, Debug)]
struct Dir {
    version: Version,
    controllers: Vec<String>,
    path: PathBuf,
}

/// A container's cgroup in every hierarchy of the host.
#[derive(Debug)]
pub struct Cgroup {
    dirs: Vec<Dir>,
}

impl Cgroup {
    /// Makes the cgroup `cgroups_path` (or one named `id` below the caller's own) and sets its limits.
    ///
    /// A user who may not make cgroups gets none, unless limits were asked for.
    pub fn create(
        cgroups_path: Option<&Path>,
        id: &str,
        limits: Option<&LinuxResources>,
    ) -> Result<Self, Error> {
        let hierarchies = hierarchy::of_this_process()?;
        let cgroup = Self { dirs: Vec::new() };
        let wanted = limits.is_some_and(limits::any) || cgroups_path.is_some();
        let privileged = rustix::process::geteuid().is_root();
        match cgroup.make(&hierarchies, cgroups_path, id) {
            Ok(made) => {
                if let Some(limits) = limits
                    && let Err(e) = limits::apply(&made.dirs, limits)
                {
                    let _ = made.remove();
                    return Err(e);
                }
                Ok(made)
            }
            Err(_) if !wanted && !privileged => Ok(Self { dirs: Vec::new() }),
            Err(e) => Err(e),
        }
    }

    /// The directories that [`Cgroup::create`] would make: recorded first, they are found whatever happens in between.
    pub fn planned(cgroups_path: Option<&Path>, id: &str) -> Result<Vec<PathBuf>, Error> {
        let hierarchies = hierarchy::of_this_process()?;
        Ok(hierarchies
            .iter()
            .map(|h| h.directory(cgroups_path, id))
            .collect())
    }

    fn make(mut self, hierarchies: &[Hierarchy], at: Option<&Path>, id: &str) -> Result<Self, Error> {
        for h in hierarchies {
            let path = h.directory(at, id);
            if let Err(e) = hierarchy::make_directory(h, &path) {
                let _ = self.remove();
                return Err(e);
            }
            self.dirs.push(Dir {
                version: h.version,
                controllers: h.controllers.clone(),
                path,
            });
        }
        Ok(self)
    }

    /// The directories, for the container's record.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.dirs.iter().map(|d| d.path.clone()).collect()
    }

    /// Moves process `pid` into the cgroup.
    pub fn add(&self, pid: i32) -> Result<(), Error> {
        for dir in &self.dirs {
            let file = dir.path.join("cgroup.procs");
            std::fs::write(&file, pid.to_string()).at("write", &file)?;
        }
        Ok(())
    }

    /// Removes the cgroup; its processes must be gone or going.
    pub fn remove(&self) -> Result<(), Error> {
        remove(&self.paths())
    }
}

/// Whether the unified hierarchy has the controllers here, and not version 1's.
pub fn is_unified() -> Result<bool, Error> {
    let hierarchies = hierarchy::of_this_process()?;
    let old =
        |h: &Hierarchy| h.version == Version::V1 && h.controllers.iter().any(|c| !c.starts_with("name="));
    Ok(!hierarchies.iter().any(old))
}

/// Sets limits on the cgroup recorded as `paths`: `quark update`.
pub fn update(paths: &[PathBuf], limits: &LinuxResources) -> Result<(), Error> {
    let mut dirs = Vec::new();
    for h in hierarchy::of_this_process()? {
        if let Some(path) = paths.iter().find(|p| p.starts_with(&h.mount)) {
            dirs.push(Dir {
                version: h.version,
                controllers: h.controllers.clone(),
                path: path.clone(),
            });
        }
    }
    limits::apply(&dirs, limits)
}

/// Removes the cgroup recorded as `paths`, waiting a little for its last processes to be reaped.
pub fn remove(paths: &[PathBuf]) -> Result<(), Error> {
    let start = Instant::now();
    let (soon, deadline) = (start + Duration::from_millis(200), start + Duration::from_secs(2));
    for path in paths {
        loop {
            match rustix::fs::rmdir(path) {
                Ok(()) | Err(rustix::io::Errno::NOENT) => break,
                // It is another's too: who is last removes it.
                Err(rustix::io::Errno::BUSY) if Instant::now() > soon && !processes(paths).is_empty() => {
                    log::warn!("cgroup {} is left to those that share it", path.display());
                    break;
                }
                Err(rustix::io::Errno::BUSY) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                Err(e) => Err(e).at("remove cgroup", path)?,
            }
        }
    }
    Ok(())
}

/// Host processes in the cgroup recorded as `paths`.
pub fn processes(paths: &[PathBuf]) -> Vec<i32> {
    // Every hierarchy holds the same processes; one that can be read is enough, an empty one may just be shared.
    let mut pids: Vec<i32> = paths
        .iter()
        .filter_map(|p| std::fs::read_to_string(p.join("cgroup.procs")).ok())
        .flat_map(|text| text.lines().filter_map(|l| l.parse().ok()).collect::<Vec<i32>>())
        .collect();
    pids.sort_unstable();
    pids.dedup();
    pids
}

/// Waits until no process is in the cgroup recorded as `paths`, but for those that ended and were not waited for; not longer
/// than `patience`.
pub fn wait_until_empty(paths: &[PathBuf], patience: Duration) {
    let deadline = Instant::now() + patience;
    let live = |pid: &i32| process_start(*pid).is_some();
    while processes(paths).iter().any(live) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Kills what is left in the cgroup of the sandbox whose first process is, or was, `server`, and waits for it to go. Others may
/// share the cgroup: they are left alone.
pub fn kill_all(paths: &[PathBuf], server: i32) {
    let _ = set_frozen(paths, false);
    let deadline = Instant::now() + Duration::from_secs(5);
    let own = std::process::id() as i32;
    while Instant::now() < deadline {
        let pids: Vec<i32> = processes(paths)
            .into_iter()
            .filter(|p| *p != own && *p > 0 && belongs(*p, server))
            .collect();
        if pids.is_empty() {
            return;
        }
        for pid in pids {
            let _ = crate::sys::kill(pid, libc::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether process `pid` is of the sandbox of `server`, or of one whose server is gone: its jail, a pid namespace, is then the
/// first of its line that is a sandbox's.
fn belongs(pid: i32, server: i32) -> bool {
    let (mut at, mut ours) = (pid, false);
    while at > 0 {
        let Ok(status) = std::fs::read_to_string(format!("/proc/{at}/status")) else {
            break;
        };
        let field = |name: &str| {
            let line = status.lines().find_map(|l| l.strip_prefix(name));
            line.unwrap_or_default().split_whitespace()
        };
        if at == server {
            return true;
        }
        if field("Name:").next() == Some("quark-sandbox") {
            ours = field("NSpid:").count() > 1;
        }
        at = field("PPid:").next().and_then(|p| p.parse().ok()).unwrap_or(0);
    }
    ours
}

/// Freezes or thaws the cgroup recorded as `paths`; gives whether a freezer was found.
pub fn set_frozen(paths: &[PathBuf], frozen: bool) -> Result<bool, Error> {
    for path in paths {
        let (file, word) = if path.join("freezer.state").exists() {
            (
                path.join("freezer.state"),
                if frozen { "FROZEN" } else { "THAWED" },
            )
        } else if path.join("cgroup.freeze").exists() && !has_v1_freezer(paths) {
            (path.join("cgroup.freeze"), if frozen { "1" } else { "0" })
        } else {
            continue;
        };
        std::fs::write(&file, word).at("write", &file)?;
        let deadline = Instant::now() + Duration::from_secs(5);
        while is_frozen(paths) != frozen && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        return Ok(true);
    }
    Ok(false)
}

fn has_v1_freezer(paths: &[PathBuf]) -> bool {
    paths.iter().any(|p| p.join("freezer.state").exists())
}

/// Whether the cgroup recorded as `paths` is frozen.
pub fn is_frozen(paths: &[PathBuf]) -> bool {
    paths.iter().any(|path| {
        let v1 = std::fs::read_to_string(path.join("freezer.state"));
        let v2 = std::fs::read_to_string(path.join("cgroup.events"));
        v1.is_ok_and(|s| s.trim() == "FROZEN") || v2.is_ok_and(|s| s.lines().any(|l| l == "frozen 1"))
    })
}
