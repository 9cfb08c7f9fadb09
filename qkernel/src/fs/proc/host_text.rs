//! Texts that the host has about the sandbox and its containers: network namespaces, cgroups, the machine's memory.

use crate::ns::service::{self, ServiceRef};
use alloc::string::String;
use alloc::vec::Vec;
use hal::host::{self, Dest, SystemGroup};
use qlib::Errno;

/// Longest text taken.
const MAX: usize = 16 << 20;
/// Bytes asked for at once.
const STEP: usize = 32 << 10;

/// Reads a text whole, as the host side `of` a container has it.
///
/// # Errors
/// ENOENT where the host has none of that name; ENOSYS where nobody serves them; EIO where nobody serves them any more.
pub fn read(of: &ServiceRef, group: SystemGroup, name: &str) -> Result<Vec<u8>, Errno> {
    let file = host::system_file(service::handle(of), group, name)?;
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
pub fn string(of: &ServiceRef, group: SystemGroup, name: &str) -> Option<String> {
    String::from_utf8(read(of, group, name).ok()?).ok()
}

/// A text about the cgroup of the calling task's container.
pub fn cgroup(name: &str) -> Option<String> {
    string(&crate::ns::current().cgroup.service, SystemGroup::Cgroup, name)
}

/// As [`cgroup`], of a text that is one number.
pub fn cgroup_number(name: &str) -> Option<u64> {
    cgroup(name)?.trim().parse().ok()
}

/// The number behind `key` in lines of key and number.
pub fn value(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|l| {
        let mut words = l.split_ascii_whitespace();
        let found = words.next()?.trim_end_matches(':') == key;
        if found { words.next()?.parse().ok() } else { None }
    })
}
