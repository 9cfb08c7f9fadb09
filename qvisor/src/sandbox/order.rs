//! What `create` hands to the sandbox process it starts, and what that process answers.

use super::join::Join;
use crate::vm;
use oci_spec::runtime::Spec;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Everything the sandbox process needs to know. Handed over in a memory file.
#[derive(Serialize, Deserialize)]
pub struct Order {
    /// Container id.
    pub id: String,
    /// The container's directory.
    pub state_dir: PathBuf,
    /// The bundle.
    pub bundle: PathBuf,
    /// The root file system, absolute.
    pub rootfs: PathBuf,
    /// The root is an overlay in memory over `rootfs`, which stays untouched.
    pub overlay: bool,
    /// The configuration.
    pub spec: Spec,
    /// The machine: `kvm` or `process`.
    pub platform: String,
    /// Who does the data operations of a `kvm` guest.
    pub engine: vm::Engine,
    /// Call sites of the apps are patched, where the machine can.
    pub patch_calls: bool,
    /// Directories of the cgroup.
    pub cgroups: Vec<PathBuf>,
    /// Descriptor of the socket the answers go to.
    pub sync_fd: i32,
    /// Descriptor of the socket that gets the terminal's master.
    pub console_fd: Option<i32>,
    /// Descriptors 3 … 3+n-1 go to the container's process.
    pub preserve_fds: u32,
    /// Whether `prestart` or `createRuntime` hooks are to be run by the creator.
    pub runtime_hooks: bool,
    /// Log level of host and guest: 0 off … 5 trace.
    pub log_level: u32,
    /// Descriptor of the log file, if any.
    pub log_fd: Option<i32>,
    /// The log's lines are JSON.
    pub log_json: bool,
    /// The sandbox's own log, if it keeps one.
    pub own_log: Option<OwnLog>,
    /// The sandbox it is to join instead of having one of its own.
    pub join: Option<Join>,
    /// The guest kernel's image that the operator set.
    pub kernel: Option<PathBuf>,
}

/// How a sandbox keeps its own log.
#[derive(Serialize, Deserialize)]
pub struct OwnLog {
    /// Descriptor of the directory.
    pub dir_fd: i32,
    /// 1 errors … 5 trace.
    pub level: u32,
    /// Most bytes.
    pub max_bytes: u64,
    /// Most logs in the directory.
    pub keep: u64,
}

/// What the sandbox process says to its creator; JSON, one message each.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Its user namespace needs its mappings.
    NeedMappings,
    /// Its namespaces are there: the creator runs the runtime hooks.
    NeedHooks,
    /// The process of this number starts those of the container: it belongs into the container's cgroup.
    NeedCgroup(u32),
    /// The container is created.
    Created,
    /// It could not be created.
    Failed(String),
}

/// One byte of the creator's: go on.
pub const GO: u8 = b'g';
