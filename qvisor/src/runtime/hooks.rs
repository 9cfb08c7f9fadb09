//! Runs OCI hooks: programs of the host that get the container's state on stdin.

use super::state::{OCI_VERSION, Record, Status};
use oci_spec::runtime::Hook;
use serde_json::json;
use std::io::Write;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Why a hook failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It could not be started.
    #[error("{kind} hook {}: cannot start: {source}", path.display())]
    Start {
        /// Hook kind.
        kind: &'static str,
        /// Its program.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It ended with an error.
    #[error("{kind} hook {}: {how}{said}", path.display())]
    Failed {
        /// Hook kind.
        kind: &'static str,
        /// Its program.
        path: PathBuf,
        /// Exit status in words.
        how: String,
        /// What it wrote to stderr, with a colon before; may be empty.
        said: String,
    },
}

/// The OCI state document of a container.
pub fn state_document(record: &Record, status: Status) -> serde_json::Value {
    let pid = if status == Status::Stopped { 0 } else { record.pid };
    json!({
        "ociVersion": OCI_VERSION,
        "id": record.id,
        "status": status,
        "pid": pid,
        "bundle": record.bundle,
        "annotations": record.annotations,
    })
}

/// Runs `hooks` in order with `state` on stdin; stops at the first that fails.
pub fn run_all(
    kind: &'static str,
    hooks: Option<&Vec<Hook>>,
    state: &serde_json::Value,
) -> Result<(), Error> {
    for hook in hooks.into_iter().flatten() {
        run(kind, hook, state)?;
    }
    Ok(())
}

/// Runs one hook.
pub fn run(kind: &'static str, hook: &Hook, state: &serde_json::Value) -> Result<(), Error> {
    let path = hook.path().clone();
    let mut command = Command::new(&path);
    let mut args = hook.args().iter().flatten();
    if let Some(name) = args.next() {
        command.arg0(name);
    }
    command.args(args);
    if hook.env().is_some() {
        command.env_clear();
    }
    for entry in hook.env().iter().flatten() {
        let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
        command.env(name, value);
    }
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|source| Error::Start {
        kind,
        path: path.clone(),
        source,
    })?;
    if let Some(mut stdin) = child.stdin.take() {
        // A hook need not read its input.
        let _ = stdin.write_all(state.to_string().as_bytes());
    }
    let failed = |how: String, said: String| Error::Failed {
        kind,
        path: path.clone(),
        how,
        said,
    };
    let limit = hook
        .timeout()
        .and_then(|t| u64::try_from(t).ok())
        .filter(|t| *t > 0)
        .map(Duration::from_secs);
    if let Some(limit) = limit {
        let deadline = Instant::now() + limit;
        while matches!(child.try_wait(), Ok(None)) {
            if Instant::now() >= deadline {
                let _ = child.kill();
                let _ = child.wait();
                return Err(failed(
                    format!("took longer than its timeout of {} s", limit.as_secs()),
                    String::new(),
                ));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    let output = child
        .wait_with_output()
        .map_err(|e| failed(e.to_string(), String::new()))?;
    if output.status.success() {
        return Ok(());
    }
    let how = match (output.status.code(), output.status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (_, Some(signal)) => format!("killed by signal {signal}"),
        _ => "ended".to_owned(),
    };
    let text = String::from_utf8_lossy(&output.stderr);
    let last = text.trim().lines().last().unwrap_or("").to_owned();
    Err(failed(
        how,
        if last.is_empty() {
            last
        } else {
            format!(": {last}")
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::HookBuilder;

    fn hook(script: &str, timeout: i64) -> Hook {
        HookBuilder::default()
            .path("/bin/sh")
            .args(["sh", "-c", script].map(str::to_owned))
            .timeout(timeout)
            .build()
            .unwrap()
    }

    #[test]
    fn gets_the_state_on_stdin() {
        let ok = hook(r#"grep -q '"id":"x"'"#, 5);
        run("prestart", &ok, &json!({"id": "x"})).unwrap();
        assert!(run("prestart", &ok, &json!({"id": "y"})).is_err());
    }

    #[test]
    fn failure_and_timeout_are_told() {
        let said = run("poststop", &hook("echo no luck >&2; exit 3", 5), &json!({}))
            .unwrap_err()
            .to_string();
        assert_eq!(said, "poststop hook /bin/sh: exit status 3: no luck");
        let said = run("prestart", &hook("sleep 30", 1), &json!({}))
            .unwrap_err()
            .to_string();
        assert!(said.contains("timeout of 1 s"), "{said}");
    }
}
