//! What the host has for one container only: its network namespace and its cgroup, where they are others than the sandbox's.

use alloc::sync::Arc;
use hal::host::{Handle, HostFile};

/// The channel to the host's side of a container.
pub struct Service(HostFile);

/// Who is asked on the host; `None` = the sandbox's own host side.
pub type ServiceRef = Option<Arc<Service>>;

impl Service {
    /// The service behind a handle of the container's specification, which it takes over; none behind [`Handle::NONE`].
    pub fn new(handle: Handle) -> ServiceRef {
        (handle != Handle::NONE).then(|| Arc::new(Self(HostFile::new(handle))))
    }
}

/// What requests to the host bear. It is valid as long as `service` is held.
pub fn handle(service: &ServiceRef) -> Handle {
    service.as_ref().map_or(Handle::NONE, |s| s.0.handle())
}
