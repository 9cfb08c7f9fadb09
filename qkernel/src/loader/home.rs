//! HOME of a program that the host starts: as runtimes do, from the container's `/etc/passwd`. Source: `passwd(5)`.

use crate::fs::FileType;
use crate::fs::open::open_kernel;
use crate::fs::path::Path;
use alloc::vec::Vec;
use hal::uapi::general::{O_NONBLOCK, O_RDONLY};

/// Most bytes of the file that are looked at.
const MAX_PASSWD: usize = 1 << 20;

/// Adds HOME to `env` unless it is there: the directory of user `uid`, or `/`.
pub fn complete(env: &mut Vec<Vec<u8>>, root: &Path, uid: u32) {
    if env.iter().any(|e| e.starts_with(b"HOME=") && e.len() > 5) {
        return;
    }
    env.retain(|e| e != b"HOME=");
    let text = passwd(root).unwrap_or_default();
    let mut home = b"HOME=".to_vec();
    home.extend_from_slice(directory(&text, uid).unwrap_or(b"/"));
    env.push(home);
}

fn passwd(root: &Path) -> Option<Vec<u8>> {
    // A named pipe there must not keep the container from starting.
    let file = open_kernel(root, b"/etc/passwd", O_RDONLY | O_NONBLOCK).ok()?;
    let stat = file.ops().stat(&file).ok()?;
    if FileType::from_mode(stat.mode) != FileType::Regular {
        return None;
    }
    let mut text = Vec::new();
    let mut part = [0u8; 512];
    while text.len() < MAX_PASSWD {
        match file.read_kernel(&mut part, text.len() as u64) {
            Ok(n) if n > 0 => text.extend_from_slice(&part[..n]),
            _ => break,
        }
    }
    Some(text)
}

/// The home directory of user `uid` in the text of a `passwd(5)` file.
fn directory(text: &[u8], uid: u32) -> Option<&[u8]> {
    text.split(|b| *b == b'\n').find_map(|line| {
        let mut fields = line.split(|b| *b == b':');
        let id = core::str::from_utf8(fields.nth(2)?).ok()?;
        let home = fields.nth(2)?;
        (id.parse() == Ok(uid) && !home.is_empty()).then_some(home)
    })
}

#[cfg(test)]
mod tests {
    use super::directory;

    #[test]
    fn the_first_line_of_the_user_counts() {
        let text = b"root:x:0:0:root:/root:/bin/sh\nbroken\n\na:x:1000:5::/home/a:\nb:x:1000:5::/home/b:\nn:x:7:7:::\n";
        assert_eq!(directory(text, 0), Some(b"/root".as_slice()));
        assert_eq!(directory(text, 1000), Some(b"/home/a".as_slice()));
        assert_eq!(directory(text, 7), None);
        assert_eq!(directory(text, 8), None);
    }
}
