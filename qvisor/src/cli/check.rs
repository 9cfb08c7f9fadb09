//! `quark check`: what this host can do, in plain words.

use super::{Error, Global};
use crate::settings::Settings;
use crate::vm::{self, Kvm, Platform};

/// `quark check`.
pub fn main(global: &Global) -> Result<i32, Error> {
    match vm::probe() {
        Kvm::Usable { finding } => println!("kvm:      usable: {finding}"),
        Kvm::Unusable { finding } => println!("kvm:      not usable: {finding}"),
    }
    println!("process:  usable: needs no hardware virtualization");
    let settings = Settings::load()?;
    let choice =
        vm::choose(global.platform.unwrap_or(settings.platform)).map_err(crate::sandbox::Error::from)?;
    println!("chosen:   {} ({})", choice.platform, choice.reason);
    match choice.platform {
        Platform::Kvm => {
            println!("engine:   {}", vm::kvm::describe_engine(global.engine));
            println!("A sandbox is a virtual machine; its guest kernel runs in guest ring 0 or EL1.");
        }
        Platform::Process => println!(
            "A sandbox is a set of confined host processes; its guest kernel answers their system calls inside them."
        ),
    }
    match crate::sandbox::kernel_path(settings.kernel.as_deref()) {
        Ok(path) => println!("kernel:   {}", path.display()),
        Err(e) => println!("kernel:   {e}"),
    }
    Ok(0)
}
