//! Programs: ELF images, scripts, the initial stack.

mod elf;
pub mod exec;
pub mod home;
mod stack;
