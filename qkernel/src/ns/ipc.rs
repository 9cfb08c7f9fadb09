//! System V IPC objects and POSIX message queues. Source: `ipc_namespaces(7)`.

use super::Id;
use super::user::UserRef;
use crate::ipc::mqueue::Queues;
use crate::ipc::msgqueue::MsgQueue;
use crate::ipc::semaphore::SemSet;
use crate::ipc::shm::Segment;
use crate::ipc::sysv::Registry;

/// The objects of one namespace.
pub struct IpcNs {
    /// Its number.
    pub id: Id,
    /// Whose capabilities count.
    pub owner: UserRef,
    /// Semaphore sets.
    pub sets: Registry<SemSet>,
    /// Message queues.
    pub queues: Registry<MsgQueue>,
    /// Shared memory.
    pub segments: Registry<Segment>,
    /// POSIX message queues.
    pub posix: Queues,
}

impl IpcNs {
    /// An empty one.
    pub fn new(id: Id, owner: UserRef) -> Self {
        Self {
            id,
            owner,
            sets: Registry::new(),
            queues: Registry::new(),
            segments: Registry::new(),
            posix: Queues::default(),
        }
    }
}
