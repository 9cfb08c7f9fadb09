//! `quark ps`: the container's processes as its guest kernel knows them.

use super::{Error, Global};
use crate::runtime::state::ContainerDir;
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
    /// Options of ps(1): accepted, the columns are always the same
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    ps_options: Vec<String>,
}

/// `quark ps`.
pub fn main(global: &Global, args: Args) -> Result<i32, Error> {
    let dir = ContainerDir::open(&global.root, &args.id)?;
    if args.format == "json" {
        // Engines use these to find what belongs to a container on the host.
        let pids = crate::cgroup::processes(&dir.record()?.cgroups);
        println!("{}", serde_json::Value::from(pids));
        return Ok(0);
    }
    let Response::Processes { list } = Client::connect(&dir)?.ask(&Request::Processes, &[])? else {
        return Err(crate::sandbox::Error::Protocol.into());
    };
    println!("{:<8} {:>7} {:>7} S {:>10} CMD", "UID", "PID", "PPID", "TIME");
    for p in list {
        let seconds = p.cpu_ms / 1000;
        let time = format!(
            "{:02}:{:02}:{:02}",
            seconds / 3600,
            seconds / 60 % 60,
            seconds % 60
        );
        println!(
            "{:<8} {:>7} {:>7} {} {:>10} {}",
            p.uid, p.pid, p.ppid, p.state, time, p.command
        );
    }
    Ok(0)
}
