//! `quark debug`: what a report of a defect needs, as one text.

use super::{Error, Global, state};
use crate::cgroup;
use crate::error::Context;
use crate::runtime::state::{ContainerDir, Status};
use crate::sandbox::client::Client;
use crate::sandbox::logfile;
use crate::sandbox::protocol::{Request, Response};
use crate::settings::{FILE, Settings};
use crate::vm::{self, Kvm};
use serde_json::Value;
use std::fmt::Write as _;
use std::io::Write as _;

/// Most bytes of a log's end.
const LOG_TAIL: usize = 64 << 10;

/// Options.
#[derive(clap::Args)]
pub struct Args {
    /// The container's id; without one, only the host and the list of containers
    id: Option<String>,
}

fn section(out: &mut String, title: &str, text: &str) {
    let _ = write!(out, "== {title}\n{}\n\n", text.trim_end());
}

fn file(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| format!("{path}: {e}"))
}

fn host(out: &mut String, settings: &Settings) {
    let version = env!("CARGO_PKG_VERSION");
    section(out, "quark", &format!("{version} for {}", std::env::consts::ARCH));
    section(out, "host kernel", &file("/proc/version"));
    let machine = match vm::probe() {
        Kvm::Usable { finding } => format!("kvm usable: {finding}"),
        Kvm::Unusable { finding } => format!("kvm not usable: {finding}"),
    };
    section(out, "machines", &machine);
    section(out, FILE, &format!("{:#}", settings.to_json()));
    let mounts = file("/proc/self/mountinfo");
    let cgroups: Vec<&str> = mounts.lines().filter(|l| l.contains(" - cgroup")).collect();
    section(out, "cgroup hierarchies", &cgroups.join("\n"));
}

/// The configuration without the values of the environment, which may be secrets.
fn without_secrets(spec: &mut Value) {
    for entry in spec["process"]["env"].as_array_mut().into_iter().flatten() {
        if let Some((name, _)) = entry.as_str().and_then(|e| e.split_once('=')) {
            *entry = format!("{name}=…").into();
        }
    }
}

/// The end of a file, from a whole line on.
fn tail(text: &str) -> &str {
    let mut start = text.len().saturating_sub(LOG_TAIL);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    let text = &text[start..];
    match (start, text.find('\n')) {
        (1.., Some(end)) => &text[end + 1..],
        _ => text,
    }
}

fn container(out: &mut String, settings: &Settings, dir: &ContainerDir, id: &str) -> Result<(), Error> {
    let record = dir.record()?;
    let status = dir.status(&record);
    section(out, "state", &format!("{:#}", state::document(&record, &status)));
    let mut spec = serde_json::to_value(dir.spec()?).unwrap_or_default();
    without_secrets(&mut spec);
    section(
        out,
        "config.json (values of the environment left out)",
        &format!("{spec:#}"),
    );
    section(
        out,
        "cgroup",
        &format!("{:#}", cgroup::stats::of_cgroup(&record.cgroups)),
    );
    if status.status == Status::Running {
        let asked = Client::connect(dir).and_then(|c| c.ask(&Request::Processes, &[]));
        let mut text = String::new();
        match asked {
            Ok(Response::Processes { list }) => {
                for p in list {
                    let _ = writeln!(text, "{:>7} {:>7} {} {}", p.pid, p.ppid, p.state, p.command);
                }
            }
            Ok(_) => {}
            Err(e) => text = e.to_string(),
        }
        section(out, "the guest's processes (pid, parent, state, name)", &text);
    }
    let mut on_host = String::new();
    for pid in cgroup::processes(&record.cgroups) {
        for what in ["status", "wchan", "syscall"] {
            let text = std::fs::read_to_string(format!("/proc/{pid}/{what}")).unwrap_or_default();
            let wanted = |l: &&str| {
                what != "status"
                    || ["Name:", "State:", "VmRSS:", "Threads:"]
                        .iter()
                        .any(|w| l.starts_with(w))
            };
            for line in text.lines().filter(wanted) {
                let _ = writeln!(on_host, "{pid} {line}");
            }
        }
    }
    section(out, "the sandbox's processes on the host", &on_host);
    let path = settings.log_dir.join(logfile::name_of(id));
    match std::fs::read(&path) {
        Ok(bytes) => section(
            out,
            &path.display().to_string(),
            tail(&String::from_utf8_lossy(&bytes)),
        ),
        Err(_) => section(out, &path.display().to_string(), "nothing was logged"),
    }
    Ok(())
}

/// `quark debug`.
pub fn main(global: &Global, args: &Args) -> Result<i32, Error> {
    let settings = Settings::load()?;
    let mut out = String::new();
    host(&mut out, &settings);
    match &args.id {
        Some(id) => {
            let dir = ContainerDir::open(&global.root, id)?;
            container(&mut out, &settings, &dir, id)?;
        }
        None => section(
            &mut out,
            "containers",
            &ContainerDir::list(&global.root)?.join("\n"),
        ),
    }
    std::io::stdout()
        .write_all(out.as_bytes())
        .doing("write to stdout")?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_of_the_environment_is_told() {
        let mut spec = serde_json::json!({"process": {"env": ["PATH=/bin", "TOKEN=secret=1"]}});
        without_secrets(&mut spec);
        assert_eq!(spec["process"]["env"], serde_json::json!(["PATH=…", "TOKEN=…"]));
    }

    #[test]
    fn the_end_of_a_log_begins_with_a_line() {
        assert_eq!(tail("a\nb\n"), "a\nb\n");
        let long = "line\n".repeat(LOG_TAIL);
        let end = tail(&long);
        assert!(end.len() <= LOG_TAIL && end.starts_with("line\n"));
    }
}
