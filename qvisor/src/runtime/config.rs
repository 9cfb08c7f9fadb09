//! Reads a bundle's `config.json`; errors name the JSON path that is wrong.

use crate::error::{Context, OsError};
use oci_spec::runtime::{Capability, Process, Spec};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Largest `config.json` that is read, bytes: real ones are some tens of KiB.
const MAX_BYTES: u64 = 16 << 20;

/// Why a bundle's configuration could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bundle directory is not there.
    #[error("bundle {} does not exist", .0.display())]
    NoBundle(PathBuf),
    /// The bundle has no `config.json`.
    #[error("bundle {} has no config.json", .0.display())]
    NoConfig(PathBuf),
    /// The file is too large to be a configuration.
    #[error("{} is larger than {} MiB", .0.display(), MAX_BYTES >> 20)]
    TooLarge(PathBuf),
    /// The JSON does not fit the OCI runtime specification.
    #[error("{}: {at}: {why}", file.display())]
    Json {
        /// The file.
        file: PathBuf,
        /// Path of the wrong value inside it.
        at: String,
        /// What is wrong with it.
        why: String,
    },
    /// A host call failed.
    #[error(transparent)]
    Os(#[from] OsError),
}

/// Reads a JSON file into `T`; an error names the path inside the document.
pub fn read_json<T: DeserializeOwned>(file: &Path) -> Result<T, Error> {
    parse_json(file, &read(file)?)
}

fn read(file: &Path) -> Result<Vec<u8>, Error> {
    let size = std::fs::metadata(file).at("open", file)?.len();
    if size > MAX_BYTES {
        return Err(Error::TooLarge(file.to_path_buf()));
    }
    Ok(std::fs::read(file).at("read", file)?)
}

fn parse_json<T: DeserializeOwned>(file: &Path, text: &[u8]) -> Result<T, Error> {
    parse_shaped(file, text, |_| {})
}

/// As [`parse_json`], of the document as `shape` leaves it.
fn parse_shaped<T: DeserializeOwned>(file: &Path, text: &[u8], shape: fn(&mut Value)) -> Result<T, Error> {
    let mut document: Value = serde_json::from_slice(text).map_err(|e| Error::Json {
        file: file.to_path_buf(),
        at: "the document".to_owned(),
        why: e.to_string(),
    })?;
    shape(&mut document);
    serde_path_to_error::deserialize(document).map_err(|e| {
        let at = match e.path().to_string() {
            path if path == "." || path == "?" => "the document".to_owned(),
            path => path,
        };
        Error::Json {
            file: file.to_path_buf(),
            at,
            why: e.into_inner().to_string(),
        }
    })
}

/// Reads a process as leniently as runc: user 0 and group 0 where it names none, and without capabilities that are not
/// known, which newer callers may name.
pub fn ease(process: &mut Value) {
    let Some(process) = process.as_object_mut() else {
        return;
    };
    let sets = process.get_mut("capabilities").and_then(Value::as_object_mut);
    for (set, names) in sets.into_iter().flatten() {
        let Some(names) = names.as_array_mut() else {
            continue;
        };
        names.retain(|name| {
            let known = !name.is_string() || serde_json::from_value::<Capability>(name.clone()).is_ok();
            if !known {
                log::warn!("process.capabilities.{set}: {name} is not known and ignored");
            }
            known
        });
    }
    let user = process.entry("user").or_insert_with(|| json!({}));
    if let Some(user) = user.as_object_mut() {
        user.entry("uid").or_insert(json!(0));
        user.entry("gid").or_insert(json!(0));
    }
}

/// Reads `config.json` of the bundle and gives it with the bundle's absolute path.
pub fn load_bundle(bundle: &Path) -> Result<(Spec, PathBuf), Error> {
    let bundle = match bundle.canonicalize() {
        Ok(path) if path.is_dir() => path,
        Ok(path) => return Err(Error::NoBundle(path)),
        Err(_) => return Err(Error::NoBundle(bundle.to_path_buf())),
    };
    let file = bundle.join("config.json");
    if !file.exists() {
        return Err(Error::NoConfig(bundle));
    }
    let spec = parse_shaped(&file, &read(&file)?, |spec| {
        if let Some(process) = spec.get_mut("process") {
            ease(process);
        }
    })?;
    Ok((spec, bundle))
}

/// Reads the file of `exec --process`.
pub fn load_process(file: &Path) -> Result<Process, Error> {
    parse_shaped(file, &read(file)?, ease)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_of(text: &str) -> String {
        parse_json::<Spec>(Path::new("config.json"), text.as_bytes())
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn names_the_wrong_json_path() {
        let text = r#"{"ociVersion":"1.0.2","process":{"cwd":"/","user":{"uid":"root","gid":0}}}"#;
        let said = error_of(text);
        assert!(said.contains("process.user.uid"), "{said}");
        let text = r#"{"ociVersion":"1.0.2","mounts":[{"destination":"/a"},{"destination":5}]}"#;
        let said = error_of(text);
        assert!(said.contains("mounts[1].destination"), "{said}");
    }

    #[test]
    fn a_process_without_a_user_is_roots() {
        let text = r#"{"args":["sh"],"cwd":"/","user":{"gid":5}}"#;
        let process: Process = parse_shaped(Path::new("p"), text.as_bytes(), ease).unwrap();
        assert_eq!((process.user().uid(), process.user().gid()), (0, 5));
        let process: Process = parse_shaped(Path::new("p"), br#"{"cwd":"/"}"#, ease).unwrap();
        assert_eq!((process.user().uid(), process.user().gid()), (0, 0));
    }

    #[test]
    fn refuses_what_follows_the_document() {
        assert!(error_of(r#"{"ociVersion":"1.0.2"} x"#).contains("trailing"));
    }

    #[test]
    fn missing_bundle_and_missing_config_are_told_apart() {
        let said = load_bundle(Path::new("/no/such/bundle")).unwrap_err().to_string();
        assert_eq!(said, "bundle /no/such/bundle does not exist");
        let said = load_bundle(Path::new("/")).unwrap_err().to_string();
        assert_eq!(said, "bundle / has no config.json");
    }
}
