//! The jail: what is taken from a process before the guest kernel and its apps run in it.

use crate::error::{Context, OsError};
use crate::seccomp::{self, Role};
use crate::sys;
use qlib::boot::Range;
use rustix::process::{Resource, Rlimit, Signal};
use rustix::thread::{CapabilitySet, CapabilitySets};
use std::os::fd::RawFd;

/// Capabilities the host side keeps to serve file requests of the guest on the container's own mounts.
const BROKER: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID);

/// Capabilities it keeps where the container's own bounding set has them: for sockets (ports below 1024, raw sockets), and
/// for what a file on a shared mount could do outside of the container (device nodes, file capabilities).
const BOUNDED: CapabilitySet = CapabilitySet::NET_BIND_SERVICE
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::SETFCAP);

/// Why a thread or process could not be confined.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A host call failed.
    #[error(transparent)]
    Os(#[from] OsError),
    /// The filter.
    #[error(transparent)]
    Filter(#[from] seccomp::Error),
}

/// Number of capabilities whose bounding-set bits are tried; more than Linux has.
const CAPABILITIES: u32 = 64;

/// Drops every capability for good.
fn drop_all_capabilities() -> Result<(), OsError> {
    for number in 0..CAPABILITIES {
        let Some(one) = CapabilitySet::from_bits(1 << number) else {
            continue;
        };
        // Unknown numbers say EINVAL; without CAP_SETPCAP the set cannot shrink, and then it means nothing either,
        // for no program is ever executed here and no_new_privs is set.
        let _ = rustix::thread::remove_capability_from_bounding_set(one);
    }
    let _ = rustix::thread::clear_ambient_capability_set();
    set_capabilities(CapabilitySet::empty())
}

fn set_capabilities(keep: CapabilitySet) -> Result<(), OsError> {
    let sets = CapabilitySets {
        effective: keep,
        permitted: keep,
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, sets).doing("drop capabilities")
}

/// Confines the calling process, the first of the sandbox's pid namespace, to the descriptors `keep`.
///
/// After this it has no capability, gains none, and dies with the host side.
pub fn confine(keep: &[RawFd]) -> Result<(), OsError> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .doing("tie the jail to its parent")?;
    sys::close_all_but(keep).doing("close descriptors")?;
    sys::default_signal_actions();
    sys::block_signals(false).doing("unblock signals")?;
    set_limits();
    rustix::process::umask(rustix::fs::Mode::empty());
    drop_all_capabilities()?;
    rustix::thread::set_no_new_privs(true).doing("set no_new_privs")?;
    Ok(())
}

/// Resource limits of the jail: the guest keeps its own; the host's must not stand in their way.
fn set_limits() {
    let raise = |resource| {
        let most = rustix::process::getrlimit(resource).maximum;
        let _ = rustix::process::setrlimit(
            resource,
            Rlimit {
                current: most,
                maximum: most,
            },
        );
    };
    // All apps share one host descriptor table.
    let wanted = Rlimit {
        current: Some(1 << 20),
        maximum: Some(1 << 20),
    };
    if rustix::process::setrlimit(Resource::Nofile, wanted).is_err() {
        raise(Resource::Nofile);
    }
    for resource in [
        Resource::Nproc,
        Resource::Memlock,
        Resource::Stack,
        Resource::Sigpending,
        Resource::Fsize,
    ] {
        raise(resource);
    }
    // A core file would be written by the host, with the host's idea of where.
    let _ = rustix::process::setrlimit(
        Resource::Core,
        Rlimit {
            current: Some(0),
            maximum: Some(0),
        },
    );
}

/// Confines the calling process, which is to run the virtual machine and to serve its requests, to the descriptors `keep`.
/// Of the capabilities it keeps what the host side keeps ([`confine_host_side`]).
pub fn confine_machine(keep: &[RawFd], bounding: u64) -> Result<(), OsError> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .doing("tie the jail to its parent")?;
    sys::close_all_but(keep).doing("close descriptors")?;
    sys::default_signal_actions();
    sys::block_signals(false).doing("unblock signals")?;
    set_limits();
    rustix::process::umask(rustix::fs::Mode::empty());
    confine_host_side(bounding)
}

/// Leaves the host side only what serving the guest's requests needs; of [`BOUNDED`] only what the container's own
/// `bounding` set (a mask by capability number) holds.
pub fn confine_host_side(bounding: u64) -> Result<(), OsError> {
    let have = rustix::thread::capabilities(None).doing("read capabilities")?;
    let granted = BOUNDED.intersection(CapabilitySet::from_bits_retain(bounding));
    set_capabilities(have.permitted.intersection(BROKER.union(granted)))?;
    rustix::thread::set_no_new_privs(true).doing("set no_new_privs")
}

/// Confines the calling thread to what `role` needs: its capabilities, of those it has, and its host calls. For good.
pub fn confine_thread(role: Role) -> Result<(), Error> {
    let keep = match role {
        Role::Broker | Role::Worker => BROKER.union(BOUNDED),
        // Without it the host takes set-user-id bits from what is written to; that is the guest kernel's to do.
        Role::Engine => CapabilitySet::FSETID,
        Role::Service => CapabilitySet::NET_RAW,
        _ => CapabilitySet::empty(),
    };
    look_up_once();
    let have = rustix::thread::capabilities(None).doing("read capabilities")?;
    set_capabilities(have.permitted.intersection(keep))?;
    rustix::thread::set_no_new_privs(true).doing("set no_new_privs")?;
    Ok(seccomp::install(&seccomp::thread_filter(role)?)?)
}

/// Has libraries look up what they look up when first asked, by host calls that no list has: the vDSO is found by
/// `prctl(PR_GET_AUXV)` or in `/proc/self/auxv` by whoever first asks for the time, which is the first line of the log.
fn look_up_once() {
    let _ = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
}

/// The filter installer given to the machine.
pub fn install_filter(text: Range) -> Result<(), seccomp::Error> {
    let program = std::mem::ManuallyDrop::new(seccomp::process_filter(text)?);
    // From here on no host call of this program passes, not even the allocator's when it gives memory back.
    seccomp::install(&program)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logging;
    use crate::sandbox::logfile::LogFile;
    use std::process::Command;

    /// Which role [`makes_lines_of_the_log`] takes, and the directory of its log.
    const ROLE: &str = "QUARK_TEST_ROLE";
    const DIRECTORY: &str = "QUARK_TEST_DIRECTORY";
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

    /// Each role in a process of its own, where no library has looked anything up yet.
    #[test]
    fn every_thread_may_make_lines_of_the_log() {
        let directory = std::env::temp_dir().join(format!("quark-lines-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        for old in 0..5 {
            std::fs::write(directory.join(format!("{old}.log")), "old\n").unwrap();
        }
        for role in ROLES {
            let done = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "sandbox::jail::tests::makes_lines_of_the_log"])
                .env(ROLE, format!("{role:?}"))
                .env(DIRECTORY, &directory)
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&done.stdout);
            assert!(
                done.status.success() && said.contains("1 passed"),
                "{role:?}: {}: {said}",
                done.status
            );
        }
        let names = std::fs::read_dir(&directory).unwrap();
        assert_eq!(names.count(), 3, "the oldest logs went");
        let log = std::fs::read_to_string(directory.join("own.log")).unwrap();
        assert!(log.len() <= 4096 && log.ends_with("line 499\"\n"), "{log}");
        std::fs::remove_dir_all(directory).unwrap();
    }

    /// What the test above runs, a filter being for good; by itself it has no role and does nothing.
    #[test]
    fn makes_lines_of_the_log() {
        let (Ok(name), Some(directory)) = (std::env::var(ROLE), std::env::var_os(DIRECTORY)) else {
            return;
        };
        let role = ROLES.into_iter().find(|r| format!("{r:?}") == name).unwrap();
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
        let directory = rustix::fs::open(directory, flags, rustix::fs::Mode::empty()).unwrap();
        confine_thread(role).unwrap();
        // Others than the sandbox's first thread hand their lines on; the file is its alone.
        let mut log = (role == Role::Server).then(|| LogFile::new(directory, "own", 4096, 3));
        for n in 0..500 {
            let line = logging::line(n % 2 == 0, log::Level::Error, "qkernel", &format!("line {n}"));
            assert!(line.contains(&format!("line {n}")));
            if let Some(log) = &mut log {
                log.write(&format!("{line}\n"));
            }
        }
    }

    #[test]
    fn a_confined_process_has_nothing_left() {
        let (read, write) = rustix::pipe::pipe().unwrap();
        use std::os::fd::AsRawFd;
        let keep = [write.as_raw_fd()];
        // The test harness has threads; the child only makes host calls and leaves by _exit.
        let child = sys::fork_into(0).unwrap();
        if child == 0 {
            let verdict = match confine(&keep) {
                Err(_) => b'e',
                Ok(()) => {
                    let caps = rustix::thread::capabilities(None);
                    let none = caps.is_ok_and(|c| c.effective.is_empty() && c.permitted.is_empty());
                    let closed = rustix::io::fcntl_getfd(&read).is_err();
                    let tied = rustix::thread::no_new_privs().unwrap_or(false);
                    if none && closed && tied { b'y' } else { b'n' }
                }
            };
            let _ = rustix::io::write(&write, &[verdict]);
            sys::exit_now(0);
        }
        drop(write);
        let mut byte = [0];
        assert_eq!(rustix::io::read(&read, &mut byte), Ok(1));
        assert_eq!(byte[0], b'y');
        let pid = rustix::process::Pid::from_raw(child);
        rustix::process::waitpid(pid, rustix::process::WaitOptions::empty()).unwrap();
    }
}
