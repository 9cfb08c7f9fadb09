//! `/proc/PID/map_files`: a link for every mapped file, named by its range. Source: `proc_pid_map_files(5)`.

use super::mounts::shown;
use super::who::Who;
use crate::fs::file::{File, MagicTarget};
use crate::fs::inode::{FileType, InodeRef};
use crate::fs::pseudo::{Dir, Entries, Entry, Magic};
use crate::mm::Vma;
use crate::task::creds::cap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use qlib::{Errno, PAGE_SIZE};

/// Inode numbers: this plus a page's number.
const MAP_FILES: u64 = 0xc_0000;

/// The directory.
pub fn dir(who: &Who, k: u64) -> InodeRef {
    Dir::new(who.meta(k, 0o500), MapFiles(who.clone()))
}

struct MapFiles(Who);

/// The file mapped at exactly this range.
fn mapped(who: &Who, start: u64, end: u64) -> Result<Arc<File>, Errno> {
    who.inspect()?;
    let mm = who.mm().ok_or(Errno::ENOENT)?;
    let vmas = mm.vmas.lock();
    let v = vmas.find(start).filter(|v| v.start == start && v.end == end);
    let file = v.and_then(|v| v.file.as_ref().map(|(f, _)| f.clone()));
    file.ok_or(Errno::ENOENT)
}

fn name_of(v: &Vma) -> Vec<u8> {
    alloc::format!("{:x}-{:x}", v.start, v.end).into_bytes()
}

/// An address as such names have it: lower-case hexadecimal without leading zeros.
fn address(text: &str) -> Option<u64> {
    let value = u64::from_str_radix(text, 16).ok()?;
    (alloc::format!("{value:x}") == text).then_some(value)
}

impl MapFiles {
    fn ino(&self, start: u64) -> u64 {
        self.0.ino(MAP_FILES + (start / PAGE_SIZE & 0x3_ffff))
    }
}

impl Entries for MapFiles {
    fn lookup(&self, name: &[u8]) -> Result<InodeRef, Errno> {
        let text = core::str::from_utf8(name).map_err(|_| Errno::ENOENT)?;
        let (start, end) = text.split_once('-').ok_or(Errno::ENOENT)?;
        let (start, end) = (
            address(start).ok_or(Errno::ENOENT)?,
            address(end).ok_or(Errno::ENOENT)?,
        );
        mapped(&self.0, start, end)?;
        let mut meta = self.0.meta(0, 0o600);
        meta.ino = self.ino(start);
        let (a, b) = (self.0.clone(), self.0.clone());
        Ok(Magic::new(
            meta,
            move || {
                let file = mapped(&a, start, end)?;
                Ok(match file.path() {
                    Some(p) => shown(p),
                    None => file.describe(),
                })
            },
            move || {
                let privileged = crate::task::current().is_none_or(|t| t.creds().capable(cap::SYS_ADMIN));
                if !privileged {
                    return Err(Errno::EPERM);
                }
                Ok(MagicTarget::File(mapped(&b, start, end)?))
            },
        ))
    }
    fn list(&self) -> Result<Vec<Entry>, Errno> {
        self.0.inspect()?;
        let Some(mm) = self.0.mm() else {
            return Ok(Vec::new());
        };
        let vmas = mm.vmas.lock();
        let files = vmas.iter().filter(|v| v.file.is_some());
        Ok(files
            .map(|v| Entry::new(name_of(v), self.ino(v.start), FileType::Symlink))
            .collect())
    }
}
