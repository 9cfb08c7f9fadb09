//! Host threads as kernel threads.

use super::Fake;
use crate::aspace::{AddressSpace, SpaceInner};
use crate::contract::{Clock, Threads};
use crate::thread::{Counts, NewSpace, Thread, ThreadRef};
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::cell::RefCell;
use qlib::Errno;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The park token of a thread.
#[derive(Default)]
pub(crate) struct ThreadState {
    token: Mutex<bool>,
    changed: Condvar,
}

std::thread_local! {
    static CURRENT: RefCell<Option<ThreadRef>> = const { RefCell::new(None) };
}

fn monotonic_base() -> Instant {
    static BASE: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    *BASE.get_or_init(Instant::now)
}

impl Threads for Fake {
    fn current() -> ThreadRef {
        CURRENT.with(|c| {
            c.borrow_mut()
                .get_or_insert_with(|| Arc::new(Thread::new("test")))
                .clone()
        })
    }

    fn spawn(thread: &Arc<Thread>, space: NewSpace<'_>, f: Box<dyn FnOnce() + Send>) -> Result<(), Errno> {
        let inner = match space {
            NewSpace::Kernel => None,
            NewSpace::Shared => Some(super::space::current()),
            NewSpace::Fork(cell) => {
                let copy = Arc::new(SpaceInner::new(super::space::current().machine.copy()));
                cell.call_once(|| AddressSpace(copy.clone()));
                Some(copy)
            }
            NewSpace::Fresh(cell) => {
                let fresh = Arc::new(SpaceInner::new(super::space::FakeSpace::default()));
                cell.call_once(|| AddressSpace(fresh.clone()));
                Some(fresh)
            }
        };
        let me = thread.clone();
        std::thread::Builder::new()
            .spawn(move || {
                CURRENT.with(|c| *c.borrow_mut() = Some(me));
                if let Some(s) = inner {
                    super::space::set_current(s);
                }
                f();
            })
            .map(|_| ())
            .map_err(|_| Errno::EAGAIN)
    }

    fn exit() -> ! {
        // Unwinding is the only way to end a host thread from within.
        std::panic::resume_unwind(std::boxed::Box::new("thread exit"))
    }

    fn park(deadline_ns: Option<u64>) {
        let me = Self::current();
        let mut token = me.machine.token.lock().unwrap_or_else(PoisonError::into_inner);
        while !*token {
            match deadline_ns {
                None => {
                    token = me
                        .machine
                        .changed
                        .wait(token)
                        .unwrap_or_else(PoisonError::into_inner)
                }
                Some(d) => {
                    let left = d.saturating_sub(Self::monotonic_ns());
                    if left == 0 {
                        return;
                    }
                    let wait = me.machine.changed.wait_timeout(token, Duration::from_nanos(left));
                    token = wait.unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
        *token = false;
    }

    fn unpark(thread: &Thread) {
        *thread
            .machine
            .token
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = true;
        thread.machine.changed.notify_all();
    }

    fn kick(thread: &Thread) {
        Self::unpark(thread);
    }

    fn yield_now() {
        std::thread::yield_now();
    }

    fn cpu_time_ns() -> (u64, u64) {
        (0, 0)
    }

    fn cpu_time_of(_thread: &Thread) -> Option<(u64, u64)> {
        Some((0, 0))
    }

    fn counts() -> Counts {
        Counts::default()
    }

    fn power_off(code: i32, reason: &str) -> ! {
        panic!("power off with {code}: {reason}")
    }
}

impl Clock for Fake {
    fn monotonic_ns() -> u64 {
        monotonic_base().elapsed().as_nanos() as u64
    }

    fn realtime_ns() -> u64 {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map(|d| d.as_nanos() as u64)
            .unwrap_or(0)
    }

    fn random(buf: &mut [u8]) {
        use std::hash::{BuildHasher, Hasher};
        for b in buf {
            *b = std::collections::hash_map::RandomState::new()
                .build_hasher()
                .finish() as u8;
        }
    }
}
