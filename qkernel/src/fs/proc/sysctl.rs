//! `/proc/sys`: names and values. Source: `sysctl(8)`, Linux `Documentation/admin-guide/sysctl`.
//!
//! A setting either is what the kernel does (and cannot be changed), has an effect that its reader looks up here, or tunes
//! something of Linux that QKernel does not have: then it is kept and shown, as the container's own namespace would.

use super::host_text;
use super::sysctl_table::{Class, TABLE};
use crate::fs::inode::InodeRef;
use crate::fs::pseudo::{Dir, Meta, Table, TextFile, new_ino};
use crate::ns::net::{self, NetNs};
use crate::task::creds::cap;
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use hal::host::SystemGroup;
use hal::sync::SpinLock;
use qlib::Errno;

/// Values that were changed, by path (`fs/mqueue/msg_max`); those of a network (`net/`) it keeps itself.
static CHANGED: SpinLock<BTreeMap<&'static str, String>> = SpinLock::new(BTreeMap::new());

/// One setting.
pub(super) struct Setting {
    /// Path below `/proc/sys`.
    pub path: &'static str,
    /// What it is.
    pub class: Class,
}

/// The current value as text, without a newline, in the calling task's network; `None` = no such setting.
pub fn get(path: &str) -> Option<String> {
    get_in(&net::current(), path)
}

/// As [`get`], in another network.
pub fn get_in(net: &NetNs, path: &str) -> Option<String> {
    let s = TABLE.iter().find(|s| s.path == path)?;
    Some(value(net, s))
}

/// The current value of a setting that is one integer.
pub fn get_int(path: &str) -> Option<i64> {
    get(path)?.parse().ok()
}

/// As [`get_int`], in another network.
pub fn get_int_in(net: &NetNs, path: &str) -> Option<i64> {
    get_in(net, path)?.parse().ok()
}

/// Sets a setting of the container's specification: dots or slashes between the parts of `name`.
///
/// # Errors
/// ENOENT when there is none of that name; EPERM when it cannot be changed; EINVAL.
pub fn set(name: &str, text: &str) -> Result<(), Errno> {
    set_in(&net::current(), name, text)
}

/// As [`set`], of a container with a network of its own.
///
/// # Errors
/// As [`set`].
pub fn set_in(net: &NetNs, name: &str, text: &str) -> Result<(), Errno> {
    let wanted = name.replace('.', "/");
    let s = TABLE.iter().find(|s| s.path == wanted).ok_or(Errno::ENOENT)?;
    store(net, s, text.as_bytes())
}

/// Whether a setting belongs to a network.
fn is_network(path: &str) -> bool {
    path.starts_with("net/")
}

/// The value of a setting that was changed.
fn changed(net: &NetNs, path: &str) -> Option<String> {
    if is_network(path) {
        net.settings.lock().get(path).cloned()
    } else {
        CHANGED.lock().get(path).cloned()
    }
}

fn value(net: &NetNs, s: &Setting) -> String {
    if let Class::Live(show, _) = s.class {
        return show();
    }
    if let Some(v) = changed(net, s.path).or_else(|| of_network(net, s.path)) {
        return v;
    }
    match s.class {
        Class::Fixed(v) | Class::Text(v) => String::from(v),
        Class::Int(v, _, _) => v.to_string(),
        Class::Ints(v, _) => String::from(v),
        Class::Live(show, _) => show(),
    }
}

/// Inet sockets are the host's, in the container's network namespace: its settings are theirs.
fn of_network(net: &NetNs, path: &str) -> Option<String> {
    if !is_network(path) || path.starts_with("net/unix/") {
        return None;
    }
    let text = host_text::string(&net.service, SystemGroup::Proc, &alloc::format!("sys/{path}"))?;
    Some(String::from(text.trim_end()))
}

fn store(net: &NetNs, s: &Setting, bytes: &[u8]) -> Result<(), Errno> {
    let text = core::str::from_utf8(bytes).map_err(|_| Errno::EINVAL)?;
    let text = text.trim_matches(|c: char| c.is_ascii_whitespace() || c == '\0');
    let new = match s.class {
        Class::Fixed(_) | Class::Live(_, None) => return Err(Errno::EPERM),
        Class::Live(_, Some(set)) => return set(text),
        Class::Text(_) => String::from(text),
        Class::Int(_, min, max) => {
            let v: i64 = text.parse().map_err(|_| Errno::EINVAL)?;
            if v < min || v > max {
                return Err(Errno::EINVAL);
            }
            v.to_string()
        }
        Class::Ints(_, count) => {
            let numbers: Result<Vec<i64>, _> = text.split_ascii_whitespace().map(str::parse).collect();
            let numbers = numbers.map_err(|_| Errno::EINVAL)?;
            if numbers.len() != count {
                return Err(Errno::EINVAL);
            }
            let parts: Vec<String> = numbers.iter().map(|n| n.to_string()).collect();
            parts.join("\t")
        }
    };
    if is_network(s.path) {
        net.settings.lock().insert(s.path, new);
    } else {
        CHANGED.lock().insert(s.path, new);
    }
    Ok(())
}

/// Who may write: as in a container's own namespaces, an administrator of the system or (for `net/`) of the network.
fn may_write(path: &str) -> bool {
    let Some(me) = crate::task::current() else {
        return true;
    };
    let creds = me.creds();
    creds.capable(cap::SYS_ADMIN)
        || is_network(path) && creds.capable_in(&net::current().owner, cap::NET_ADMIN)
}

fn inode(dev: u64, s: &'static Setting) -> InodeRef {
    let writable = !matches!(s.class, Class::Fixed(_) | Class::Live(_, None));
    let meta = Meta {
        dev,
        ino: new_ino(),
        perm: if writable { 0o644 } else { 0o444 },
        uid: 0,
        gid: 0,
    };
    let show = move || {
        let mut v = value(&net::current(), s);
        v.push('\n');
        Ok(v.into_bytes())
    };
    if !writable {
        return TextFile::new(meta, show);
    }
    TextFile::writable(meta, show, move |bytes| {
        if may_write(s.path) {
            store(&net::current(), s, bytes)
        } else {
            Err(Errno::EPERM)
        }
    })
}

/// The directory of all settings whose path starts with `prefix`.
fn directory(dev: u64, prefix: &str) -> InodeRef {
    let mut names: Vec<(&'static str, InodeRef)> = Vec::new();
    for s in TABLE {
        let Some(rest) = s.path.strip_prefix(prefix) else {
            continue;
        };
        match rest.split_once('/') {
            None => names.push((rest, inode(dev, s))),
            Some((dir, _)) if names.iter().any(|(n, _)| *n == dir) => {}
            Some((dir, _)) => {
                let below = alloc::format!("{prefix}{dir}/");
                names.push((dir, directory(dev, &below)));
            }
        }
    }
    names.sort_by_key(|(n, _)| *n);
    let meta = Meta {
        dev,
        ino: new_ino(),
        perm: 0o555,
        uid: 0,
        gid: 0,
    };
    Dir::new(meta, Table(names))
}

/// `/proc/sys`.
pub(super) fn root(dev: u64) -> InodeRef {
    directory(dev, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_checked_and_kept() {
        assert_eq!(get_int("net/core/somaxconn"), Some(4096));
        assert_eq!(set("net.core.somaxconn", "x"), Err(Errno::EINVAL));
        assert_eq!(set("net.core.somaxconn", " 128\n"), Ok(()));
        assert_eq!(get_int("net/core/somaxconn"), Some(128));
        assert_eq!(set("net.ipv4.ping_group_range", "0 2147483647"), Ok(()));
        assert_eq!(get("net/ipv4/ping_group_range").as_deref(), Some("0\t2147483647"));
        assert_eq!(set("net.ipv4.ping_group_range", "1"), Err(Errno::EINVAL));
        assert_eq!(set("kernel.osrelease", "5"), Err(Errno::EPERM));
        assert_eq!(set("no.such", "1"), Err(Errno::ENOENT));
    }

    #[test]
    fn paths_are_unique_and_make_a_tree() {
        for (i, s) in TABLE.iter().enumerate() {
            assert!(
                !TABLE[..i].iter().any(|o| o.path == s.path),
                "{} is twice",
                s.path
            );
        }
        let root = root(1);
        let net = root.lookup(b"net").and_then(|d| d.lookup(b"ipv4")).unwrap();
        assert!(net.lookup(b"ip_local_port_range").is_ok());
        assert_eq!(net.lookup(b"nothing").err(), Some(Errno::ENOENT));
        assert_eq!(
            root.lookup(b"net").unwrap().lookup(b"ipv4/").err(),
            Some(Errno::ENOENT)
        );
    }
}
