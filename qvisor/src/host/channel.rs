//! Requests over message sockets: a broker's on the `process` machine, and a container's service, which a sandbox asks that
//! the container shares. A thread for each channel.

use super::{Handles, serve};
use crate::sandbox::socket;
use qlib::Errno;
use qlib::qcall::{HandleId, MAX_PAYLOAD, Op, Reply, Request};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::net::{RecvFlags, SendFlags};
use std::io::IoSlice;
use std::mem::size_of;
use zerocopy::{FromBytes, IntoBytes};

/// The descriptors that came with one request, and the one that goes with its reply.
struct Carried {
    came: Vec<(HandleId, OwnedFd)>,
    goes: Option<OwnedFd>,
}

impl Handles for Carried {
    fn get(&self, id: HandleId) -> Result<BorrowedFd<'_>, Errno> {
        self.came
            .iter()
            .find(|(h, _)| *h == id)
            .map(|(_, fd)| fd.as_fd())
            .ok_or(Errno::EBADF)
    }
    fn insert(&mut self, fd: OwnedFd) -> Result<HandleId, Errno> {
        // On this machine the guest names objects by its own descriptors; the number is chosen on its side.
        self.goes = Some(fd);
        Ok(HandleId::NONE)
    }
    fn remove(&mut self, _: HandleId) -> Result<(), Errno> {
        // The guest closes its own descriptors.
        Ok(())
    }
}

/// What may be asked over a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Offer {
    /// What [`serve`] does.
    All,
    /// What depends on the namespaces that the serving process stands in: sockets, and texts.
    Service,
}

impl Offer {
    fn has(self, op: u32) -> bool {
        match self {
            Self::All => true,
            Self::Service => matches!(Op::try_from(op), Ok(Op::Socket | Op::SystemFile)),
        }
    }
    /// Longest payload, bytes.
    const fn payload(self) -> usize {
        match self {
            Self::All => MAX_PAYLOAD,
            // The name of a text.
            Self::Service => 4096,
        }
    }
}

/// Serves `channel` until the guest closes it, on a thread of its own that has called `confine`.
pub fn spawn(
    index: usize,
    channel: OwnedFd,
    confine: impl FnOnce() -> std::io::Result<()> + Send + 'static,
) -> std::io::Result<()> {
    let name = format!("quark-broker{index}");
    crate::confined::spawn(name, 256 << 10, confine, move || run(&channel, Offer::All))
}

/// Serves a container's `channel` as [`spawn`] does, for a guest kernel that stands in other namespaces than the calling
/// process: sockets are made, and texts are found, in those of the thread. Nothing else is served, and no descriptor is taken.
/// Texts are those that [`super::system::open`] found before.
pub fn spawn_service(
    channel: OwnedFd,
    confine: impl FnOnce() -> std::io::Result<()> + Send + 'static,
) -> std::io::Result<()> {
    let name = "quark-service".to_owned();
    crate::confined::spawn(name, 256 << 10, confine, move || run(&channel, Offer::Service))
}

fn run(channel: &OwnedFd, offer: Offer) {
    let mut buffer = vec![0u8; size_of::<Request>() + offer.payload()];
    let mut data = Vec::new();
    loop {
        let got = match socket::receive(channel, &mut buffer, RecvFlags::empty()) {
            Ok(got) if got.len > 0 => got,
            _ => return,
        };
        let (reply, carried) = answer(offer, &buffer[..got.len], got.truncated, got.fds, &mut data);
        let parts = [IoSlice::new(reply.as_bytes()), IoSlice::new(&data)];
        let goes: Vec<BorrowedFd<'_>> = carried.iter().map(AsFd::as_fd).collect();
        if socket::send(channel, &parts, &goes, SendFlags::empty()).is_err() {
            return;
        }
    }
}

/// Answers one message.
fn answer(
    offer: Offer,
    message: &[u8],
    truncated: bool,
    fds: Vec<OwnedFd>,
    data: &mut Vec<u8>,
) -> (Reply, Option<OwnedFd>) {
    data.clear();
    let Ok((request, payload)) = Request::read_from_prefix(message) else {
        return (Reply::of(0, Err(Errno::EINVAL)), None);
    };
    let named: Vec<HandleId> = [request.handle, request.handle2]
        .into_iter()
        .filter(|h| *h != HandleId::NONE)
        .collect();
    if truncated
        || payload.len() != request.data_len as usize
        || fds.len() != named.len()
        || request.reserved != 0
    {
        return (Reply::of(request.tag, Err(Errno::EINVAL)), None);
    }
    if !offer.has(request.op) {
        return (Reply::of(request.tag, Err(Errno::ENOSYS)), None);
    }
    let mut carried = Carried {
        came: named.into_iter().zip(fds).collect(),
        goes: None,
    };
    let mut reply = serve(&request, payload, &mut carried, data);
    reply.data_len = data.len() as u32;
    (reply, carried.goes)
}

#[cfg(test)]
mod tests;
