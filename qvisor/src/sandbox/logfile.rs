//! A sandbox's log below the operator's log directory: bounded, made when there is something to say, kept after the
//! sandbox's end, and few of them.

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;

/// What log files' names end with.
const ENDING: &str = ".log";
/// Longest part of a container's id in a file name, bytes.
const MAX_ID: usize = 200;

/// A log file to be.
pub struct LogFile {
    /// The directory: paths mean nothing once the sandbox has its own root.
    dir: OwnedFd,
    name: String,
    max_bytes: u64,
    keep: u64,
    file: Option<File>,
    failed: bool,
}

/// Name of the log of container `id`.
pub fn name_of(id: &str) -> String {
    // An id is ASCII.
    format!("{}{ENDING}", &id[..id.len().min(MAX_ID)])
}

impl LogFile {
    /// A log for container `id` in `dir`, of `max_bytes` at most, beside `keep` - 1 others.
    pub fn new(dir: OwnedFd, id: &str, max_bytes: u64, keep: u64) -> Self {
        Self {
            dir,
            name: name_of(id),
            max_bytes,
            keep,
            file: None,
            failed: false,
        }
    }

    /// Makes the file now: for who may not later.
    pub fn make(&mut self) {
        if self.file.is_none() && !self.failed {
            self.make_room();
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            match rustix::fs::openat(&self.dir, &self.name, flags, Mode::from_raw_mode(0o640)) {
                Ok(fd) => self.file = Some(fd.into()),
                Err(_) => self.failed = true,
            }
        }
    }

    /// Appends a line. A log that cannot be written is no reason for a sandbox to fail.
    pub fn write(&mut self, line: &str) {
        self.make();
        let Some(file) = &mut self.file else { return };
        let size = file.metadata().map_or(0, |m| m.len());
        if size + line.len() as u64 > self.max_bytes {
            let _ = keep_newer_half(file, size, self.max_bytes);
        }
        let _ = file.write_all(line.as_bytes());
    }

    /// Removes the oldest logs, so that with ours there are `keep`.
    fn make_room(&self) {
        let Ok(entries) = Dir::read_from(self.dir.as_fd()) else {
            return;
        };
        let mut logs: Vec<(i64, String)> = entries
            .flatten()
            .filter_map(|e| e.file_name().to_str().ok().map(str::to_owned))
            .filter(|name| name.ends_with(ENDING) && *name != self.name)
            .filter_map(|name| {
                let stat = rustix::fs::statat(&self.dir, &name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
                Some((stat.st_mtime as i64, name))
            })
            .collect();
        logs.sort();
        let extra = (logs.len() as u64 + 1).saturating_sub(self.keep);
        for (_, name) in logs.into_iter().take(extra as usize) {
            let _ = rustix::fs::unlinkat(&self.dir, name, AtFlags::empty());
        }
    }
}

/// Leaves the last lines of a file that has become too long.
fn keep_newer_half(file: &File, size: u64, max: u64) -> std::io::Result<()> {
    let length = (max / 2).min(size);
    let mut tail = vec![0; length as usize];
    file.read_exact_at(&mut tail, size - length)?;
    let start = tail.iter().position(|b| *b == b'\n').map_or(0, |at| at + 1);
    file.set_len(0)?;
    (&*file).write_all(&tail[start..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn directory(name: &str) -> (PathBuf, OwnedFd) {
        let path = std::env::temp_dir().join(format!("quark-log-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        let fd = rustix::fs::open(&path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        (path, fd)
    }

    #[test]
    fn a_log_is_bounded_and_keeps_the_last_lines() {
        let (path, fd) = directory("bounded");
        let mut log = LogFile::new(fd, "a", 4096, 5);
        assert!(!path.join("a.log").exists(), "nothing was said yet");
        for n in 0..1000 {
            log.write(&format!("line {n}\n"));
        }
        let text = std::fs::read_to_string(path.join("a.log")).unwrap();
        assert!(
            text.len() <= 4096 && text.ends_with("line 999\n"),
            "{}",
            text.len()
        );
        assert!(text.lines().all(|l| l.starts_with("line ")), "whole lines");
        std::fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn the_oldest_logs_go() {
        let (path, fd) = directory("few");
        for n in 0..5 {
            let old = std::fs::File::create(path.join(format!("{n}.log"))).unwrap();
            let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(n);
            old.set_modified(time).unwrap();
        }
        std::fs::write(path.join("other"), "").unwrap();
        LogFile::new(fd, "new", 4096, 3).write("x\n");
        let mut names: Vec<_> = std::fs::read_dir(&path)
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["3.log", "4.log", "new.log", "other"]);
        std::fs::remove_dir_all(path).unwrap();
    }
}
