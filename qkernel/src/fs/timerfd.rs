//! timerfd: a timer as a file. Source: `timerfd_create(2)`, Linux `fs/timerfd.c`.
//!
//! Expirations are counted when somebody asks; the timer thread only wakes those who wait.

use crate::fs::anon;
use crate::fs::file::{File, FileOps, PollSource};
use crate::fs::inode::Stat;
use crate::sched::wait::{Events, WaitQueue, wait_until};
use crate::time::timers::{self, AlarmId};
use alloc::format;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::any::Any;
use hal::clock::monotonic_ns;
use hal::host::Dest;
use hal::sync::SpinLock;
use hal::uapi::general::O_RDWR;
use qlib::Errno;

#[derive(Default)]
struct State {
    /// Next expiration, monotonic ns; 0 = disarmed.
    next_ns: u64,
    /// Interval, ns; 0 = once.
    interval_ns: u64,
    /// Expirations counted and not read.
    ticks: u64,
    /// What the alarm was set for, 0 = none; it may have gone off.
    armed_ns: u64,
    alarm: Option<AlarmId>,
}

impl State {
    /// Counts what has expired by `now`.
    fn advance(&mut self, now: u64) {
        if self.next_ns == 0 || now < self.next_ns {
            return;
        }
        match (now - self.next_ns).checked_div(self.interval_ns) {
            None => {
                self.ticks = self.ticks.saturating_add(1);
                self.next_ns = 0;
            }
            Some(missed) => {
                let passed = missed.saturating_add(1);
                self.ticks = self.ticks.saturating_add(passed);
                // The far end of time is where a timer never expires again.
                self.next_ns = self
                    .next_ns
                    .saturating_add(passed.saturating_mul(self.interval_ns));
            }
        }
    }
}

/// The timer.
pub struct TimerFd {
    me: Weak<TimerFd>,
    clock: u32,
    state: SpinLock<State>,
    queue: WaitQueue,
    ino: u64,
}

/// Remaining time and interval, ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Until the next expiration; 0 = disarmed.
    pub value_ns: u64,
    /// Between expirations; 0 = once.
    pub interval_ns: u64,
}

/// Makes a timer; `flags` may hold O_NONBLOCK.
pub fn timerfd(clock: u32, flags: u32) -> Arc<File> {
    let t = Arc::new_cyclic(|me| TimerFd {
        me: me.clone(),
        clock,
        state: SpinLock::default(),
        queue: WaitQueue::new(),
        ino: anon::next_ino(),
    });
    File::new(t, None, flags | O_RDWR)
}

impl TimerFd {
    /// CLOCK_* it was made for.
    pub fn clock(&self) -> u32 {
        self.clock
    }

    fn setting(s: &State, now: u64) -> Setting {
        Setting {
            value_ns: if s.next_ns == 0 {
                0
            } else {
                s.next_ns.saturating_sub(now).max(1)
            },
            interval_ns: s.interval_ns,
        }
    }

    /// What is left and the interval.
    pub fn get(&self) -> Setting {
        let now = monotonic_ns();
        let mut s = self.state.lock();
        s.advance(now);
        Self::setting(&s, now)
    }

    /// Arms for `next_ns` (monotonic; 0 disarms) and then every `interval_ns`; returns the old setting.
    pub fn set(&self, next_ns: u64, interval_ns: u64) -> Setting {
        let now = monotonic_ns();
        let (old, alarm) = {
            let mut s = self.state.lock();
            s.advance(now);
            let old = Self::setting(&s, now);
            s.next_ns = next_ns;
            s.interval_ns = interval_ns;
            s.ticks = 0;
            // Armed anew even for the same time.
            s.armed_ns = 0;
            (old, s.alarm.take())
        };
        if let Some(a) = alarm {
            timers::cancel(a);
        }
        self.arm();
        self.queue.wake(Events::IN | Events::RDNORM);
        old
    }

    /// Has the waiters woken at the next expiration.
    fn arm(&self) {
        let (next, old) = {
            let mut s = self.state.lock();
            if s.armed_ns == s.next_ns {
                return;
            }
            s.armed_ns = s.next_ns;
            (s.next_ns, s.alarm.take())
        };
        if let Some(a) = old {
            timers::cancel(a);
        }
        if next == 0 {
            return;
        }
        let me = self.me.clone();
        let alarm = timers::at(next, move || {
            if let Some(t) = me.upgrade() {
                t.queue.wake(Events::IN | Events::RDNORM);
            }
        });
        let unwanted = {
            let mut s = self.state.lock();
            if s.armed_ns == next {
                s.alarm.replace(alarm)
            } else {
                Some(alarm)
            }
        };
        if let Some(a) = unwanted {
            timers::cancel(a);
        }
    }

    fn take(&self) -> Option<u64> {
        let now = monotonic_ns();
        let mut s = self.state.lock();
        s.advance(now);
        match core::mem::take(&mut s.ticks) {
            0 => None,
            n => Some(n),
        }
    }
}

impl Drop for TimerFd {
    fn drop(&mut self) {
        if let Some(a) = self.state.get_mut().alarm.take() {
            timers::cancel(a);
        }
    }
}

impl FileOps for TimerFd {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn read(&self, file: &File, dst: &mut Dest<'_>, _offset: u64) -> Result<usize, Errno> {
        if dst.remaining() < 8 {
            return Err(Errno::EINVAL);
        }
        let n = match self.take() {
            Some(n) => n,
            None if file.nonblock() => return Err(Errno::EAGAIN),
            None => {
                // The wake may be late: the wait itself ends at the expiration too.
                loop {
                    let next = self.state.lock().next_ns;
                    let deadline = (next != 0).then_some(next);
                    match wait_until(&self.queue, Events::IN, deadline, || self.take()) {
                        Ok(n) => break n,
                        Err(crate::sched::wait::WaitError::TimedOut) => {}
                        Err(e) => return Err(e.restart_or(Errno::EAGAIN)),
                    }
                }
            }
        };
        self.arm();
        dst.put(&n.to_ne_bytes())
    }

    fn is_stream(&self) -> bool {
        true
    }

    fn stat(&self, _file: &File) -> Result<Stat, Errno> {
        Ok(anon::stat(None, anon::ANON_DEV, self.ino))
    }

    fn poll(&self, _file: &File) -> Events {
        let now = monotonic_ns();
        let mut s = self.state.lock();
        s.advance(now);
        if s.ticks > 0 {
            Events::IN | Events::RDNORM
        } else {
            Events::empty()
        }
    }

    fn poll_source(&self) -> PollSource<'_> {
        PollSource::Queue(&self.queue)
    }

    fn describe(&self) -> Vec<u8> {
        b"anon_inode:[timerfd]".to_vec()
    }

    fn fdinfo(&self) -> Vec<u8> {
        let g = self.get();
        let part = |ns: u64| (ns / 1_000_000_000, ns % 1_000_000_000);
        let (v, i) = (part(g.value_ns), part(g.interval_ns));
        format!(
            "clockid: {}\nticks: {}\nsettime flags: 01\nit_value: ({}, {})\nit_interval: ({}, {})\n",
            self.clock,
            self.state.lock().ticks,
            v.0,
            v.1,
            i.0,
            i.1
        )
        .into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expirations_are_counted() {
        let mut s = State {
            next_ns: 100,
            interval_ns: 10,
            ..State::default()
        };
        s.advance(99);
        assert_eq!((s.ticks, s.next_ns), (0, 100));
        s.advance(100);
        assert_eq!((s.ticks, s.next_ns), (1, 110));
        s.advance(139);
        assert_eq!((s.ticks, s.next_ns), (3 + 1, 140));
        let mut once = State {
            next_ns: 5,
            ..State::default()
        };
        once.advance(50);
        once.advance(60);
        assert_eq!((once.ticks, once.next_ns), (1, 0));
    }

    #[test]
    fn a_blocked_reader_wakes_at_the_time() {
        let f = timerfd(1, 0);
        let t = f.downcast::<TimerFd>().unwrap();
        let at = monotonic_ns() + 20_000_000;
        assert_eq!(t.set(at, 0).value_ns, 0);
        assert!(t.get().value_ns > 0);
        let mut b = [0; 8];
        assert_eq!(f.ops().read(&f, &mut Dest::kernel(&mut b), 0), Ok(8));
        assert_eq!(u64::from_ne_bytes(b), 1);
        assert!(monotonic_ns() >= at);
        assert_eq!(t.get().value_ns, 0);
    }
}
