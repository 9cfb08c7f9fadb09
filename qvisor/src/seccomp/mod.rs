//! The filters that confine the sandbox's host calls: allow-lists kept as data (`*.json`), compiled to BPF; and the
//! container's own profile ([`profile`]), which the guest kernel enforces on the app.

mod compile;
mod names;
pub mod profile;

use compile::{Condition, MAX_INSTRUCTIONS, Rule};
use libc::sock_filter;
use names::{Arch, Number};
use qlib::boot::Range;
use serde::Deserialize;
use std::collections::BTreeMap;

/// The allow-list of the `process` machine.
const PROCESS: &str = include_str!("process.json");

/// Why a filter could not be made or installed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The allow-list is not well-formed.
    #[error("seccomp allow-list: {0}")]
    List(#[from] serde_json::Error),
    /// The allow-list names a call that does not exist.
    #[error("seccomp allow-list: unknown host call {0}")]
    Unknown(String),
    /// The allow-list has a number that is none.
    #[error("seccomp allow-list: {0}: bad number or argument")]
    Number(String),
    /// The program is longer than the kernel takes.
    #[error("seccomp allow-list: too long")]
    TooLong,
    /// The host refused the filter.
    #[error("cannot install the seccomp filter: {0}")]
    Install(#[from] std::io::Error),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    #[serde(rename = "about")]
    _about: Vec<String>,
    allow: Vec<String>,
    checked: Vec<Checked>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Checked {
    name: String,
    #[serde(rename = "why", default)]
    _why: String,
    when: Vec<When>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct When {
    arg: u32,
    #[serde(rename = "in", default)]
    values: Vec<String>,
    mask: Option<String>,
    eq: Option<String>,
}

fn parse_number(name: &str, text: &str) -> Result<u32, Error> {
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| Error::Number(name.to_owned()))
}

fn condition(name: &str, when: &When) -> Result<Condition, Error> {
    let bad = || Error::Number(name.to_owned());
    let (mask, values) = match (&when.mask, &when.eq, when.values.as_slice()) {
        (Some(mask), Some(eq), []) => (parse_number(name, mask)?, vec![parse_number(name, eq)?]),
        (None, None, [_, ..]) => (
            u32::MAX,
            when.values
                .iter()
                .map(|v| parse_number(name, v))
                .collect::<Result<_, _>>()?,
        ),
        _ => return Err(bad()),
    };
    if when.arg > 5 {
        return Err(bad());
    }
    Ok(Condition {
        arg: when.arg,
        mask,
        values,
    })
}

/// Reads an allow-list into rules by call number of `arch`.
fn rules(arch: Arch, list: &str) -> Result<BTreeMap<u32, Rule>, Error> {
    let list: List = serde_json::from_str(list)?;
    let mut rules = BTreeMap::new();
    for name in &list.allow {
        match names::number(arch, name) {
            Number::Is(number) => {
                rules.insert(number, Rule::new());
            }
            Number::Absent => {}
            Number::Unknown => return Err(Error::Unknown(name.clone())),
        }
    }
    for entry in &list.checked {
        // An entry without conditions, or for a call that is allowed anyway, would check nothing.
        if entry.when.is_empty() || list.allow.contains(&entry.name) {
            return Err(Error::Number(entry.name.clone()));
        }
        let conditions = entry
            .when
            .iter()
            .map(|w| condition(&entry.name, w))
            .collect::<Result<Vec<_>, _>>()?;
        match names::number(arch, &entry.name) {
            Number::Is(number) => rules.entry(number).or_insert_with(Rule::new).push(conditions),
            Number::Absent => {}
            Number::Unknown => return Err(Error::Unknown(entry.name.clone())),
        }
    }
    Ok(rules)
}

/// The filter of the `process` machine: calls from outside `text` raise SIGSYS, calls from inside are checked against
/// the allow-list, whoever makes them; what is not allowed kills the process.
pub fn process_filter(text: Range) -> Result<Vec<sock_filter>, Error> {
    let arch = Arch::host();
    let program = compile::compile(arch, text, &rules(arch, PROCESS)?);
    if program.len() > MAX_INSTRUCTIONS {
        Err(Error::TooLong)
    } else {
        Ok(program)
    }
}

/// Installs a filter on the calling thread and all it will create.
pub fn install(program: &[sock_filter]) -> Result<(), Error> {
    Ok(crate::sys::install_filter(program)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys;
    use rustix::process::{Pid, WaitOptions, waitpid};

    const EVERYWHERE: Range = Range {
        start: 0,
        end: u64::MAX,
    };

    fn verdict(nr: i64, args: [u64; 6]) -> u32 {
        let program = process_filter(EVERYWHERE).unwrap();
        compile::tests::interpret(&program, Arch::host().audit(), nr as u32, 0x1000, args)
    }

    fn allowed(nr: i64, args: &[u64]) -> bool {
        let mut all = [0; 6];
        all[..args.len()].copy_from_slice(args);
        verdict(nr, all) == libc::SECCOMP_RET_ALLOW
    }

    #[test]
    fn both_architectures_compile() {
        for arch in [Arch::X86_64, Arch::Aarch64] {
            let program = compile::compile(arch, EVERYWHERE, &rules(arch, PROCESS).unwrap());
            assert!(program.len() < 1200, "{}", program.len());
        }
    }

    #[test]
    fn the_dangerous_calls_are_not_on_the_list() {
        for nr in [
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_process_vm_writev,
            libc::SYS_mount,
            libc::SYS_umount2,
            libc::SYS_pivot_root,
            libc::SYS_chroot,
            libc::SYS_move_mount,
            libc::SYS_open_tree,
            libc::SYS_fsopen,
            libc::SYS_bpf,
            libc::SYS_io_uring_setup,
            libc::SYS_io_uring_enter,
            libc::SYS_userfaultfd,
            libc::SYS_perf_event_open,
            libc::SYS_keyctl,
            libc::SYS_add_key,
            libc::SYS_unshare,
            libc::SYS_setns,
            libc::SYS_clone3,
            libc::SYS_kill,
            libc::SYS_pidfd_open,
            libc::SYS_pidfd_getfd,
            libc::SYS_pidfd_send_signal,
            libc::SYS_open_by_handle_at,
            libc::SYS_name_to_handle_at,
            libc::SYS_kexec_load,
            libc::SYS_init_module,
            libc::SYS_finit_module,
            libc::SYS_reboot,
            libc::SYS_swapon,
            libc::SYS_settimeofday,
            libc::SYS_clock_settime,
            libc::SYS_seccomp,
            libc::SYS_personality,
            libc::SYS_setuid,
            libc::SYS_capset,
            libc::SYS_kcmp,
            libc::SYS_prlimit64,
        ] {
            assert!(!allowed(nr, &[]), "call {nr}");
        }
    }

    #[test]
    fn arguments_are_checked() {
        let clone = libc::SYS_clone;
        assert!(allowed(clone, &[libc::SIGCHLD as u64]));
        let thread =
            libc::CLONE_VM | libc::CLONE_THREAD | libc::CLONE_SIGHAND | libc::CLONE_FILES | libc::CLONE_FS;
        assert!(allowed(clone, &[thread as u64]));
        for flag in [
            libc::CLONE_NEWNS,
            libc::CLONE_NEWUSER,
            libc::CLONE_NEWPID,
            libc::CLONE_NEWNET,
            libc::CLONE_NEWIPC,
            libc::CLONE_NEWUTS,
            libc::CLONE_NEWCGROUP,
            libc::CLONE_PTRACE,
        ] {
            assert!(!allowed(clone, &[(flag | libc::SIGCHLD) as u64]), "{flag:#x}");
        }
        let socket = libc::SYS_socket;
        let cloexec = libc::SOCK_CLOEXEC as u64;
        assert!(allowed(socket, &[libc::AF_INET as u64, 1 | cloexec, 6]));
        assert!(allowed(socket, &[libc::AF_INET6 as u64, 2 | cloexec, 0]));
        assert!(allowed(socket, &[libc::AF_UNIX as u64, 5, 0]));
        assert!(allowed(socket, &[libc::AF_NETLINK as u64, 3, 0]));
        assert!(!allowed(
            socket,
            &[libc::AF_NETLINK as u64, 3, libc::NETLINK_AUDIT as u64]
        ));
        for family in [
            libc::AF_PACKET,
            libc::AF_VSOCK,
            libc::AF_ALG,
            libc::AF_XDP,
            libc::AF_TIPC,
            libc::AF_RDS,
        ] {
            assert!(!allowed(socket, &[family as u64, 1, 0]), "{family}");
        }
        assert!(!allowed(
            socket,
            &[libc::AF_INET as u64, libc::SOCK_RAW as u64, 1]
        ));
        assert!(!allowed(libc::SYS_ioctl, &[0, libc::TIOCSTI as u64]));
        assert!(!allowed(libc::SYS_ioctl, &[0, libc::TIOCSCTTY as u64]));
        assert!(allowed(libc::SYS_ioctl, &[0, libc::FIONREAD as u64]));
        assert!(!allowed(libc::SYS_prctl, &[libc::PR_SET_SECCOMP as u64]));
        assert!(allowed(libc::SYS_prctl, &[libc::PR_SET_NAME as u64]));
        assert!(!allowed(libc::SYS_fcntl, &[0, libc::F_SETOWN as u64]));
        assert!(allowed(libc::SYS_fcntl, &[0, libc::F_DUPFD_CLOEXEC as u64]));
    }

    /// Runs `work` in a child under the real filter; gives how the child ended.
    fn under_filter(text: Range, work: fn()) -> (Option<i32>, Option<i32>) {
        let program = process_filter(text).unwrap();
        let child = sys::fork_into(0).unwrap();
        if child == 0 {
            if rustix::thread::set_no_new_privs(true).is_err() || install(&program).is_err() {
                sys::exit_now(99);
            }
            work();
            sys::exit_now(7);
        }
        let (_, status) = waitpid(Pid::from_raw(child), WaitOptions::empty())
            .unwrap()
            .unwrap();
        (status.exit_status(), status.terminating_signal())
    }

    #[test]
    fn the_kernel_enforces_it() {
        let fine = under_filter(EVERYWHERE, || {
            // QKernel opens by openat(2); open(2) is not in the list.
            let (path, mode) = (rustix::fs::OFlags::PATH, rustix::fs::Mode::empty());
            let _ = rustix::fs::openat(rustix::fs::CWD, "/", path, mode);
            let _ = rustix::process::getpid();
        });
        assert_eq!(fine, (Some(7), None));
        let unshare = under_filter(EVERYWHERE, || {
            let _ = sys::unshare(rustix::thread::UnshareFlags::NEWNS);
        });
        assert_eq!(unshare, (None, Some(libc::SIGSYS)));
        let fork = under_filter(EVERYWHERE, || {
            let _ = sys::fork_into(libc::CLONE_NEWUSER);
        });
        assert_eq!(fork, (None, Some(libc::SIGSYS)));
    }

    #[test]
    fn calls_from_outside_the_text_raise_a_signal() {
        // No call of this program comes from there, so even exit_group traps.
        let nowhere = Range {
            start: 0x1000,
            end: 0x2000,
        };
        assert_eq!(under_filter(nowhere, || {}), (None, Some(libc::SIGSYS)));
    }
}
