//! The log: one line per message, as text or JSON, to the file of `--log` or to stderr.

use crate::runtime::state::now_rfc3339;
use log::{Level, LevelFilter, Log, Metadata, Record};
use rustix::fd::OwnedFd;
use std::io::Write;
use std::sync::Mutex;

struct Sink {
    /// `None`: stderr.
    file: Option<Mutex<std::fs::File>>,
    json: bool,
}

/// Starts logging to `file` (or stderr) at `level`: 0 off … 5 trace.
///
/// Without a file only what was asked for with `--debug` is worth the program's stderr.
pub fn init(file: Option<OwnedFd>, json: bool, level: u32) {
    let filter = match level {
        0 => LevelFilter::Off,
        1 => LevelFilter::Error,
        2 => LevelFilter::Warn,
        3 => LevelFilter::Info,
        4 => LevelFilter::Debug,
        _ => LevelFilter::Trace,
    };
    let file = match file {
        Some(fd) => Some(std::fs::File::from(fd)),
        // stderr will be given away to the container's program; the log keeps its own way there.
        None if level > 2 => {
            let own = rustix::io::fcntl_dupfd_cloexec(std::io::stderr(), 3);
            own.ok().map(std::fs::File::from)
        }
        None => return,
    };
    let sink = Sink {
        file: file.map(Mutex::new),
        json,
    };
    if log::set_boxed_logger(Box::new(sink)).is_ok() {
        log::set_max_level(filter);
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
        let mut text = line(
            self.json,
            record.level(),
            record.target(),
            &record.args().to_string(),
        );
        text.push('\n');
        match &self.file {
            Some(file) => {
                if let Ok(mut file) = file.lock() {
                    let _ = file.write_all(text.as_bytes());
                }
            }
            None => {
                let _ = std::io::stderr().write_all(text.as_bytes());
            }
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
