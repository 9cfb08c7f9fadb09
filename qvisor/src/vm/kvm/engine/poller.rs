//! Readiness: requests that complete when an object becomes ready, or are cancelled. One epoll instance, one thread.

use super::MAX_WAITING;
use qlib::Errno;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fd::{AsRawFd, OwnedFd, RawFd};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

struct Waiter {
    tag: u64,
    events: u16,
    file: Arc<OwnedFd>,
}

#[derive(Default)]
struct Waiters {
    by_fd: HashMap<RawFd, Vec<Waiter>>,
    count: usize,
}

/// What waits, by descriptor number. A waiter keeps its descriptor open, so numbers are not reused meanwhile.
pub struct Poller {
    epoll: OwnedFd,
    waiters: Mutex<Waiters>,
}

/// What of `events` holds now (errors always do).
fn ready(file: &OwnedFd, events: u16) -> u16 {
    let mut fds = [PollFd::new(file, PollFlags::from_bits_retain(events))];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    match rustix::event::poll(&mut fds, Some(&now)) {
        Ok(_) => fds[0].revents().bits(),
        Err(_) => 0,
    }
}

impl Poller {
    /// An empty poller.
    ///
    /// # Errors
    /// The host's.
    pub fn new() -> rustix::io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self {
            epoll,
            waiters: Mutex::default(),
        })
    }

    fn waiters(&self) -> MutexGuard<'_, Waiters> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for `events` of `file`; `Some` when the answer is known at once.
    pub fn add(&self, tag: u64, file: Arc<OwnedFd>, events: u16) -> Option<Result<u64, Errno>> {
        let now = ready(&file, events);
        if now != 0 {
            return Some(Ok(now.into()));
        }
        let fd = file.as_raw_fd();
        let mut all = self.waiters();
        if all.count >= MAX_WAITING {
            return Some(Err(Errno::ENOMEM));
        }
        let list = all.by_fd.entry(fd).or_default();
        list.push(Waiter { tag, events, file });
        match self.arm(fd, list) {
            Ok(()) => {
                all.count += 1;
                None
            }
            Err(e) => {
                list.pop();
                if list.is_empty() {
                    all.by_fd.remove(&fd);
                }
                // What epoll cannot watch (a plain file) is always ready.
                Some(if e == rustix::io::Errno::PERM {
                    Ok(u64::from(events) & 5)
                } else {
                    Err(Errno(e.raw_os_error()))
                })
            }
        }
    }

    /// Asks epoll for one event of what the waiters of `fd` want.
    fn arm(&self, fd: RawFd, list: &[Waiter]) -> rustix::io::Result<()> {
        let Some(first) = list.first() else { return Ok(()) };
        let wanted = list.iter().fold(0u32, |e, w| e | u32::from(w.events));
        // POLL* and EPOLL* agree in these bits.
        let flags = EventFlags::from_bits_retain(wanted) | EventFlags::ONESHOT;
        let data = EventData::new_u64(fd as u64);
        match epoll::modify(&self.epoll, &*first.file, data, flags) {
            Err(rustix::io::Errno::NOENT) => epoll::add(&self.epoll, &*first.file, data, flags),
            r => r,
        }
    }

    /// Forgets the request `tag`; `false` when it is not waiting (any more).
    pub fn cancel(&self, tag: u64) -> bool {
        let mut all = self.waiters();
        let found = all.by_fd.iter_mut().find_map(|(fd, list)| {
            let i = list.iter().position(|w| w.tag == tag)?;
            Some((*fd, list.swap_remove(i), list.is_empty()))
        });
        let Some((fd, gone, empty)) = found else {
            return false;
        };
        all.count -= 1;
        if empty {
            all.by_fd.remove(&fd);
            let _ = epoll::delete(&self.epoll, &*gone.file);
        }
        true
    }

    /// Calls `complete(tag, events)` for what becomes ready, forever.
    pub fn run(&self, complete: impl Fn(u64, u64)) {
        let mut events = Vec::with_capacity(64);
        loop {
            events.clear();
            let got = epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), None);
            if got.is_err_and(|e| e != rustix::io::Errno::INTR) {
                return;
            }
            for e in &events {
                let fd = e.data.u64() as RawFd;
                let mut done = Vec::new();
                {
                    let mut all = self.waiters();
                    let Some(list) = all.by_fd.get_mut(&fd) else {
                        continue;
                    };
                    let mut i = 0;
                    while i < list.len() {
                        let found = ready(&list[i].file, list[i].events);
                        if found == 0 {
                            i += 1;
                        } else {
                            done.push((list.swap_remove(i), found));
                        }
                    }
                    if !list.is_empty() {
                        let _ = self.arm(fd, list);
                    } else {
                        all.by_fd.remove(&fd);
                        if let Some((w, _)) = done.first() {
                            let _ = epoll::delete(&self.epoll, &*w.file);
                        }
                    }
                    all.count -= done.len();
                }
                for (w, found) in done {
                    complete(w.tag, found.into());
                }
            }
        }
    }
}
