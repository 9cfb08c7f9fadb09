//! inotify. Source: `inotify(7)`.

use super::files::{io_file, path_arg};
use super::{Args, Ctx, Support::*, SysResult};
use crate::fs::anon;
use crate::fs::file::File;
use crate::fs::inotify::Inotify;
use crate::fs::walk::{self, Flags};
use crate::rows;
use hal::uapi::general::{IN_DONT_FOLLOW, IN_ONLYDIR, O_CLOEXEC, O_NONBLOCK, O_RDONLY};
use qlib::Errno;

rows! {
    inotify_init: Full, |c, _| init(c, 0);
    inotify_init1: Full, |c, a| init(c, a.u32(0));
    inotify_add_watch: Partial("events of what the host itself does to shared files are not seen"), add_watch;
    inotify_rm_watch: Full, rm_watch;
}

fn init(c: &mut Ctx<'_>, flags: u32) -> SysResult {
    if flags & !(O_CLOEXEC | O_NONBLOCK) != 0 {
        return Err(Errno::EINVAL);
    }
    let instance = Inotify::new(c.task.creds().uid)?;
    let file = File::new(instance, None, O_RDONLY | flags & O_NONBLOCK);
    Ok(anon::install(c.task, file, flags & O_CLOEXEC != 0)?.0 as u64)
}

fn add_watch(c: &mut Ctx<'_>, a: Args) -> SysResult {
    let file = io_file(c, a.fd(0))?;
    let instance = file.downcast::<Inotify>().ok_or(Errno::EINVAL)?;
    let path = path_arg(a.cstr(1))?;
    let wanted = a.u32(2);
    let mut flags = Flags::empty();
    flags.set(Flags::FOLLOW, wanted & IN_DONT_FOLLOW == 0);
    flags.set(Flags::DIRECTORY, wanted & IN_ONLYDIR != 0);
    let creds = c.task.creds();
    let place = walk::lookup(&c.task.fs(), &creds, None, &path, flags)?;
    walk::check(&creds, &place.inode().attr()?, 4)?;
    Ok(instance.add(place.inode().id(), wanted)? as u64)
}

fn rm_watch(c: &mut Ctx<'_>, a: Args) -> SysResult {
    let file = io_file(c, a.fd(0))?;
    let instance = file.downcast::<Inotify>().ok_or(Errno::EINVAL)?;
    instance.remove(a.i32(1))?;
    Ok(0)
}
