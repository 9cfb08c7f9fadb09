//! Who does the guest's data operations: a thread pool, or an io_uring where the host has one. Both take the guest's
//! requests from the submission ring; what an engine does not do itself, [`Service::serve`] does.

mod poller;
mod ring;
#[cfg(test)]
mod tests;
mod threads;

use super::Confine;
use super::rings::Area;
use super::service::Service;
use crate::confined;
use crate::seccomp::Role;
use qlib::ring::{Consumer, SUBMIT};
use std::io;
use std::sync::Arc;

pub use ring::Ring;

/// Threads that serve requests: so many slow ones do not keep others waiting.
const WORKERS: usize = 4;
/// Requests that may wait for readiness at one time; more are refused (ENOMEM).
const MAX_WAITING: usize = 1 << 16;
const STACK: usize = 512 << 10;

/// An engine that is ready to start.
pub enum Engine {
    /// Threads, each in a host call of its own.
    Threads,
    /// An io_uring.
    Ring(Box<Ring>),
}

impl Engine {
    /// The engine that was asked for, or the best the host has, and why.
    ///
    /// # Errors
    /// io_uring was asked for, and the host has none.
    pub fn choose(request: crate::vm::Engine) -> io::Result<(Self, String)> {
        use crate::vm::Engine as Wanted;
        if request == Wanted::Threads {
            return Ok((Self::Threads, "threads: asked for".to_owned()));
        }
        match Ring::new() {
            Ok(ring) => Ok((Self::Ring(Box::new(ring)), "io_uring".to_owned())),
            Err(e) if request == Wanted::IoUring => Err(e),
            Err(e) => Ok((Self::Threads, format!("threads: the host has no io_uring: {e}"))),
        }
    }

    /// Starts serving the submissions of `service`'s guest.
    ///
    /// # Errors
    /// The host's.
    pub fn start(self, service: &Arc<Service>, area: Area, confine: &Confine) -> io::Result<()> {
        let submissions = Consumer::new(area, SUBMIT);
        let spawn = |role: Role, name: String, work: Box<dyn FnOnce() + Send>| {
            let confine = confine.clone();
            confined::spawn(name, STACK, move || confine(role), work)
        };
        match self {
            Self::Threads => threads::start(service, submissions, &spawn),
            Self::Ring(ring) => ring::start(*ring, service, submissions, &spawn),
        }
    }
}

/// Starts a confined thread.
type Spawn<'a> = &'a dyn Fn(Role, String, Box<dyn FnOnce() + Send>) -> io::Result<()>;
