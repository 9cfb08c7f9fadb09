//! System V message queues. Source: `msgop(2)`, Linux `ipc/msg.c`.

use super::sysv::{Perm, now_s};
use crate::ns::pid::Pid;
use crate::sched::wait::{Events, WaitQueue, wait_until};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use hal::sync::SpinLock;
use qlib::Errno;

/// Longest message (MSGMAX), bytes.
pub const MAX_MESSAGE: usize = 8192;
/// Bytes in a queue (MSGMNB).
pub const MAX_BYTES: usize = 16384;
/// MSG_NOERROR.
pub const NOERROR: u32 = 0o10000;
/// MSG_EXCEPT.
pub const EXCEPT: u32 = 0o20000;
/// MSG_COPY.
pub const COPY: u32 = 0o40000;

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Type, above 0.
    pub kind: i64,
    /// Text.
    pub text: Vec<u8>,
}

/// What changes in a queue.
pub struct QueueState {
    /// Owner and mode.
    pub perm: Perm,
    /// The messages.
    pub messages: VecDeque<Message>,
    /// Bytes in them.
    pub bytes: usize,
    /// Most bytes allowed.
    pub max_bytes: usize,
    /// Last sender and receiver.
    pub last_pids: (Pid, Pid),
    /// Last send, receive, change, s.
    pub times: (u64, u64, u64),
    /// It was removed.
    pub removed: bool,
}

/// A queue.
pub struct MsgQueue {
    /// Its id.
    pub id: i32,
    /// What changes.
    pub state: SpinLock<QueueState>,
    queue: WaitQueue,
}

/// Which message a receiver takes: the first of type `kind` (0 any; negative: the lowest up to it; with MSG_EXCEPT any other).
fn pick(messages: &VecDeque<Message>, kind: i64, flags: u32) -> Option<usize> {
    if flags & COPY != 0 {
        return usize::try_from(kind).ok().filter(|i| *i < messages.len());
    }
    match kind {
        0 => (!messages.is_empty()).then_some(0),
        k if k > 0 && flags & EXCEPT != 0 => messages.iter().position(|m| m.kind != k),
        k if k > 0 => messages.iter().position(|m| m.kind == k),
        k => {
            let limit = k.checked_neg().unwrap_or(i64::MAX);
            let lowest = messages.iter().map(|m| m.kind).filter(|t| *t <= limit).min()?;
            messages.iter().position(|m| m.kind == lowest)
        }
    }
}

impl MsgQueue {
    /// An empty queue.
    pub fn new(id: i32, perm: Perm) -> Self {
        Self {
            id,
            state: SpinLock::new(QueueState {
                perm,
                messages: VecDeque::new(),
                bytes: 0,
                max_bytes: MAX_BYTES,
                last_pids: <(Pid, Pid)>::default(),
                times: (0, 0, now_s()),
                removed: false,
            }),
            queue: WaitQueue::new(),
        }
    }

    /// Removes the queue; waiters fail with EIDRM.
    pub fn remove(&self) {
        self.state.lock().removed = true;
        crate::ns::current().ipc.queues.remove(self.id);
        self.queue.wake_all();
    }

    /// Tells the waiters that a limit changed.
    pub fn changed(&self) {
        self.queue.wake_all();
    }

    /// Sends.
    ///
    /// # Errors
    /// EAGAIN without waiting, EIDRM, EINTR.
    pub fn send(&self, m: Message, pid: &Pid, wait: bool) -> Result<(), Errno> {
        let mut m = Some(m);
        let mut put = || {
            let mut s = self.state.lock();
            if s.removed {
                return Some(Err(Errno::EIDRM));
            }
            let len = m.as_ref().map_or(0, |m| m.text.len());
            // Empty messages are bounded too: by as many as there may be bytes.
            if s.bytes + len > s.max_bytes || s.messages.len() >= s.max_bytes {
                return None;
            }
            if let Some(m) = m.take() {
                s.bytes += len;
                s.messages.push_back(m);
            }
            s.last_pids.0 = pid.clone();
            s.times.0 = now_s();
            Some(Ok(()))
        };
        match put() {
            Some(r) => r?,
            None if !wait => return Err(Errno::EAGAIN),
            None => wait_until(&self.queue, Events::OUT, None, put).map_err(|_| Errno::EINTR)??,
        }
        self.queue.wake(Events::IN);
        Ok(())
    }

    /// Receives; a text longer than `room` is cut with MSG_NOERROR.
    ///
    /// # Errors
    /// ENOMSG without waiting, E2BIG, EIDRM, EINTR.
    pub fn receive(&self, kind: i64, room: usize, flags: u32, pid: &Pid) -> Result<Message, Errno> {
        let wait = flags & super::sysv::NOWAIT == 0;
        let take = || {
            let mut s = self.state.lock();
            if s.removed {
                return Some(Err(Errno::EIDRM));
            }
            let at = pick(&s.messages, kind, flags)?;
            if s.messages[at].text.len() > room && flags & NOERROR == 0 {
                return Some(Err(Errno::E2BIG));
            }
            if flags & COPY != 0 {
                return Some(Ok(s.messages[at].clone()));
            }
            let m = s.messages.remove(at)?;
            s.bytes -= m.text.len();
            s.last_pids.1 = pid.clone();
            s.times.1 = now_s();
            Some(Ok(m))
        };
        let mut m = match take() {
            Some(r) => r?,
            None if !wait => return Err(Errno::ENOMSG),
            None => wait_until(&self.queue, Events::IN, None, take).map_err(|_| Errno::EINTR)??,
        };
        m.text.truncate(room);
        self.queue.wake(Events::OUT);
        Ok(m)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn message(kind: i64, text: &[u8]) -> Message {
        Message {
            kind,
            text: text.to_vec(),
        }
    }

    #[test]
    fn types_choose() {
        let q = MsgQueue::new(1, Perm::default());
        for (k, t) in [(3, b"c"), (1, b"a"), (2, b"b"), (1, b"d")] {
            q.send(message(k, t), &Pid::default(), false).unwrap();
        }
        let now = super::super::sysv::NOWAIT;
        let get = |kind, flags| q.receive(kind, 10, flags | now, &Pid::default()).map(|m| m.text);
        assert_eq!(get(1, 0), Ok(vec![b'a']));
        assert_eq!(get(-2, 0), Ok(vec![b'd']));
        assert_eq!(get(3, EXCEPT), Ok(vec![b'b']));
        assert_eq!(get(7, 0), Err(Errno::ENOMSG));
        assert_eq!(get(0, COPY), Ok(vec![b'c']));
        assert_eq!(get(0, 0), Ok(vec![b'c']));
        assert_eq!(q.state.lock().bytes, 0);
    }

    #[test]
    fn lengths_and_limits() {
        let q = MsgQueue::new(1, Perm::default());
        q.send(message(1, &[0; 8000]), &Pid::default(), false).unwrap();
        q.send(message(1, &[0; 8000]), &Pid::default(), false).unwrap();
        assert_eq!(
            q.send(message(1, &[0; 8000]), &Pid::default(), false),
            Err(Errno::EAGAIN)
        );
        assert_eq!(q.receive(0, 10, 0, &Pid::default()), Err(Errno::E2BIG));
        assert_eq!(
            q.receive(0, 10, NOERROR, &Pid::default()).map(|m| m.text.len()),
            Ok(10)
        );
        q.remove();
        assert_eq!(q.receive(0, 10, 0, &Pid::default()), Err(Errno::EIDRM));
    }
}
