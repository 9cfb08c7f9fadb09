//! Programs: ELF images, scripts, the initial stack.

mod elf;
pub mod exec;
pub mod home;
pub mod privileges;
mod stack;
