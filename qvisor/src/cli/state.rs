//! `quark state`.

use super::{Error, Global};
use crate::runtime::state::{ContainerDir, OCI_VERSION, Record, Status, StatusRecord};
use serde_json::{Value, json};

/// Options.
#[derive(clap::Args)]
pub struct Args {
    /// The container's id
    id: String,
}

/// A container's state as `state` and `list --format json` print it: runc's keys, and why it stopped.
pub fn document(record: &Record, status: &StatusRecord) -> Value {
    let mut value = json!({
        "ociVersion": OCI_VERSION,
        "id": record.id,
        "pid": if status.status == Status::Stopped { 0 } else { record.pid },
        "status": status.status,
        "bundle": record.bundle,
        "rootfs": record.rootfs,
        "created": record.created,
        "annotations": record.annotations,
        "owner": owner_name(record.owner),
        "platform": record.platform,
    });
    if let Some(code) = status.exit_code {
        value["exitCode"] = code.into();
    }
    if let Some(reason) = &status.reason {
        value["reason"] = reason.clone().into();
    }
    value
}

/// The name of the user `uid` in this host's `/etc/passwd`, or the number.
pub fn owner_name(uid: u32) -> String {
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let named = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    };
    users.lines().find_map(named).unwrap_or_else(|| uid.to_string())
}

/// `quark state`.
pub fn main(global: &Global, args: Args) -> Result<i32, Error> {
    let dir = ContainerDir::open(&global.root, &args.id)?;
    let record = dir.record()?;
    println!("{:#}", document(&record, &dir.status(&record)));
    Ok(0)
}
