//! tmpfs and memory files.

use super::{World, read, write};
use crate::fs::memfd;
use crate::fs::tmpfs::{Options, Tmpfs, seal};
use alloc::vec;
use hal::host::{Dest, Src};
use hal::uapi::general::{FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, O_CREAT, O_RDWR, SEEK_DATA, SEEK_HOLE};
use qlib::Errno;

fn limited(options: &str) -> World {
    let options = Options::parse(options.as_bytes()).unwrap();
    World::on(Tmpfs::create(&options).root(), None)
}

#[test]
fn options_are_parsed() {
    crate::tests::boot();
    let o = Options::parse(b"size=64k,mode=700,nr_inodes=2k,uid=5,gid=6").unwrap();
    assert_eq!(
        (o.max_pages, o.mode, o.max_inodes, o.uid, o.gid),
        (16, 0o700, 2048, 5, 6)
    );
    assert_eq!(Options::parse(b"").unwrap().mode, 0o1777);
    assert_eq!(Options::parse(b"size=x").err(), Some(Errno::EINVAL));
    assert_eq!(Options::parse(b"nonsense=1").err(), Some(Errno::EINVAL));
}

#[test]
fn space_runs_out_and_comes_back() {
    let w = limited("size=40k");
    let f = w.open("/f", O_RDWR | O_CREAT).unwrap();
    let big = vec![7u8; 64 * 1024];
    let n = f.ops().write(&f, &mut Src::kernel(&big), 0).unwrap();
    assert_eq!(n, 40 * 1024);
    let full = f.ops().write(&f, &mut Src::kernel(b"x"), n as u64);
    assert_eq!(full, Err(Errno::ENOSPC));
    // Overwriting needs no space.
    write(&f, 100, b"y");
    assert_eq!(w.find("/f").unwrap().inode().statfs().unwrap().bfree, 0);
    w.unlink("/f").unwrap();
    assert_eq!(w.fs.root().inode().statfs().unwrap().bfree, 0);
    drop(f);
    assert_eq!(w.fs.root().inode().statfs().unwrap().bfree, 10);
    let f = w.put("/g", "z");
    // A hole needs no space either.
    f.ops().truncate(&f, 1 << 30).unwrap();
    assert_eq!(w.fs.root().inode().statfs().unwrap().bfree, 9);
    assert_eq!(f.ops().allocate(&f, 0, 0, 1 << 20), Err(Errno::ENOSPC));
    f.ops().allocate(&f, FALLOC_FL_KEEP_SIZE, 0, 20 * 1024).unwrap();
    assert_eq!(w.fs.root().inode().statfs().unwrap().bfree, 5);
    f.ops()
        .allocate(&f, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 8 * 1024)
        .unwrap();
    assert_eq!(w.fs.root().inode().statfs().unwrap().bfree, 7);
}

#[test]
fn inodes_run_out() {
    let w = limited("nr_inodes=3");
    w.put("/a", "");
    w.mkdir("/b").unwrap();
    assert_eq!(w.open("/c", O_RDWR | O_CREAT).err(), Some(Errno::ENOSPC));
    w.unlink("/a").unwrap();
    assert!(w.open("/c", O_RDWR | O_CREAT).is_ok());
}

#[test]
fn contents_move_to_a_memory_file_unchanged() {
    let w = World::tmp();
    let f = w.put("/f", "start");
    let handle = f.ops().host_handle();
    assert!(handle.is_none());
    // Grown, and with a hole.
    write(&f, 100_000, b"end");
    assert!(f.ops().host_handle().is_some());
    let mut buf = vec![1; 100_003];
    let n = f.read_kernel(&mut buf, 0).unwrap();
    assert_eq!(n, 100_003);
    assert_eq!(
        (&buf[..5], &buf[5..100_000], &buf[100_000..]),
        (&b"start"[..], &vec![0; 99_995][..], &b"end"[..])
    );
    let seek = |at, whence| f.ops().seek(&f, at, whence, 0);
    assert_eq!(seek(10_000, SEEK_DATA), Ok(98_304));
    assert_eq!(seek(0, SEEK_HOLE), Ok(4096));
    assert_eq!(seek(200_000, SEEK_DATA), Err(Errno::ENXIO));
    f.ops().truncate(&f, 3).unwrap();
    f.ops().truncate(&f, 6).unwrap();
    assert_eq!(read(&f), "sta\0\0\0");
    let s = f.ops().stat(&f).unwrap();
    assert_eq!((s.size, s.nlink), (6, 1));
}

#[test]
fn seals_hold() {
    let creds = super::kernel_creds();
    let f = memfd::create(b"name", true, false, &creds).unwrap();
    write(&f, 0, b"12345");
    assert_eq!(f.ops().seals(), Some(0));
    assert_eq!(f.describe(), b"/memfd:name (deleted)");
    f.ops().add_seals(seal::SHRINK).unwrap();
    assert_eq!(f.ops().truncate(&f, 1), Err(Errno::EPERM));
    f.ops().truncate(&f, 10).unwrap();
    f.ops().add_seals(seal::GROW).unwrap();
    assert_eq!(f.ops().truncate(&f, 11), Err(Errno::EPERM));
    let over = f.ops().write(&f, &mut Src::kernel(b"abc"), 9);
    assert_eq!(over, Err(Errno::EPERM));
    write(&f, 0, b"x");
    f.ops().add_seals(seal::WRITE | seal::SEAL).unwrap();
    assert_eq!(f.ops().write(&f, &mut Src::kernel(b"x"), 0), Err(Errno::EPERM));
    assert_eq!(f.ops().add_seals(seal::GROW), Err(Errno::EPERM));
    let mut b = [0; 2];
    f.ops().read(&f, &mut Dest::kernel(&mut b), 0).unwrap();
    assert_eq!(&b, b"x2");
    let plain = memfd::create(b"", false, false, &creds).unwrap();
    assert_eq!(plain.ops().seals(), Some(seal::SEAL));
}

#[test]
fn attributes_are_kept() {
    let w = World::tmp();
    w.put("/f", "");
    let i = w.find("/f").unwrap().inode().clone();
    i.set_xattr(b"user.a", b"1", 0).unwrap();
    assert_eq!(i.set_xattr(b"user.a", b"2", 1), Err(Errno::EEXIST));
    assert_eq!(i.set_xattr(b"user.b", b"2", 2), Err(Errno::ENODATA));
    assert_eq!(i.set_xattr(b"system.x", b"2", 0), Err(Errno::EOPNOTSUPP));
    assert_eq!(i.get_xattr(b"user.a").unwrap(), b"1");
    assert_eq!(i.list_xattr().unwrap(), b"user.a\0");
    i.remove_xattr(b"user.a").unwrap();
    assert_eq!(i.get_xattr(b"user.a"), Err(Errno::ENODATA));
}

#[test]
fn deep_trees_are_taken_apart_without_recursion() {
    let w = World::tmp();
    for _ in 0..20_000 {
        w.mkdir("d").unwrap();
        w.fs.set_cwd(w.find("d").unwrap());
    }
    w.fs.set_cwd(w.fs.root());
    drop(w);
}
