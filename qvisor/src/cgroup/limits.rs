//! Writes the limits of `linux.resources`.
//!
//! The guest enforces memory and pids itself; the host's limits stand a little above as the wall behind it.

use super::Dir;
use super::hierarchy::{Error, Version};
use crate::error::Context;
use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources};
use std::path::Path;

/// Tasks beyond the container's own that a sandbox needs: the host side's threads, the guest kernel's helpers.
pub const EXTRA_PIDS: i64 = 64;
/// What guest kernel and host side themselves may use before the container's limit counts as reached, bytes.
const KERNEL_ALLOWANCE: u64 = 16 << 20;

/// Bytes at which the guest is told to free memory, for a container's limit.
pub fn memory_threshold(limit: u64) -> u64 {
    limit.saturating_add(KERNEL_ALLOWANCE)
}

/// The host's own limit: far enough above that the guest can act first.
pub fn memory_wall(limit: u64) -> u64 {
    memory_threshold(limit).saturating_add((64 << 20) + limit / 4)
}

/// Whether anything is limited at all.
pub fn any(r: &LinuxResources) -> bool {
    let memory = r
        .memory()
        .as_ref()
        .is_some_and(|m| m.limit().is_some_and(|l| l > 0));
    memory
        || r.cpu().is_some()
        || r.pids().as_ref().is_some_and(|p| p.limit() > 0)
        || r.block_io().is_some()
        || r.hugepage_limits().as_ref().is_some_and(|h| !h.is_empty())
        || r.unified().as_ref().is_some_and(|u| !u.is_empty())
}

struct Writer<'a> {
    dirs: &'a [Dir],
}

impl Writer<'_> {
    fn find(&self, limit: &'static str, controller: &'static str) -> Result<&Dir, Error> {
        let has = |d: &&Dir| d.controllers.iter().any(|c| c == controller);
        self.dirs
            .iter()
            .find(has)
            .ok_or(Error::NoController { limit, controller })
    }

    fn set(&self, dir: &Dir, limit: &str, file: &str, value: impl ToString) -> Result<(), Error> {
        let path = dir.path.join(file);
        std::fs::write(&path, value.to_string())
            .at("write", &path)
            .map_err(|source| Error::Refused {
                limit: limit.to_owned(),
                source,
            })
    }
}

/// Writes every limit of `r`. `resources.devices` needs no file: a guest has no device but those of its own kernel.
pub fn apply(dirs: &[Dir], r: &LinuxResources) -> Result<(), Error> {
    let w = Writer { dirs };
    if let Some(memory) = r.memory() {
        apply_memory(&w, memory)?;
    }
    if let Some(cpu) = r.cpu() {
        apply_cpu(&w, cpu)?;
    }
    if let Some(pids) = r.pids() {
        let limit = pids.limit();
        if limit != 0 {
            let value = if limit < 0 {
                "max".to_owned()
            } else {
                limit.saturating_add(EXTRA_PIDS).to_string()
            };
            w.set(w.find("pids", "pids")?, "pids.limit", "pids.max", value)?;
        }
    }
    if let Some(io) = r.block_io() {
        apply_block_io(&w, io)?;
    }
    for page in r.hugepage_limits().iter().flatten() {
        let dir = w.find("hugepageLimits", "hugetlb")?;
        let (size, end) = (
            page.page_size(),
            if dir.version == Version::V1 {
                "limit_in_bytes"
            } else {
                "max"
            },
        );
        if !size.chars().all(|c| c.is_ascii_alphanumeric()) {
            return Err(Error::NoController {
                limit: "hugepageLimits.pageSize",
                controller: "hugetlb",
            });
        }
        w.set(
            dir,
            "hugepageLimits",
            &format!("hugetlb.{size}.{end}"),
            page.limit(),
        )?;
    }
    for (name, value) in r.unified().iter().flatten() {
        let unified = dirs.iter().find(|d| d.version == Version::V2);
        let dir = unified.ok_or(Error::NoController {
            limit: "unified",
            controller: "version 2",
        })?;
        let file = Path::new(name)
            .file_name()
            .map(|f| f.to_string_lossy().into_owned())
            .unwrap_or_default();
        w.set(dir, &format!("unified.{name}"), &file, value)?;
    }
    Ok(())
}

fn apply_memory(w: &Writer<'_>, m: &LinuxMemory) -> Result<(), Error> {
    let limit = m.limit().filter(|l| *l != 0);
    if limit.is_none() && m.swap().is_none() && m.reservation().is_none() && m.swappiness().is_none() {
        return Ok(());
    }
    let dir = w.find("memory", "memory")?;
    let wall = limit.map(|l| {
        if l < 0 {
            -1
        } else {
            memory_wall(l as u64).min(i64::MAX as u64) as i64
        }
    });
    // Swap counts together with memory in the specification and in version 1; the wall moves by as much as memory's.
    let above = match (limit, wall) {
        (Some(l), Some(wall)) if l > 0 => wall - l,
        _ => 0,
    };
    let swap = m
        .swap()
        .filter(|s| *s != 0)
        .map(|s| if s < 0 { -1 } else { s.saturating_add(above) });
    match dir.version {
        Version::V1 => {
            let memsw = "memory.memsw.limit_in_bytes";
            if wall == Some(-1) || swap == Some(-1) {
                // Raising: the outer limit first.
                let _ = std::fs::write(dir.path.join(memsw), "-1");
            }
            if let Some(wall) = wall {
                let file = "memory.limit_in_bytes";
                if w.set(dir, "memory.limit", file, wall).is_err() {
                    // An update upwards is refused while the old swap limit is lower.
                    let _ = std::fs::write(dir.path.join(memsw), "-1");
                    w.set(dir, "memory.limit", file, wall)?;
                }
            }
            if let Some(swap) = swap {
                // Without swap accounting there is no such file, and nothing to limit when there is no swap.
                if dir.path.join(memsw).exists() {
                    w.set(dir, "memory.swap", memsw, swap)?;
                }
            }
            if let Some(soft) = m.reservation().filter(|s| *s != 0) {
                w.set(dir, "memory.reservation", "memory.soft_limit_in_bytes", soft)?;
            }
            if let Some(swappiness) = m.swappiness() {
                w.set(dir, "memory.swappiness", "memory.swappiness", swappiness)?;
            }
            if let Some(tcp) = m.kernel_tcp().filter(|t| *t != 0) {
                w.set(dir, "memory.kernelTCP", "memory.kmem.tcp.limit_in_bytes", tcp)?;
            }
        }
        Version::V2 => {
            let word = |v: i64| if v < 0 { "max".to_owned() } else { v.to_string() };
            if let (Some(limit), Some(wall)) = (limit, wall) {
                w.set(dir, "memory.limit", "memory.max", word(wall))?;
                let high = if limit < 0 {
                    -1
                } else {
                    memory_threshold(limit as u64) as i64
                };
                w.set(dir, "memory.limit", "memory.high", word(high))?;
            }
            if let Some(swap) = m.swap().filter(|s| *s != 0) {
                let only = if swap < 0 {
                    -1
                } else {
                    (swap - limit.unwrap_or(0)).max(0)
                };
                if dir.path.join("memory.swap.max").exists() {
                    w.set(dir, "memory.swap", "memory.swap.max", word(only))?;
                }
            }
            if let Some(low) = m.reservation().filter(|s| *s != 0) {
                w.set(dir, "memory.reservation", "memory.low", word(low))?;
            }
        }
    }
    Ok(())
}

/// Version 2's weight (1–10000, 100 by default) of version 1's shares (2–262144, 1024 by default).
pub fn weight_of_shares(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

fn apply_cpu(w: &Writer<'_>, c: &LinuxCpu) -> Result<(), Error> {
    let shares = c.shares().filter(|s| *s != 0);
    let quota = c.quota().filter(|q| *q != 0);
    let period = c.period().filter(|p| *p != 0);
    if shares.is_some() || quota.is_some() || period.is_some() || c.burst().is_some() || c.idle().is_some() {
        let dir = w.find("cpu", "cpu")?;
        match dir.version {
            Version::V1 => {
                if let Some(shares) = shares {
                    w.set(dir, "cpu.shares", "cpu.shares", shares)?;
                }
                let set_period = |period| w.set(dir, "cpu.period", "cpu.cfs_period_us", period);
                // Together they must stay below the parent's share at every moment: one order or the other does.
                let later = period.filter(|p| quota.is_some() && set_period(*p).is_err());
                if let (Some(period), None) = (period, quota) {
                    set_period(period)?;
                }
                if let Some(quota) = quota {
                    w.set(dir, "cpu.quota", "cpu.cfs_quota_us", quota)?;
                }
                if let Some(period) = later {
                    set_period(period)?;
                }
                if let Some(burst) = c.burst() {
                    w.set(dir, "cpu.burst", "cpu.cfs_burst_us", burst)?;
                }
            }
            Version::V2 => {
                if let Some(shares) = shares {
                    w.set(dir, "cpu.shares", "cpu.weight", weight_of_shares(shares))?;
                }
                if quota.is_some() || period.is_some() {
                    let most = match quota {
                        Some(q) if q > 0 => q.to_string(),
                        _ => "max".to_owned(),
                    };
                    w.set(
                        dir,
                        "cpu.quota",
                        "cpu.max",
                        format!("{most} {}", period.unwrap_or(100_000)),
                    )?;
                }
                if let Some(burst) = c.burst() {
                    w.set(dir, "cpu.burst", "cpu.max.burst", burst)?;
                }
            }
        }
        if let Some(idle) = c.idle() {
            w.set(dir, "cpu.idle", "cpu.idle", idle)?;
        }
    }
    for (value, limit, file) in [
        (
            c.realtime_period().map(|v| v.to_string()),
            "cpu.realtimePeriod",
            "cpu.rt_period_us",
        ),
        (
            c.realtime_runtime().map(|v| v.to_string()),
            "cpu.realtimeRuntime",
            "cpu.rt_runtime_us",
        ),
    ] {
        if let Some(value) = value.filter(|v| v != "0") {
            w.set(w.find(limit, "cpu")?, limit, file, value)?;
        }
    }
    for (value, limit, file) in [
        (c.cpus(), "cpu.cpus", "cpuset.cpus"),
        (c.mems(), "cpu.mems", "cpuset.mems"),
    ] {
        if let Some(value) = value.as_ref().filter(|v| !v.is_empty()) {
            w.set(w.find("cpu.cpus", "cpuset")?, limit, file, value)?;
        }
    }
    Ok(())
}

impl Dir {
    /// The first of two files if it is there, else the second.
    fn one_of<'a>(&self, [first, second]: [&'a str; 2]) -> &'a str {
        if self.path.join(first).exists() {
            first
        } else {
            second
        }
    }
}

fn apply_block_io(w: &Writer<'_>, io: &LinuxBlockIo) -> Result<(), Error> {
    let v1 = w.dirs.iter().find(|d| d.controllers.iter().any(|c| c == "blkio"));
    let v2 = w
        .dirs
        .iter()
        .find(|d| d.version == Version::V2 && d.controllers.iter().any(|c| c == "io"));
    let Some(dir) = v1.or(v2) else {
        return Err(Error::NoController {
            limit: "blockIO",
            controller: "blkio",
        });
    };
    let old = dir.version == Version::V1;
    if let Some(weight) = io.weight().filter(|v| *v != 0) {
        let files = if old {
            ["blkio.weight", "blkio.bfq.weight"]
        } else {
            ["io.weight", "io.bfq.weight"]
        };
        let file = dir.one_of(files);
        w.set(dir, "blockIO.weight", file, weight)?;
    }
    if io.leaf_weight().is_some_and(|v| v != 0) {
        w.set(
            dir,
            "blockIO.leafWeight",
            "blkio.leaf_weight",
            io.leaf_weight().unwrap_or_default(),
        )?;
    }
    for device in io.weight_device().iter().flatten() {
        let at = format!("{}:{}", device.major(), device.minor());
        let files = if old {
            ["blkio.weight_device", "blkio.bfq.weight_device"]
        } else {
            ["io.weight", "io.bfq.weight"]
        };
        let file = dir.one_of(files);
        if let Some(weight) = device.weight().filter(|v| *v != 0) {
            w.set(dir, "blockIO.weightDevice", file, format!("{at} {weight}"))?;
        }
        if let Some(weight) = device.leaf_weight().filter(|v| *v != 0) {
            w.set(
                dir,
                "blockIO.weightDevice",
                "blkio.leaf_weight_device",
                format!("{at} {weight}"),
            )?;
        }
    }
    for (list, v1_name, v2_key) in [
        (
            io.throttle_read_bps_device(),
            "blkio.throttle.read_bps_device",
            "rbps",
        ),
        (
            io.throttle_write_bps_device(),
            "blkio.throttle.write_bps_device",
            "wbps",
        ),
        (
            io.throttle_read_iops_device(),
            "blkio.throttle.read_iops_device",
            "riops",
        ),
        (
            io.throttle_write_iops_device(),
            "blkio.throttle.write_iops_device",
            "wiops",
        ),
    ] {
        for d in list.iter().flatten() {
            let device = format!("{}:{}", d.major(), d.minor());
            if old {
                w.set(dir, "blockIO", v1_name, format!("{device} {}", d.rate()))?;
            } else {
                w.set(
                    dir,
                    "blockIO",
                    "io.max",
                    format!("{device} {v2_key}={}", d.rate()),
                )?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir(version: Version, name: &str) -> (Vec<Dir>, std::path::PathBuf) {
        let path = std::env::temp_dir().join(format!("quark-limits-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        let controllers = ["memory", "cpu", "pids", "cpuset"].map(str::to_owned).to_vec();
        (
            vec![Dir {
                version,
                controllers,
                path: path.clone(),
            }],
            path,
        )
    }

    fn limits() -> LinuxResources {
        serde_json::from_str(
            r#"{"memory":{"limit":104857600,"swap":104857600},"cpu":{"quota":50000,"period":100000,"shares":1024},
            "pids":{"limit":100}}"#,
        )
        .unwrap()
    }

    #[test]
    fn weights_of_devices_go_where_the_scheduler_has_its_file() {
        let (mut dirs, path) = dir(Version::V1, "weights");
        dirs[0].controllers.push("blkio".to_owned());
        let limits = r#"{"blockIO":{"weight":333,"weightDevice":[{"major":8,"minor":1,"weight":444}]}}"#;
        let limits = serde_json::from_str(limits).unwrap();
        apply(&dirs, &limits).unwrap();
        let read = |f: &str| std::fs::read_to_string(path.join(f)).unwrap();
        assert_eq!(read("blkio.bfq.weight"), "333");
        assert_eq!(read("blkio.bfq.weight_device"), "8:1 444");
        std::fs::write(path.join("blkio.weight_device"), "").unwrap();
        apply(&dirs, &limits).unwrap();
        assert_eq!(read("blkio.weight_device"), "8:1 444");
        std::fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn version_1_files_stand_above_the_guests_limits() {
        let (dirs, path) = dir(Version::V1, "v1");
        apply(&dirs, &limits()).unwrap();
        let read = |f: &str| std::fs::read_to_string(path.join(f)).unwrap();
        assert_eq!(read("pids.max"), "164");
        assert_eq!(read("cpu.cfs_quota_us"), "50000");
        let wall: u64 = read("memory.limit_in_bytes").parse().unwrap();
        assert!(wall > memory_threshold(104_857_600));
        std::fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn version_2_files() {
        let (dirs, path) = dir(Version::V2, "v2");
        apply(&dirs, &limits()).unwrap();
        let read = |f: &str| std::fs::read_to_string(path.join(f)).unwrap();
        assert_eq!(read("cpu.max"), "50000 100000");
        assert_eq!(read("cpu.weight"), "39");
        assert_eq!(read("memory.high"), memory_threshold(104_857_600).to_string());
        std::fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn a_limit_without_its_controller_is_an_error() {
        let (mut dirs, path) = dir(Version::V2, "none");
        dirs[0].controllers.clear();
        let said = apply(&dirs, &limits()).unwrap_err().to_string();
        assert_eq!(
            said,
            "config.json: linux.resources.memory: this host has no memory cgroup controller"
        );
        std::fs::remove_dir_all(path).unwrap();
    }
}
