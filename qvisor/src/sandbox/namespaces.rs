//! Enters the namespaces a container asks for: new ones, and those given by path.

use super::Error;
use crate::error::Context;
use crate::sys;
use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType as Type, Spec};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::thread::UnshareFlags;

/// The namespaces of a configuration, those given by path opened: paths mean nothing once the first is entered.
pub struct Wanted {
    joined: Vec<(Type, OwnedFd)>,
    new: UnshareFlags,
    new_user: bool,
    new_net: bool,
    new_uts: bool,
}

/// Whether the container is to have another user namespace than the caller.
pub fn other_user(spec: &Spec) -> bool {
    let listed = spec.linux().as_ref().and_then(|l| l.namespaces().as_ref());
    listed.into_iter().flatten().any(|n| n.typ() == Type::User)
}

impl Wanted {
    /// Reads and opens what `spec` asks for.
    pub fn of(spec: &Spec) -> Result<Self, Error> {
        // A mount namespace of its own is how a container gets its root; the pid namespace is the jail's.
        let mut wanted = Self {
            joined: Vec::new(),
            new: UnshareFlags::NEWNS,
            new_user: false,
            new_net: false,
            new_uts: false,
        };
        let listed = spec.linux().as_ref().and_then(|l| l.namespaces().as_ref());
        for ns in listed.into_iter().flatten() {
            wanted.add(ns)?;
        }
        Ok(wanted)
    }

    fn add(&mut self, ns: &LinuxNamespace) -> Result<(), Error> {
        // A pid namespace of a container is its guest kernel's: it is joined there.
        if let Some(path) = ns.path().as_ref().filter(|_| ns.typ() != Type::Pid) {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            let fd = rustix::fs::open(path, flags, Mode::empty()).at("open namespace", path)?;
            self.joined.push((ns.typ(), fd));
            return Ok(());
        }
        match ns.typ() {
            Type::User => self.new_user = true,
            Type::Network => {
                self.new_net = true;
                self.new |= UnshareFlags::NEWNET;
            }
            Type::Uts => {
                self.new_uts = true;
                self.new |= UnshareFlags::NEWUTS;
            }
            Type::Ipc => self.new |= UnshareFlags::NEWIPC,
            Type::Cgroup => self.new |= UnshareFlags::NEWCGROUP,
            Type::Mount | Type::Pid | Type::Time => {}
        }
        Ok(())
    }

    /// Enters them all. `mappings` is called once inside a new user namespace and returns when its mappings are
    /// written.
    pub fn enter(self, mappings: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
        let (user, others): (Vec<_>, Vec<_>) = self.joined.into_iter().partition(|(t, _)| *t == Type::User);
        // The user namespace comes first: it owns what is made after it.
        for (_, fd) in &user {
            rustix::thread::move_into_link_name_space(fd.as_fd(), None).doing("join the user namespace")?;
        }
        if self.new_user {
            sys::unshare(UnshareFlags::NEWUSER).doing("make a user namespace")?;
            mappings()?;
        }
        if self.new_user || !user.is_empty() {
            become_root()?;
        }
        for (kind, fd) in &others {
            let what = match kind {
                Type::Network => "join the network namespace",
                Type::Uts => "join the uts namespace",
                Type::Cgroup => "join the cgroup namespace",
                Type::Ipc => "join the ipc namespace",
                _ => "join a namespace",
            };
            rustix::thread::move_into_link_name_space(fd.as_fd(), None).doing(what)?;
        }
        sys::unshare(self.new).doing("make namespaces")?;
        if self.new_net {
            sys::interface_up(b"lo").doing("bring the loopback interface up")?;
        }
        Ok(())
    }

    /// Whether the network namespace is not the host's.
    pub fn own_net(&self) -> bool {
        self.new_net || self.joined.iter().any(|(t, _)| *t == Type::Network)
    }

    /// Whether host and domain name may be set.
    pub fn own_uts(&self) -> bool {
        self.new_uts
    }
}

/// Becomes root of a user namespace, where the creator is nobody in particular.
fn become_root() -> Result<(), Error> {
    use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
    let (uid, gid) = (rustix::process::Uid::ROOT, rustix::process::Gid::ROOT);
    // Refused where setgroups is denied (an unprivileged mapping): the groups stay, unmapped.
    let _ = set_thread_groups(&[]);
    set_thread_res_gid(gid, gid, gid).doing("become group 0 of the user namespace")?;
    set_thread_res_uid(uid, uid, uid).doing("become user 0 of the user namespace")?;
    Ok(())
}
