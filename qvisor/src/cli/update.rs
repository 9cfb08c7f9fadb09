//! `quark update`: changes a container's limits, those of the host and those the guest kernel holds.

use super::{Error, Global};
use crate::cgroup;
use crate::cgroup::systemd::Unit;
use crate::error::Context;
use crate::runtime::state::{ContainerDir, Status};
use crate::sandbox::client::Client;
use crate::sandbox::join;
use crate::sandbox::protocol::Request;
use oci_spec::runtime::LinuxResources;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use serde_json::{Value, json};
use std::io::Read;

/// Options: runc's.
#[derive(clap::Args)]
pub struct Args {
    /// The container's id
    id: String,
    /// File with linux.resources as JSON; "-" is stdin
    #[arg(short, long)]
    resources: Option<String>,
    /// Weight of block I/O, 10 to 1000
    #[arg(long)]
    blkio_weight: Option<u16>,
    /// CPU time per period, µs
    #[arg(long, allow_hyphen_values = true)]
    cpu_quota: Option<i64>,
    /// CPU time that may be saved up, µs
    #[arg(long)]
    cpu_burst: Option<u64>,
    /// CPU period, µs
    #[arg(long)]
    cpu_period: Option<u64>,
    /// CPU shares
    #[arg(long, alias = "cpu-shares")]
    cpu_share: Option<u64>,
    /// Real-time CPU period, µs
    #[arg(long)]
    cpu_rt_period: Option<u64>,
    /// Real-time CPU time per period, µs
    #[arg(long)]
    cpu_rt_runtime: Option<i64>,
    /// 1: runs only when nothing else does
    #[arg(long)]
    cpu_idle: Option<i64>,
    /// CPUs to use
    #[arg(long)]
    cpuset_cpus: Option<String>,
    /// Memory nodes to use
    #[arg(long)]
    cpuset_mems: Option<String>,
    /// Memory limit: bytes, or with k, m, g; -1: none
    #[arg(long, value_parser = bytes, allow_hyphen_values = true)]
    memory: Option<i64>,
    /// Memory that is kept for the container
    #[arg(long, value_parser = bytes, allow_hyphen_values = true)]
    memory_reservation: Option<i64>,
    /// Memory and swap together
    #[arg(long, value_parser = bytes, allow_hyphen_values = true)]
    memory_swap: Option<i64>,
    /// Kernel memory; hosts ignore it
    #[arg(long, value_parser = bytes, hide = true, allow_hyphen_values = true)]
    kernel_memory: Option<i64>,
    /// Kernel memory of TCP; hosts ignore it
    #[arg(long, value_parser = bytes, hide = true, allow_hyphen_values = true)]
    kernel_memory_tcp: Option<i64>,
    /// Number of tasks; -1: no limit
    #[arg(long, allow_hyphen_values = true)]
    pids_limit: Option<i64>,
}

/// A number of bytes, with a unit or not.
fn bytes(text: &str) -> Result<i64, String> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| !c.is_ascii_digit());
    let shift = match &lower[digits.len()..] {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        unit => return Err(format!("{unit:?} is no unit of memory")),
    };
    let number: i64 = digits.parse().map_err(|_| format!("{text:?} is not a number"))?;
    if number < 0 {
        return Ok(-1);
    }
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| "too large".to_owned())
}

fn wrong(e: serde_json::Error) -> Error {
    Error::Value {
        what: "--resources",
        value: e.to_string(),
    }
}

/// What the arguments ask for: the file's resources, with single options on top.
fn resources(args: &Args) -> Result<LinuxResources, Error> {
    let mut value: Value = match args.resources.as_deref() {
        None => json!({}),
        Some("-") => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).doing("read stdin")?;
            serde_json::from_str(&text).map_err(wrong)?
        }
        Some(path) => crate::runtime::config::read_json(path.as_ref())?,
    };
    let number = |v: Option<i64>| v.map(Value::from);
    let count = |v: Option<u64>| v.map(Value::from);
    for (group, key, given) in [
        ("cpu", "quota", number(args.cpu_quota)),
        ("cpu", "burst", count(args.cpu_burst)),
        ("cpu", "period", count(args.cpu_period)),
        ("cpu", "shares", count(args.cpu_share)),
        ("cpu", "realtimePeriod", count(args.cpu_rt_period)),
        ("cpu", "realtimeRuntime", number(args.cpu_rt_runtime)),
        ("cpu", "idle", number(args.cpu_idle)),
        ("cpu", "cpus", args.cpuset_cpus.clone().map(Value::from)),
        ("cpu", "mems", args.cpuset_mems.clone().map(Value::from)),
        ("memory", "limit", number(args.memory)),
        ("memory", "reservation", number(args.memory_reservation)),
        ("memory", "swap", number(args.memory_swap)),
        ("memory", "kernel", number(args.kernel_memory)),
        ("memory", "kernelTCP", number(args.kernel_memory_tcp)),
        ("blockIO", "weight", args.blkio_weight.map(Value::from)),
        ("pids", "limit", number(args.pids_limit)),
    ] {
        if let Some(given) = given {
            value[group][key] = given;
        }
    }
    serde_json::from_value(value).map_err(wrong)
}

/// A limit as the sandbox is told it: 0 leaves it as it is.
fn told(limit: Option<i64>) -> u64 {
    match limit {
        None | Some(0) => 0,
        Some(limit) => u64::try_from(limit).unwrap_or(u64::MAX),
    }
}

/// `quark update`.
pub fn main(global: &Global, args: Args) -> Result<i32, Error> {
    let dir = ContainerDir::open(&global.root, &args.id)?;
    let record = dir.record()?;
    let status = dir.status(&record).status;
    if status == Status::Stopped {
        return Err(Error::Usage("container not running"));
    }
    let limits = resources(&args)?;
    crate::runtime::validate::check_resources(&limits).map_err(crate::sandbox::Error::from)?;
    if let Some(sandbox) = &record.sandbox {
        join::check_limits(&limits, &record.platform, sandbox)?;
    }
    let memory = told(limits.memory().as_ref().and_then(|m| m.limit()));
    let pids = told(limits.pids().as_ref().map(|p| p.limit()));
    if let Some(unit) = &record.unit {
        let told = Unit::named(unit).update(&limits, cgroup::is_unified()?);
        told.map_err(cgroup::Error::from)?;
    }
    cgroup::update(&record.cgroups, &limits)?;
    if memory != 0 || pids != 0 {
        let watched = match memory {
            0 | u64::MAX => None,
            _ => cgroup::memory_directory(&record.cgroups)?,
        };
        let fds: Vec<BorrowedFd<'_>> = watched.iter().map(OwnedFd::as_fd).collect();
        let client = Client::connect(&dir)?;
        let request = Request::Limits { memory, pids };
        // A frozen sandbox answers when it is thawed.
        if cgroup::is_frozen(&record.cgroups) {
            client.send(&request, &fds)?;
        } else {
            client.ask(&request, &fds)?;
        }
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_units() {
        assert_eq!(bytes("100"), Ok(100));
        assert_eq!(bytes("-1"), Ok(-1));
        assert_eq!(bytes("2k"), Ok(2048));
        assert_eq!(bytes("3GiB"), Ok(3 << 30));
        assert!(bytes("3x").is_err() && bytes("").is_err() && bytes("9999999999g").is_err());
    }
}
