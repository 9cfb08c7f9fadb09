//! Programs: ELF images, scripts, the initial stack.

mod elf;
pub mod exec;
mod stack;
