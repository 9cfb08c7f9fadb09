//! Serves a virtual machine's qcalls: copies a request out of the ring, checks it, does it, completes it.

use super::Confine;
use super::engine::Engine;
use super::memory::Memory;
use super::relay::Relay;
use super::rings::Area;
use super::window::Window;
use crate::confined;
use crate::host::{self, HandleTable, Named};
use crate::sandbox::socket;
use crate::seccomp::Role;
use crate::vcpu::Bells;
use qlib::qcall::{HandleId, MAX_PAYLOAD, Op, Reply, Request};
use qlib::ring::{COMPLETE, Producer, Pushed};
use qlib::{Errno, PhysAddr};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::FileType;
use rustix::net::{RecvFlags, SendFlags};
use std::io::IoSlice;
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use zerocopy::IntoBytes;

/// Largest control message passed to the guest, bytes.
const MAX_CONTROL: usize = 1 << 20;
/// Requests for control messages that may wait; more are refused.
const MAX_CONTROL_REQUESTS: usize = 16;

/// Why the guest ended: exit code and reason.
pub type Ending = (i32, String);

/// A piece of a file in the window.
pub struct Piece {
    pub at: u64,
    pub len: u64,
    pub file: Arc<OwnedFd>,
    pub offset: u64,
}

/// What the threads of a machine share.
pub struct Service {
    area: Area,
    pub window: Window,
    completions: Mutex<Producer<Area>>,
    pub(super) bells: Bells,
    pub(super) handles: HandleTable,
    control: OwnedFd,
    control_requests: SyncSender<Request>,
    relay: Relay,
    log: OwnedFd,
    ending: Sender<Ending>,
    pieces: Mutex<Vec<Piece>>,
}

pub(super) fn held<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Service {
    /// Starts the serving threads.
    ///
    /// # Errors
    /// The host's.
    pub fn start(
        area: Area,
        window: Window,
        bells: Bells,
        control: OwnedFd,
        log: OwnedFd,
        ending: Sender<Ending>,
        engine: Engine,
        confine: &Confine,
    ) -> std::io::Result<Arc<Self>> {
        let (control_requests, waiting) = sync_channel(MAX_CONTROL_REQUESTS);
        let service = Arc::new(Self {
            completions: Mutex::new(Producer::new(area.clone(), COMPLETE)),
            area: area.clone(),
            window,
            bells,
            handles: HandleTable::default(),
            control,
            control_requests,
            relay: Relay::new()?,
            log,
            ending,
            pieces: Mutex::new(Vec::new()),
        });
        let s = service.clone();
        let enter = confine.clone();
        confined::spawn(
            "quark-control".to_owned(),
            512 << 10,
            move || enter(Role::Control),
            move || s.receive_control(&waiting),
        )?;
        let s = service.clone();
        let enter = confine.clone();
        confined::spawn(
            "quark-relay".to_owned(),
            128 << 10,
            move || enter(Role::Relay),
            move || s.relay.run(&s),
        )?;
        engine.start(&service, area, confine)?;
        Ok(service)
    }

    pub(super) fn broken<T>(&self) -> Option<T> {
        self.end(
            1,
            "the guest kernel wrote nonsense into the submission ring".to_owned(),
        );
        None
    }

    /// Posts a completion. Tag 0: nobody waits.
    pub(super) fn complete(&self, reply: Reply) {
        if reply.tag == 0 {
            return;
        }
        loop {
            let pushed = held(&self.completions).push(reply.as_bytes());
            match pushed {
                Ok(Pushed::Quiet) => return,
                Ok(Pushed::Ring) => {
                    let _ = self.bells.completions.write(1);
                    return;
                }
                Ok(Pushed::Full) => {
                    // The guest has more requests on the way than the ring holds answers: it must take some first.
                    let _ = self.bells.completions.write(1);
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(_) => {
                    self.broken::<()>();
                    return;
                }
            }
        }
    }

    /// The guest rang, and no ioeventfd caught it.
    pub fn ring(&self) {
        let _ = self.bells.submissions.write(1);
    }

    /// The guest's RAM.
    pub(super) fn memory(&self) -> &Memory {
        self.area.memory()
    }

    /// Ends the guest.
    pub fn end(&self, code: i32, reason: String) {
        let _ = self.ending.send((code, reason));
    }

    /// Passes the line in the log page on. Never waits: a log nobody reads loses lines.
    pub fn log_line(&self) {
        let (level, line) = self.area.log_line();
        let name = match level {
            1 => "ERROR",
            2 => "WARN",
            3 => "INFO",
            4 => "DEBUG",
            _ => "TRACE",
        };
        let mut text = format!("{name} ").into_bytes();
        text.extend(line.iter().map(|b| if b.is_ascii_control() { b' ' } else { *b }));
        text.push(b'\n');
        let _ = rustix::io::write(&self.log, &text);
    }

    /// The reason in the log page.
    pub fn reason(&self) -> String {
        String::from_utf8_lossy(&self.area.log_line().1).into_owned()
    }

    /// Serves what must be served in the ring's order, by whoever takes the requests, besides readiness, which is the engine's:
    /// room in the window is emptied before its next owner fills it. `None`: the request may overtake others. Never blocks.
    pub(super) fn serve_in_order(&self, r: &Request) -> Option<Result<u64, Errno>> {
        match Op::try_from(r.op) {
            Ok(Op::MapWindow) => Some(self.map_window(r)),
            Ok(Op::UnmapWindow) => Some(self.unmap_window(r)),
            Ok(Op::Close) if self.closes_at_once(r.handle) => Some(self.handles.remove(r.handle).map(|()| 0)),
            _ => None,
        }
    }

    /// Whether closing it takes no time. What the guest asks next may rely on it, as who binds the same port does, or who
    /// waits for a pipe's end. A socket may have been told to linger, and a file without a name gives its blocks back.
    fn closes_at_once(&self, handle: HandleId) -> bool {
        let Ok(file) = self.handles.get(handle) else {
            return true;
        };
        match rustix::fs::fstat(&*file).map(|s| FileType::from_raw_mode(s.st_mode)) {
            Ok(FileType::Socket) => matches!(
                rustix::net::sockopt::socket_linger(&*file),
                Ok(None | Some(Duration::ZERO))
            ),
            Ok(FileType::Fifo) => true,
            _ => false,
        }
    }

    /// Serves a request that may overtake others; `None`: somebody else completes it.
    pub(super) fn serve(&self, r: &Request, payload: &mut Vec<u8>, data: &mut Vec<u8>) -> Option<Reply> {
        let done = |result| Some(Reply::of(r.tag, result));
        let op = match Op::try_from(r.op) {
            Ok(op) => op,
            Err(e) => return done(Err(e)),
        };
        match op {
            Op::ControlRecv => match self.control_requests.try_send(*r) {
                Ok(()) => None,
                Err(TrySendError::Full(_)) => done(Err(Errno::EAGAIN)),
                Err(TrySendError::Disconnected(_)) => done(Err(Errno::EPIPE)),
            },
            Op::PowerOff => {
                self.end(r.args[0] as i32, self.reason());
                done(Ok(0))
            }
            Op::Close => done(self.handles.remove(r.handle).map(|()| 0)),
            Op::Dup => {
                let made = self.handles.get(r.handle).and_then(|f| self.handles.insert(f));
                let mut reply = Reply::of(r.tag, made.map(|_| 0));
                reply.handle = made.unwrap_or(HandleId::NONE);
                Some(reply)
            }
            Op::FreeRam => {
                let freed = self.area.memory().discard(PhysAddr(r.args[0]), r.args[1]);
                done(freed.map(|()| 0).map_err(|e| Errno(e.raw_os_error())))
            }
            Op::Socket | Op::SystemFile if r.handle != HandleId::NONE => {
                let sent = self
                    .payload(r, payload)
                    .and_then(|()| self.handles.get(r.handle))
                    .and_then(|channel| self.relay.send(r, channel, payload));
                match sent {
                    Ok(()) => None,
                    Err(e) => done(Err(e)),
                }
            }
            Op::ControlSend => done(self.payload(r, payload).and_then(|()| self.send_control(payload))),
            Op::Read => {
                let mut by = *r;
                by.data_len = 0;
                by.reply_cap = (r.args[1].min(MAX_PAYLOAD as u64)) as u32;
                self.delegate(&by, PhysAddr(r.args[2]), payload, data)
            }
            Op::Write => {
                let mut by = *r;
                by.data_addr = r.args[2];
                by.data_len = r.args[1].min(u64::from(u32::MAX)) as u32;
                by.reply_cap = 0;
                self.delegate(&by, PhysAddr(0), payload, data)
            }
            _ => self.delegate(r, PhysAddr(r.data_addr), payload, data),
        }
    }

    /// Copies the payload.
    fn payload(&self, r: &Request, payload: &mut Vec<u8>) -> Result<(), Errno> {
        let len = r.data_len as usize;
        if len > MAX_PAYLOAD {
            return Err(Errno::E2BIG);
        }
        payload.clear();
        payload.resize(len, 0);
        if len != 0 && !self.area.memory().read(PhysAddr(r.data_addr), payload) {
            return Err(Errno::EFAULT);
        }
        Ok(())
    }

    /// Has the machine-independent handlers serve a request; reply data goes to `to`.
    fn delegate(
        &self,
        r: &Request,
        to: PhysAddr,
        payload: &mut Vec<u8>,
        data: &mut Vec<u8>,
    ) -> Option<Reply> {
        if let Err(e) = self.payload(r, payload) {
            return Some(Reply::of(r.tag, Err(e)));
        }
        let mut bounded = *r;
        bounded.reply_cap = r.reply_cap.min(MAX_PAYLOAD as u32);
        let mut named = Named::new(&self.handles, [r.handle, r.handle2]);
        data.clear();
        let mut reply = host::serve(&bounded, payload, &mut named, data);
        reply.tag = r.tag;
        data.truncate(bounded.reply_cap as usize);
        reply.data_len = data.len() as u32;
        if !data.is_empty() && !self.area.memory().write(to, data) {
            reply = Reply::of(r.tag, Err(Errno::EFAULT));
        }
        Some(reply)
    }

    fn map_window(&self, r: &Request) -> Result<u64, Errno> {
        let [offset, len, at, prot, ..] = r.args;
        let file = self.handles.get(r.handle)?;
        if offset % qlib::PAGE_SIZE != 0 {
            return Err(Errno::EINVAL);
        }
        let write = prot & 2 != 0;
        self.window.map(file.as_fd(), offset, len, at, write)?;
        let mut pieces = held(&self.pieces);
        pieces.retain(|p| p.at + p.len <= at || p.at >= at + len);
        pieces.push(Piece {
            at,
            len,
            file,
            offset,
        });
        Ok(0)
    }

    fn unmap_window(&self, r: &Request) -> Result<u64, Errno> {
        let [at, len, ..] = r.args;
        self.window.unmap(at, len)?;
        held(&self.pieces).retain(|p| p.at + p.len <= at || p.at >= at + len);
        Ok(0)
    }

    /// Whether a file in the window ends before its piece does: an access behind its end fails, and is the guest's to handle.
    pub fn window_is_short(&self) -> bool {
        held(&self.pieces).iter().any(|p| {
            let size = rustix::fs::fstat(&*p.file).map_or(0, |s| s.st_size as u64);
            size < p.offset.saturating_add(p.len)
        })
    }

    fn send_control(&self, bytes: &[u8]) -> Result<u64, Errno> {
        let sent = socket::send(&self.control, &[IoSlice::new(bytes)], &[], SendFlags::empty());
        sent.map(|n| n as u64).map_err(|e| Errno(e.raw_os_error()))
    }

    /// Answers requests for control messages, one after the other.
    fn receive_control(&self, waiting: &Receiver<Request>) {
        let mut buffer = vec![0; MAX_CONTROL];
        while let Ok(r) = waiting.recv() {
            let reply = match socket::receive(&self.control, &mut buffer, RecvFlags::empty()) {
                Ok(got) if got.len == 0 => {
                    self.end(1, "the host side closed the control channel".to_owned());
                    return;
                }
                Ok(got) if got.truncated => Err(Errno::EMSGSIZE),
                Ok(got) => self.pass_control(&r, &buffer[..got.len], got.fds),
                Err(e) => Err(Errno(e.raw_os_error())),
            };
            let mut answer = Reply::of(r.tag, reply.map(|(handles, _)| handles));
            answer.data_len = reply.map_or(0, |(_, len)| len);
            self.complete(answer);
        }
    }

    /// Gives a message to the guest: its handles, then its bytes. Returns the number of handles and of bytes in all.
    fn pass_control(&self, r: &Request, message: &[u8], fds: Vec<OwnedFd>) -> Result<(u64, u32), Errno> {
        let mut out = Vec::new();
        let count = fds.len() as u64;
        for fd in fds {
            let h = self.handles.insert(Arc::new(fd))?;
            out.extend_from_slice(&h.0.to_le_bytes());
        }
        out.extend_from_slice(message);
        if out.len() > r.reply_cap as usize {
            return Err(Errno::EMSGSIZE);
        }
        if !self.area.memory().write(PhysAddr(r.data_addr), &out) {
            return Err(Errno::EFAULT);
        }
        Ok((count, out.len() as u32))
    }
}
