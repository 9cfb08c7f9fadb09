//! `quark list`.

use super::{Error, Global, state};
use crate::runtime::state::{ContainerDir, Status};
use serde_json::Value;

/// Options.
#[derive(clap::Args)]
pub struct Args {
    /// Form of the list
    #[arg(short, long, default_value = "table", value_parser = ["table", "json"])]
    format: String,
    /// Print ids only
    #[arg(short, long)]
    quiet: bool,
}

/// `quark list`.
pub fn main(global: &Global, args: Args) -> Result<i32, Error> {
    let mut rows = Vec::new();
    for id in ContainerDir::list(&global.root)? {
        // One that is being made or removed meanwhile is not there.
        let Ok(dir) = ContainerDir::open(&global.root, &id) else {
            continue;
        };
        let Ok(record) = dir.record() else { continue };
        let status = dir.status(&record);
        rows.push((record, status));
    }
    if args.quiet {
        for (record, _) in rows {
            println!("{}", record.id);
        }
    } else if args.format == "json" {
        let list: Vec<Value> = rows.iter().map(|(r, s)| state::document(r, s)).collect();
        println!("{}", Value::from(list));
    } else {
        println!(
            "{:<24} {:<8} {:<9} {:<32} {:<31} OWNER",
            "ID", "PID", "STATUS", "BUNDLE", "CREATED"
        );
        for (r, s) in rows {
            let pid = if s.status == Status::Stopped { 0 } else { r.pid };
            let bundle = r.bundle.display().to_string();
            println!(
                "{:<24} {:<8} {:<9} {:<32} {:<31} {}",
                r.id,
                pid,
                s.status,
                bundle,
                r.created,
                state::owner_name(r.owner)
            );
        }
    }
    Ok(0)
}
