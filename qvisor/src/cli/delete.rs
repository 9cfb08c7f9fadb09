//! `quark delete`: removes a container and whatever a killed sandbox may have left behind.

use super::{Error, Global};
use crate::cgroup::systemd::Unit;
use crate::runtime::hooks;
use crate::runtime::state::{ContainerDir, Status, process_start};
use crate::{cgroup, sys};
use std::time::{Duration, Instant};

/// Options.
#[derive(clap::Args)]
pub struct Args {
    /// The container's id
    id: String,
    /// Kill it first if it runs
    #[arg(short, long)]
    force: bool,
}

/// How long a killed sandbox may take to go.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long what is left of a container may take to end in the sandbox it shared.
const LEAVE_TIME: Duration = Duration::from_secs(2);

/// Kills what is left of a container and removes all that is known of it.
pub fn destroy(dir: &ContainerDir) -> Result<(), Error> {
    if let Ok(record) = dir.record() {
        let ours = || record.pid > 0 && process_start(record.pid) == Some(record.pid_start);
        // One that has left the sandbox it shared has told how it went; nothing of it is there any more.
        let left = !ours() && dir.status(&record).exit_code.is_some();
        // A frozen process does not die.
        let _ = cgroup::set_frozen(&record.cgroups, false);
        if ours() {
            let _ = sys::kill(record.pid, libc::SIGKILL);
            let deadline = Instant::now() + PATIENCE;
            while ours() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        if record.sandbox.is_some() && !left {
            // The guest kernel that they are of ends them; killed from here, they would take the sandbox along.
            cgroup::wait_until_empty(&record.cgroups, LEAVE_TIME);
        }
        // The jail dies with the sandbox process; the cgroup tells if something did not.
        cgroup::kill_all(&record.cgroups, record.pid);
        if let Some(unit) = &record.unit {
            Unit::named(unit).stop();
        }
        cgroup::remove(&record.cgroups)?;
        if let Ok(spec) = dir.spec()
            && let Some(list) = spec.hooks().as_ref().and_then(|h| h.poststop().as_ref())
        {
            let state = hooks::state_document(&record, Status::Stopped);
            for hook in list {
                if let Err(e) = hooks::run("poststop", hook, &state) {
                    log::warn!("{e}");
                }
            }
        }
    }
    Ok(dir.remove()?)
}

/// `quark delete`.
pub fn main(global: &Global, args: Args) -> Result<i32, Error> {
    let dir = match ContainerDir::open(&global.root, &args.id) {
        // As runc: forcing away what is not there is no failure.
        Err(crate::runtime::state::Error::Missing(_)) if args.force => return Ok(0),
        other => other?,
    };
    if !args.force {
        let record = dir.record()?;
        // A program that has just ended may still be on its way to be recorded.
        let deadline = Instant::now() + Duration::from_secs(1);
        loop {
            match dir.status(&record).status {
                // One whose program never ran has nothing to lose.
                Status::Stopped | Status::Created => break,
                _ if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(10)),
                status => {
                    return Err(Error::Value {
                        what: "cannot delete a container that is not stopped (use --force)",
                        value: status.to_string(),
                    });
                }
            }
        }
    }
    destroy(&dir)?;
    Ok(0)
}
