//! Instances that tell of the readiness of many objects. Taking events never waits: the instance itself is waited for, as
//! any other object.

use super::{Call, Served, errno};
use qlib::Errno;
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};

/// Bytes of one event in the reply: events, zero, data.
const EVENT_BYTES: usize = 16;

pub fn serve_epoll_create(c: &mut Call<'_>) -> Served {
    c.give(epoll::create(epoll::CreateFlags::CLOEXEC).map_err(errno)?)
}

pub fn serve_epoll_ctl(c: &mut Call<'_>) -> Served {
    let (instance, object) = (c.fd()?, c.fd2()?);
    let flags = EventFlags::from_bits_retain(c.arg32(1)?);
    let data = EventData::new_u64(c.arg(2));
    match c.arg32(0)? as i32 {
        libc::EPOLL_CTL_ADD => epoll::add(instance, object, data, flags),
        libc::EPOLL_CTL_MOD => epoll::modify(instance, object, data, flags),
        libc::EPOLL_CTL_DEL => epoll::delete(instance, object),
        _ => return Err(Errno::EINVAL),
    }
    .map_err(errno)?;
    Ok(0)
}

pub fn serve_epoll_wait(c: &mut Call<'_>) -> Served {
    let most = c.room() / EVENT_BYTES;
    let most = usize::try_from(c.arg(0)).unwrap_or(usize::MAX).min(most);
    if most == 0 {
        return Err(Errno::EINVAL);
    }
    let mut events = Vec::with_capacity(most);
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    epoll::wait(c.fd()?, spare_capacity(&mut events), Some(&now)).map_err(errno)?;
    events.truncate(most);
    for e in &events {
        let (flags, data) = (e.flags, e.data);
        c.put(&flags.bits().to_le_bytes())?;
        c.put(&[0; 4])?;
        c.put(&data.u64().to_le_bytes())?;
    }
    Ok(events.len() as u64)
}
