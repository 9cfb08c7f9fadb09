//! `quark start`.

use super::{Error, Global};
use crate::runtime::hooks;
use crate::runtime::state::{ContainerDir, Record, Status, process_start};
use crate::sandbox::client::Client;
use crate::sandbox::protocol::Request;
use oci_spec::runtime::Spec;
use std::time::{Duration, Instant};

/// How long a sandbox whose program could not be started may take to end.
const PATIENCE: Duration = Duration::from_secs(3);

/// Options.
#[derive(clap::Args)]
pub struct Args {
    /// The container's id
    id: String,
}

/// Starts the program of a created container and runs its `poststart` hooks.
pub fn start(dir: &ContainerDir, record: &Record, spec: &Spec) -> Result<(), Error> {
    match dir.status(record).status {
        Status::Created => {}
        Status::Running | Status::Paused => {
            return Err(Error::Usage("cannot start an already running container"));
        }
        Status::Stopped => return Err(Error::Usage("cannot start a container that has stopped")),
        Status::Creating => {
            return Err(Error::Usage(
                "cannot start a container that is still being created",
            ));
        }
    }
    let asked = Client::connect(dir).and_then(|client| client.ask(&Request::Start, &[]));
    if let Err(e) = asked {
        // Engines delete what failed to start at once, and may only delete what has ended.
        let until = Instant::now() + PATIENCE;
        while process_start(record.pid) == Some(record.pid_start) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
        return Err(e.into());
    }
    if let Some(list) = spec.hooks().as_ref().and_then(|h| h.poststart().as_ref()) {
        let state = hooks::state_document(record, Status::Running);
        for hook in list {
            // The specification: the program runs already, so a failure is logged and the next hook is run.
            if let Err(e) = hooks::run("poststart", hook, &state) {
                log::warn!("{e}");
            }
        }
    }
    Ok(())
}

/// `quark start`.
pub fn main(global: &Global, args: Args) -> Result<i32, Error> {
    let dir = ContainerDir::open(&global.root, &args.id)?;
    let record = dir.record()?;
    start(&dir, &record, &dir.spec()?)?;
    Ok(0)
}
