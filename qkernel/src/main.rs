//! QKernel image.
fn main() {}
