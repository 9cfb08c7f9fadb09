//! Networks whose host side is a directory, as the fake machine has it.

use super::super::service::Service;
use super::super::{Any, CgroupNs, Id, new};
use super::*;
use crate::fs::proc::{host_text, sysctl};
use crate::net::tables;
use hal::host::SystemGroup;
use qlib::qcall::HandleId;
use std::os::fd::IntoRawFd;
use std::path::PathBuf;

/// A network with the host side of a directory that has `files`.
fn network(test: &str, files: &[(&str, &str)]) -> (Arc<NetNs>, PathBuf) {
    crate::tests::boot();
    let dir = std::env::temp_dir().join(alloc::format!("quark-net-{test}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    for (name, text) in files {
        let path = dir.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let fd = std::fs::File::open(&dir).unwrap().into_raw_fd();
    (NetNs::new(None, Service::new(HandleId(fd as u64))), dir)
}

#[test]
fn the_containers_own_host_side_is_asked() {
    let (net, dir) = network("asked", &[("socket", ""), ("Net/tcp", "header\n")]);
    assert!(net.socket(2, 1, 0).is_ok());
    assert_eq!(
        tables::of_host(&net, "tcp").as_deref(),
        Some(b"header\n".as_slice())
    );
    assert_eq!(tables::of_host(&net, "udp"), None);
    std::fs::remove_dir_all(dir).unwrap();
    // The host side is gone.
    assert!(net.socket(2, 1, 0).is_err());
    assert_eq!(tables::of_host(&net, "tcp"), None);
}

#[test]
fn the_sandboxs_own_is_asked_without_one() {
    crate::tests::boot();
    assert!(Service::new(HandleId::NONE).is_none());
    let net = NetNs::new(None, None);
    // The fake machine has no sockets of its own.
    assert_eq!(net.socket(2, 1, 0).err(), Some(Errno::ENOSYS));
}

#[test]
fn each_has_a_number_of_its_own() {
    let (a, b) = (NetNs::new(None, None), NetNs::new(None, None));
    assert_ne!(a.id, b.id);
    assert_ne!(a.id, super::super::first().net.id);
    let any = Any::Net(a.clone());
    assert_eq!((any.kind(), any.ino(), any.flag()), ("net", a.id.0, new::NET));
    assert_eq!(super::super::first().net.id, Id(super::super::FIRST_NET));
}

#[test]
fn settings_are_its_own() {
    let (net, dir) = network("settings", &[("Proc/sys/net/core/somaxconn", "77\n")]);
    let other = NetNs::new(None, None);
    let path = "net/core/somaxconn";
    assert_eq!(sysctl::get_int_in(&net, path), Some(77));
    assert_eq!(sysctl::get_int_in(&other, path), Some(4096));
    sysctl::set_in(&net, "net.core.somaxconn", "99").unwrap();
    assert_eq!(sysctl::get_int_in(&net, path), Some(99));
    assert_eq!(sysctl::get_int_in(&other, path), Some(4096));
    // What belongs to no network is everybody's.
    sysctl::set_in(&net, "fs.mqueue.queues_max", "255").unwrap();
    assert_eq!(sysctl::get_int_in(&other, "fs/mqueue/queues_max"), Some(255));
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_cgroups_figures_are_the_containers() {
    let (net, dir) = network("cgroup", &[("Cgroup/memory.current", "4096\n")]);
    let cgroup = CgroupNs::new(None, net.service.clone());
    let figure = host_text::string(&cgroup.service, SystemGroup::Cgroup, "memory.current");
    assert_eq!(figure.as_deref(), Some("4096\n"));
    std::fs::remove_dir_all(dir).unwrap();
}
