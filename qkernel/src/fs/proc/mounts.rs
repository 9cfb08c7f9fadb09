//! `/proc/PID/mounts`, `mountinfo` and `mountstats`. Source: `proc(5)`, `fstab(5)`.

use super::who::Who;
use crate::fs::dev::{major, minor};
use crate::fs::mount::{self, MountInfo};
use crate::fs::path::Path;
use crate::fs::pseudo::Text;
use crate::put;
use alloc::vec::Vec;
use qlib::Errno;

/// Characters that mounts escape.
const ESCAPED: &[u8] = b" \t\n\\";

/// A path as the links of `/proc` show it: from the caller's root, or from the top of a tree the caller cannot reach.
pub fn shown(path: &Path) -> Vec<u8> {
    let Some(me) = crate::task::current() else {
        return path.absolute();
    };
    if let Some(n) = path.inode().as_any().downcast_ref::<crate::ns::file::NsInode>() {
        // A namespace that is mounted nowhere.
        if path.mount.parent().is_none() {
            return crate::ns::file::text(&n.0);
        }
    }
    let root = me.fs().root.lock().clone();
    path.relative_to(&root).0
}

fn mounts_of(who: &Who) -> Result<Vec<MountInfo>, Errno> {
    let root = who.live()?.fs().root.lock().clone();
    Ok(mount::list(&root))
}

fn options(t: &mut Text, m: &MountInfo) {
    let read_only = u64::from(m.super_read_only);
    t.bytes(&mount::flags_text(m.flags | read_only));
    if !m.options.is_empty() {
        put!(t, ",");
        t.escaped(&m.options, ESCAPED);
    }
}

fn or_none(b: &[u8]) -> &[u8] {
    if b.is_empty() { b"none" } else { b }
}

/// `mounts`.
pub fn mounts(who: &Who) -> Result<Vec<u8>, Errno> {
    let mut t = Text::new();
    for m in mounts_of(who)? {
        t.escaped(or_none(&m.source), ESCAPED);
        put!(t, " ");
        t.escaped(&m.point, ESCAPED);
        put!(t, " ");
        t.escaped(&m.fstype, ESCAPED);
        put!(t, " ");
        options(&mut t, &m);
        put!(t, " 0 0\n");
    }
    Ok(t.finish())
}

/// `mountinfo`.
pub fn mountinfo(who: &Who) -> Result<Vec<u8>, Errno> {
    let mut t = Text::new();
    for m in mounts_of(who)? {
        put!(t, "{} {} {}:{} ", m.id, m.parent, major(m.dev), minor(m.dev));
        t.escaped(&m.root, ESCAPED);
        put!(t, " ");
        t.escaped(&m.point, ESCAPED);
        put!(t, " ");
        t.bytes(&mount::flags_text(m.flags));
        if m.share.group != 0 {
            put!(t, " shared:{}", m.share.group);
        }
        if m.share.master != 0 {
            put!(t, " master:{}", m.share.master);
        }
        if m.share.unbindable {
            put!(t, " unbindable");
        }
        put!(t, " - ");
        t.escaped(&m.fstype, ESCAPED);
        put!(t, " ");
        t.escaped(or_none(&m.source), ESCAPED);
        // The file system's own options; `rw`/`ro` come first.
        put!(t, " {}", if m.super_read_only { "ro" } else { "rw" });
        if !m.options.is_empty() {
            put!(t, ",");
            t.escaped(&m.options, ESCAPED);
        }
        put!(t, "\n");
    }
    Ok(t.finish())
}

/// `mountstats`.
pub fn mountstats(who: &Who) -> Result<Vec<u8>, Errno> {
    let mut t = Text::new();
    for m in mounts_of(who)? {
        put!(t, "device ");
        t.escaped(or_none(&m.source), ESCAPED);
        put!(t, " mounted on ");
        t.escaped(&m.point, ESCAPED);
        put!(t, " with fstype ");
        t.escaped(&m.fstype, ESCAPED);
        put!(t, "\n");
    }
    Ok(t.finish())
}
