//! `quark kill`.

use super::{Error, Global};
use crate::runtime::signal;
use crate::runtime::state::{ContainerDir, Status};
use crate::sandbox::client::Client;
use crate::sandbox::protocol::Request;

/// Options.
#[derive(clap::Args)]
pub struct Args {
    /// The container's id
    id: String,
    /// Signal: a number or a name
    #[arg(default_value = "SIGTERM")]
    signal: String,
    /// Send it to every process of the container
    #[arg(short, long)]
    all: bool,
}

/// `quark kill`.
pub fn main(global: &Global, args: Args) -> Result<i32, Error> {
    let Some(signo) = signal::parse(&args.signal) else {
        return Err(Error::Value {
            what: "unknown signal",
            value: args.signal,
        });
    };
    let dir = ContainerDir::open(&global.root, &args.id)?;
    let record = dir.record()?;
    match dir.status(&record).status {
        // Callers of runc send to all of a container that may have ended, and expect no complaint.
        Status::Stopped if args.all => return Ok(0),
        // The words are those that engines look for.
        Status::Stopped => return Err(Error::Usage("container not running")),
        Status::Paused if signo == libc::SIGKILL as u32 => {
            crate::cgroup::set_frozen(&record.cgroups, false)?;
        }
        // A frozen sandbox takes the word when it is thawed, and answers nobody until then.
        Status::Paused => {
            Client::connect(&dir)?.send(&Request::Signal { signo, all: args.all }, &[])?;
            return Ok(0);
        }
        _ => {}
    }
    let told = Client::connect(&dir).and_then(|c| c.ask(&Request::Signal { signo, all: args.all }, &[]));
    match told {
        Ok(_) => Ok(0),
        // It may have ended between the look and the word.
        Err(_) if dir.status(&record).status == Status::Stopped => {
            if args.all {
                Ok(0)
            } else {
                Err(Error::Usage("container not running"))
            }
        }
        Err(e) => Err(e.into()),
    }
}
