//! `quark events`: what a container uses, and when its memory runs out, as lines of JSON.

use super::{Error, Global};
use crate::cgroup;
use crate::error::Context;
use crate::runtime::state::{ContainerDir, Status};
use crate::sandbox::client::Client;
use crate::sandbox::protocol::{Request, Response};
use rustix::event::{PollFd, PollFlags, Timespec};
use serde_json::{Value, json};
use std::io::Write;
use std::time::{Duration, Instant};

/// Options: runc's.
#[derive(clap::Args)]
pub struct Args {
    /// The container's id
    id: String,
    /// Time between two statistics: a number with ms, s, m or h
    #[arg(long, default_value = "5s", value_parser = interval)]
    interval: Duration,
    /// Print the statistics once
    #[arg(long)]
    stats: bool,
}

/// A time as Go programs write it.
fn interval(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit_ms = match &text[digits.len()..] {
        "ms" => 1.0,
        "s" => 1e3,
        "m" => 60e3,
        "h" => 3600e3,
        unit => return Err(format!("{unit:?} is no unit of time")),
    };
    match digits.parse::<f64>() {
        Ok(n) if n * unit_ms >= 1.0 && n < 1e9 => Ok(Duration::from_millis((n * unit_ms) as u64)),
        _ => Err(format!("{text:?} is no interval")),
    }
}

fn print(kind: &str, id: &str, data: Option<Value>) -> Result<(), Error> {
    let mut event = json!({"type": kind, "id": id});
    if let Some(data) = data {
        event["data"] = data;
    }
    let mut out = std::io::stdout().lock();
    Ok(writeln!(out, "{event}")
        .and_then(|()| out.flush())
        .doing("write to stdout")?)
}

/// `quark events`.
pub fn main(global: &Global, args: Args) -> Result<i32, Error> {
    let dir = ContainerDir::open(&global.root, &args.id)?;
    let record = dir.record()?;
    if dir.status(&record).status == Status::Stopped {
        return Err(Error::Usage("container not running"));
    }
    let stats = || print("stats", &args.id, Some(cgroup::stats::of_cgroup(&record.cgroups)));
    if args.stats {
        stats()?;
        return Ok(0);
    }
    let client = Client::connect(&dir)?;
    client.send(&Request::WatchMemory, &[])?;
    let mut next = Instant::now() + args.interval;
    loop {
        let left = next.saturating_duration_since(Instant::now());
        let mut fds = [PollFd::from_borrowed_fd(client.waiter(), PollFlags::IN)];
        let ready = rustix::event::poll(&mut fds, Timespec::try_from(left).ok().as_ref()).unwrap_or(0) > 0;
        if ready {
            match client.receive() {
                Ok(Response::OutOfMemory) => print("oom", &args.id, None)?,
                // The container has ended.
                _ => return Ok(0),
            }
        } else {
            stats()?;
            next += args.interval;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_gos() {
        assert_eq!(interval("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(interval("1.5s"), Ok(Duration::from_millis(1500)));
        assert!(interval("5").is_err() && interval("0s").is_err() && interval("xs").is_err());
    }
}
