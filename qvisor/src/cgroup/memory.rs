//! Watches the sandbox's memory so that the guest kills its largest process before the host kills any.
//!
//! Page cache counts as usage but is no need: when the threshold is crossed by cache alone, the host is made to
//! reclaim it (as it would have at the container's own limit), and nobody dies.

use super::limits::{memory_threshold, memory_wall};
use crate::error::{Context, OsError};
use rustix::event::EventfdFlags;
use rustix::fs::{Mode, OFlags};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What a look at the sandbox's memory found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Below the threshold: wait for the next event.
    Fine,
    /// Above it, being dealt with: look again soon.
    Again,
    /// The guest must free memory now.
    OutOfMemory,
}

/// How long the guest gets to kill one process before it is asked again.
const GRACE: Duration = Duration::from_millis(500);

/// A watch on a cgroup's memory. Holds descriptors, so it works after the mount namespace changed.
pub struct MemoryWatch {
    dir: OwnedFd,
    /// An eventfd (version 1), or `memory.events` (version 2).
    event: OwnedFd,
    v1: bool,
    threshold: u64,
    wall: u64,
    asked: Option<Instant>,
}

impl MemoryWatch {
    /// Watches the memory cgroup among `paths` for a container that may use `limit` bytes; `None` without one.
    pub fn new(paths: &[PathBuf], limit: u64) -> Result<Option<Self>, OsError> {
        match memory_directory(paths)? {
            Some(dir) => Self::open(dir, limit).map(Some),
            None => Ok(None),
        }
    }

    /// Watches the memory cgroup whose directory is `dir`.
    pub fn open(dir: OwnedFd, limit: u64) -> Result<Self, OsError> {
        let (threshold, wall) = (memory_threshold(limit), memory_wall(limit));
        let at = Path::new("the memory cgroup");
        let usage = open(&dir, "memory.usage_in_bytes", OFlags::RDONLY);
        let v1 = usage.is_ok();
        let event = if let Ok(usage) = usage {
            let event = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
                .doing("make an eventfd")?;
            let order = format!("{} {} {threshold}", event.as_raw_fd(), usage.as_raw_fd());
            let control = open(&dir, "cgroup.event_control", OFlags::WRONLY).at("open", at)?;
            rustix::io::write(&control, order.as_bytes()).at("watch", at)?;
            event
        } else {
            open(&dir, "memory.events", OFlags::RDONLY).at("open", at)?
        };
        Ok(Self {
            dir,
            event,
            v1,
            threshold,
            wall,
            asked: None,
        })
    }

    /// What to wait on: readable (version 1) or an exceptional condition (version 2).
    pub fn event(&self) -> (BorrowedFd<'_>, rustix::event::PollFlags) {
        let flags = if self.v1 {
            rustix::event::PollFlags::IN
        } else {
            rustix::event::PollFlags::PRI
        };
        (self.event.as_fd(), flags)
    }

    /// Looks at the memory; called when [`Self::event`] fired, and soon after [`Verdict::Again`].
    pub fn look(&mut self) -> Verdict {
        let mut scratch = [0u8; 512];
        if self.v1 {
            let _ = rustix::io::read(&self.event, &mut scratch);
        } else {
            // Reading from the start arms the next notification.
            let _ = rustix::io::pread(&self.event, &mut scratch, 0);
        }
        let name = if self.v1 {
            "memory.usage_in_bytes"
        } else {
            "memory.current"
        };
        let (Some(usage), Some(stat)) = (self.number(name), self.read("memory.stat")) else {
            return Verdict::Fine;
        };
        let cache = stat_value(
            &stat,
            if self.v1 {
                "total_active_file"
            } else {
                "active_file"
            },
        ) + stat_value(
            &stat,
            if self.v1 {
                "total_inactive_file"
            } else {
                "inactive_file"
            },
        );
        match judge(usage, cache, self.threshold) {
            Verdict::OutOfMemory => {
                if self.asked.is_some_and(|t| t.elapsed() < GRACE) {
                    return Verdict::Again;
                }
                self.asked = Some(Instant::now());
                Verdict::OutOfMemory
            }
            Verdict::Again => {
                self.reclaim();
                Verdict::Again
            }
            Verdict::Fine => Verdict::Fine,
        }
    }

    /// Has the host drop page cache down to the threshold. Version 2 does so by itself (`memory.high`).
    fn reclaim(&self) {
        if !self.v1 {
            return;
        }
        // Lowering the limit reclaims first and fails if that is not enough; the wall is put back at once.
        let target = self.threshold - self.threshold / 16;
        for value in [target, self.wall] {
            let _ = self.write("memory.limit_in_bytes", value);
        }
    }

    /// Makes the host see the cgroup run out of memory, as it would have without a guest kernel that acts first: the
    /// cgroup's own event is all that engines learn of the reason by. A process made for that dies of it. To be called
    /// when the guest is gone.
    pub fn announce(&self) {
        /// More than the host side itself uses: the host's killer takes the largest.
        const VICTIM: u64 = 64 << 20;
        /// The time in which those who watch the event hear of it before they hear of this process's end.
        const HEARD: Duration = Duration::from_millis(50);
        /// How often it is tried, and the pause in between.
        const TRIES: u32 = 50;
        const PAUSE: Duration = Duration::from_millis(10);
        // What has been killed frees its memory while it goes: where the process found room, the next one finds less.
        for _ in 0..TRIES {
            if self.lower_limit(VICTIM / 2).is_none() {
                return;
            }
            match crate::sys::fork_into(0) {
                Ok(0) => crate::sys::use_memory_and_exit(VICTIM as usize),
                Ok(pid) => {
                    let pid = rustix::process::Pid::from_raw(pid);
                    let ended = rustix::process::waitpid(pid, rustix::process::WaitOptions::empty());
                    if ended.is_ok_and(|e| e.is_some_and(|(_, status)| status.signaled())) {
                        std::thread::sleep(HEARD);
                        return;
                    }
                }
                Err(_) => return,
            }
            std::thread::sleep(PAUSE);
        }
        log::warn!("the host did not see the container run out of memory: engines may not know why it ended");
    }

    /// Leaves `room` bytes above what is used now, and no swap.
    fn lower_limit(&self, room: u64) -> Option<()> {
        let (limit, usage, swap) = if self.v1 {
            (
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
                "memory.memsw.limit_in_bytes",
            )
        } else {
            ("memory.max", "memory.current", "memory.swap.max")
        };
        let most = self.number(usage)? + room;
        self.write(limit, most)?;
        // Without swap accounting there is no such file. Version 1 counts memory among it, version 2 does not.
        let _ = self.write(swap, if self.v1 { most } else { 0 });
        Some(())
    }

    fn write(&self, name: &str, value: u64) -> Option<()> {
        let file = open(&self.dir, name, OFlags::WRONLY).ok()?;
        rustix::io::write(&file, value.to_string().as_bytes()).ok()?;
        Some(())
    }

    fn read(&self, name: &str) -> Option<String> {
        let file = open(&self.dir, name, OFlags::RDONLY).ok()?;
        let mut text = vec![0u8; 8192];
        let n = rustix::io::read(&file, &mut text).ok()?;
        text.truncate(n);
        String::from_utf8(text).ok()
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.read(name)?.trim().parse().ok()
    }
}

/// Opens the memory cgroup among `paths`, if there is one.
pub fn memory_directory(paths: &[PathBuf]) -> Result<Option<OwnedFd>, OsError> {
    let files = ["memory.usage_in_bytes", "memory.events"];
    let Some(path) = paths.iter().find(|p| files.iter().any(|f| p.join(f).exists())) else {
        return Ok(None);
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
        .at("open", path)
        .map(Some)
}

fn open(dir: &OwnedFd, name: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(dir, name, flags | OFlags::CLOEXEC, Mode::empty())
}

fn stat_value(stat: &str, name: &str) -> u64 {
    let line = stat.lines().find(|l| l.split(' ').next() == Some(name));
    line.and_then(|l| l.split(' ').nth(1))
        .and_then(|v| v.parse().ok())
        .unwrap_or(0)
}

/// Judges `usage` bytes, of which `cache` can be reclaimed. A little below the threshold already counts as need: the
/// host reclaims in batches and never gives back the last page.
fn judge(usage: u64, cache: u64, threshold: u64) -> Verdict {
    let need = usage.saturating_sub(cache);
    if need >= threshold - threshold / 64 {
        Verdict::OutOfMemory
    } else if usage >= threshold {
        Verdict::Again
    } else {
        Verdict::Fine
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_is_reclaimed_need_is_not() {
        assert_eq!(judge(50, 0, 1000), Verdict::Fine);
        assert_eq!(judge(1000, 600, 1000), Verdict::Again);
        assert_eq!(judge(1000, 0, 1000), Verdict::OutOfMemory);
        assert_eq!(judge(1200, 100, 1000), Verdict::OutOfMemory);
    }

    #[test]
    fn reads_the_stat_file() {
        let stat = "cache 1\ninactive_file 7\ntotal_inactive_file 9\n";
        assert_eq!(stat_value(stat, "inactive_file"), 7);
        assert_eq!(stat_value(stat, "total_inactive_file"), 9);
        assert_eq!(stat_value(stat, "gone"), 0);
    }
}
