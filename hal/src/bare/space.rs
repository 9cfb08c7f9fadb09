//! Address spaces of the bare machine.

/// What the pager keeps of an address space.
#[derive(Default)]
pub(crate) struct BareSpace {}
