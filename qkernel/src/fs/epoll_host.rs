//! The host objects an epoll instance watches.

use crate::fs::epoll::{Item, Want};
use crate::fs::file::File;
use crate::fs::poll::host_ready;
use crate::sched::wait::Events;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use hal::host::{self, Handle, HostEvent, HostFile, PollItem};
use hal::sync::{Once, SpinLock};
use hal::uapi::general::{EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD};
use hashbrown::HashMap;
use qlib::Errno;

/// Events taken from the host at once.
const BATCH: usize = 64;

/// Edges are emulated: uses of host objects must be told with [`used`].
static EMULATED: AtomicBool = AtomicBool::new(false);

/// The app read or wrote a host object: what epoll told of it before may be told again.
pub fn used(file: &File, events: Events) {
    if EMULATED.load(Ordering::Relaxed) {
        for item in file.watchers() {
            item.rearm(events);
        }
    }
}

struct Watched {
    item: Arc<Item>,
    handle: Handle,
    /// The object is another instance's host side: its own poll must be asked.
    judge: bool,
    /// The host takes an object once per instance, whatever descriptors of the app mean it: further ones have a host
    /// instance of their own, which the host's instance watches in the object's place.
    proxy: Option<Arc<HostFile>>,
}

/// The host's part of an epoll instance.
#[derive(Default)]
pub(super) struct HostSide {
    /// The host's epoll instance; `None` inside where the machine has none.
    native: Once<Option<HostFile>>,
    watched: SpinLock<HashMap<u64, Watched>>,
    count: AtomicUsize,
    next: AtomicU64,
    /// The object told of last, where each is asked: the next wait begins behind it, so that one that is always ready does
    /// not hide the others from a caller that takes few at a time.
    turn: AtomicU64,
}

/// What the host is asked for an item.
fn host_events(want: Want, judge: bool) -> u32 {
    if judge {
        (Events::IN | want.events & Events::ET).bits()
    } else {
        (want.events - Events::WAKEUP).bits()
    }
}

impl HostSide {
    /// Whether it watches nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// The host's epoll instance, once there is one.
    pub(super) fn handle(&self) -> Option<Handle> {
        self.native.get()?.as_ref().map(HostFile::handle)
    }

    fn native(&self) -> Option<Handle> {
        if self.native.get().is_none() {
            // Made outside of the cell's lock; the loser of a race closes its own.
            let made = host::epoll_create().ok();
            EMULATED.fetch_or(made.is_none(), Ordering::Relaxed);
            self.native.call_once(|| made);
        }
        self.handle()
    }

    /// Watches `h` for the item.
    ///
    /// # Errors
    /// As `epoll_ctl(2)`.
    pub(super) fn add(&self, item: &Arc<Item>, h: Handle, judge: bool) -> Result<(), Errno> {
        let native = self.native();
        let id = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        item.host_id.store(id, Ordering::Release);
        let watched = Watched {
            item: item.clone(),
            handle: h,
            judge,
            proxy: None,
        };
        self.watched.lock().insert(id, watched);
        self.count.fetch_add(1, Ordering::Release);
        let Some(ep) = native else { return Ok(()) };
        let events = host_events(item.want(), judge);
        let mut added = host::epoll_ctl(ep, EPOLL_CTL_ADD, h, events, id);
        if added == Err(Errno::EEXIST) {
            added = self.add_proxy(ep, id, h, events);
        }
        added.inspect_err(|_| drop(self.forget(item)))
    }

    fn add_proxy(&self, ep: Handle, id: u64, h: Handle, events: u32) -> Result<(), Errno> {
        let proxy = Arc::new(host::epoll_create()?);
        host::epoll_ctl(proxy.handle(), EPOLL_CTL_ADD, h, events, 0)?;
        if let Some(w) = self.watched.lock().get_mut(&id) {
            w.proxy = Some(proxy.clone());
        }
        host::epoll_ctl(ep, EPOLL_CTL_ADD, proxy.handle(), Events::IN.bits(), id)
    }

    /// Tells the host of changed events.
    ///
    /// # Errors
    /// As `epoll_ctl(2)`.
    pub(super) fn modify(&self, item: &Item, h: Handle) -> Result<(), Errno> {
        let id = item.host_id.load(Ordering::Acquire);
        let found = self.watched.lock().get(&id).map(|w| (w.judge, w.proxy.clone()));
        let (Some(ep), Some((judge, proxy))) = (self.handle(), found) else {
            return Ok(());
        };
        let events = host_events(item.want(), judge);
        match proxy {
            Some(p) => host::epoll_ctl(p.handle(), EPOLL_CTL_MOD, h, events, 0),
            None => host::epoll_ctl(ep, EPOLL_CTL_MOD, h, events, id),
        }
    }

    fn forget(&self, item: &Item) -> Option<Watched> {
        let id = item.host_id.swap(0, Ordering::AcqRel);
        let gone = self.watched.lock().remove(&id);
        if gone.is_some() {
            self.count.fetch_sub(1, Ordering::Release);
        }
        gone
    }

    /// Stops watching.
    pub(super) fn remove(&self, item: &Item, h: Handle) {
        let (Some(gone), Some(ep)) = (self.forget(item), self.handle()) else {
            return;
        };
        // It may be gone from the host already, with the object.
        let _ = match gone.proxy {
            Some(p) => host::epoll_ctl(ep, EPOLL_CTL_DEL, p.handle(), 0, 0),
            None => host::epoll_ctl(ep, EPOLL_CTL_DEL, h, 0, 0),
        };
    }

    /// Whether an event could be taken now.
    pub(super) fn has_events(&self) -> bool {
        match self.handle() {
            _ if self.is_empty() => false,
            Some(ep) => host_ready(ep).contains(Events::IN),
            None => {
                let mut items = self.poll_items();
                self.poll_now(&mut items, Some(0)) > 0
            }
        }
    }

    /// Takes events until `out` holds `max`, waiting for the first until the deadline (0 = look only). Returns early with
    /// nothing when the thread is unparked.
    pub(super) fn collect(&self, max: usize, out: &mut Vec<(Events, u64)>, deadline_ns: Option<u64>) {
        if self.is_empty() {
            return;
        }
        let Some(ep) = self.handle() else {
            self.collect_each(max, out, deadline_ns);
            return;
        };
        let mut deadline_ns = deadline_ns;
        while out.len() < max {
            let mut events = [HostEvent::default(); BATCH];
            let room = BATCH.min(max - out.len());
            let Ok(n) = host::epoll_wait(ep, &mut events[..room], deadline_ns) else {
                return;
            };
            for e in &events[..n] {
                let found = self
                    .watched
                    .lock()
                    .get(&e.data)
                    .map(|w| (w.item.clone(), w.judge, w.proxy.clone()));
                let Some((item, judge, proxy)) = found else {
                    continue;
                };
                let mut seen = e.events;
                if let Some(p) = proxy {
                    let mut inner = [HostEvent::default(); 1];
                    match host::epoll_wait(p.handle(), &mut inner, Some(0)) {
                        Ok(1) => seen = inner[0].events,
                        _ => continue,
                    }
                }
                self.take(&item, judge, Events::from_bits_truncate(seen), out);
            }
            if n < room {
                return;
            }
            deadline_ns = Some(0);
        }
    }

    fn take(&self, item: &Item, judge: bool, found: Events, out: &mut Vec<(Events, u64)>) {
        let want = item.want();
        let found = if judge {
            match item.file() {
                Some(f) => f.ops().poll(&f),
                None => Events::empty(),
            }
        } else {
            found
        };
        let found = Item::match_events(want, found);
        if !found.is_empty() {
            out.push((found, want.data));
            item.reported(want);
        }
    }

    // Where the machine has no epoll: every object is asked each time.

    fn poll_items(&self) -> Vec<(PollItem, Arc<Item>)> {
        let mut items = self.items_by_id();
        items.sort_unstable_by_key(|(id, ..)| *id);
        let turn = self.turn.load(Ordering::Relaxed);
        let first = items.partition_point(|(id, ..)| *id <= turn);
        items.rotate_left(first);
        items.into_iter().map(|(_, poll, item)| (poll, item)).collect()
    }

    fn items_by_id(&self) -> Vec<(u64, PollItem, Arc<Item>)> {
        let watched = self.watched.lock();
        let item = |(id, w): (&u64, &Watched)| {
            let events = w.item.wanted_from_host();
            let poll = PollItem {
                handle: w.handle,
                events,
                revents: 0,
            };
            (events != 0).then(|| (*id, poll, w.item.clone()))
        };
        watched.iter().filter_map(item).collect()
    }

    fn poll_now(&self, items: &mut [(PollItem, Arc<Item>)], deadline_ns: Option<u64>) -> usize {
        let mut plain: Vec<PollItem> = items.iter().map(|(p, _)| *p).collect();
        let n = match deadline_ns {
            Some(0) => host::ready(&mut plain),
            d => crate::sched::wait::wait_ready(&mut plain, d),
        };
        for ((p, _), q) in items.iter_mut().zip(plain) {
            p.revents = q.revents;
        }
        n.unwrap_or(0)
    }

    fn collect_each(&self, max: usize, out: &mut Vec<(Events, u64)>, deadline_ns: Option<u64>) {
        let mut items = self.poll_items();
        if items.is_empty() {
            if deadline_ns != Some(0) {
                crate::sched::wait::park(deadline_ns);
            }
            return;
        }
        if self.poll_now(&mut items, deadline_ns) == 0 {
            return;
        }
        for (p, item) in &items {
            if p.revents == 0 || out.len() >= max {
                continue;
            }
            let found = Events::from_bits_truncate(u32::from(p.revents));
            item.saw_edge(found);
            let told = out.len();
            self.take(item, false, found, out);
            if out.len() > told {
                self.turn
                    .store(item.host_id.load(Ordering::Acquire), Ordering::Relaxed);
            }
        }
    }
}
