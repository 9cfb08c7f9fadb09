//! Waiting for readiness of several open files at once: kernel queues and host objects together.

use crate::fs::file::{File, PollSource};
use crate::sched::wait::{Events, WaitError, WaitQueue, WaitToken};
use crate::sched::wait::{park, wait_ready};
use crate::task;
use alloc::sync::Arc;
use alloc::vec::Vec;
use hal::host::{self, PollItem};

/// One file of a set.
pub struct PollEntry {
    /// The file; `None` is skipped (a negative descriptor) unless `revents` is set already (NVAL).
    pub file: Option<Arc<File>>,
    /// Wanted. ERR, HUP and NVAL are always told.
    pub events: Events,
    /// Found.
    pub revents: Events,
}

/// Events that are told whether wanted or not.
pub const ALWAYS: Events = Events::ERR.union(Events::HUP).union(Events::NVAL);

/// POLL* bits the host understands.
fn host_bits(e: Events) -> u16 {
    (e.bits() & 0x3fff) as u16
}

/// Readiness of a host object now.
pub fn host_ready(handle: host::Handle) -> Events {
    let mut item = [PollItem {
        handle,
        events: host_bits(
            Events::IN
                | Events::PRI
                | Events::OUT
                | Events::RDNORM
                | Events::RDBAND
                | Events::WRNORM
                | Events::RDHUP,
        ),
        revents: 0,
    }];
    match host::ready(&mut item) {
        Ok(_) => Events::from_bits_truncate(u32::from(item[0].revents)),
        Err(_) => Events::ERR,
    }
}

/// Waits for one host object; `events` are asked for.
///
/// # Errors
/// Interrupted or timed out.
pub fn wait_host(handle: host::Handle, events: Events, deadline_ns: Option<u64>) -> Result<(), WaitError> {
    loop {
        let mut item = [PollItem {
            handle,
            events: host_bits(events),
            revents: 0,
        }];
        if task::interrupted() {
            return Err(WaitError::Interrupted);
        }
        if wait_ready(&mut item, deadline_ns).unwrap_or(1) > 0 {
            return Ok(());
        }
        if deadline_ns.is_some_and(|d| hal::clock::monotonic_ns() >= d) {
            return Err(WaitError::TimedOut);
        }
    }
}

/// Host objects of a set and which entries they stand for.
struct HostItems {
    items: Vec<PollItem>,
    /// Entry of each item, and whether the entry's own poll must judge (it has a kernel side too).
    entries: Vec<(usize, bool)>,
}

fn host_items(set: &[PollEntry]) -> HostItems {
    let mut h = HostItems {
        items: Vec::new(),
        entries: Vec::new(),
    };
    for (i, e) in set.iter().enumerate() {
        let Some(file) = &e.file else { continue };
        let (handle, judge) = match file.ops().poll_source() {
            PollSource::Host(handle) => (handle, false),
            PollSource::Both(_, handle) => (handle, true),
            _ => continue,
        };
        h.items.push(PollItem {
            handle,
            events: if judge {
                host_bits(Events::IN)
            } else {
                host_bits(e.events)
            },
            revents: 0,
        });
        h.entries.push((i, judge));
    }
    h
}

/// Asks the kernel's own objects; returns how many entries have something to tell.
fn scan(set: &mut [PollEntry]) -> usize {
    let mut n = 0;
    for e in set.iter_mut() {
        if let Some(file) = &e.file {
            e.revents = match file.ops().poll_source() {
                PollSource::Host(_) => Events::empty(),
                _ => file.ops().poll(file) & (e.events | ALWAYS),
            };
        }
        n += usize::from(!e.revents.is_empty());
    }
    n
}

/// Takes over what the host found; returns how many entries it adds.
fn collect(set: &mut [PollEntry], h: &HostItems) -> usize {
    let mut n = 0;
    for (item, (i, judge)) in h.items.iter().zip(&h.entries) {
        if item.revents == 0 || *judge {
            continue;
        }
        let e = &mut set[*i];
        let found = Events::from_bits_truncate(u32::from(item.revents)) & (e.events | ALWAYS);
        if !found.is_empty() {
            n += 1;
        }
        e.revents = found;
    }
    n
}

/// Registrations in the queues of files; each queue is reached through its file again to end it.
struct Watch {
    on: Vec<(Arc<File>, WaitToken)>,
}

fn queue_of(file: &File) -> Option<&WaitQueue> {
    match file.ops().poll_source() {
        PollSource::Queue(q) | PollSource::Both(q, _) => Some(q),
        _ => None,
    }
}

impl Watch {
    fn new(set: &[PollEntry]) -> Self {
        let mut on = Vec::new();
        for e in set {
            if let Some(file) = &e.file
                && let Some(q) = queue_of(file)
            {
                on.push((file.clone(), q.add_current(e.events)));
            }
        }
        Self { on }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        for (file, token) in &self.on {
            if let Some(q) = queue_of(file) {
                q.remove(*token);
            }
        }
    }
}

/// Waits until an entry has something to tell; returns how many have.
///
/// # Errors
/// Interrupted, or timed out at the deadline (monotonic ns; `Some(0)` = look once).
pub fn poll(set: &mut [PollEntry], deadline_ns: Option<u64>) -> Result<usize, WaitError> {
    let mut h = host_items(set);
    let look = |set: &mut [PollEntry], h: &mut HostItems| {
        let mut n = scan(set);
        if !h.items.is_empty() && host::ready(&mut h.items).unwrap_or(0) > 0 {
            n += collect(set, h);
        }
        n
    };
    let n = look(set, &mut h);
    if n > 0 {
        return Ok(n);
    }
    if deadline_ns == Some(0) {
        return Err(WaitError::TimedOut);
    }
    let _watch = Watch::new(set);
    // The first look after registering must not miss what came in between.
    let mut n = scan(set);
    loop {
        if n > 0 {
            if !h.items.is_empty() && host::ready(&mut h.items).unwrap_or(0) > 0 {
                n += collect(set, &h);
            }
            return Ok(n);
        }
        if task::interrupted() {
            return Err(WaitError::Interrupted);
        }
        if deadline_ns.is_some_and(|d| hal::clock::monotonic_ns() >= d) {
            return Err(WaitError::TimedOut);
        }
        if h.items.is_empty() {
            park(deadline_ns);
            n = scan(set);
        } else {
            let found = wait_ready(&mut h.items, deadline_ns).unwrap_or(0);
            n = scan(set);
            if found > 0 {
                n += collect(set, &h);
                if n > 0 {
                    return Ok(n);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::eventfd::eventfd;
    use hal::host::Src;

    fn entry(f: &Arc<File>, events: Events) -> PollEntry {
        PollEntry {
            file: Some(f.clone()),
            events,
            revents: Events::empty(),
        }
    }

    #[test]
    fn readiness_deadline_and_wake() {
        let a = eventfd(0, false, 0);
        let b = eventfd(0, false, 0);
        let mut set = [entry(&a, Events::IN), entry(&b, Events::IN)];
        assert_eq!(poll(&mut set, Some(0)), Err(WaitError::TimedOut));
        let soon = hal::clock::monotonic_ns() + 5_000_000;
        assert_eq!(poll(&mut set, Some(soon)), Err(WaitError::TimedOut));
        assert!(hal::clock::monotonic_ns() >= soon);
        let writer = b.clone();
        let t = std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(10));
            writer
                .ops()
                .write(&writer, &mut Src::kernel(&1u64.to_ne_bytes()), 0)
        });
        assert_eq!(poll(&mut set, None), Ok(1));
        assert_eq!((set[0].revents, set[1].revents), (Events::empty(), Events::IN));
        assert_eq!(t.join().unwrap(), Ok(8));
        set[0].events = Events::OUT;
        assert_eq!(poll(&mut set, None), Ok(2));
    }
}
