//! Signals of readiness: `F_SETOWN`, `F_SETSIG`, `O_ASYNC`; SIGIO and SIGURG. Source: `fcntl(2)`, Linux `fs/fcntl.c`.
//!
//! A thread of the kernel watches all files that ask for it with an epoll instance of its own. So it makes no difference who
//! knows of their readiness, and no signal is sent under the lock of what became ready.

use crate::fs::epoll::Epoll;
use crate::fs::file::{File, PollSource, Signals};
use crate::fs::open::FASYNC;
use crate::sched::wait::{Events, SleepLock};
use crate::signal::info::{Fields, SigInfo, code};
use crate::signal::send::{self, Sent};
use crate::signal::signo::{SIGIO, SIGURG};
use crate::task::{Task, table};
use alloc::sync::{Arc, Weak};
use hal::sync::Once;
use hal::thread::NewSpace;
use hashbrown::HashMap;
use qlib::Errno;

/// Events taken at once.
const BATCH: usize = 64;

/// Who is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Target {
    /// Nobody.
    #[default]
    Nobody,
    /// One thread.
    Thread(u32),
    /// A process.
    Process(u32),
    /// A process group.
    Group(u32),
}

impl Target {
    /// Whether there is such a one.
    pub fn exists(self) -> bool {
        match self {
            Target::Nobody => true,
            Target::Thread(n) | Target::Process(n) => table::task(n).is_some() || table::process(n).is_some(),
            Target::Group(n) => !table::group(n).is_empty(),
        }
    }
}

/// What an open file tells, and to whom.
#[derive(Clone, Copy, Debug, Default)]
pub struct Owner {
    /// Who is told.
    pub target: Target,
    /// By which signal; 0 = SIGIO without particulars.
    pub signal: u32,
    /// The user who said so.
    pub uid: u32,
    /// And the effective one.
    pub euid: u32,
}

struct Watched {
    file: Weak<File>,
    /// The descriptor that `si_fd` names.
    fd: i32,
    /// What a host object was ready for when the watch began, which the instance tells first: it is no change.
    before: Events,
}

struct Service {
    epoll: Arc<File>,
    /// By the address of the file, which the weak reference keeps from being another's. Lock order: before the instance's.
    files: SleepLock<HashMap<u64, Watched>>,
}

static SERVICE: Once<Service> = Once::new();

fn service() -> Result<&'static Service, Errno> {
    if SERVICE.get().is_none() {
        let mut first = false;
        let s = SERVICE.call_once(|| {
            first = true;
            Service {
                epoll: Epoll::create(),
                files: SleepLock::default(),
            }
        });
        if first {
            hal::thread::spawn("sigio", None, NewSpace::Kernel, || run(s))?;
        }
    }
    SERVICE.get().ok_or(Errno::ENOMEM)
}

fn run(s: &'static Service) {
    let Some(epoll) = s.epoll.downcast::<Epoll>() else {
        return;
    };
    loop {
        tell_all(s, epoll, None);
    }
}

/// Tells of what changed, waiting for the first change until the deadline.
fn tell_all(s: &Service, epoll: &Epoll, deadline_ns: Option<u64>) {
    for (events, id) in epoll.wait(BATCH, deadline_ns).unwrap_or_default() {
        tell(s, id, events);
    }
}

/// The app is about to take what the file has: where only the host can say that there is something, that is asked and told
/// first, for afterwards it is no longer to be seen.
pub fn before_use(file: &File) {
    if file.flags() & FASYNC == 0 || !on_host(file) {
        return;
    }
    if let Some(s) = SERVICE.get()
        && let Some(epoll) = s.epoll.downcast::<Epoll>()
    {
        tell_all(s, epoll, Some(0));
    }
}

fn on_host(file: &File) -> bool {
    !matches!(file.ops().poll_source(), PollSource::Queue(_))
}

/// What is to be told of a file.
fn wanted(file: &File) -> Events {
    let kind = file.ops().signals();
    let mut e = Events::empty();
    if kind != Signals::Never && file.flags() & FASYNC != 0 {
        // Both ends of a pipe are told of what happens at either.
        if file.readable() {
            e |= Events::IN | Events::PRI;
        }
        if file.writable() {
            e |= Events::OUT;
        }
    }
    if kind == Signals::Socket && file.owner.lock().target != Target::Nobody {
        e |= Events::PRI;
    }
    e
}

/// Watches a file as its flags and its owner ask; `fd` is the descriptor by which they were set.
///
/// # Errors
/// ENOMEM.
pub fn watch(file: &Arc<File>, fd: i32) -> Result<(), Errno> {
    let events = wanted(file);
    if events.is_empty() && SERVICE.get().is_none() {
        return Ok(());
    }
    let s = service()?;
    let Some(epoll) = s.epoll.downcast::<Epoll>() else {
        return Ok(());
    };
    let id = Arc::as_ptr(file) as u64;
    let mut files = s.files.lock();
    let known = files.remove(&id).is_some();
    if known {
        // Absent where the file's last descriptor is gone meanwhile.
        let _ = epoll.remove(0, file);
    }
    if events.is_empty() {
        return Ok(());
    }
    if files.len() == files.capacity() {
        files.retain(|_, w| w.file.strong_count() > 0);
    }
    let watched = Watched {
        file: Arc::downgrade(file),
        fd,
        before: if on_host(file) {
            file.ops().poll(file)
        } else {
            Events::empty()
        },
    };
    files.insert(id, watched);
    epoll.add_for_changes(file, events, id)?;
    drop(files);
    before_use(file);
    Ok(())
}

/// Tells of a change.
fn tell(s: &Service, id: u64, events: Events) {
    let (file, fd, events) = {
        let mut files = s.files.lock();
        let Some(w) = files.get_mut(&id) else { return };
        let before = core::mem::take(&mut w.before);
        (w.file.upgrade(), w.fd, events - before)
    };
    let Some(file) = file else { return };
    let owner = *file.owner.lock();
    let socket = file.ops().signals() == Signals::Socket;
    if socket && events.contains(Events::PRI) {
        deliver(&owner, SigInfo::kernel(SIGURG));
    }
    let Some((reason, band)) = reason(events, socket) else {
        return;
    };
    if file.flags() & FASYNC == 0 {
        return;
    }
    let told = owner.signal != 0 && deliver(&owner, particular(owner.signal, reason, band, fd));
    if !told {
        deliver(&owner, SigInfo::kernel(SIGIO));
    }
}

/// `si_code` and `si_band` of what became ready: one thing at a time, what can be read first.
fn reason(events: Events, socket: bool) -> Option<(i32, i64)> {
    const RULES: [(Events, i32, i64); 4] = [
        (Events::PRI, code::POLL_PRI, 0x82),
        (Events::IN, code::POLL_IN, 0x41),
        (Events::ERR, code::POLL_ERR, 0x8),
        (Events::OUT, code::POLL_OUT, 0x304),
    ];
    if events.contains(Events::HUP) {
        // Of a pipe the end can be read; the other end of a connection is gone.
        return Some(if socket {
            (code::POLL_HUP, 0x18)
        } else {
            (code::POLL_IN, 0x41)
        });
    }
    let rule = RULES.iter().find(|(e, ..)| events.intersects(*e))?;
    Some((rule.1, rule.2))
}

/// The signal of `F_SETSIG`.
fn particular(signo: u32, reason: i32, band: i64, fd: i32) -> SigInfo {
    use crate::signal::signo::{SIGBUS, SIGCHLD, SIGFPE, SIGILL, SIGSEGV, SIGSYS, SIGTRAP};
    // Their codes mean something else.
    let own = [SIGILL, SIGFPE, SIGSEGV, SIGBUS, SIGTRAP, SIGCHLD, SIGSYS].contains(&signo);
    SigInfo {
        signo,
        errno: 0,
        code: if own { code::SI_SIGIO } else { reason },
        fields: Fields::Poll { band, fd },
    }
}

/// Sends to the owner; `false` when there was no room for a real-time signal.
fn deliver(owner: &Owner, info: SigInfo) -> bool {
    let may = |t: &Task| {
        let c = t.creds();
        owner.euid == 0
            || [c.suid, c.uid]
                .iter()
                .any(|u| [owner.euid, owner.uid].contains(u))
    };
    let processes = match owner.target {
        Target::Nobody => return true,
        Target::Thread(n) => {
            let task = table::task(n).filter(|t| may(t));
            return task.is_none_or(|t| send::to_task(&t, info) != Sent::Full);
        }
        Target::Process(n) => table::process(n).into_iter().collect(),
        Target::Group(n) => table::group(n),
    };
    let mut room = true;
    for p in processes {
        let first = p.tasks.lock().first().cloned();
        if first.is_some_and(|t| may(&t)) {
            room &= send::to_process(&p, info) != Sent::Full;
        }
    }
    room
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_reason_of_several() {
        let of = |e: Events| reason(e, true).map(|(r, _)| r);
        assert_eq!(of(Events::empty()), None);
        assert_eq!(of(Events::IN | Events::OUT), Some(code::POLL_IN));
        assert_eq!(of(Events::OUT), Some(code::POLL_OUT));
        assert_eq!(of(Events::IN | Events::PRI), Some(code::POLL_PRI));
        assert_eq!(of(Events::IN | Events::HUP), Some(code::POLL_HUP));
        assert_eq!(reason(Events::HUP, false), Some((code::POLL_IN, 0x41)));
    }

    #[test]
    fn signals_with_codes_of_their_own_get_one_that_is_not_theirs() {
        use crate::signal::signo::SIGCHLD;
        assert_eq!(particular(40, code::POLL_IN, 0x41, 3).code, code::POLL_IN);
        assert_eq!(particular(SIGCHLD, code::POLL_IN, 0x41, 3).code, code::SI_SIGIO);
    }
}
