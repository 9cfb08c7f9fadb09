//! Texts that the host has about the sandbox: its network namespace, its cgroup, the machine's memory.

use alloc::string::String;
use alloc::vec::Vec;
use hal::host::{self, Dest, SystemGroup};
use qlib::Errno;

/// Longest text taken.
const MAX: usize = 16 << 20;
/// Bytes asked for at once.
const STEP: usize = 32 << 10;

/// Reads a text whole.
///
/// # Errors
/// ENOENT where the host has none of that name; ENOSYS where nobody serves them.
pub fn read(group: SystemGroup, name: &str) -> Result<Vec<u8>, Errno> {
    let file = host::system_file(group, name)?;
    let mut text = Vec::new();
    loop {
        let at = text.len();
        text.resize(at + STEP, 0);
        let got = host::read(file.handle(), &mut Dest::kernel(&mut text[at..]), None);
        let n = match got {
            Ok(n) => n,
            Err(Errno::EINTR) => 0,
            Err(e) => return Err(e),
        };
        text.truncate(at + n);
        if n == 0 && got.is_ok() || text.len() >= MAX {
            return Ok(text);
        }
    }
}

/// As [`read`], as text; nothing where there is none.
pub fn string(group: SystemGroup, name: &str) -> Option<String> {
    String::from_utf8(read(group, name).ok()?).ok()
}

/// A text that is one number.
pub fn number(group: SystemGroup, name: &str) -> Option<u64> {
    string(group, name)?.trim().parse().ok()
}

/// The number behind `key` in lines of key and number.
pub fn value(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|l| {
        let mut words = l.split_ascii_whitespace();
        let found = words.next()?.trim_end_matches(':') == key;
        if found { words.next()?.parse().ok() } else { None }
    })
}
