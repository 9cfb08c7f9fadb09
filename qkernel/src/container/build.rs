//! Sets a container up: its namespaces, its tree of mounts, its filter.

use super::{Container, JOINED, Setup, find, first};
use crate::control::Failure;
use crate::fs::mount;
use crate::ns::mnt::MntNs;
use crate::ns::net::NetNs;
use crate::ns::pid::PidNs;
use crate::ns::service::Service;
use crate::ns::{CgroupNs, Id, Namespaces, ipc::IpcNs, uts::UtsNs};
use crate::seccomp::Mode;
use crate::seccomp::filter::{Chain, Filter};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};
use hal::thread::Nursery;
use qlib::Errno;
use qlib::control::{ContainerId, ContainerSpec, Event};

/// Sets up the container numbered `id` as `spec` says.
///
/// # Errors
/// Why not: EEXIST for one that is there; ESRCH for one it is to share with that is not.
pub fn create(id: ContainerId, spec: ContainerSpec) -> Result<Arc<Container>, Failure> {
    let container = match id {
        ContainerId::FIRST => first().clone(),
        id => Arc::new(Container::new(id, spec.memory_limit, spec.pids_limit)),
    };
    if container.setup.get().is_some() || id != ContainerId::FIRST && find(id).is_some() {
        let why = String::from("the container was created already");
        return Err(Failure(Errno::EEXIST, why));
    }
    let namespaces = namespaces_of(id, &spec)?;
    namespaces.uts.set(false, &spec.hostname);
    namespaces.uts.set(true, &spec.domainname);
    let root = mount::build(&spec, &namespaces).map_err(|e| {
        let path = String::from_utf8_lossy(&e.path).into_owned();
        Failure(e.errno, format!("mounts: {path}: {}", e.errno))
    })?;
    namespaces.mnt.set_top(root.mount.top());
    for s in &spec.sysctls {
        if let Err(e) = crate::fs::set_sysctl(&root, s) {
            let name = String::from_utf8_lossy(s).into_owned();
            let why = format!("linux.sysctl: {name} is not supported by the guest kernel");
            return Err(Failure(e, why));
        }
    }
    crate::control::check_program(&root, &spec.process)?;
    let seccomp = if spec.seccomp.is_empty() {
        Mode::Off
    } else {
        let filter = Filter::from_bytes(&spec.seccomp, spec.seccomp_log)
            .map_err(|e| Failure(e, String::from("linux.seccomp: the filter is malformed")))?;
        Mode::Filter(Arc::new(Chain::with(None, filter)))
    };
    let nursery = match id {
        ContainerId::FIRST => None,
        id => nursery_of(id)?,
    };
    container.setup.call_once(|| Setup {
        root,
        init: spec.process,
        seccomp,
        namespaces,
        first_of_pids: spec.pid_of == id,
        nursery,
    });
    if id != ContainerId::FIRST {
        JOINED.lock().insert(id.0, container.clone());
    }
    Ok(container)
}

/// Has the host start a process where those of container `id` are to be started, and tell QVisor which it is.
fn nursery_of(id: ContainerId) -> Result<Option<Nursery>, Failure> {
    let told = Arc::new(AtomicBool::new(false));
    let there = told.clone();
    let made = Nursery::create(move || {
        hal::thread::set_host_name(b"quark-nursery\0\0\0");
        // QVisor sees on the message which process of the host it comes from.
        crate::control::send(id, &Event::Nursery { pid: 0 });
        there.store(true, Ordering::SeqCst);
    });
    let nursery = made.map_err(|e| {
        let why = format!("no host process can be started for the container: {e}");
        Failure(e, why)
    })?;
    // It is put where it belongs before the container is said to be created.
    while nursery.is_some() && !told.load(Ordering::SeqCst) {
        hal::thread::yield_now();
    }
    Ok(nursery)
}

/// The namespaces that the container's first process starts in.
fn namespaces_of(id: ContainerId, spec: &ContainerSpec) -> Result<Arc<Namespaces>, Failure> {
    if id == ContainerId::FIRST {
        return Ok(crate::ns::first().clone());
    }
    let of = |other: ContainerId| {
        let there = find(other).and_then(|c| c.setup.get().map(|s| s.namespaces.clone()));
        there.ok_or_else(|| {
            let why = String::from("the container whose namespaces it is to share is not there any more");
            Failure(Errno::ESRCH, why)
        })
    };
    let service = Service::new(spec.service);
    let net = match spec.share_network {
        true => crate::ns::first().net.clone(),
        false => NetNs::new(None, service.clone()),
    };
    let pid = match spec.pid_of {
        // Nobody sees who is in it but who is in it: to the sandbox's first container it is not below its own.
        own if own == id => PidNs::apart(),
        other => of(other)?.pid.clone(),
    };
    let ipc = match spec.ipc_of {
        own if own == id => Arc::new(IpcNs::new(Id::new(), None)),
        other => of(other)?.ipc.clone(),
    };
    Ok(Arc::new(Namespaces {
        uts: Arc::new(UtsNs::new(Id::new())),
        ipc,
        mnt: Arc::new(MntNs::unbuilt(Id::new())),
        cgroup: CgroupNs::new(None, service),
        net,
        pid,
    }))
}
