//! `quark ps`: the container's processes as its guest kernel knows them.

use super::{Error, Global};
use crate::runtime::state::{ContainerDir, Status};
use crate::sandbox::client::Client;
use crate::sandbox::protocol::{Request, Response};

/// Options.
#[derive(clap::Args)]
pub struct Args {
    /// The container's id
    id: String,
    /// Form of the list; `json` gives host process ids, as runc does
    #[arg(short, long, default_value = "table", value_parser = ["table", "json"])]
    format: String,
    /// Options of ps(1): with `-f`, or none, the long form, else the short one
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    ps_options: Vec<String>,
}

/// `quark ps`.
pub fn main(global: &Global, args: Args) -> Result<i32, Error> {
    let dir = ContainerDir::open(&global.root, &args.id)?;
    if args.format == "json" {
        // Engines use these to find what belongs to a container on the host.
        let record = dir.record()?;
        let pids = crate::cgroup::processes(&record.cgroups);
        let server = match &record.sandbox {
            Some(id) => ContainerDir::open(&global.root, id)?.record()?.pid,
            None => record.pid,
        };
        println!("{}", serde_json::Value::from(apps(pids, server)));
        return Ok(0);
    }
    let record = dir.record()?;
    if dir.status(&record).status == Status::Stopped {
        println!("{HEAD}");
        return Ok(0);
    }
    let Response::Processes { list } = Client::connect(&dir)?.ask(&Request::Processes, &[])? else {
        return Err(crate::sandbox::Error::Protocol.into());
    };
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime).tv_sec as u64;
    let long = args.ps_options.is_empty() || args.ps_options.iter().any(|o| o.contains('f'));
    println!(
        "{}",
        if long {
            HEAD
        } else {
            "    PID TTY      STAT   TIME COMMAND"
        }
    );
    for p in list {
        let (seconds, tty) = (p.cpu_ms / 1000, terminal(p.tty));
        if long {
            let user = super::state::owner_name(p.uid);
            let age_ms = now.saturating_sub(p.start_s).max(1) * 1000;
            println!(
                "{user:<8} {:>7} {:>7} {:>2} {} {tty:<8} {:02}:{:02}:{:02} {}",
                p.pid,
                p.ppid,
                p.cpu_ms * 100 / age_ms,
                clock(p.start_s),
                seconds / 3600,
                seconds / 60 % 60,
                seconds % 60,
                p.command
            );
        } else {
            println!(
                "{:>7} {tty:<8} {:<4} {:>3}:{:02} {}",
                p.pid,
                p.state,
                seconds / 60,
                seconds % 60,
                p.command
            );
        }
    }
    Ok(0)
}

/// The name of the process that starts those of a container which has joined a sandbox. Whoever else calls itself so is not shown.
const NURSERY: &str = "quark-nursery\n";

/// Of the container's host processes those in which its programs run: on `process` the children of the jail, which is the
/// child of the sandbox process `server`. Where there are none, all of them: on `kvm` the programs run in the virtual machine's
/// process.
fn apps(pids: Vec<i32>, server: i32) -> Vec<i32> {
    let starts =
        |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == NURSERY);
    let jailed = |pid: &i32| parent(*pid).and_then(parent) == Some(server) && !starts(pid);
    let apps: Vec<i32> = pids.iter().copied().filter(jailed).collect();
    if apps.is_empty() { pids } else { apps }
}

/// The parent of a host process.
fn parent(pid: i32) -> Option<i32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("PPid:"))?;
    line.trim().parse().ok()
}

const HEAD: &str = "UID          PID    PPID  C STIME TTY          TIME CMD";

/// The name of a terminal's device number, as ps(1) writes it.
fn terminal(device: u32) -> String {
    match (device >> 8 & 0xfff, device & 0xff | device >> 12 & 0xfff00) {
        (136..=143, minor) => format!("pts/{minor}"),
        (5, 1) => "console".to_owned(),
        _ => "?".to_owned(),
    }
}

/// Hour and minute, UTC, of a time in seconds since the Epoch.
fn clock(at_s: u64) -> String {
    format!("{:02}:{:02}", at_s / 3600 % 24, at_s / 60 % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_and_times_as_ps_writes_them() {
        assert_eq!(terminal(136 << 8 | 3), "pts/3");
        assert_eq!(terminal(0), "?");
        assert_eq!(clock(86_400 + 3_660), "01:01");
    }
}
