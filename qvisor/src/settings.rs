//! The operator's settings, `/etc/quark/config.json`, and what a bundle's annotations may override. Everything has a
//! default, so the file is optional; what is in it must be right. `docs/configuration.md` is made from [`KEYS`].

use crate::runtime::config::read_json;
use crate::vm;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Where the settings are.
pub const FILE: &str = "/etc/quark/config.json";
/// What the annotations that override settings begin with.
const PREFIX: &str = "dev.quark.";

/// Why the settings cannot be used; the text names the key.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] crate::runtime::config::Error),
    /// The file is no JSON object.
    #[error("{}: not a JSON object", .0.display())]
    NoObject(PathBuf),
    /// A key that there is not.
    #[error("{source_name}: unknown key {key:?}; there are {}", names())]
    Unknown {
        /// File or annotation.
        source_name: String,
        /// The key.
        key: String,
    },
    /// A value that cannot be.
    #[error("{source_name}: {key}: {why}")]
    Wrong {
        /// File or annotation.
        source_name: String,
        /// The key.
        key: String,
        /// What is wrong.
        why: String,
    },
    /// The operator does not let annotations set this.
    #[error("annotation {PREFIX}{0}: not permitted: the host's AllowedAnnotations does not name {0}")]
    NotAllowed(String),
}

/// The settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The machine.
    pub platform: vm::Request,
    /// 0 off … 5 trace.
    pub debug_level: u32,
    /// Directory of the sandboxes' logs.
    pub log_dir: PathBuf,
    /// Most bytes of one sandbox's log.
    pub log_max_bytes: u64,
    /// Most logs that are kept.
    pub log_keep: u64,
    /// The guest kernel's image, if not where it is installed.
    pub kernel: Option<PathBuf>,
    /// Keys that annotations may set.
    pub allowed_annotations: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            platform: vm::Request::Auto,
            debug_level: 2,
            log_dir: PathBuf::from("/var/log/quark"),
            log_max_bytes: 4 << 20,
            log_keep: 100,
            kernel: None,
            allowed_annotations: Vec::new(),
        }
    }
}

/// A key of the file.
struct Key {
    name: &'static str,
    values: &'static str,
    meaning: &'static str,
    set: fn(&mut Settings, &Value) -> Result<(), String>,
    get: fn(&Settings) -> Value,
}

const LEVELS: [&str; 6] = ["Off", "Error", "Warn", "Info", "Debug", "Trace"];
const PLATFORMS: [(&str, vm::Request); 3] = [
    ("auto", vm::Request::Auto),
    ("kvm", vm::Request::Kvm),
    ("process", vm::Request::Process),
];

/// Every key. The page of the manual is made from this.
const KEYS: [Key; 7] = [
    Key {
        name: "Platform",
        values: "`auto`, `kvm`, `process`",
        meaning: "The machine guest kernels run on. `auto` takes `kvm` where a self-test finds it working and fast. \
                  The command line's `--platform` comes first.",
        set: |s, v| {
            let found = PLATFORMS.iter().find(|(name, _)| Some(*name) == v.as_str());
            s.platform = found.ok_or("must be auto, kvm or process")?.1;
            Ok(())
        },
        get: |s| {
            let found = PLATFORMS.iter().find(|(_, request)| *request == s.platform);
            found.map_or("auto", |(name, _)| name).into()
        },
    },
    Key {
        name: "DebugLevel",
        values: "`Off`, `Error`, `Warn`, `Info`, `Debug`, `Trace`",
        meaning: "How much host side and guest kernel log. `Off`: no log file at all. The command line's `--debug` is \
                  `Debug` at least.",
        set: |s, v| {
            let found = LEVELS.iter().position(|name| Some(*name) == v.as_str());
            s.debug_level = found.ok_or("must be Off, Error, Warn, Info, Debug or Trace")? as u32;
            Ok(())
        },
        get: |s| {
            LEVELS
                .get(s.debug_level as usize)
                .copied()
                .unwrap_or("Trace")
                .into()
        },
    },
    Key {
        name: "LogDir",
        values: "an absolute path",
        meaning: "Directory of the sandboxes' logs, one file each, named by the container's id.",
        set: |s, v| absolute(v).map(|path| s.log_dir = path),
        get: |s| s.log_dir.display().to_string().into(),
    },
    Key {
        name: "LogMaxBytes",
        values: "a number from 4096 on",
        meaning: "Most bytes of one sandbox's log. Beyond it the older half goes.",
        set: |s, v| at_least(v, 4096).map(|n| s.log_max_bytes = n),
        get: |s| s.log_max_bytes.into(),
    },
    Key {
        name: "LogKeep",
        values: "a number from 1 on",
        meaning: "Most logs that are kept. When a sandbox starts, the oldest beyond this number go; logs outlive their \
                  sandbox so that its end can be understood.",
        set: |s, v| at_least(v, 1).map(|n| s.log_keep = n),
        get: |s| s.log_keep.into(),
    },
    Key {
        name: "Kernel",
        values: "an absolute path",
        meaning: "The guest kernel's image. Without it: `qkernel` beside the program, or `../lib/quark/qkernel` from there.",
        set: |s, v| absolute(v).map(|path| s.kernel = Some(path)),
        get: |s| s.kernel.as_ref().map(|k| k.display().to_string()).into(),
    },
    Key {
        name: "AllowedAnnotations",
        values: "a list of keys",
        meaning: "Keys that a container's annotations (`dev.quark.KEY`) may set for that container. Others are refused.",
        set: |s, v| {
            let list = v.as_array().ok_or("must be a list of keys")?;
            s.allowed_annotations = list.iter().map(allowed).collect::<Result<_, _>>()?;
            Ok(())
        },
        get: |s| s.allowed_annotations.clone().into(),
    },
];

fn absolute(v: &Value) -> Result<PathBuf, String> {
    let path = v.as_str().map(PathBuf::from).filter(|p| p.is_absolute());
    path.ok_or_else(|| "must be an absolute path".to_owned())
}

fn at_least(v: &Value, least: u64) -> Result<u64, String> {
    let number = v.as_u64().filter(|n| *n >= least);
    number.ok_or_else(|| format!("must be a number from {least} on"))
}

fn allowed(v: &Value) -> Result<String, String> {
    match v.as_str() {
        Some("AllowedAnnotations") => Err("cannot be set by annotations itself".to_owned()),
        Some(name) if KEYS.iter().any(|k| k.name == name) => Ok(name.to_owned()),
        _ => Err(format!("{v} is none of {}", names())),
    }
}

fn names() -> String {
    KEYS.map(|k| k.name).join(", ")
}

impl Settings {
    /// Reads the operator's file; without one, the defaults.
    pub fn load() -> Result<Self, Error> {
        Self::from_file(Path::new(FILE))
    }

    fn from_file(file: &Path) -> Result<Self, Error> {
        let mut settings = Self::default();
        if !file.exists() {
            return Ok(settings);
        }
        let Value::Object(entries) = read_json(file)? else {
            return Err(Error::NoObject(file.to_path_buf()));
        };
        for (key, value) in &entries {
            settings.set(&file.display().to_string(), key, value)?;
        }
        Ok(settings)
    }

    fn set(&mut self, source_name: &str, name: &str, value: &Value) -> Result<(), Error> {
        let source_name = source_name.to_owned();
        let Some(key) = KEYS.iter().find(|k| k.name == name) else {
            return Err(Error::Unknown {
                source_name,
                key: name.to_owned(),
            });
        };
        (key.set)(self, value).map_err(|why| Error::Wrong {
            source_name,
            key: name.to_owned(),
            why,
        })
    }

    /// These settings with what a container's annotations set.
    pub fn with_annotations<'a>(
        mut self,
        annotations: impl IntoIterator<Item = (&'a String, &'a String)>,
    ) -> Result<Self, Error> {
        let ours: BTreeMap<&str, &String> = annotations
            .into_iter()
            .filter_map(|(name, value)| Some((name.strip_prefix(PREFIX)?, value)))
            .collect();
        for (name, text) in ours {
            if KEYS.iter().any(|k| k.name == name) && !self.allowed_annotations.iter().any(|a| a == name) {
                return Err(Error::NotAllowed(name.to_owned()));
            }
            // An annotation is text: a number or list is written as JSON in it.
            let value = match serde_json::from_str(text) {
                Ok(value @ (Value::Number(_) | Value::Array(_))) => value,
                _ => Value::from(text.as_str()),
            };
            self.set(&format!("annotation {PREFIX}{name}"), name, &value)?;
        }
        Ok(self)
    }

    /// The settings as the file would hold them.
    pub fn to_json(&self) -> Value {
        KEYS.iter().map(|k| (k.name.to_owned(), (k.get)(self))).collect()
    }
}

/// The manual's page about the file.
pub fn page() -> String {
    let mut out = format!(
        "# {FILE}\n\n\
         Made by `quark config --markdown`. The file is optional, and so is every key in it. It is read whenever a container\n\
         is created. An unknown key or a wrong value is an error that names it, and no container is created.\n\
         `quark config` prints what is in force.\n"
    );
    let defaults = Settings::default();
    for key in &KEYS {
        let default = match (key.get)(&defaults) {
            Value::Null => "none".to_owned(),
            value => format!("`{value}`"),
        };
        let _ = write!(
            out,
            "\n## {}\n\n{}\n\nValue: {}. Default: {default}.\n",
            key.name, key.meaning, key.values
        );
    }
    let mut example = defaults;
    example.debug_level = 3;
    example.allowed_annotations = vec!["DebugLevel".to_owned()];
    let example = serde_json::json!({
        "DebugLevel": example.to_json()["DebugLevel"], "AllowedAnnotations": example.to_json()["AllowedAnnotations"],
    });
    let _ = write!(
        out,
        "\n## Example\n\n```json\n{example:#}\n```\n\n\
         With it, a container with the annotation `dev.quark.DebugLevel=Trace` logs everything it does:\n\n\
         ```sh\nquark run --bundle bundle box      # config.json: \"annotations\": {{\"dev.quark.DebugLevel\": \"Trace\"}}\n\
         quark debug box                    # its state, configuration, limits and the end of its log, for a report\n```\n"
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Settings, Error> {
        let name = format!(
            "quark-settings-{}-{:x}",
            std::process::id(),
            text.len() * 31 + text.bytes().map(usize::from).sum::<usize>()
        );
        let file = std::env::temp_dir().join(name);
        std::fs::write(&file, text).unwrap();
        let settings = Settings::from_file(&file);
        std::fs::remove_file(&file).unwrap();
        settings
    }

    #[test]
    fn without_a_file_the_defaults_hold() {
        assert_eq!(
            Settings::from_file(Path::new("/no/such/file")).unwrap(),
            Settings::default()
        );
        assert_eq!(load("{}").unwrap(), Settings::default());
    }

    #[test]
    fn every_key_is_read_and_shown() {
        let text = r#"{"Platform":"process","DebugLevel":"Trace","LogDir":"/l","LogMaxBytes":5000,"LogKeep":3,
            "Kernel":"/k","AllowedAnnotations":["DebugLevel"]}"#;
        let settings = load(text).unwrap();
        assert_eq!((settings.debug_level, settings.log_keep), (5, 3));
        assert_eq!(settings.to_json(), serde_json::from_str::<Value>(text).unwrap());
    }

    #[test]
    fn errors_name_the_key() {
        for (text, says) in [
            (r#"{"Debuglevel":"Off"}"#, "unknown key \"Debuglevel\""),
            (r#"{"DebugLevel":"Loud"}"#, "DebugLevel: must be Off"),
            (r#"{"LogMaxBytes":"big"}"#, "LogMaxBytes: must be a number"),
            (r#"{"LogDir":"logs"}"#, "LogDir: must be an absolute path"),
            (
                r#"{"AllowedAnnotations":["Foo"]}"#,
                "AllowedAnnotations: \"Foo\" is none of",
            ),
            ("[]", "not a JSON object"),
            ("{", "EOF"),
        ] {
            let said = load(text).unwrap_err().to_string();
            assert!(said.contains(says), "{said}");
        }
    }

    #[test]
    fn annotations_set_what_the_operator_allows() {
        let settings = load(r#"{"AllowedAnnotations":["LogMaxBytes"]}"#).unwrap();
        let with = |name: &str, value: &str| {
            let all = BTreeMap::from([(name.to_owned(), value.to_owned())]);
            settings.clone().with_annotations(&all)
        };
        assert_eq!(with("dev.quark.LogMaxBytes", "8192").unwrap().log_max_bytes, 8192);
        assert_eq!(with("io.other.DebugLevel", "x").unwrap(), settings);
        for (name, value, says) in [
            ("dev.quark.DebugLevel", "Trace", "does not name DebugLevel"),
            ("dev.quark.Nonsense", "1", "unknown key \"Nonsense\""),
            (
                "dev.quark.LogMaxBytes",
                "1",
                "annotation dev.quark.LogMaxBytes: LogMaxBytes: must be",
            ),
        ] {
            let said = with(name, value).unwrap_err().to_string();
            assert!(said.contains(says), "{said}");
        }
    }

    #[test]
    fn the_manuals_page_is_current() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
        let there = std::fs::read_to_string(file).unwrap_or_default();
        assert!(
            there == page(),
            "docs/configuration.md: renew it with `quark config --markdown`"
        );
    }
}
