//! Quark.
fn main() {}
