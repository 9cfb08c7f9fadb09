//! Credentials. Source: `credentials(7)`, `capabilities(7)`.

use crate::ns::user::{self, Kind, UserRef};
use alloc::sync::Arc;
use alloc::vec::Vec;
use qlib::control::Capabilities;

/// Capability numbers (`uapi/linux/capability.h`).
#[allow(missing_docs)]
pub mod cap {
    pub const CHOWN: u32 = 0;
    pub const DAC_OVERRIDE: u32 = 1;
    pub const DAC_READ_SEARCH: u32 = 2;
    pub const FOWNER: u32 = 3;
    pub const FSETID: u32 = 4;
    pub const KILL: u32 = 5;
    pub const SETGID: u32 = 6;
    pub const SETUID: u32 = 7;
    pub const SETPCAP: u32 = 8;
    pub const LINUX_IMMUTABLE: u32 = 9;
    pub const NET_BIND_SERVICE: u32 = 10;
    pub const NET_ADMIN: u32 = 12;
    pub const NET_RAW: u32 = 13;
    pub const IPC_LOCK: u32 = 14;
    pub const IPC_OWNER: u32 = 15;
    pub const SYS_CHROOT: u32 = 18;
    pub const SYS_PTRACE: u32 = 19;
    pub const SYS_ADMIN: u32 = 21;
    pub const SYS_BOOT: u32 = 22;
    pub const SYS_NICE: u32 = 23;
    pub const SYS_RESOURCE: u32 = 24;
    pub const SYS_TIME: u32 = 25;
    pub const SYS_TTY_CONFIG: u32 = 26;
    pub const MKNOD: u32 = 27;
    pub const SETFCAP: u32 = 31;
    pub const MAC_OVERRIDE: u32 = 32;
    pub const WAKE_ALARM: u32 = 35;
    pub const LAST: u32 = 40;
}

/// Security bits (`uapi/linux/securebits.h`); the next higher bit of each locks it.
#[allow(missing_docs)]
pub mod securebit {
    pub const NOROOT: u32 = 1;
    pub const NO_SETUID_FIXUP: u32 = 1 << 2;
    pub const KEEP_CAPS: u32 = 1 << 4;
    pub const NO_AMBIENT_RAISE: u32 = 1 << 6;
    /// Those that programs keep for each other: the kernel does nothing about them.
    pub const ADVISORY: u32 = 1 << 8 | 1 << 10;
    pub const ALL: u32 = NOROOT | NO_SETUID_FIXUP | KEEP_CAPS | NO_AMBIENT_RAISE | ADVISORY;
}

/// Who a task is. Immutable: changes make a new one.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct Creds {
    /// The user namespace; `None` is the first one. All numbers here are the first namespace's.
    pub user: UserRef,
    pub uid: u32,
    pub euid: u32,
    pub suid: u32,
    pub fsuid: u32,
    pub gid: u32,
    pub egid: u32,
    pub sgid: u32,
    pub fsgid: u32,
    pub groups: Arc<Vec<u32>>,
    pub caps: Capabilities,
    pub securebits: u32,
    pub no_new_privs: bool,
}

impl Creds {
    /// Whether the effective set holds capability `c` of [`cap`]: it counts over what belongs to the own user namespace.
    pub fn has(&self, c: u32) -> bool {
        self.caps.effective & (1 << c) != 0
    }
    /// Whether capability `c` counts over what belongs to the container as a whole.
    pub fn capable(&self, c: u32) -> bool {
        self.user.is_none() && self.has(c)
    }
    /// Whether capability `c` counts over what belongs to `target`.
    pub fn capable_in(&self, target: &UserRef, c: u32) -> bool {
        match (target, &self.user) {
            (None, None) => self.has(c),
            _ => user::capable_in(self, target, c),
        }
    }
    /// Whether capability `c` counts over a file of `uid` and `gid`: they must have numbers in the own user namespace.
    pub fn capable_over(&self, uid: u32, gid: u32, c: u32) -> bool {
        self.has(c) && user::mapped(&self.user, Kind::Uid, uid) && user::mapped(&self.user, Kind::Gid, gid)
    }
    /// The user that is 0 in the own user namespace.
    pub fn root(&self) -> Option<u32> {
        user::to_kernel(&self.user, Kind::Uid, 0)
    }
    /// The number an app of this user namespace knows user `uid` by.
    pub fn shown_uid(&self, uid: u32) -> u32 {
        user::shown(&self.user, Kind::Uid, uid)
    }
    /// The number an app of this user namespace knows group `gid` by.
    pub fn shown_gid(&self, gid: u32) -> u32 {
        user::shown(&self.user, Kind::Gid, gid)
    }
    /// The user an app of this user namespace calls `uid`.
    pub fn kernel_uid(&self, uid: u32) -> Option<u32> {
        user::to_kernel(&self.user, Kind::Uid, uid)
    }
    /// The group an app of this user namespace calls `gid`.
    pub fn kernel_gid(&self, gid: u32) -> Option<u32> {
        user::to_kernel(&self.user, Kind::Gid, gid)
    }
    /// Whether these are another user's or group's than `old`, or hold a capability that `old` does not: then what the task had
    /// in its memory is no longer its user's to look at. Source: Linux `kernel/cred.c`, `commit_creds`.
    pub fn gains_over(&self, old: &Self) -> bool {
        let ids = |c: &Self| (c.euid, c.egid, c.fsuid, c.fsgid);
        ids(self) != ids(old) || self.caps.permitted & !old.caps.permitted != 0
    }
    /// Whether `gid` is the fs group or a supplementary one.
    pub fn in_group(&self, gid: u32) -> bool {
        self.fsgid == gid || self.groups.contains(&gid)
    }
    /// Whether the effective group or a supplementary one is `gid`.
    pub fn in_egroup(&self, gid: u32) -> bool {
        self.egid == gid || self.groups.contains(&gid)
    }
    /// Checks `mask` (4 read, 2 write, 1 execute) against mode and owner. Source: `path_resolution(7)`.
    pub fn may_access(&self, mode: u32, uid: u32, gid: u32, mask: u32) -> bool {
        let bits = if self.fsuid == uid {
            mode >> 6
        } else if self.in_group(gid) {
            mode >> 3
        } else {
            mode
        };
        if bits & mask == mask {
            return true;
        }
        let dir = mode & 0o170000 == 0o040000;
        if self.capable_over(uid, gid, cap::DAC_OVERRIDE) && (mask & 1 == 0 || dir || mode & 0o111 != 0) {
            return true;
        }
        self.capable_over(uid, gid, cap::DAC_READ_SEARCH) && (mask == 4 || dir && mask & 2 == 0)
    }
}
