//! epoll instances. Source: `epoll(7)`, Linux `fs/eventpoll.c`.
//!
//! Kernel objects tell an item through their wait queue, and the item puts itself on the ready list; nothing is scanned.
//! Host objects are watched by an epoll instance of the host, which knows levels and edges itself; where the machine has
//! none, [`crate::fs::epoll_host`] looks at them one by one.

use crate::fs::anon;
use crate::fs::epoll_host::HostSide;
use crate::fs::file::{File, FileOps, PollSource};
use crate::fs::inode::Stat;
use crate::fs::poll::ALWAYS;
use crate::sched::wait::{Events, Notify, Registered, SleepLock, WaitError, WaitQueue, WaitToken, Wakes};
use crate::task;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use hal::sync::{Once, SpinLock};
use hal::uapi::general::O_RDWR;
use hashbrown::HashMap;
use qlib::Errno;

/// Deepest nesting of epoll instances.
const MAX_DEPTH: usize = 5;
/// Flags among an item's events.
const FLAGS: Events = Events::ET
    .union(Events::ONESHOT)
    .union(Events::EXCLUSIVE)
    .union(Events::WAKEUP);
/// What EPOLLEXCLUSIVE may be combined with.
const EXCLUSIVE_OK: Events = Events::IN
    .union(Events::OUT)
    .union(Events::ERR)
    .union(Events::HUP)
    .union(FLAGS)
    .difference(Events::ONESHOT);

/// A descriptor and the file it meant when it was added.
type Key = (i32, usize);

/// What an item watches for.
#[derive(Clone, Copy)]
pub(super) struct Want {
    /// Events and flags; no events while disabled (EPOLLONESHOT).
    pub(super) events: Events,
    /// The app's value.
    pub(super) data: u64,
}

/// One entry of an interest list.
pub struct Item {
    me: Weak<Item>,
    epoll: Weak<Epoll>,
    ready: Arc<Ready>,
    file: Weak<File>,
    key: Key,
    want: SpinLock<Want>,
    /// It is on the ready list.
    queued: AtomicBool,
    token: SpinLock<Option<WaitToken>>,
    /// What the host's side knows it by; 0 = it does not.
    pub(super) host_id: AtomicU64,
    /// Edge-triggered events that were told and not used up since, where the machine does not know edges.
    told: AtomicU32,
    /// What a kernel object told since it was last looked at, where changes are wanted and not states.
    changes: Option<AtomicU32>,
}

/// Items that may have events, and who waits for them. Items own it besides their instance: a notification, which runs under
/// the lock of the watched object's queue, must not be the one that drops the instance, for that takes the same lock.
struct Ready {
    /// `None` once the instance is gone.
    items: SpinLock<Option<VecDeque<Arc<Item>>>>,
    queue: WaitQueue,
}

impl Ready {
    fn push(&self, item: Arc<Item>) {
        if let Some(items) = self.items.lock().as_mut() {
            items.push_back(item);
        }
    }
    fn pop(&self) -> Option<Arc<Item>> {
        self.items.lock().as_mut()?.pop_front()
    }
    fn snapshot(&self) -> Vec<Arc<Item>> {
        self.items
            .lock()
            .as_ref()
            .map_or_else(Vec::new, |i| i.iter().cloned().collect())
    }
    fn len(&self) -> usize {
        self.items.lock().as_ref().map_or(0, VecDeque::len)
    }
}

/// An epoll instance.
pub struct Epoll {
    me: Weak<Epoll>,
    /// Lock order: before [`Ready::items`].
    items: SpinLock<HashMap<Key, Arc<Item>>>,
    ready: Arc<Ready>,
    host: HostSide,
    /// The open file of this instance.
    own: Once<Weak<File>>,
    ino: u64,
}

/// Serialises additions of epoll instances to one another, so that no circle can close.
static NESTING: SleepLock<()> = SleepLock::new(());

impl Item {
    pub(super) fn want(&self) -> Want {
        *self.want.lock()
    }
    pub(super) fn file(&self) -> Option<Arc<File>> {
        self.file.upgrade()
    }
    /// Events to ask the host for when every object is asked by itself: none while disabled, not those an edge told already.
    pub(super) fn wanted_from_host(&self) -> u16 {
        let want = self.want();
        let events = want.events - FLAGS;
        if events.is_empty() {
            return 0;
        }
        let told = Events::from_bits_truncate(self.told.load(Ordering::Acquire));
        // The host tells these unasked: an edge that was told must not wake again and again.
        if told.intersects(ALWAYS) {
            return 0;
        }
        ((events | ALWAYS) - told).bits() as u16
    }
    /// Remembers what an edge-triggered item told, until [`Item::rearm`].
    pub(super) fn saw_edge(&self, found: Events) {
        if self.want().events.contains(Events::ET) {
            self.told.fetch_or(found.bits(), Ordering::AcqRel);
        }
    }
    /// The app used the object in a way that ends the readiness told: later readiness is a new edge.
    pub fn rearm(&self, events: Events) {
        let before = self.told.fetch_and(!events.bits(), Ordering::AcqRel);
        if Events::from_bits_truncate(before).intersects(events) {
            self.ready.queue.wake_all();
        }
    }
    /// Disables a one-shot item that was reported.
    pub(super) fn reported(&self, want: Want) {
        if want.events.contains(Events::ONESHOT) {
            self.want.lock().events &= FLAGS;
        }
    }
    /// What of `found` the item tells.
    pub(super) fn match_events(want: Want, found: Events) -> Events {
        if (want.events - FLAGS).is_empty() {
            return Events::empty();
        }
        found & ((want.events | ALWAYS) - FLAGS)
    }
    /// What the item finds: the file's readiness, or what changed, though it may be over already.
    fn found(&self, file: &File) -> Events {
        let changes = self.changes.as_ref();
        let changes = changes.map(|c| Events::from_bits_truncate(c.swap(0, Ordering::AcqRel)));
        match changes {
            // Everyone was told to look.
            Some(all) if all == Events::all() => file.ops().poll(file),
            Some(events) => events,
            None => file.ops().poll(file),
        }
    }
    /// The last descriptor of the file was closed.
    pub(super) fn file_closed(&self, file: &File) {
        if let Some(e) = self.epoll.upgrade() {
            e.items.lock().remove(&self.key);
        }
        self.detach(file);
    }
    fn detach(&self, file: &File) {
        self.want.lock().events = Events::empty();
        let token = self.token.lock().take();
        let source = file.ops().poll_source();
        if let (Some(t), PollSource::Queue(q) | PollSource::Both(q, _)) = (token, &source) {
            q.remove(t);
        }
        if let (Some(e), PollSource::Host(h) | PollSource::Both(_, h)) = (self.epoll.upgrade(), source) {
            e.host.remove(self, h);
        }
    }
    fn enqueue(&self, wakes: &mut Wakes) {
        if self.queued.swap(true, Ordering::SeqCst) {
            return;
        }
        if let Some(me) = self.me.upgrade() {
            self.ready.push(me);
            self.ready.queue.tell(Events::IN | Events::RDNORM, wakes);
        }
    }
}

impl Notify for Item {
    fn notify(&self, events: Events, wakes: &mut Wakes) {
        if !Self::match_events(self.want(), events).is_empty() {
            if let Some(changes) = &self.changes {
                changes.fetch_or(events.bits(), Ordering::AcqRel);
            }
            self.enqueue(wakes);
        }
    }
}

impl Epoll {
    /// Makes an instance.
    pub fn create() -> Arc<File> {
        let e = Arc::new_cyclic(|me| Self {
            me: me.clone(),
            items: SpinLock::default(),
            ready: Arc::new(Ready {
                items: SpinLock::new(Some(VecDeque::new())),
                queue: WaitQueue::new(),
            }),
            host: HostSide::default(),
            own: Once::new(),
            ino: anon::next_ino(),
        });
        let file = File::new(e.clone(), None, O_RDWR);
        e.own.call_once(|| Arc::downgrade(&file));
        file
    }

    /// EPOLL_CTL_ADD.
    ///
    /// # Errors
    /// EEXIST, EPERM for files that cannot be watched, EINVAL, ELOOP.
    pub fn add(&self, fd: i32, file: &Arc<File>, events: Events, data: u64) -> Result<(), Errno> {
        self.insert(fd, file, events, data, false)
    }

    /// Watches for changes: each counts, though the file be no longer ready when it is taken, and what it is ready for now is
    /// none. Host objects tell what they are ready for now all the same, and know edges as long as nobody uses them up.
    ///
    /// # Errors
    /// As [`Epoll::add`].
    pub(super) fn add_for_changes(&self, file: &Arc<File>, events: Events, data: u64) -> Result<(), Errno> {
        self.insert(0, file, events | Events::ET, data, true)
    }

    fn insert(
        &self,
        fd: i32,
        file: &Arc<File>,
        events: Events,
        data: u64,
        changes: bool,
    ) -> Result<(), Errno> {
        let source = file.ops().poll_source();
        if matches!(source, PollSource::Always) || file.is_path_only() {
            return Err(Errno::EPERM);
        }
        let nested = file.downcast::<Epoll>();
        if events.contains(Events::EXCLUSIVE) && (nested.is_some() || !EXCLUSIVE_OK.contains(events)) {
            return Err(Errno::EINVAL);
        }
        let _nesting = match nested {
            Some(inner) => {
                if core::ptr::eq(inner, self) {
                    return Err(Errno::EINVAL);
                }
                let guard = NESTING.lock();
                self.check_nesting(inner)?;
                Some(guard)
            }
            None => None,
        };
        let key = (fd, Arc::as_ptr(file) as usize);
        let item = Arc::new_cyclic(|me| Item {
            me: me.clone(),
            epoll: self.me.clone(),
            ready: self.ready.clone(),
            file: Arc::downgrade(file),
            key,
            want: SpinLock::new(Want { events, data }),
            queued: AtomicBool::new(false),
            token: SpinLock::new(None),
            host_id: AtomicU64::new(0),
            told: AtomicU32::new(0),
            changes: changes.then(AtomicU32::default),
        });
        {
            let mut items = self.items.lock();
            if items.contains_key(&key) {
                return Err(Errno::EEXIST);
            }
            items.insert(key, item.clone());
        }
        drop(_nesting);
        if let PollSource::Queue(q) | PollSource::Both(q, _) = &source {
            *item.token.lock() = Some(q.add(item.clone(), Events::all()));
        }
        file.add_watcher(&item);
        let host = match source {
            PollSource::Host(h) => Some((h, false)),
            PollSource::Both(_, h) => Some((h, true)),
            _ => None,
        };
        if let Some((h, judge)) = host
            && let Err(e) = self.watch_host(&item, h, judge)
        {
            self.items.lock().remove(&key);
            item.detach(file);
            return Err(e);
        }
        if !changes {
            self.look(&item, file);
        }
        Ok(())
    }

    /// Hands a host object to the host's side; instances that watch this one learn of it when it is the first.
    fn watch_host(&self, item: &Arc<Item>, h: hal::host::Handle, judge: bool) -> Result<(), Errno> {
        let first = self.host.handle().is_none();
        self.host.add(item, h, judge)?;
        if first && let Some(mine) = self.host.handle() {
            for outer in self.watchers() {
                if let Some(e) = outer.epoll.upgrade() {
                    e.host.add(&outer, mine, true)?;
                    e.ready.queue.wake_all();
                }
            }
        }
        // Those who wait already must wait for the host too.
        self.ready.queue.wake_all();
        Ok(())
    }

    /// Puts an item on the ready list when its file is ready now.
    fn look(&self, item: &Arc<Item>, file: &File) {
        if !matches!(file.ops().poll_source(), PollSource::Host(_))
            && !Item::match_events(item.want(), file.ops().poll(file)).is_empty()
        {
            item.enqueue(&mut Wakes::default());
        }
    }

    /// EPOLL_CTL_MOD.
    ///
    /// # Errors
    /// ENOENT; EINVAL for EPOLLEXCLUSIVE.
    pub fn modify(&self, fd: i32, file: &Arc<File>, events: Events, data: u64) -> Result<(), Errno> {
        let key = (fd, Arc::as_ptr(file) as usize);
        let item = self.items.lock().get(&key).cloned().ok_or(Errno::ENOENT)?;
        {
            let mut w = item.want.lock();
            if (w.events | events).contains(Events::EXCLUSIVE) {
                return Err(Errno::EINVAL);
            }
            *w = Want { events, data };
        }
        item.told.store(0, Ordering::Release);
        match file.ops().poll_source() {
            PollSource::Host(h) | PollSource::Both(_, h) => self.host.modify(&item, h)?,
            _ => {}
        }
        self.look(&item, file);
        Ok(())
    }

    /// EPOLL_CTL_DEL.
    ///
    /// # Errors
    /// ENOENT.
    pub fn remove(&self, fd: i32, file: &Arc<File>) -> Result<(), Errno> {
        let key = (fd, Arc::as_ptr(file) as usize);
        let item = self.items.lock().remove(&key).ok_or(Errno::ENOENT)?;
        item.detach(file);
        Ok(())
    }

    /// The address of the `nth` file that is watched by descriptor `fd`, in order of addresses (`kcmp(2)`).
    pub fn watched(&self, fd: i32, nth: usize) -> Option<usize> {
        let items = self.items.lock();
        let mut files: Vec<usize> = items.keys().filter(|k| k.0 == fd).map(|k| k.1).collect();
        files.sort_unstable();
        files.get(nth).copied()
    }

    /// Refuses circles and towers: `inner` is to be watched by this instance.
    fn check_nesting(&self, inner: &Epoll) -> Result<(), Errno> {
        if inner.depth_below(self, 1)? + self.height(1) > MAX_DEPTH {
            return Err(Errno::ELOOP);
        }
        Ok(())
    }

    /// Items of other instances that watch this one.
    fn watchers(&self) -> Vec<Arc<Item>> {
        let own = self.own.get().and_then(Weak::upgrade);
        own.map_or_else(Vec::new, |f| f.watchers())
    }

    /// Instances on the longest way up, this one included.
    fn height(&self, level: usize) -> usize {
        if level > MAX_DEPTH {
            return level;
        }
        let outer = self.watchers().into_iter().filter_map(|i| i.epoll.upgrade());
        1 + outer.map(|e| e.height(level + 1)).max().unwrap_or(0)
    }

    /// Instances on the longest way down from here; `target` must not be among them.
    fn depth_below(&self, target: &Epoll, level: usize) -> Result<usize, Errno> {
        if core::ptr::eq(self, target) || level > MAX_DEPTH {
            return Err(Errno::ELOOP);
        }
        let files: Vec<Arc<File>> = self.items.lock().values().filter_map(|i| i.file()).collect();
        let mut deepest = 0;
        for f in &files {
            if let Some(e) = f.downcast::<Epoll>() {
                deepest = deepest.max(e.depth_below(target, level + 1)?);
            }
        }
        Ok(deepest + 1)
    }

    /// Takes up to `max` events of kernel objects.
    fn collect(&self, max: usize, out: &mut Vec<(Events, u64)>) {
        let mut left = self.ready.len();
        let mut again = Vec::new();
        while left > 0 && out.len() < max {
            left -= 1;
            let Some(item) = self.ready.pop() else {
                break;
            };
            // Cleared before the look, so that a change after it queues the item again.
            item.queued.store(false, Ordering::SeqCst);
            let Some(file) = item.file() else { continue };
            let want = item.want();
            let found = Item::match_events(want, item.found(&file));
            if found.is_empty() {
                continue;
            }
            out.push((found, want.data));
            item.reported(want);
            if !want.events.intersects(Events::ET | Events::ONESHOT) {
                again.push(item);
            }
        }
        let more = left > 0 || !again.is_empty();
        for item in again {
            if !item.queued.swap(true, Ordering::SeqCst) {
                self.ready.push(item);
            }
        }
        if more && !self.ready.queue.is_empty() {
            self.ready.queue.wake(Events::IN | Events::RDNORM);
        }
    }

    /// Takes up to `max` events, waiting for the first until the deadline (monotonic ns; 0 = look once).
    ///
    /// # Errors
    /// Interrupted or timed out.
    pub fn wait(&self, max: usize, deadline_ns: Option<u64>) -> Result<Vec<(Events, u64)>, WaitError> {
        let mut out = Vec::new();
        let mut registered = None;
        loop {
            self.collect(max, &mut out);
            if out.len() < max {
                self.host.collect(max, &mut out, Some(0));
            }
            if !out.is_empty() {
                return Ok(out);
            }
            if deadline_ns == Some(0) {
                return Err(WaitError::TimedOut);
            }
            if registered.is_none() {
                registered = Some(Registered::new(&self.ready.queue, Events::IN));
                continue;
            }
            if task::interrupted() {
                return Err(WaitError::Interrupted);
            }
            if deadline_ns.is_some_and(|d| hal::clock::monotonic_ns() >= d) {
                return Err(WaitError::TimedOut);
            }
            if self.host.is_empty() {
                crate::sched::wait::park(deadline_ns);
            } else {
                self.host.collect(max, &mut out, deadline_ns);
                if !out.is_empty() {
                    return Ok(out);
                }
            }
        }
    }

    /// Whether an event could be taken now. Items that turn out not to be ready leave the list.
    fn has_events(&self) -> bool {
        let items = self.ready.snapshot();
        let ready = items.iter().any(|i| {
            i.file()
                .is_some_and(|f| !Item::match_events(i.want(), f.ops().poll(&f)).is_empty())
        });
        ready || self.host.has_events()
    }
}

impl FileOps for Epoll {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn is_stream(&self) -> bool {
        true
    }

    fn stat(&self, _file: &File) -> Result<Stat, Errno> {
        Ok(anon::stat(None, anon::ANON_DEV, self.ino))
    }

    fn poll(&self, _file: &File) -> Events {
        if self.has_events() {
            Events::IN | Events::RDNORM
        } else {
            Events::empty()
        }
    }

    fn poll_source(&self) -> PollSource<'_> {
        match self.host.handle() {
            Some(h) => PollSource::Both(&self.ready.queue, h),
            None => PollSource::Queue(&self.ready.queue),
        }
    }

    fn describe(&self) -> Vec<u8> {
        b"anon_inode:[eventpoll]".to_vec()
    }

    fn fdinfo(&self) -> Vec<u8> {
        let items: Vec<Arc<Item>> = self.items.lock().values().cloned().collect();
        let line = |i: &Arc<Item>| {
            let w = i.want();
            format!(
                "tfd: {:8} events: {:8x} data: {:16x}\n",
                i.key.0,
                w.events.bits(),
                w.data
            )
        };
        items
            .iter()
            .map(line)
            .collect::<alloc::string::String>()
            .into_bytes()
    }
}

impl Drop for Epoll {
    fn drop(&mut self) {
        let queued = self.ready.items.lock().take();
        drop(queued);
        for item in core::mem::take(self.items.get_mut()).into_values() {
            if let Some(file) = item.file() {
                item.detach(&file);
            }
        }
    }
}

#[cfg(test)]
#[path = "epoll_tests.rs"]
mod tests;
