//! Numbers of the host calls that the allow-lists name, for both architectures.

/// Name, number on x86_64, number on aarch64; `None`: the architecture has no such call.
/// Source: `arch/x86/entry/syscalls/syscall_64.tbl`, `include/uapi/asm-generic/unistd.h`.
#[rustfmt::skip]
const TABLE: &[(&str, Option<u32>, Option<u32>)] = &[
    ("read", Some(0), Some(63)), ("write", Some(1), Some(64)), ("close", Some(3), Some(57)),
    ("fstat", Some(5), Some(80)), ("lseek", Some(8), Some(62)), ("mmap", Some(9), Some(222)),
    ("mprotect", Some(10), Some(226)), ("munmap", Some(11), Some(215)), ("rt_sigaction", Some(13), Some(134)),
    ("rt_sigprocmask", Some(14), Some(135)), ("rt_sigreturn", Some(15), Some(139)), ("ioctl", Some(16), Some(29)),
    ("pread64", Some(17), Some(67)), ("pwrite64", Some(18), Some(68)), ("readv", Some(19), Some(65)),
    ("writev", Some(20), Some(66)), ("sched_yield", Some(24), Some(124)), ("mremap", Some(25), Some(216)),
    ("msync", Some(26), Some(227)), ("mincore", Some(27), Some(232)), ("madvise", Some(28), Some(233)),
    ("nanosleep", Some(35), Some(101)), ("getpid", Some(39), Some(172)), ("sendfile", Some(40), Some(71)),
    ("socket", Some(41), Some(198)), ("connect", Some(42), Some(203)), ("sendto", Some(44), Some(206)),
    ("recvfrom", Some(45), Some(207)), ("sendmsg", Some(46), Some(211)), ("recvmsg", Some(47), Some(212)),
    ("shutdown", Some(48), Some(210)), ("bind", Some(49), Some(200)), ("listen", Some(50), Some(201)),
    ("getsockname", Some(51), Some(204)), ("getpeername", Some(52), Some(205)), ("setsockopt", Some(54), Some(208)),
    ("getsockopt", Some(55), Some(209)), ("clone", Some(56), Some(220)), ("exit", Some(60), Some(93)),
    ("wait4", Some(61), Some(260)), ("fcntl", Some(72), Some(25)), ("fsync", Some(74), Some(82)),
    ("fdatasync", Some(75), Some(83)), ("ftruncate", Some(77), Some(46)), ("fchmod", Some(91), Some(52)),
    ("fchown", Some(93), Some(55)), ("gettimeofday", Some(96), Some(169)), ("rt_sigtimedwait", Some(128), Some(137)),
    ("sigaltstack", Some(131), Some(132)), ("fstatfs", Some(138), Some(44)), ("mlock", Some(149), Some(228)),
    ("munlock", Some(150), Some(229)), ("mlockall", Some(151), Some(230)), ("munlockall", Some(152), Some(231)),
    ("prctl", Some(157), Some(167)), ("getrusage", Some(98), Some(165)), ("geteuid", Some(107), Some(175)),
    ("getegid", Some(108), Some(177)), ("arch_prctl", Some(158), None), ("gettid", Some(186), Some(178)),
    ("lsetxattr", Some(189), Some(6)), ("fsetxattr", Some(190), Some(7)), ("lgetxattr", Some(192), Some(9)),
    ("fgetxattr", Some(193), Some(10)), ("llistxattr", Some(195), Some(12)), ("flistxattr", Some(196), Some(13)),
    ("lremovexattr", Some(198), Some(15)), ("fremovexattr", Some(199), Some(16)), ("futex", Some(202), Some(98)),
    ("sched_setaffinity", Some(203), Some(122)), ("sched_getaffinity", Some(204), Some(123)),
    ("getdents64", Some(217), Some(61)), ("set_tid_address", Some(218), Some(96)),
    ("restart_syscall", Some(219), Some(128)), ("fadvise64", Some(221), Some(223)),
    ("clock_gettime", Some(228), Some(113)), ("clock_getres", Some(229), Some(114)),
    ("clock_nanosleep", Some(230), Some(115)), ("exit_group", Some(231), Some(94)), ("epoll_wait", Some(232), None),
    ("epoll_ctl", Some(233), Some(21)), ("tgkill", Some(234), Some(131)), ("waitid", Some(247), Some(95)),
    ("openat", Some(257), Some(56)), ("mkdirat", Some(258), Some(34)), ("mknodat", Some(259), Some(33)),
    ("fchownat", Some(260), Some(54)), ("newfstatat", Some(262), Some(79)), ("unlinkat", Some(263), Some(35)),
    ("linkat", Some(265), Some(37)), ("symlinkat", Some(266), Some(36)), ("readlinkat", Some(267), Some(78)),
    ("fchmodat", Some(268), Some(53)), ("ppoll", Some(271), Some(73)), ("sync_file_range", Some(277), Some(84)),
    ("utimensat", Some(280), Some(88)), ("epoll_pwait", Some(281), Some(22)), ("fallocate", Some(285), Some(47)),
    ("accept4", Some(288), Some(242)), ("eventfd2", Some(290), Some(19)), ("epoll_create1", Some(291), Some(20)),
    ("preadv", Some(295), Some(69)), ("pwritev", Some(296), Some(70)), ("recvmmsg", Some(299), Some(243)),
    ("syncfs", Some(306), Some(267)), ("sendmmsg", Some(307), Some(269)), ("getcpu", Some(309), Some(168)),
    ("renameat2", Some(316), Some(276)), ("getrandom", Some(318), Some(278)), ("memfd_create", Some(319), Some(279)),
    ("membarrier", Some(324), Some(283)), ("mlock2", Some(325), Some(284)), ("copy_file_range", Some(326), Some(285)),
    ("preadv2", Some(327), Some(286)), ("pwritev2", Some(328), Some(287)), ("pkey_mprotect", Some(329), Some(288)),
    ("pkey_alloc", Some(330), Some(289)), ("pkey_free", Some(331), Some(290)), ("statx", Some(332), Some(291)),
    ("rseq", Some(334), Some(293)), ("openat2", Some(437), Some(437)), ("epoll_pwait2", Some(441), Some(441)),
    ("futex_waitv", Some(449), Some(449)), ("fchmodat2", Some(452), Some(452)), ("brk", Some(12), Some(214)),
    ("kill", Some(62), Some(129)), ("tkill", Some(200), Some(130)), ("renameat", Some(264), Some(38)),
    ("io_uring_enter", Some(426), Some(426)),
];

/// An architecture as seccomp names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arch {
    /// AMD and Intel, 64 bits.
    X86_64,
    /// ARM, 64 bits.
    Aarch64,
}

impl Arch {
    /// The one this program runs on.
    pub fn host() -> Self {
        if std::env::consts::ARCH == "aarch64" {
            Self::Aarch64
        } else {
            Self::X86_64
        }
    }

    /// `AUDIT_ARCH_*`. Source: `include/uapi/linux/audit.h`.
    pub const fn audit(self) -> u32 {
        match self {
            Self::X86_64 => 0xc000_003e,
            Self::Aarch64 => 0xc000_00b7,
        }
    }
}

/// What is known of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Number {
    /// The call's number.
    Is(u32),
    /// The architecture has no such call.
    Absent,
    /// No call of this name is known.
    Unknown,
}

/// The name of host call `number` on `arch`, if the lists know it.
pub fn name(arch: Arch, number: u32) -> Option<&'static str> {
    let found = TABLE.iter().find(|(_, x86, arm)| match arch {
        Arch::X86_64 => *x86 == Some(number),
        Arch::Aarch64 => *arm == Some(number),
    });
    found.map(|(name, ..)| *name)
}

/// The number of host call `name` on `arch`.
pub fn number(arch: Arch, name: &str) -> Number {
    match TABLE.iter().find(|(n, ..)| *n == name) {
        None => Number::Unknown,
        Some((_, x86, arm)) => match (arch, x86, arm) {
            (Arch::X86_64, Some(n), _) | (Arch::Aarch64, _, Some(n)) => Number::Is(*n),
            _ => Number::Absent,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_is_given_twice() {
        for arch in [Arch::X86_64, Arch::Aarch64] {
            let mut all: Vec<Number> = TABLE
                .iter()
                .map(|(n, ..)| number(arch, n))
                .filter(|n| *n != Number::Absent)
                .collect();
            let count = all.len();
            all.sort_by_key(|n| if let Number::Is(v) = n { *v } else { 0 });
            all.dedup();
            assert_eq!(all.len(), count);
        }
    }

    #[test]
    fn numbers_agree_with_the_c_library() {
        for (name, expected) in [
            ("openat", libc::SYS_openat),
            ("clone", libc::SYS_clone),
            ("futex", libc::SYS_futex),
            ("ioctl", libc::SYS_ioctl),
            ("socket", libc::SYS_socket),
            ("mmap", libc::SYS_mmap),
            ("ppoll", libc::SYS_ppoll),
            ("prctl", libc::SYS_prctl),
            ("statx", libc::SYS_statx),
            ("exit_group", libc::SYS_exit_group),
            ("rt_sigreturn", libc::SYS_rt_sigreturn),
            ("renameat2", libc::SYS_renameat2),
            ("fcntl", libc::SYS_fcntl),
            ("tgkill", libc::SYS_tgkill),
            ("wait4", libc::SYS_wait4),
            ("getdents64", libc::SYS_getdents64),
            ("rseq", libc::SYS_rseq),
            ("pkey_mprotect", libc::SYS_pkey_mprotect),
            ("fallocate", libc::SYS_fallocate),
            ("recvmmsg", libc::SYS_recvmmsg),
            ("sendmmsg", libc::SYS_sendmmsg),
            ("syncfs", libc::SYS_syncfs),
            ("brk", libc::SYS_brk),
            ("kill", libc::SYS_kill),
            ("tkill", libc::SYS_tkill),
            ("renameat", libc::SYS_renameat),
            ("io_uring_enter", libc::SYS_io_uring_enter),
            ("epoll_pwait", libc::SYS_epoll_pwait),
        ] {
            assert_eq!(number(Arch::host(), name), Number::Is(expected as u32), "{name}");
        }
    }
}
