//! The OCI side: the bundle's `config.json`, a container's state on disk, hooks, signals.

pub mod config;
pub mod hooks;
pub mod process;
pub mod signal;
pub mod state;
pub mod template;
pub mod validate;
