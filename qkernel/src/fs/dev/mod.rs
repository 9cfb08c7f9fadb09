//! Devices: what opening a node leads to, and the nodes of a container's `/dev`. Source: `null(4)`, `random(4)`,
//! `Documentation/admin-guide/devices.txt`, OCI runtime specification "Default Devices".

mod mem;

use crate::fs::devpts;
use crate::fs::file::FileOps;
use crate::fs::inode::{InodeRef, SetAttr};
use crate::fs::tty;
use crate::task::creds::Creds;
use alloc::sync::Arc;
use mem::Memory;
use qlib::Errno;
use qlib::control::Device;

/// A device number as `stat` shows it. Source: `makedev(3)`.
pub const fn makedev(major: u32, minor: u32) -> u64 {
    let (major, minor) = (major as u64, minor as u64);
    (minor & 0xff) | (major & 0xfff) << 8 | (minor & !0xff) << 12 | (major & !0xfff) << 32
}

/// Major number.
pub const fn major(dev: u64) -> u32 {
    ((dev >> 8 & 0xfff) | (dev >> 32 & !0xfff)) as u32
}

/// Minor number.
pub const fn minor(dev: u64) -> u32 {
    ((dev & 0xff) | (dev >> 12 & !0xff)) as u32
}

/// Opens the character device `rdev`. Nodes of any file system come here.
///
/// # Errors
/// ENXIO for devices QKernel does not have; `/dev/tty` without a terminal ENXIO; the terminal's own.
pub fn open(rdev: u64, flags: u32, creds: &Creds) -> Result<Arc<dyn FileOps>, Errno> {
    match (major(rdev), minor(rdev)) {
        (1, 3) => Ok(Arc::new(Memory::Null)),
        (1, 5) => Ok(Arc::new(Memory::Zero)),
        (1, 7) => Ok(Arc::new(Memory::Full)),
        (1, 8 | 9) => Ok(Arc::new(Memory::Random)),
        (5, 0) => {
            let task = crate::task::current().ok_or(Errno::ENXIO)?;
            let tty = tty::job::terminal_of(&task.process).ok_or(Errno::ENXIO)?;
            tty::open_slave(&tty, flags, creds)
        }
        (5, 1) => tty::open_slave(&tty::console::current().ok_or(Errno::ENXIO)?, flags, creds),
        (5, 2) => tty::open_ptmx(creds),
        (m @ 136..=143, n) => {
            let tty = devpts::get((m - tty::PTS_MAJOR) << 8 | n).ok_or(Errno::ENXIO)?;
            tty::open_slave(&tty, flags, creds)
        }
        _ => Err(Errno::ENXIO),
    }
}

/// Name, permission bits, major, minor of the nodes every container has.
const NODES: &[(&str, u32, u32, u32)] = &[
    ("null", 0o666, 1, 3),
    ("zero", 0o666, 1, 5),
    ("full", 0o666, 1, 7),
    ("random", 0o666, 1, 8),
    ("urandom", 0o666, 1, 9),
    ("tty", 0o666, 5, 0),
];

const LINKS: &[(&str, &str)] = &[
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
    ("ptmx", "pts/ptmx"),
];

const CHAR: u32 = 0o020000;

fn owned(node: &InodeRef, mode: u32, uid: u32, gid: u32) -> Result<(), Errno> {
    node.set_attr(&SetAttr {
        mode: Some(mode & 0o7777),
        uid: Some(uid),
        gid: Some(gid),
        ..SetAttr::default()
    })
}

fn present(r: Result<(), Errno>) -> Result<(), Errno> {
    match r {
        Err(Errno::EEXIST) => Ok(()),
        r => r,
    }
}

/// Fills the root of a new `/dev`: the default nodes and links, `/dev/console` when the container has a
/// terminal, and the devices of the spec that lie below `/dev`.
///
/// # Errors
/// The file system's.
pub fn populate(root: &InodeRef, devices: &[Device], terminal: bool) -> Result<(), Errno> {
    let creds = Creds::default();
    for (name, perm, major, minor) in NODES {
        let node = root.mknod(name.as_bytes(), CHAR | perm, makedev(*major, *minor), &creds);
        present(node.and_then(|n| owned(&n, *perm, 0, 0)))?;
    }
    if terminal {
        let node = root.mknod(b"console", CHAR | 0o620, makedev(5, 1), &creds);
        present(node.and_then(|n| owned(&n, 0o620, 0, 5)))?;
    }
    for (name, target) in LINKS {
        let link = root.symlink(name.as_bytes(), target.as_bytes(), &creds);
        present(link.map(|_| ()))?;
    }
    for d in devices {
        let Some(path) = d.path.strip_prefix(b"/dev/") else {
            continue;
        };
        place(root, path, d, &creds)?;
    }
    Ok(())
}

fn place(root: &InodeRef, path: &[u8], d: &Device, creds: &Creds) -> Result<(), Errno> {
    let mut dir = root.clone();
    let mut parts = path.split(|b| *b == b'/').filter(|p| !p.is_empty()).peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_some() {
            dir = match dir.mkdir(part, 0o755, creds) {
                Err(Errno::EEXIST) => dir.lookup(part)?,
                r => r?,
            };
            continue;
        }
        let node = match dir.mknod(part, d.mode, makedev(d.major, d.minor), creds) {
            Err(Errno::EEXIST) => dir.lookup(part)?,
            r => r?,
        };
        owned(&node, d.mode, d.uid, d.gid)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_are_those_of_makedev() {
        // Values of glibc's makedev(3).
        assert_eq!(makedev(1, 3), 0x103);
        assert_eq!(makedev(136, 0), 0x8800);
        assert_eq!(makedev(8, 300), 0x10_082c);
        for (a, b) in [(1, 3), (5, 2), (136, 7), (259, 1000), (0xfff, 0xfffff)] {
            assert_eq!((major(makedev(a, b)), minor(makedev(a, b))), (a, b));
        }
    }

    #[test]
    fn unknown_devices_are_refused() {
        let c = Creds::default();
        assert_eq!(open(makedev(10, 229), 0, &c).err(), Some(Errno::ENXIO));
        assert_eq!(open(makedev(5, 0), 0, &c).err(), Some(Errno::ENXIO));
        assert!(open(makedev(1, 3), 0, &c).is_ok());
    }
}
