//! Which cgroup hierarchies this host has, and where a container's directory lies in each.

use crate::error::{Context, OsError};
use std::path::{Component, Path, PathBuf};

/// Why a cgroup could not be made or limited.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A limit was asked for that the host cannot set.
    #[error("config.json: linux.resources.{limit}: this host has no {controller} cgroup controller")]
    NoController {
        /// The limit.
        limit: &'static str,
        /// The controller it needs.
        controller: &'static str,
    },
    /// A limit was refused by the host.
    #[error("config.json: linux.resources.{limit}: {source}")]
    Refused {
        /// The limit.
        limit: String,
        /// Why.
        source: OsError,
    },
    /// systemd did not help.
    #[error(transparent)]
    Systemd(#[from] super::systemd::Error),
    /// A host call failed.
    #[error(transparent)]
    Os(#[from] OsError),
}

/// Version of a hierarchy's interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// One hierarchy per controller.
    V1,
    /// The unified hierarchy.
    V2,
}

/// A mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Its version.
    pub version: Version,
    /// Its controllers; for version 2 those that are available.
    pub controllers: Vec<String>,
    /// Where it is mounted.
    pub mount: PathBuf,
    /// The calling process's cgroup below the mount.
    pub own: PathBuf,
}

impl Hierarchy {
    /// Directory of the cgroup `at` (absolute: below the mount; relative: below the caller's own; none: `id`).
    pub fn directory(&self, at: Option<&Path>, id: &str) -> PathBuf {
        // Names that climb would leave the hierarchy.
        let plain = |path: &Path| -> PathBuf {
            path.components()
                .filter(|c| matches!(c, Component::Normal(_)))
                .collect()
        };
        match at.filter(|p| !p.as_os_str().is_empty()) {
            Some(path) if path.is_absolute() => self.mount.join(plain(path)),
            Some(path) => self.mount.join(plain(&self.own)).join(plain(path)),
            None => self.mount.join(plain(&self.own)).join(id),
        }
    }
}

/// The hierarchies mounted here, with the calling process's place in each.
pub fn of_this_process() -> Result<Vec<Hierarchy>, Error> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").doing("read the mount table")?;
    let own = std::fs::read_to_string("/proc/self/cgroup").doing("read the own cgroup")?;
    Ok(parse(&mounts, &own, |mount| {
        std::fs::read_to_string(mount.join("cgroup.controllers")).unwrap_or_default()
    }))
}

fn parse(mounts: &str, own: &str, available: impl Fn(&Path) -> String) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mounts.lines() {
        let Some((left, right)) = line.split_once(" - ") else {
            continue;
        };
        let left: Vec<&str> = left.split(' ').collect();
        let right: Vec<&str> = right.split(' ').collect();
        let (Some(root), Some(mount), Some(kind)) = (left.get(3), left.get(4), right.first()) else {
            continue;
        };
        let (version, controllers) = match *kind {
            "cgroup2" => {
                let names = available(Path::new(mount));
                (
                    Version::V2,
                    names
                        .split_ascii_whitespace()
                        .map(str::to_owned)
                        .collect::<Vec<_>>(),
                )
            }
            "cgroup" => {
                let options = right.get(2).copied().unwrap_or_default();
                (Version::V1, own_names(own, options))
            }
            _ => continue,
        };
        if version == Version::V1 && controllers.is_empty() {
            continue;
        }
        let place = own.lines().find_map(|l| {
            let mut parts = l.splitn(3, ':');
            let (_, names, path) = (parts.next()?, parts.next()?, parts.next()?);
            let same = match version {
                Version::V2 => names.is_empty(),
                Version::V1 => names.split(',').any(|n| controllers.iter().any(|c| c == n)),
            };
            same.then(|| {
                path.strip_prefix(root.trim_end_matches('/'))
                    .unwrap_or(path)
                    .to_owned()
            })
        });
        let hierarchy = Hierarchy {
            version,
            controllers,
            mount: PathBuf::from(mount),
            own: PathBuf::from(place.unwrap_or_default()),
        };
        // A hierarchy mounted twice is one hierarchy.
        if !found
            .iter()
            .any(|h| h.version == version && h.controllers == hierarchy.controllers)
        {
            found.push(hierarchy);
        }
    }
    found
}

/// Controllers of a version 1 mount: the words of its super options that `/proc/self/cgroup` knows as controllers.
fn own_names(own: &str, options: &str) -> Vec<String> {
    let known: Vec<&str> = own
        .lines()
        .filter_map(|l| l.split(':').nth(1))
        .flat_map(|n| n.split(','))
        .collect();
    options
        .split(',')
        .filter(|o| !o.is_empty() && known.contains(o))
        .map(str::to_owned)
        .collect()
}

/// Makes directory `path` of hierarchy `h`, ready to take processes.
pub fn make_directory(h: &Hierarchy, path: &Path) -> Result<(), Error> {
    let mut at = h.mount.clone();
    let below = path.strip_prefix(&h.mount).unwrap_or(path);
    for part in below.components() {
        let parent = at.clone();
        at.push(part);
        if h.version == Version::V2 {
            enable_controllers(h, &parent);
        }
        match rustix::fs::mkdir(&at, rustix::fs::Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(e) => Err(e).at("create cgroup", &at)?,
        }
        if h.version == Version::V1 && h.controllers.iter().any(|c| c == "cpuset") {
            inherit_cpuset(&parent, &at);
        }
    }
    Ok(())
}

/// A version 1 cpuset is empty until it is told, and takes no process until then.
fn inherit_cpuset(parent: &Path, child: &Path) {
    for name in ["cpuset.cpus", "cpuset.mems"] {
        let empty = std::fs::read_to_string(child.join(name)).is_ok_and(|s| s.trim().is_empty());
        if empty && let Ok(value) = std::fs::read_to_string(parent.join(name)) {
            let _ = std::fs::write(child.join(name), value.trim());
        }
    }
}

/// A version 2 controller must be handed down by every ancestor. One by one: a controller that cannot be handed down
/// must not keep the others back; whether one is missing shows when its limit is set.
fn enable_controllers(h: &Hierarchy, parent: &Path) {
    for name in &h.controllers {
        let _ = std::fs::write(parent.join("cgroup.subtree_control"), format!("+{name}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
30 29 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
32 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
33 30 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
34 30 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
";
    const OWN: &str = "4:memory:/a/b\n2:cpu,cpuacct:/\n1:name=systemd:/s\n0::/u\n";

    #[test]
    fn reads_a_hybrid_host() {
        let found = parse(HYBRID, OWN, |_| String::new());
        let seen: Vec<(&Path, &Path)> = found
            .iter()
            .map(|h| (h.mount.as_path(), h.own.as_path()))
            .collect();
        assert_eq!(
            seen,
            [
                (Path::new("/sys/fs/cgroup/memory"), Path::new("/a/b")),
                (Path::new("/sys/fs/cgroup/cpu,cpuacct"), Path::new("/")),
                (Path::new("/sys/fs/cgroup/systemd"), Path::new("/s")),
                (Path::new("/sys/fs/cgroup/unified"), Path::new("/u")),
            ]
        );
        assert_eq!(found[1].controllers, ["cpu", "cpuacct"]);
        assert_eq!(found[3].version, Version::V2);
    }

    #[test]
    fn directories_stay_inside_the_hierarchy() {
        let h = &parse(HYBRID, OWN, |_| String::new())[0];
        let m = Path::new("/sys/fs/cgroup/memory");
        assert_eq!(h.directory(None, "id"), m.join("a/b/id"));
        assert_eq!(
            h.directory(Some(Path::new("/docker/x")), "id"),
            m.join("docker/x")
        );
        assert_eq!(h.directory(Some(Path::new("x/y")), "id"), m.join("a/b/x/y"));
        assert_eq!(h.directory(Some(Path::new("/../../etc")), "id"), m.join("etc"));
        assert_eq!(
            h.directory(Some(Path::new("../../../etc")), "id"),
            m.join("a/b/etc")
        );
    }

    #[test]
    fn a_bind_of_part_of_a_hierarchy_takes_the_path_from_there() {
        let mounts = "31 30 0:27 /docker/c /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        let found = parse(mounts, "4:memory:/docker/c/deep\n", |_| String::new());
        assert_eq!(
            found[0].directory(None, "id"),
            Path::new("/sys/fs/cgroup/memory/deep/id")
        );
    }
}
