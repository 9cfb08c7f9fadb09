//! A sandbox: the process that holds it, its namespaces and mounts, its jail, and how it is commanded.

pub mod client;
mod copyup;
pub mod create;
pub mod init;
mod inside;
pub mod jail;
pub mod join;
mod link;
pub mod logfile;
mod machine;
mod mounts;
mod namespaces;
mod options;
pub mod order;
pub mod protocol;
mod resolve;
mod rootfs;
mod server;
pub mod socket;
pub mod stdio;

pub use machine::kernel_path;

use crate::error::OsError;

/// Why a sandbox could not be made or failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A host call failed.
    #[error(transparent)]
    Os(#[from] OsError),
    /// The container's record could not be kept.
    #[error(transparent)]
    State(#[from] crate::runtime::state::Error),
    /// The configuration cannot be honoured.
    #[error(transparent)]
    Validate(#[from] crate::runtime::validate::Error),
    /// The process object is wrong.
    #[error("config.json: {0}")]
    Process(#[from] crate::runtime::process::Error),
    /// The cgroup could not be made.
    #[error(transparent)]
    Cgroup(#[from] crate::cgroup::Error),
    /// A hook failed.
    #[error(transparent)]
    Hook(#[from] crate::runtime::hooks::Error),
    /// No machine could be chosen.
    #[error(transparent)]
    Platform(#[from] crate::vm::Error),
    /// The process machine could not be prepared.
    #[error(transparent)]
    Machine(#[from] crate::vm::process::Error),
    /// The virtual machine could not be made.
    #[error("virtual machine: {0}")]
    Kvm(#[from] crate::vm::kvm::Error),
    /// The control channel failed.
    #[error(transparent)]
    Link(#[from] link::LinkError),
    /// The sandbox of another container cannot be shared as asked.
    #[error("config.json: linux.namespaces: {0}")]
    Join(String),
    /// A mount cannot be honoured.
    #[error("config.json: mounts[{index}] ({destination}): {why}")]
    Mount {
        /// Index in `mounts`.
        index: usize,
        /// Its destination.
        destination: String,
        /// What is wrong.
        why: String,
    },
    /// The root file system is not there.
    #[error("config.json: root.path: {} is not a directory", .0.display())]
    NoRootfs(std::path::PathBuf),
    /// The host has no kernel image for the guest.
    #[error("no QKernel image found (looked at {0}); set QUARK_KERNEL to its path")]
    NoKernel(String),
    /// What the sandbox process said before it ended.
    #[error("{0}")]
    Told(String),
    /// The sandbox process ended without saying why.
    #[error("the sandbox process ended during start-up ({0})")]
    Died(String),
    /// The guest could not do what it was told.
    #[error("{0}")]
    Guest(String),
    /// The container is in the wrong state for the request.
    #[error("{0}")]
    WrongState(&'static str),
    /// The sandbox process said something that is not in the protocol.
    #[error("unexpected answer of the sandbox process")]
    Protocol,
}
