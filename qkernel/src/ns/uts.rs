//! Host names. Source: `uts_namespaces(7)`.

use super::Id;
use super::user::UserRef;
use alloc::sync::Arc;
use alloc::vec::Vec;
use hal::sync::SpinLock;

/// A host name and a domain name.
pub struct UtsNs {
    /// Its number.
    pub id: Id,
    /// Whose capabilities count.
    pub owner: UserRef,
    names: SpinLock<(Vec<u8>, Vec<u8>)>,
}

impl UtsNs {
    /// One without names, the first user namespace's.
    pub fn new(id: Id) -> Self {
        Self {
            id,
            owner: None,
            names: SpinLock::default(),
        }
    }
    /// A copy for `owner`.
    pub fn copy(&self, owner: UserRef) -> Arc<Self> {
        Arc::new(Self {
            id: Id::new(),
            owner,
            names: SpinLock::new(self.names()),
        })
    }
    /// Host name and domain name.
    pub fn names(&self) -> (Vec<u8>, Vec<u8>) {
        self.names.lock().clone()
    }
    /// Sets one of them.
    pub fn set(&self, domain: bool, name: &[u8]) {
        let mut names = self.names.lock();
        let slot = if domain { &mut names.1 } else { &mut names.0 };
        *slot = name.to_vec();
    }
}
