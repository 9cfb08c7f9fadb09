//! inotify instances. Source: `inotify(7)`.

use crate::fs::file::{File, FileOps, PollSource, Signals};
use crate::fs::inode::InodeId;
use crate::fs::notify::{self, mask};
use crate::fs::proc::sysctl;
use crate::sched::wait::{Events, WaitQueue, wait_until};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use hal::host::Dest;
use hal::sync::SpinLock;
use hal::uapi::general::{IN_MASK_ADD, IN_MASK_CREATE};
use qlib::Errno;

/// Events kept, as `/proc/sys/fs/inotify/max_queued_events` shows it.
pub const MAX_QUEUED_EVENTS: usize = 16384;
/// Watches per instance, as `/proc/sys/fs/inotify/max_user_watches` shows it.
pub const MAX_WATCHES: usize = 65536;
/// Bytes of `struct inotify_event` before the name.
const HEADER: usize = 16;

#[derive(Clone, PartialEq, Eq)]
struct Event {
    wd: i32,
    mask: u32,
    cookie: u32,
    name: Vec<u8>,
}

impl Event {
    /// The name with its NULs, as a multiple of the header's size.
    fn name_len(&self) -> usize {
        match self.name.len() {
            0 => 0,
            n => (n + 1).next_multiple_of(HEADER),
        }
    }
    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER + self.name_len());
        out.extend_from_slice(&self.wd.to_le_bytes());
        out.extend_from_slice(&self.mask.to_le_bytes());
        out.extend_from_slice(&self.cookie.to_le_bytes());
        out.extend_from_slice(&(self.name_len() as u32).to_le_bytes());
        out.extend_from_slice(&self.name);
        out.resize(HEADER + self.name_len(), 0);
        out
    }
}

#[derive(Default)]
struct State {
    events: VecDeque<Event>,
    watches: BTreeMap<i32, InodeId>,
    last_wd: i32,
}

/// Events and watches of one instance.
#[derive(Default)]
pub struct Queue {
    state: SpinLock<State>,
    wait: WaitQueue,
}

impl Queue {
    /// Queues an event.
    pub fn push(&self, wd: i32, event: u32, cookie: u32, name: &[u8]) {
        let event = Event {
            wd,
            mask: event & !mask::EXCL_UNLINK,
            cookie,
            name: name.to_vec(),
        };
        {
            let mut s = self.state.lock();
            // An event equal to the last one that was not read yet is dropped.
            if s.events.back() == Some(&event) {
                return;
            }
            match s.events.len() {
                n if n < MAX_QUEUED_EVENTS => s.events.push_back(event),
                n if n == MAX_QUEUED_EVENTS => s.events.push_back(Event {
                    wd: -1,
                    mask: mask::Q_OVERFLOW,
                    cookie: 0,
                    name: Vec::new(),
                }),
                _ => return,
            }
        }
        self.wait.wake(Events::IN | Events::RDNORM);
    }
    /// Ends a watch and tells so.
    pub fn end_watch(&self, wd: i32) -> bool {
        let removed = self.state.lock().watches.remove(&wd);
        let Some(id) = removed else {
            return false;
        };
        notify::unwatch(id, wd, core::ptr::from_ref(self));
        self.push(wd, mask::IGNORED, 0, b"");
        true
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        let watches = core::mem::take(&mut self.state.get_mut().watches);
        for (wd, id) in watches {
            notify::unwatch(id, wd, core::ptr::from_ref(self));
        }
    }
}

/// An inotify instance.
pub struct Inotify {
    queue: Arc<Queue>,
    owner: u32,
}

/// Instances by user.
static INSTANCES: SpinLock<BTreeMap<u32, usize>> = SpinLock::new(BTreeMap::new());

impl Drop for Inotify {
    fn drop(&mut self) {
        let mut instances = INSTANCES.lock();
        if let Some(count) = instances.get_mut(&self.owner) {
            *count -= 1;
            if *count == 0 {
                instances.remove(&self.owner);
            }
        }
    }
}

impl Inotify {
    /// An instance without watches, of the user `owner`.
    ///
    /// # Errors
    /// EMFILE when the user has `fs.inotify.max_user_instances`.
    pub fn new(owner: u32) -> Result<Arc<Self>, Errno> {
        let most = sysctl::get_int("fs/inotify/max_user_instances").unwrap_or(128);
        let mut instances = INSTANCES.lock();
        let count = instances.entry(owner).or_default();
        if *count as i64 >= most {
            return Err(Errno::EMFILE);
        }
        *count += 1;
        Ok(Arc::new(Self {
            queue: Arc::default(),
            owner,
        }))
    }
    /// Watches an inode.
    ///
    /// # Errors
    /// EEXIST with IN_MASK_CREATE; ENOSPC at the limit; EINVAL without any event.
    pub fn add(&self, id: InodeId, wanted: u32) -> Result<i32, Errno> {
        if wanted & mask::ALL == 0 || wanted & IN_MASK_ADD != 0 && wanted & IN_MASK_CREATE != 0 {
            return Err(Errno::EINVAL);
        }
        if wanted & IN_MASK_CREATE != 0 && notify::is_watched(id, &self.queue) {
            return Err(Errno::EEXIST);
        }
        let fresh = {
            let mut s = self.queue.state.lock();
            if s.watches.len() >= MAX_WATCHES {
                return Err(Errno::ENOSPC);
            }
            s.last_wd += 1;
            s.last_wd
        };
        let kept = wanted & (mask::ALL | mask::ONESHOT | mask::EXCL_UNLINK);
        let (wd, new) = notify::watch(id, &self.queue, kept, wanted & IN_MASK_ADD != 0, fresh);
        if new {
            self.queue.state.lock().watches.insert(wd, id);
        }
        Ok(wd)
    }
    /// Ends a watch.
    ///
    /// # Errors
    /// EINVAL when there is no such watch.
    pub fn remove(&self, wd: i32) -> Result<(), Errno> {
        if self.queue.end_watch(wd) {
            Ok(())
        } else {
            Err(Errno::EINVAL)
        }
    }
}

impl FileOps for Inotify {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn read(&self, file: &File, dst: &mut Dest<'_>, _offset: u64) -> Result<usize, Errno> {
        let room = dst.remaining();
        let take = || -> Option<Result<Vec<u8>, Errno>> {
            let mut s = self.queue.state.lock();
            let mut out = Vec::new();
            while let Some(e) = s.events.front() {
                if out.len() + HEADER + e.name_len() > room {
                    if out.is_empty() {
                        return Some(Err(Errno::EINVAL));
                    }
                    break;
                }
                out.extend(e.to_bytes());
                s.events.pop_front();
            }
            if out.is_empty() { None } else { Some(Ok(out)) }
        };
        let bytes = if file.nonblock() {
            take().ok_or(Errno::EAGAIN)?
        } else {
            wait_until(&self.queue.wait, Events::IN, None, take).map_err(|e| e.restart_or(Errno::EAGAIN))?
        }?;
        dst.put(&bytes)
    }
    fn is_stream(&self) -> bool {
        true
    }
    fn poll(&self, _file: &File) -> Events {
        if self.queue.state.lock().events.is_empty() {
            Events::empty()
        } else {
            Events::IN | Events::RDNORM
        }
    }
    fn signals(&self) -> Signals {
        Signals::Readiness
    }
    fn poll_source(&self) -> PollSource<'_> {
        PollSource::Queue(&self.queue.wait)
    }
    fn ioctl(
        &self,
        _file: &File,
        _ctx: &mut crate::syscall::Ctx<'_>,
        request: u32,
        arg: u64,
    ) -> Result<u64, Errno> {
        if request != hal::uapi::ioctl::FIONREAD {
            return Err(Errno::ENOTTY);
        }
        let n: usize = {
            let s = self.queue.state.lock();
            s.events.iter().map(|e| HEADER + e.name_len()).sum()
        };
        hal::user::UserPtr::<i32>::new(arg).write(&(n as i32))?;
        Ok(0)
    }
    fn describe(&self) -> Vec<u8> {
        b"anon_inode:inotify".to_vec()
    }
    fn fdinfo(&self) -> Vec<u8> {
        let s = self.queue.state.lock();
        let mut out = alloc::string::String::new();
        for (wd, id) in &s.watches {
            use core::fmt::Write;
            let _ = writeln!(
                out,
                "inotify wd:{wd} ino:{:x} sdev:{:x} mask:0 ignored_mask:0",
                id.ino, id.dev
            );
        }
        out.into_bytes()
    }
}
