//! The machines QKernel runs on, and which of them this host has.

pub mod kvm;
pub mod process;

use std::fmt;

/// A kind of machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Platform {
    /// A virtual machine on `/dev/kvm`.
    Kvm,
    /// No hardware virtualization: the kernel inside the sandbox's own processes.
    Process,
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Platform::Kvm => "kvm",
            Platform::Process => "process",
        })
    }
}

/// What a person asked for with `--platform`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Request {
    /// Whatever the measurement says.
    #[default]
    Auto,
    /// The virtual machine, or an error.
    Kvm,
    /// The process machine.
    Process,
}

/// Who does the data operations of a virtual machine's guest.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, serde::Serialize, serde::Deserialize,
)]
pub enum Engine {
    /// io_uring where the host has it.
    #[default]
    Auto,
    /// An io_uring, or an error.
    #[value(name = "io_uring")]
    IoUring,
    /// A pool of threads.
    Threads,
}

/// How system calls enter the guest kernel on the process machine (`--call-sites`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum CallSites {
    /// Each by a trap.
    #[default]
    Trap,
    /// Call sites of known shapes are patched into jumps.
    Patch,
}

/// A chosen machine and why, in a sentence for a person.
#[derive(Clone, Debug)]
pub struct Choice {
    /// The machine.
    pub platform: Platform,
    /// Why this one.
    pub reason: String,
}

/// What was found out about `/dev/kvm`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kvm {
    /// It works, as the self-test measured.
    Usable {
        /// What was measured.
        finding: String,
    },
    /// It cannot be used.
    Unusable {
        /// Why not.
        finding: String,
    },
}

/// Why no machine could be chosen.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The machine that was asked for does not work here.
    #[error("--platform=kvm: {0}")]
    NoKvm(String),
}

/// Looks at `/dev/kvm`.
pub fn probe() -> Kvm {
    use rustix::fs::{Mode, OFlags};
    use rustix::io::Errno;
    let finding = match rustix::fs::open("/dev/kvm", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
        Ok(device) => match kvm::probe(device) {
            Ok(finding) => return Kvm::Usable { finding },
            Err(finding) => finding,
        },
        Err(Errno::NOENT) => {
            "/dev/kvm is not present: no hardware virtualization, or its module is not loaded".to_owned()
        }
        Err(Errno::ACCESS | Errno::PERM) => {
            "/dev/kvm is present, but may not be opened by this user".to_owned()
        }
        Err(e) => format!("/dev/kvm cannot be opened: {}", std::io::Error::from(e)),
    };
    Kvm::Unusable { finding }
}

/// Chooses the machine for `request`.
pub fn choose(request: Request) -> Result<Choice, Error> {
    if request == Request::Process {
        return Ok(Choice {
            platform: Platform::Process,
            reason: "it was asked for".to_owned(),
        });
    }
    match (probe(), request) {
        (Kvm::Usable { finding }, _) => Ok(Choice {
            platform: Platform::Kvm,
            reason: finding,
        }),
        (Kvm::Unusable { finding }, Request::Kvm) => Err(Error::NoKvm(finding)),
        (Kvm::Unusable { finding }, _) => Ok(Choice {
            platform: Platform::Process,
            reason: finding,
        }),
    }
}
