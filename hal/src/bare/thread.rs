//! Threads of the bare machine.

/// What the bare scheduler keeps of a thread.
#[derive(Default)]
pub(crate) struct ThreadState {}
