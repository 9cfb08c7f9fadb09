//! Cgroups that systemd manages (`--systemd-cgroup`): the sandbox is a transient scope unit, as runc's containers are.
//! Source: systemd's `org.freedesktop.systemd1(5)`, runc's `docs/systemd.md`.

use super::dbus::{self, Body, Connection, Method, Value};
use super::limits::{memory_threshold, memory_wall, weight_of_shares};
use oci_spec::runtime::LinuxResources;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// systemd's own socket, for root only; and the system bus.
const SOCKETS: [&str; 2] = ["/run/systemd/private", "/run/dbus/system_bus_socket"];
/// How long systemd may take to move the process.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why systemd did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `linux.cgroupsPath` does not name a unit.
    #[error("config.json: linux.cgroupsPath: {0:?} is not SLICE:PREFIX:NAME, as --systemd-cgroup needs")]
    Path(String),
    /// No connection.
    #[error("--systemd-cgroup: systemd cannot be reached: {0}")]
    Unreachable(dbus::Error),
    /// systemd says no.
    #[error("--systemd-cgroup: systemd refused {what} {unit}: {why}")]
    Refused {
        /// What was asked.
        what: &'static str,
        /// For which unit.
        unit: String,
        /// Its answer.
        why: dbus::Error,
    },
    /// systemd said yes, but did not.
    #[error("--systemd-cgroup: systemd did not move the sandbox into {0}")]
    NotMoved(String),
}

/// A scope unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Name of its slice.
    pub slice: String,
    /// Its name.
    pub name: String,
}

impl Unit {
    /// The unit that `cgroups_path` (SLICE:PREFIX:NAME; none: made from the container's `id`) names.
    pub fn of(cgroups_path: Option<&Path>, id: &str) -> Result<Self, Error> {
        let text = cgroups_path
            .map(|p| p.to_string_lossy().into_owned())
            .unwrap_or_default();
        let text = if text.is_empty() {
            format!(":quark:{id}")
        } else {
            text
        };
        let parts: Vec<&str> = text.split(':').collect();
        let [slice, prefix, name] = parts[..] else {
            return Err(Error::Path(text));
        };
        let plain = |part: &str| !part.contains('/') && part != "." && part != "..";
        let slice = if slice.is_empty() { "system.slice" } else { slice };
        let whole = slice == "-.slice" || slice.strip_suffix(".slice").is_some_and(sound_slice);
        if name.is_empty()
            || !plain(prefix)
            || !plain(name)
            || !plain(slice)
            || !whole
            || name.ends_with(".slice")
        {
            return Err(Error::Path(text));
        }
        let name = match prefix {
            "" => format!("{name}.scope"),
            prefix => format!("{prefix}-{name}.scope"),
        };
        Ok(Self {
            slice: slice.to_owned(),
            name,
        })
    }

    /// The unit of a name, wherever it lies.
    pub fn named(name: &str) -> Self {
        Self {
            slice: String::new(),
            name: name.to_owned(),
        }
    }

    /// Where the unit lies below a hierarchy's mount: `a-b.slice` is inside `a.slice`.
    pub fn path(&self) -> PathBuf {
        let mut path = PathBuf::from("/");
        let stem = self.slice.strip_suffix(".slice").unwrap_or(&self.slice);
        if stem != "-" {
            let ends = stem.match_indices('-').map(|(at, _)| at).chain([stem.len()]);
            for end in ends {
                path.push(format!("{}.slice", &stem[..end]));
            }
        }
        path.join(&self.name)
    }

    /// Has systemd make the unit around process `pid`.
    pub fn start(&self, pid: i32, limits: Option<&LinuxResources>, unified: bool) -> Result<(), Error> {
        let mut properties = vec![
            (
                "Description",
                Value::Text(format!("quark container {}", self.name)),
            ),
            ("Slice", Value::Text(self.slice.clone())),
            ("Delegate", Value::Bool(true)),
            ("DefaultDependencies", Value::Bool(false)),
            ("MemoryAccounting", Value::Bool(true)),
            ("CPUAccounting", Value::Bool(true)),
            ("TasksAccounting", Value::Bool(true)),
            // Version 1's blkio is no part of what `Delegate` names: without this systemd takes the process out of that
            // cgroup as soon as another unit starts, and whoever watches the container takes its cgroup for deleted.
            (
                if unified {
                    "IOAccounting"
                } else {
                    "BlockIOAccounting"
                },
                Value::Bool(true),
            ),
            ("PIDs", Value::List(vec![pid as u32])),
        ];
        if let Some(limits) = limits {
            properties.extend(unit_limits(limits, unified));
        }
        let mut body = Body::default();
        body.text(&self.name)
            .text("replace")
            .properties(&properties)
            .nothing();
        self.ask("StartTransientUnit", "ssa(sv)a(sa(sv))", &body)?;
        // The answer comes when the job is queued; it is done when the process is there.
        let until = Instant::now() + PATIENCE;
        let there = || {
            let own = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
            own.lines().any(|l| l.ends_with(&format!("/{}", self.name)))
        };
        while !there() {
            if Instant::now() >= until {
                return Err(Error::NotMoved(self.name.clone()));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Tells systemd of new limits, so that it does not put the old ones back.
    pub fn update(&self, limits: &LinuxResources, unified: bool) -> Result<(), Error> {
        let properties = unit_limits(limits, unified);
        let mut body = Body::default();
        body.text(&self.name).boolean(true).properties(&properties);
        self.ask("SetUnitProperties", "sba(sv)", &body)
    }

    /// Has systemd forget the unit, whose processes are gone.
    pub fn stop(&self) {
        for (member, signature) in [("StopUnit", "ss"), ("ResetFailedUnit", "s")] {
            let mut body = Body::default();
            body.text(&self.name);
            if signature == "ss" {
                body.text("replace");
            }
            // Most often it is gone already, because nothing ran in it any more.
            if let Err(e) = self.ask(member, signature, &body) {
                log::debug!("{e}");
            }
        }
    }

    fn ask(&self, member: &'static str, signature: &str, body: &Body) -> Result<(), Error> {
        let mut connection = connect().map_err(Error::Unreachable)?;
        let method = Method {
            destination: "org.freedesktop.systemd1",
            path: "/org/freedesktop/systemd1",
            interface: "org.freedesktop.systemd1.Manager",
            member,
            signature,
        };
        connection.call(&method, body).map_err(|why| Error::Refused {
            what: member,
            unit: self.name.clone(),
            why,
        })
    }
}

/// Whether a slice's name without its ending can be taken apart at its dashes.
fn sound_slice(stem: &str) -> bool {
    !stem.is_empty() && stem.split('-').all(|part| !part.is_empty())
}

fn connect() -> Result<Connection, dbus::Error> {
    let [own, bus] = SOCKETS;
    let first = match Connection::open(own) {
        Ok(connection) => return Ok(connection),
        Err(e) => e,
    };
    let Ok(mut connection) = Connection::open(bus) else {
        return Err(first);
    };
    let hello = Method {
        destination: "org.freedesktop.DBus",
        path: "/org/freedesktop/DBus",
        interface: "org.freedesktop.DBus",
        member: "Hello",
        signature: "",
    };
    connection.call(&hello, &Body::default())?;
    Ok(connection)
}

/// The limits that systemd itself keeps writing into a unit's cgroup, as it wants to be told them.
fn unit_limits(limits: &LinuxResources, unified: bool) -> Vec<(&'static str, Value)> {
    let mut out = Vec::new();
    let number = |limit: i64, value: &dyn Fn(u64) -> u64| match u64::try_from(limit) {
        Ok(limit) => value(limit),
        Err(_) => u64::MAX,
    };
    if let Some(limit) = limits
        .memory()
        .as_ref()
        .and_then(|m| m.limit())
        .filter(|l| *l != 0)
    {
        if unified {
            out.push(("MemoryMax", Value::Number(number(limit, &memory_wall))));
            out.push(("MemoryHigh", Value::Number(number(limit, &memory_threshold))));
        } else {
            out.push(("MemoryLimit", Value::Number(number(limit, &memory_wall))));
        }
    }
    if let Some(cpu) = limits.cpu() {
        if let Some(shares) = cpu.shares().filter(|s| *s != 0) {
            out.push(match unified {
                true => ("CPUWeight", Value::Number(weight_of_shares(shares))),
                false => ("CPUShares", Value::Number(shares)),
            });
        }
        if let Some(quota) = cpu.quota().filter(|q| *q != 0) {
            let period = cpu.period().filter(|p| *p != 0).unwrap_or(100_000);
            // systemd takes whole hundredths of a CPU's second.
            let per_second = |q: u64| (q.saturating_mul(1_000_000) / period).next_multiple_of(10_000);
            out.push(("CPUQuotaPerSecUSec", Value::Number(number(quota, &per_second))));
        }
    }
    if let Some(pids) = limits.pids().as_ref().map(|p| p.limit()).filter(|l| *l != 0) {
        let wall = |l: u64| l.saturating_add(super::limits::EXTRA_PIDS as u64);
        out.push(("TasksMax", Value::Number(number(pids, &wall))));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(path: &str) -> Result<Unit, Error> {
        Unit::of(Some(Path::new(path)), "id")
    }

    #[test]
    fn paths_name_units() {
        let u = unit("system.slice:docker:abc").unwrap();
        assert_eq!(u.path(), Path::new("/system.slice/docker-abc.scope"));
        let u = unit("kubepods-burstable-pod1.slice:cri-containerd:x").unwrap();
        assert_eq!(
            u.path(),
            Path::new(
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/cri-containerd-x.scope"
            )
        );
        assert_eq!(unit("-.slice::x").unwrap().path(), Path::new("/x.scope"));
        assert_eq!(
            Unit::of(None, "id").unwrap().path(),
            Path::new("/system.slice/quark-id.scope")
        );
        for wrong in [
            "/docker/x",
            "a.slice:b",
            "a:b:c",
            "a.slice:b:../c",
            "a--b.slice:c:d",
            "a.slice:b:",
        ] {
            assert!(matches!(unit(wrong), Err(Error::Path(_))), "{wrong}");
        }
    }

    #[test]
    fn limits_become_properties() {
        let limits = r#"{"memory":{"limit":1048576},"cpu":{"quota":50000,"period":100000,"shares":1024},"pids":{"limit":-1}}"#;
        let limits: LinuxResources = serde_json::from_str(limits).unwrap();
        let found = unit_limits(&limits, true);
        assert!(found.contains(&("MemoryMax", Value::Number(memory_wall(1 << 20)))));
        assert!(found.contains(&("CPUQuotaPerSecUSec", Value::Number(500_000))));
        assert!(found.contains(&("TasksMax", Value::Number(u64::MAX))));
        assert!(unit_limits(&limits, false).contains(&("CPUShares", Value::Number(1024))));
    }
}
