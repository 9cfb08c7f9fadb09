//! OCI mount options: words for flags, for propagation, and the rest for the file system.

/// Mount options taken apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `MS_*` flags that are on.
    pub flags: u64,
    /// `MS_*` flags asked to be off (`rw`, `suid`, …).
    pub cleared: u64,
    /// `MS_*` flags for everything below as well (`rro`, …).
    pub recursive: u64,
    /// A bind of a tree.
    pub bind: bool,
    /// … with all that is mounted below.
    pub recursive_bind: bool,
    /// `MS_SHARED` and its kin with `MS_REC`; 0 = not said.
    pub propagation: u64,
    /// Words for the file system.
    pub data: Vec<String>,
}

/// An option that cannot be honoured.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("mount option {0:?} is not supported")]
pub struct Unsupported(pub String);

/// Flag words: name, flags, whether the word clears them. Source: `mount(8)`, runc's `libcontainer/specconv`.
const WORDS: [(&str, u64, bool); 23] = [
    ("ro", libc::MS_RDONLY, false),
    ("rw", libc::MS_RDONLY, true),
    ("nosuid", libc::MS_NOSUID, false),
    ("suid", libc::MS_NOSUID, true),
    ("nodev", libc::MS_NODEV, false),
    ("dev", libc::MS_NODEV, true),
    ("noexec", libc::MS_NOEXEC, false),
    ("exec", libc::MS_NOEXEC, true),
    ("sync", libc::MS_SYNCHRONOUS, false),
    ("async", libc::MS_SYNCHRONOUS, true),
    ("dirsync", libc::MS_DIRSYNC, false),
    ("mand", libc::MS_MANDLOCK, false),
    ("nomand", libc::MS_MANDLOCK, true),
    ("noatime", libc::MS_NOATIME, false),
    ("atime", libc::MS_NOATIME, true),
    ("nodiratime", libc::MS_NODIRATIME, false),
    ("diratime", libc::MS_NODIRATIME, true),
    ("relatime", libc::MS_RELATIME, false),
    ("norelatime", libc::MS_RELATIME, true),
    ("strictatime", libc::MS_STRICTATIME, false),
    ("nostrictatime", libc::MS_STRICTATIME, true),
    ("iversion", libc::MS_I_VERSION, false),
    ("noiversion", libc::MS_I_VERSION, true),
];

/// Takes `words` apart.
pub fn parse<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Options, Unsupported> {
    let mut o = Options::default();
    for word in words {
        if let Some((_, flags, clears)) = WORDS.iter().find(|(name, ..)| *name == word) {
            if *clears {
                o.flags &= !flags;
                o.cleared |= flags;
            } else {
                o.flags |= flags;
                o.cleared &= !flags;
            }
            continue;
        }
        let propagation = match word.strip_prefix('r').unwrap_or(word) {
            "private" => libc::MS_PRIVATE,
            "shared" => libc::MS_SHARED,
            "slave" => libc::MS_SLAVE,
            "unbindable" => libc::MS_UNBINDABLE,
            _ => 0,
        };
        if propagation != 0 {
            o.propagation = propagation | if word.starts_with('r') { libc::MS_REC } else { 0 };
            continue;
        }
        match word {
            "" | "defaults" => {}
            "bind" => o.bind = true,
            "rbind" => (o.bind, o.recursive_bind) = (true, true),
            "rro" => o.recursive |= libc::MS_RDONLY,
            "rnosuid" => o.recursive |= libc::MS_NOSUID,
            "rnodev" => o.recursive |= libc::MS_NODEV,
            "rnoexec" => o.recursive |= libc::MS_NOEXEC,
            "rrw" | "rsuid" | "rdev" | "rexec" | "ratime" | "rdiratime" => {}
            "remount" | "idmap" | "ridmap" | "rnoatime" | "rnodiratime" | "rrelatime" | "rnorelatime"
            | "rstrictatime" | "rnostrictatime" | "nosymfollow" | "rnosymfollow" => {
                return Err(Unsupported(word.to_owned()));
            }
            other => o.data.push(other.to_owned()),
        }
    }
    o.flags |= o.recursive;
    Ok(o)
}

/// The mount attributes (`mount_setattr`) that stand for `MS_*` flags.
pub fn attributes(flags: u64) -> u64 {
    use crate::sys::mount_attr as a;
    let mut out = 0;
    for (flag, attr) in [
        (libc::MS_RDONLY, a::RDONLY),
        (libc::MS_NOSUID, a::NOSUID),
        (libc::MS_NODEV, a::NODEV),
        (libc::MS_NOEXEC, a::NOEXEC),
        (libc::MS_NODIRATIME, a::NODIRATIME),
    ] {
        if flags & flag != 0 {
            out |= attr;
        }
    }
    if flags & libc::MS_NOATIME != 0 {
        out |= a::NOATIME;
    } else if flags & libc::MS_STRICTATIME != 0 {
        out |= a::STRICTATIME;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_flags_propagation_and_data() {
        let o = parse(["rbind", "ro", "nosuid", "rslave", "mode=755", "size=64k"]).unwrap();
        assert!(o.bind && o.recursive_bind);
        assert_eq!(o.flags, libc::MS_RDONLY | libc::MS_NOSUID);
        assert_eq!(o.propagation, libc::MS_SLAVE | libc::MS_REC);
        assert_eq!(o.data, ["mode=755", "size=64k"]);
    }

    #[test]
    fn the_later_word_wins() {
        assert_eq!(parse(["ro", "rw"]).unwrap().flags, 0);
        assert_eq!(parse(["rw", "ro"]).unwrap().cleared, 0);
    }

    #[test]
    fn recursive_words_count_for_the_top_too() {
        let o = parse(["rbind", "rro"]).unwrap();
        assert_eq!((o.flags, o.recursive), (libc::MS_RDONLY, libc::MS_RDONLY));
    }

    #[test]
    fn what_cannot_be_honoured_is_refused() {
        assert_eq!(parse(["idmap"]), Err(Unsupported("idmap".into())));
    }
}
