//! The mount of POSIX message queues. The calls are refused, so it is always empty. Source: `mq_overview(7)`.

use crate::fs::inode::InodeRef;
use crate::fs::pseudo::{Dir, Meta, Table, new_dev_of};

/// MQUEUE_MAGIC.
const MAGIC: u64 = 0x1980_0202;

/// The root of an mqueue file system for a mount.
pub fn new_root() -> InodeRef {
    let meta = Meta {
        dev: new_dev_of(MAGIC),
        ino: 1,
        perm: 0o1777,
        uid: 0,
        gid: 0,
    };
    Dir::new(meta, Table::default())
}
