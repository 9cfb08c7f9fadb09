//! Mount options of tmpfs.

use super::PAGE;
use hal::sync::Once;
use qlib::Errno;

/// Limits and the root directory's attributes.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Pages of data, `u64::MAX` = no limit.
    pub max_pages: u64,
    /// Inodes, `u64::MAX` = no limit.
    pub max_inodes: u64,
    /// Permission bits of the root.
    pub mode: u32,
    /// Owner of the root.
    pub uid: u32,
    /// Group of the root.
    pub gid: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            // Half of the memory, and an inode for each of its pages.
            max_pages: memory() / 2 / PAGE,
            max_inodes: memory() / 2 / PAGE,
            mode: 0o755,
            uid: 0,
            gid: 0,
        }
    }
}

/// Bytes of memory the container has: percentages are of it.
fn memory() -> u64 {
    static TOTAL: Once<u64> = Once::new();
    *TOTAL.call_once(|| crate::fs::proc::memory::figures().total << 10)
}

/// A number with k, m, g or % behind it.
fn size(text: &[u8]) -> Result<u64, Errno> {
    let (digits, unit) = match text.split_last() {
        Some((u, rest)) if !u.is_ascii_digit() => (rest, *u),
        _ => (text, b' '),
    };
    let n = number(digits, 10)?;
    let shifted = |s: u32| n.checked_mul(1 << s).ok_or(Errno::EINVAL);
    match unit.to_ascii_lowercase() {
        b' ' => Ok(n),
        b'k' => shifted(10),
        b'm' => shifted(20),
        b'g' => shifted(30),
        b't' => shifted(40),
        b'%' => Ok(memory() / 100 * n),
        _ => Err(Errno::EINVAL),
    }
}

/// 0 is no limit.
fn limit(n: u64) -> u64 {
    if n == 0 { u64::MAX } else { n }
}

fn number(text: &[u8], radix: u32) -> Result<u64, Errno> {
    let text = core::str::from_utf8(text).map_err(|_| Errno::EINVAL)?;
    u64::from_str_radix(text, radix).map_err(|_| Errno::EINVAL)
}

impl Options {
    /// Parses `size=64k,mode=1777,…`. Without a size it is half the memory, as in Linux; 0 = no limit.
    ///
    /// # Errors
    /// EINVAL for an unknown option or a bad number.
    pub fn parse(text: &[u8]) -> Result<Self, Errno> {
        let start = Self {
            mode: 0o1777,
            max_pages: limit(memory() / 2 / PAGE),
            ..Self::default()
        };
        start.over(text)
    }
    /// The same with what `text` says changed.
    ///
    /// # Errors
    /// EINVAL for an unknown option or a bad number.
    pub fn over(self, text: &[u8]) -> Result<Self, Errno> {
        let mut o = self;
        for part in text.split(|b| *b == b',').filter(|p| !p.is_empty()) {
            let mut sides = part.splitn(2, |b| *b == b'=');
            let key = sides.next().unwrap_or_default();
            let value = sides.next().unwrap_or_default();
            match key {
                b"size" => o.max_pages = limit(size(value)?.div_ceil(PAGE)),
                b"nr_blocks" => o.max_pages = limit(size(value)?),
                b"nr_inodes" => o.max_inodes = limit(size(value)?),
                b"mode" => o.mode = number(value, 8)? as u32 & 0o7777,
                b"uid" => o.uid = number(value, 10)? as u32,
                b"gid" => o.gid = number(value, 10)? as u32,
                // Placement hints and what the VFS itself knows.
                b"huge" | b"mpol" | b"inode32" | b"inode64" | b"noswap" | b"rw" | b"ro" | b"tmpcopyup"
                | b"nosuid" | b"nodev" | b"noexec" | b"relatime" | b"noatime" | b"strictatime" | b"suid"
                | b"dev" | b"exec" => {}
                _ => return Err(Errno::EINVAL),
            }
        }
        Ok(o)
    }
}
