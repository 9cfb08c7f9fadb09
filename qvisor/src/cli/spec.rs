//! `quark spec`.

use super::Error;
use crate::error::Context;
use crate::runtime::template;
use std::io::Write;
use std::path::PathBuf;

/// Options.
#[derive(clap::Args)]
pub struct Args {
    /// Directory to write config.json to
    #[arg(short, long, default_value = ".")]
    bundle: PathBuf,
    /// For a user without privileges
    #[arg(long)]
    rootless: bool,
}

/// `quark spec`.
pub fn main(args: Args) -> Result<i32, Error> {
    let file = args.bundle.join("config.json");
    let mut text = serde_json::to_vec_pretty(&template::spec(args.rootless)).unwrap_or_default();
    text.push(b'\n');
    // An existing one is someone's work.
    let mut out = std::fs::File::create_new(&file).at("create", &file)?;
    out.write_all(&text).at("write", &file)?;
    Ok(0)
}
