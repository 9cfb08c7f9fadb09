//! One way to say "this host call on this object failed", used by every module's error enum.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A host call that failed, with what was being done and to which file.
#[derive(Debug)]
pub struct OsError {
    what: &'static str,
    path: Option<PathBuf>,
    source: io::Error,
}

impl fmt::Display for OsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}", self.what)?;
        if let Some(path) = &self.path {
            write!(f, " {}", path.display())?;
        }
        match self.source.raw_os_error() {
            // The number is noise to a person; the host's words are not.
            Some(code) => {
                let text = io::Error::from_raw_os_error(code).to_string();
                write!(
                    f,
                    ": {}",
                    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
                )
            }
            None => write!(f, ": {}", self.source),
        }
    }
}

impl std::error::Error for OsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Adds what was being done to a failed host call.
pub trait Context<T> {
    /// "cannot `what`: …".
    fn doing(self, what: &'static str) -> Result<T, OsError>;
    /// "cannot `what` `path`: …".
    fn at(self, what: &'static str, path: impl AsRef<Path>) -> Result<T, OsError>;
}

impl<T, E: Into<io::Error>> Context<T> for Result<T, E> {
    fn doing(self, what: &'static str) -> Result<T, OsError> {
        self.map_err(|e| OsError {
            what,
            path: None,
            source: e.into(),
        })
    }
    fn at(self, what: &'static str, path: impl AsRef<Path>) -> Result<T, OsError> {
        self.map_err(|e| OsError {
            what,
            path: Some(path.as_ref().to_path_buf()),
            source: e.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_as_one_clear_line() {
        let failed: Result<(), io::Error> = Err(io::Error::from_raw_os_error(libc::ENOENT));
        let text = failed.at("open", "/no/such").unwrap_err().to_string();
        assert_eq!(text, "cannot open /no/such: no such file or directory");
    }
}
