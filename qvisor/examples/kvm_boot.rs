//! Boots a kernel image on the kvm machine without a container around it: for tests of the machine.
//! `kvm_boot KERNEL [LOG_LEVEL [CPUS]]`; the exit status is the kernel's.
#![allow(dead_code, unused_imports, clippy::unwrap_used, clippy::expect_used)]

#[path = "../src/confined.rs"]
mod confined;
#[path = "../src/host/mod.rs"]
mod host;
#[path = "../src/seccomp/mod.rs"]
mod seccomp;
#[path = "../src/sandbox/socket.rs"]
mod socket;
#[path = "../src/sys/mod.rs"]
mod sys;
#[path = "../src/vcpu/mod.rs"]
mod vcpu;
#[path = "../src/vm/mod.rs"]
mod vm;
mod sandbox {
    pub(crate) use crate::socket;
}

use std::os::fd::{AsFd, OwnedFd};
use vm::kvm::{Launch, open, prepare};
use vm::process::BootParams;

fn main() {
    let mut args = std::env::args_os().skip(1);
    let path = args.next().expect("usage: kvm_boot KERNEL [LOG_LEVEL [CPUS]]");
    let kernel = std::fs::File::open(path).expect("the kernel image").into();
    let mut number = |or| {
        args.next()
            .and_then(|l| l.to_str().and_then(|l| l.parse().ok()))
            .unwrap_or(or)
    };
    let (log_level, cpus) = (number(3), number(2));
    let (control, _ours) = sandbox::socket::message_pair().expect("a socket pair");
    let log: OwnedFd = std::io::stderr()
        .as_fd()
        .try_clone_to_owned()
        .expect("a descriptor");
    let boot = BootParams {
        cpus,
        log_level,
        memory_limit: 256 << 20,
        pids_limit: u64::MAX,
        patch_calls: false,
    };
    let kvm = open().unwrap_or_else(|e| panic!("{e}"));
    match prepare(Launch {
        kvm,
        kernel,
        boot,
        engine: vm::Engine::Auto,
        control,
        log,
    }) {
        Ok(p) => p.enter(std::sync::Arc::new(|_| Ok(()))),
        Err(e) => panic!("{e}"),
    }
}
