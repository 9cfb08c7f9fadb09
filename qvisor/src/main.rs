//! `quark`: runs OCI containers, each in a sandbox with a guest kernel of its own.

mod cgroup;
mod cli;
mod confined;
mod error;
mod host;
mod logging;
mod runtime;
mod sandbox;
mod seccomp;
mod settings;
mod sys;
mod vcpu;
mod vm;

fn main() -> std::process::ExitCode {
    std::process::ExitCode::from(cli::main())
}
