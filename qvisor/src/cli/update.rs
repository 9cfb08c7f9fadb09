//! `quark update`: changes a container's host limits.

use super::{Error, Global};
use crate::cgroup;
use crate::error::Context;
use crate::runtime::state::{ContainerDir, Status};
use oci_spec::runtime::LinuxResources;
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
    /// CPU time per period, µs
    #[arg(long)]
    cpu_quota: Option<i64>,
    /// CPU period, µs
    #[arg(long)]
    cpu_period: Option<u64>,
    /// CPU shares
    #[arg(long, alias = "cpu-shares")]
    cpu_share: Option<u64>,
    /// CPUs to use
    #[arg(long)]
    cpuset_cpus: Option<String>,
    /// Memory nodes to use
    #[arg(long)]
    cpuset_mems: Option<String>,
}

/// `quark update`.
///
/// Limits of CPUs change at once. Those of memory and processes are the guest kernel's too, which takes them at boot:
/// they are refused rather than changed by half.
pub fn main(global: &Global, args: Args) -> Result<i32, Error> {
    let dir = ContainerDir::open(&global.root, &args.id)?;
    let record = dir.record()?;
    if dir.status(&record).status == Status::Stopped {
        return Err(Error::Usage("container not running"));
    }
    let mut value: Value = match args.resources.as_deref() {
        None => json!({}),
        Some("-") => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).doing("read stdin")?;
            serde_json::from_str(&text).map_err(|e| Error::Value {
                what: "--resources",
                value: e.to_string(),
            })?
        }
        Some(path) => crate::runtime::config::read_json(path.as_ref())?,
    };
    for (key, given) in [
        ("quota", args.cpu_quota.map(Value::from)),
        ("period", args.cpu_period.map(Value::from)),
        ("shares", args.cpu_share.map(Value::from)),
        ("cpus", args.cpuset_cpus.map(Value::from)),
        ("mems", args.cpuset_mems.map(Value::from)),
    ] {
        if let Some(given) = given {
            value["cpu"][key] = given;
        }
    }
    let limits: LinuxResources = serde_json::from_value(value).map_err(|e| Error::Value {
        what: "--resources",
        value: e.to_string(),
    })?;
    let memory = limits
        .memory()
        .as_ref()
        .is_some_and(|m| m.limit().is_some_and(|l| l != 0));
    if memory || limits.pids().as_ref().is_some_and(|p| p.limit() != 0) {
        return Err(Error::Usage(
            "memory and pids limits of a running container cannot be changed yet",
        ));
    }
    cgroup::update(&record.cgroups, &limits)?;
    Ok(0)
}
