//! The lists say what they must, and the kernel holds them.

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
        let program = compile::compile(arch, Some(EVERYWHERE), &rules(arch, Role::Process).unwrap());
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
    let layout = |what: i32| allowed(libc::SYS_prctl, &[libc::PR_SET_MM as u64, what as u64]);
    assert!(layout(libc::PR_SET_MM_MAP) && !layout(libc::PR_SET_MM_EXE_FILE));
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

const ROLES: [Role; 10] = [
    Role::Server,
    Role::Broker,
    Role::Keeper,
    Role::Vcpu,
    Role::Worker,
    Role::Poll,
    Role::Control,
    Role::Engine,
    Role::Relay,
    Role::Service,
];

fn role_allows(role: Role, nr: i64, args: &[u64]) -> bool {
    let mut all = [0; 6];
    all[..args.len()].copy_from_slice(args);
    let program = thread_filter(role).unwrap();
    compile::tests::interpret(&program, Arch::host().audit(), nr as u32, 0x1000, all)
        == libc::SECCOMP_RET_ALLOW
}

#[test]
fn every_threads_list_compiles_on_both_architectures() {
    for role in ROLES {
        for arch in [Arch::X86_64, Arch::Aarch64] {
            let program = compile::compile(arch, None, &rules(arch, role).unwrap());
            assert!(program.len() < 1200, "{role:?}: {}", program.len());
        }
    }
}

#[test]
fn no_thread_may_do_what_breaks_out() {
    for role in ROLES {
        for nr in [
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_clone,
            libc::SYS_clone3,
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_process_vm_writev,
            libc::SYS_mount,
            libc::SYS_umount2,
            libc::SYS_pivot_root,
            libc::SYS_chroot,
            libc::SYS_setns,
            libc::SYS_unshare,
            libc::SYS_bpf,
            libc::SYS_io_uring_setup,
            libc::SYS_io_uring_register,
            libc::SYS_userfaultfd,
            libc::SYS_perf_event_open,
            libc::SYS_keyctl,
            libc::SYS_kexec_load,
            libc::SYS_init_module,
            libc::SYS_finit_module,
            libc::SYS_pidfd_open,
            libc::SYS_pidfd_getfd,
            libc::SYS_pidfd_send_signal,
            libc::SYS_open_by_handle_at,
            libc::SYS_setuid,
            libc::SYS_capset,
            libc::SYS_prctl,
            libc::SYS_seccomp,
            libc::SYS_tgkill,
        ] {
            assert!(!role_allows(role, nr, &[]), "{role:?}: call {nr}");
        }
        let exec = libc::PROT_EXEC as u64;
        for nr in [libc::SYS_mmap, libc::SYS_mprotect] {
            assert!(!role_allows(role, nr, &[0, 4096, exec]), "{role:?}");
            assert!(role_allows(role, nr, &[0, 4096, 3]), "{role:?}");
        }
        assert!(
            !role_allows(role, libc::SYS_kill, &[1, libc::SIGTERM as u64]),
            "{role:?}"
        );
        assert!(
            !role_allows(role, libc::SYS_ioctl, &[0, libc::TIOCSTI as u64]),
            "{role:?}"
        );
        assert!(
            !role_allows(role, libc::SYS_socket, &[libc::AF_PACKET as u64]),
            "{role:?}"
        );
        // Its own end, also by a panic, is nobody's to forbid.
        assert!(role_allows(role, libc::SYS_exit_group, &[]), "{role:?}");
        assert!(
            role_allows(role, libc::SYS_tkill, &[1, libc::SIGABRT as u64]),
            "{role:?}"
        );
    }
}

#[test]
fn a_threads_list_is_its_own() {
    for role in ROLES {
        let serves = matches!(role, Role::Broker | Role::Worker | Role::Service);
        assert_eq!(role_allows(role, libc::SYS_openat2, &[]), serves, "{role:?}");
        assert_eq!(
            role_allows(role, libc::SYS_socket, &[libc::AF_INET as u64]),
            serves,
            "{role:?}"
        );
        // Names are changed, and sockets used, by those who serve everything.
        let all = serves && role != Role::Service;
        for nr in [libc::SYS_unlinkat, libc::SYS_pwrite64, libc::SYS_connect] {
            let server = role == Role::Server && nr == libc::SYS_unlinkat;
            assert_eq!(role_allows(role, nr, &[]), all || server, "{role:?}: call {nr}");
        }
        let audit = [libc::AF_NETLINK as u64, 3, libc::NETLINK_AUDIT as u64];
        assert!(!role_allows(role, libc::SYS_socket, &audit), "{role:?}");
        let server = role == Role::Server;
        assert_eq!(role_allows(role, libc::SYS_openat, &[]), server, "{role:?}");
        assert_eq!(
            role_allows(role, libc::SYS_kill, &[1, libc::SIGKILL as u64]),
            server,
            "{role:?}"
        );
        let runs = role_allows(role, libc::SYS_ioctl, &[0, 0xae80]);
        assert_eq!(runs, role == Role::Vcpu, "{role:?}");
        let enters = role_allows(role, libc::SYS_io_uring_enter, &[]);
        assert_eq!(enters, role == Role::Engine, "{role:?}");
    }
}

/// Runs `work` in a child under the filter of `role`; gives how the child ended.
fn in_role(role: Role, work: fn()) -> (Option<i32>, Option<i32>) {
    let program = thread_filter(role).unwrap();
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
fn the_kernel_enforces_every_threads_list() {
    for role in ROLES {
        let fine = in_role(role, || {
            // The child of a process with threads: it must not allocate.
            std::thread::sleep(std::time::Duration::from_millis(1));
        });
        assert_eq!(fine, (Some(7), None), "{role:?}");
        let forbidden = in_role(role, || {
            let _ = sys::unshare(rustix::thread::UnshareFlags::NEWNS);
        });
        assert_eq!(forbidden, (None, Some(libc::SIGSYS)), "{role:?}");
        let abort = in_role(role, || std::process::abort());
        assert_eq!(
            abort,
            (None, Some(libc::SIGABRT)),
            "{role:?}: a panic's end is told as such"
        );
    }
}
