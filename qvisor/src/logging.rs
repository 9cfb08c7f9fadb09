//! The log: one line per message, as text or JSON, to the file of `--log` or to stderr.

use crate::runtime::state::now_rfc3339;
use crate::sandbox::logfile::LogFile;
use log::{Level, LevelFilter, Log, Metadata, Record};
use rustix::fd::OwnedFd;
use std::io::Write;
use std::sync::{Mutex, OnceLock};

static SINK: OnceLock<Sink> = OnceLock::new();

struct Sink {
    file: Mutex<Option<std::fs::File>>,
    file_is_stderr: bool,
    file_level: LevelFilter,
    json: bool,
    /// The sandbox's own log.
    own: Option<Mutex<LogFile>>,
    own_level: LevelFilter,
}

fn filter(level: u32) -> LevelFilter {
    match level {
        0 => LevelFilter::Off,
        1 => LevelFilter::Error,
        2 => LevelFilter::Warn,
        3 => LevelFilter::Info,
        4 => LevelFilter::Debug,
        _ => LevelFilter::Trace,
    }
}

/// Starts logging to `file` (or stderr) at `level`: 0 off … 5 trace; for a sandbox also to its `own` log, at a level of
/// that.
///
/// Without a file only what was asked for with `--debug` is worth the program's stderr.
pub fn init(file: Option<OwnedFd>, json: bool, level: u32, own: Option<(LogFile, u32)>) {
    let file_is_stderr = file.is_none();
    let file = match file {
        Some(fd) => Some(std::fs::File::from(fd)),
        // stderr will be given away to the container's program; the log keeps its own way there.
        None if level > 2 => {
            let own = rustix::io::fcntl_dupfd_cloexec(std::io::stderr(), 3);
            own.ok().map(std::fs::File::from)
        }
        None => None,
    };
    let file_level = match file {
        Some(_) => filter(level),
        None => LevelFilter::Off,
    };
    let (own, own_level) = match own {
        Some((log, level)) => (Some(Mutex::new(log)), filter(level)),
        None => (None, LevelFilter::Off),
    };
    let sink = Sink {
        file: Mutex::new(file),
        file_is_stderr,
        file_level,
        json,
        own,
        own_level,
    };
    if log::set_logger(SINK.get_or_init(|| sink)).is_ok() {
        log::set_max_level(file_level.max(own_level));
    }
}

/// Logs no more to the caller's stderr: who reads it waits for every holder of it to let go.
pub fn leave_stderr() {
    if let Some(sink) = SINK.get()
        && sink.file_is_stderr
        && let Ok(mut file) = sink.file.lock()
    {
        *file = None;
    }
}

/// A log line as `--log-format` asks for it.
pub fn line(json: bool, level: Level, target: &str, message: &str) -> String {
    let level = match level {
        Level::Warn => "warning".to_owned(),
        other => other.as_str().to_ascii_lowercase(),
    };
    let time = now_rfc3339();
    if json {
        // The keys are those of runc: engines show "msg" of the last line to their users.
        let mut object = serde_json::json!({"level": level, "msg": message, "time": time});
        if target == "qkernel" {
            object["source"] = "qkernel".into();
        }
        object.to_string()
    } else {
        format!("time=\"{time}\" level={level} msg={message:?}")
    }
}

impl Log for Sink {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let said = record.args().to_string();
        let line = |json| format!("{}\n", line(json, record.level(), record.target(), &said));
        if record.level() <= self.file_level
            && let Ok(mut file) = self.file.lock()
            && let Some(file) = file.as_mut()
        {
            let _ = file.write_all(line(self.json).as_bytes());
        }
        if let (Some(own), true) = (&self.own, record.level() <= self.own_level)
            && let Ok(mut own) = own.lock()
        {
            own.write(&line(false));
        }
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_lines_have_runcs_keys() {
        let text = line(true, Level::Error, "quark", "no \"luck\"");
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (value["level"].as_str(), value["msg"].as_str()),
            (Some("error"), Some("no \"luck\""))
        );
        assert!(value["time"].as_str().unwrap().ends_with('Z'));
    }
}
