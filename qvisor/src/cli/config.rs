//! `quark config`: the operator's settings in force.

use super::Error;
use crate::error::Context;
use crate::settings::{self, Settings};
use std::io::Write;

/// Options.
#[derive(clap::Args)]
pub struct Args {
    /// Print the manual's page about the settings
    #[arg(long)]
    markdown: bool,
}

/// `quark config`.
pub fn main(args: &Args) -> Result<i32, Error> {
    let text = if args.markdown {
        settings::page()
    } else {
        format!("{:#}\n", Settings::load()?.to_json())
    };
    std::io::stdout()
        .write_all(text.as_bytes())
        .doing("write to stdout")?;
    Ok(0)
}
