//! `quark metrics`: figures of a container's guest kernel.

use super::{Error, Global};
use crate::runtime::state::ContainerDir;
use crate::sandbox::client::Client;
use crate::sandbox::protocol::{Request, Response};

/// Options.
#[derive(clap::Args)]
pub struct Args {
    /// The container's id
    id: String,
}

/// `quark metrics`: a line of name and value for each.
pub fn main(global: &Global, args: Args) -> Result<i32, Error> {
    let dir = ContainerDir::open(&global.root, &args.id)?;
    let Response::Metrics { list } = Client::connect(&dir)?.ask(&Request::Metrics, &[])? else {
        return Err(crate::sandbox::Error::Protocol.into());
    };
    for (name, value) in list {
        println!("{name} {value}");
    }
    Ok(0)
}
