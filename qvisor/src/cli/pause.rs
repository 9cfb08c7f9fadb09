//! `quark pause` and `quark resume`.

use super::{Error, Global};
use crate::cgroup;
use crate::runtime::state::{ContainerDir, Status};

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
    if cgroup::set_frozen(&record.cgroups, frozen)? {
        Ok(0)
    } else {
        Err(Error::Usage("this host has no cgroup freezer"))
    }
}
