//! Networks. Source: `network_namespaces(7)`.
//!
//! Inet and netlink sockets are the host's, in a network namespace of the host that a container came with: the guest cannot make
//! one. A socket of the host stays in the namespace where it was made; what the guest keeps of a network by itself is here.

use super::Id;
use super::service::{self, ServiceRef};
use super::user::UserRef;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use hal::host::{self, HostFile};
use hal::sync::SpinLock;
use qlib::Errno;

/// A network.
pub struct NetNs {
    /// Its number.
    pub id: Id,
    /// Whose capabilities count.
    pub owner: UserRef,
    /// Who makes its sockets and has its tables.
    pub service: ServiceRef,
    /// Settings below `net/` that were changed, by path. Innermost lock.
    pub settings: SpinLock<BTreeMap<&'static str, String>>,
}

impl NetNs {
    /// The sandbox's.
    pub fn first() -> Self {
        Self::with(Id(super::FIRST_NET), None, None)
    }
    /// A container's own, whose host side is `service`.
    pub fn new(owner: UserRef, service: ServiceRef) -> Arc<Self> {
        Arc::new(Self::with(Id::new(), owner, service))
    }
    fn with(id: Id, owner: UserRef, service: ServiceRef) -> Self {
        Self {
            id,
            owner,
            service,
            settings: SpinLock::new(BTreeMap::new()),
        }
    }
    /// Makes a socket of the host in it.
    ///
    /// # Errors
    /// As `socket(2)`; EIO when the container's host side is gone.
    pub fn socket(&self, domain: u32, kind: u32, protocol: u32) -> Result<HostFile, Errno> {
        host::socket(service::handle(&self.service), domain, kind, protocol)
    }
}

/// The calling task's network.
pub fn current() -> Arc<NetNs> {
    super::current().net.clone()
}

#[cfg(test)]
mod tests;
