//! The tree as a whole.

use super::*;
use crate::fs::file::File;
use crate::task::creds::Creds;
use alloc::string::String;
use alloc::vec;

fn walk(root: &InodeRef, path: &str) -> Result<InodeRef, Errno> {
    let mut at = root.clone();
    for part in path.split('/') {
        at = at.lookup(part.as_bytes())?;
    }
    Ok(at)
}

fn text(root: &InodeRef, path: &str) -> String {
    let inode = walk(root, path).unwrap();
    let file = File::new(inode.open(0, &Creds::default()).unwrap(), None, 0);
    let mut buf = vec![0; 1 << 16];
    let n = file.read_kernel(&mut buf, 0).unwrap();
    String::from_utf8(buf[..n].to_vec()).unwrap()
}

#[test]
fn fixed_files_read_and_keep_their_identity() {
    crate::tests::boot();
    let root = new_root(crate::ns::pid::root());
    assert!(text(&root, "version").starts_with("Linux version 6.6.0-quark "));
    assert_eq!(text(&root, "sys/kernel/ostype"), "Linux\n");
    assert_eq!(text(&root, "sys/kernel/pid_max"), "4194304\n");
    let uuid = text(&root, "sys/kernel/random/uuid");
    assert_eq!((uuid.len(), &uuid[14..15]), (37, "4"));
    assert_ne!(uuid, text(&root, "sys/kernel/random/uuid"));
    assert_eq!(
        text(&root, "sys/kernel/random/boot_id"),
        text(&root, "sys/kernel/random/boot_id")
    );
    assert!(text(&root, "meminfo").starts_with("MemTotal:"));
    let stat = text(&root, "stat");
    assert!(stat.starts_with("cpu  ") && stat.contains("\ncpu1 ") && stat.contains("\nbtime "));
    assert!(text(&root, "cpuinfo").contains("processor\t: 1\n"));
    assert_eq!(text(&root, "uptime").split(' ').count(), 2);
    let a = walk(&root, "sys/net").unwrap().stat().unwrap();
    let b = walk(&root, "sys/net").unwrap().stat().unwrap();
    assert_eq!(a.ino, b.ino);
    assert_eq!(walk(&root, "4000000").err(), Some(Errno::ENOENT));
    assert_eq!(walk(&root, "007").err(), Some(Errno::ENOENT));
}
