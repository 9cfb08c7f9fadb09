//! `quark pause` and `quark resume`.

use super::{Error, Global};
use crate::cgroup;
use crate::runtime::state::{ContainerDir, Status};
use crate::sandbox::client::Client;
use crate::sandbox::protocol::{Request, Response};

/// Options.
#[derive(clap::Args)]
pub struct Args {
    /// The container's id
    id: String,
}

/// `quark pause` (`frozen`) and `quark resume`.
pub fn main(global: &Global, args: Args, frozen: bool) -> Result<i32, Error> {
    let dir = ContainerDir::open(&global.root, &args.id)?;
    let record = dir.record()?;
    match (dir.status(&record).status, frozen) {
        (Status::Running | Status::Created, true) | (Status::Paused, false) => {}
        (_, true) => return Err(Error::Usage("container not running")),
        (_, false) => return Err(Error::Usage("container not paused")),
    }
    // In a shared sandbox the guest kernel stops them: what the cgroup stops may hold a lock that the others need.
    // A server that was stopped itself would not answer.
    if !cgroup::is_frozen(&record.cgroups) {
        let answer = Client::connect(&dir)?.ask(&Request::Freeze { stop: frozen }, &[])?;
        if matches!(answer, Response::Done) {
            return Ok(0);
        }
    }
    if cgroup::set_frozen(&record.cgroups, frozen)? {
        Ok(0)
    } else {
        Err(Error::Usage("this host has no cgroup freezer"))
    }
}
