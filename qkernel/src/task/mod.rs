//! Processes and their threads (tasks).

pub mod clone;
pub mod cpus;
pub mod creds;
pub mod exit;
pub mod inspect;
pub mod pidfd;
pub mod policy;
pub mod process;
pub mod table;
#[allow(clippy::module_inception)]
pub mod task;
pub mod wait;

pub use process::{Process, Session};
pub use task::Task;

use alloc::sync::Arc;

/// The calling task; `None` on kernel threads.
pub fn current() -> Option<Arc<Task>> {
    hal::thread::current().data_arc::<Task>()
}

/// Whether an interruptible wait of the calling thread must end: a signal can be delivered, or the task is killed.
pub fn interrupted() -> bool {
    hal::thread::current()
        .data::<Task>()
        .is_some_and(|t| t.interrupted())
}

/// Whether the calling task is being killed.
pub fn killed() -> bool {
    hal::thread::current().data::<Task>().is_some_and(|t| t.killed())
}
