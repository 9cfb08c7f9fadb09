//! Reads a bundle's `config.json`; errors name the JSON path that is wrong.

use crate::error::{Context, OsError};
use oci_spec::runtime::{Process, Spec};
use serde::de::DeserializeOwned;
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
    let size = std::fs::metadata(file).at("open", file)?.len();
    if size > MAX_BYTES {
        return Err(Error::TooLarge(file.to_path_buf()));
    }
    let text = std::fs::read(file).at("read", file)?;
    parse_json(file, &text)
}

fn parse_json<T: DeserializeOwned>(file: &Path, text: &[u8]) -> Result<T, Error> {
    let mut reader = serde_json::Deserializer::from_slice(text);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|e| {
        let at = match e.path().to_string() {
            path if path == "." || path == "?" => "the document".to_owned(),
            path => path,
        };
        Error::Json {
            file: file.to_path_buf(),
            at,
            why: e.into_inner().to_string(),
        }
    })?;
    reader.end().map_err(|e| Error::Json {
        file: file.to_path_buf(),
        at: "the document".to_owned(),
        why: e.to_string(),
    })?;
    Ok(value)
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
    Ok((read_json(&file)?, bundle))
}

/// Reads the file of `exec --process`.
pub fn load_process(file: &Path) -> Result<Process, Error> {
    read_json(file)
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
