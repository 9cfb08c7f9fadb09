//! Opening.

use super::{World, read, write};
use crate::fs::file::POS_END;
use crate::fs::locks;
use crate::fs::open::How;
use hal::uapi::general::{
    LOCK_EX, LOCK_NB, LOCK_SH, LOCK_UN, O_APPEND, O_CREAT, O_DIRECTORY, O_NOFOLLOW, O_PATH, O_RDONLY, O_RDWR,
    O_TMPFILE, O_TRUNC, O_WRONLY,
};
use qlib::Errno;

#[test]
fn errors_of_open() {
    for w in World::all() {
        w.mkdir("/d").unwrap();
        w.put("/f", "x");
        w.symlink("f", "/l").unwrap();
        let err = |p: &str, flags| w.open(p, flags).err();
        assert_eq!(err("/d", O_WRONLY), Some(Errno::EISDIR));
        assert_eq!(err("/d", O_CREAT | O_RDONLY), Some(Errno::EISDIR));
        assert_eq!(err("/new/", O_CREAT | O_RDWR), Some(Errno::EISDIR));
        assert_eq!(err("/f", O_DIRECTORY), Some(Errno::ENOTDIR));
        assert_eq!(err("/f/", O_RDONLY), Some(Errno::ENOTDIR));
        assert_eq!(err("/l", O_NOFOLLOW), Some(Errno::ELOOP));
        assert_eq!(err("/none/f", O_CREAT | O_RDWR), Some(Errno::ENOENT));
        assert_eq!(err("/f/x", O_CREAT | O_RDWR), Some(Errno::ENOTDIR));
        assert!(w.open("/l", O_NOFOLLOW | O_PATH).is_ok());
        let p = w.open("/f", O_PATH).unwrap();
        assert!(!p.readable() && !p.writable());
        w.open("/f", O_TRUNC | O_WRONLY).unwrap();
        assert_eq!(w.get("/f").unwrap(), "");
    }
}

#[test]
fn modes_and_umask() {
    for w in World::all() {
        let f = crate::fs::open(&w.fs, &w.creds, None, b"/f", How::new(O_CREAT | O_RDWR, 0o4777)).unwrap();
        let s = f.ops().stat(&f).unwrap();
        assert_eq!(s.mode, 0o100_000 | 0o4755);
    }
}

#[test]
fn appends_go_to_the_end() {
    for w in World::all() {
        w.put("/f", "12345");
        let a = w.open("/f", O_WRONLY | O_APPEND).unwrap();
        write(&a, 0, b"67");
        assert_eq!(w.get("/f").unwrap(), "1234567");
        assert_eq!(a.position(POS_END), Ok(7));
    }
}

#[test]
fn unnamed_files_can_get_a_name() {
    for w in World::all() {
        let f = match w.open("/", O_TMPFILE | O_RDWR) {
            // Not every file system of the machine the tests run on has them.
            Err(Errno::EOPNOTSUPP) => continue,
            f => f.unwrap(),
        };
        write(&f, 0, b"data");
        assert_eq!(w.list("/").len(), 0);
        let root = w.fs.root();
        crate::fs::names::link_at(f.path().unwrap(), &root, b"named", &w.creds).unwrap();
        assert_eq!(w.get("/named").unwrap(), "data");
        assert_eq!(read(&f), "data");
        assert_eq!(w.open("/named", O_TMPFILE | O_RDWR).err(), Some(Errno::ENOTDIR));
        assert_eq!(w.open("/", O_TMPFILE | O_RDONLY).err(), Some(Errno::EINVAL));
    }
}

#[test]
fn flock_belongs_to_the_description() {
    for w in World::all() {
        w.put("/f", "");
        w.link("/f", "/g").unwrap();
        let a = w.open("/f", O_RDONLY).unwrap();
        let b = w.open("/g", O_RDONLY).unwrap();
        assert_eq!(locks::flock(&a, LOCK_EX), Ok(()));
        assert_eq!(locks::flock(&a, LOCK_EX), Ok(()));
        assert_eq!(locks::flock(&b, LOCK_SH | LOCK_NB), Err(Errno::EAGAIN));
        assert_eq!(locks::flock(&a, LOCK_SH), Ok(()));
        assert_eq!(locks::flock(&b, LOCK_SH | LOCK_NB), Ok(()));
        assert_eq!(locks::flock(&b, LOCK_EX | LOCK_NB), Err(Errno::EAGAIN));
        drop(a);
        assert_eq!(locks::flock(&b, LOCK_EX | LOCK_NB), Ok(()));
        assert_eq!(locks::flock(&b, LOCK_UN), Ok(()));
        assert_eq!(locks::flock(&b, 7 | LOCK_NB), Err(Errno::EINVAL));
    }
}

#[test]
fn record_locks_block_and_wake() {
    use locks::{Kind, Owner, Range};
    let w = World::tmp();
    let f = w.put("/f", "");
    let (one, two) = (Owner::Process(1), Owner::Process(2));
    let all = Range {
        start: 0,
        last: u64::MAX,
    };
    locks::set(&f, one, Some(Kind::Write), all, false).unwrap();
    assert_eq!(
        locks::set(&f, two, Some(Kind::Read), all, false),
        Err(Errno::EAGAIN)
    );
    let held = locks::get(&f, two, Kind::Read, all).unwrap();
    assert_eq!(held.map(|h| (h.0, h.1)), Some((Kind::Write, all)));
    let g = f.clone();
    let waiter = std::thread::spawn(move || locks::set(&g, two, Some(Kind::Write), all, true));
    std::thread::sleep(std::time::Duration::from_millis(50));
    // The one that holds the lock must not wait for the waiter: that would be a circle.
    let tail = w.put("/g", "");
    locks::set(&tail, two, Some(Kind::Write), all, false).unwrap();
    assert_eq!(
        locks::set(&tail, one, Some(Kind::Write), all, true),
        Err(Errno::EDEADLK)
    );
    assert!(!waiter.is_finished());
    locks::descriptor_closed(&f, 1);
    assert_eq!(waiter.join().unwrap(), Ok(()));
    locks::descriptor_closed(&f, 2);
    locks::descriptor_closed(&tail, 2);
    assert_eq!(locks::get(&f, one, Kind::Write, all), Ok(None));
}
