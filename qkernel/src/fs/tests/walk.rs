//! Path walks.

use super::World;
use crate::fs::open::How;
use crate::fs::walk::Flags;
use crate::fs::{lookup, mount};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use hal::uapi::general::{MS_RDONLY, O_CREAT, O_RDONLY, O_WRONLY};
use proptest::prelude::*;
use qlib::Errno;
use std::collections::BTreeMap;

#[test]
fn names_dots_and_slashes() {
    for w in World::all() {
        w.mkdir("/a").unwrap();
        w.mkdir("/a/b").unwrap();
        w.put("/a/b/f", "x");
        assert!(w.find("/a/../a/./b//f").is_ok());
        assert!(w.find("/../../a/b/").is_ok());
        assert_eq!(w.find("/a/b/f/").err(), Some(Errno::ENOTDIR));
        assert_eq!(w.find("/a/b/f/..").err(), Some(Errno::ENOTDIR));
        assert_eq!(w.find("/a/x/..").err(), Some(Errno::ENOENT));
        assert_eq!(w.find("").err(), Some(Errno::ENOENT));
        let long = "n".repeat(256);
        assert_eq!(w.find(&format!("/a/{long}")).err(), Some(Errno::ENAMETOOLONG));
        assert_eq!(w.find("/a/b/f").unwrap().absolute(), b"/a/b/f");
    }
}

#[test]
fn symlinks_are_followed_up_to_forty() {
    for w in World::all() {
        w.mkdir("/d").unwrap();
        w.put("/d/f", "text");
        w.symlink("f", "/d/l0").unwrap();
        for i in 1..41 {
            w.symlink(&format!("l{}", i - 1), &format!("/d/l{i}")).unwrap();
        }
        assert!(w.find("/d/l39").is_ok());
        assert_eq!(w.find("/d/l40").err(), Some(Errno::ELOOP));
        w.symlink("loop", "/loop").unwrap();
        assert_eq!(w.find("/loop").err(), Some(Errno::ELOOP));
        assert_eq!(w.find("/loop/x").err(), Some(Errno::ELOOP));
        assert!(w.lfind("/loop").is_ok());
        w.symlink("/d", "/abs").unwrap();
        assert_eq!(w.get("/abs/f").unwrap(), "text");
        // A trailing slash follows a final symlink in any case.
        assert!(w.lfind("/abs/").unwrap().same(&w.find("/d").unwrap()));
        assert_eq!(w.lfind("/d/l0/").err(), Some(Errno::ENOTDIR));
        // O_CREAT through a dangling link makes the target.
        w.symlink("d/new", "/dangling").unwrap();
        w.open("/dangling", O_CREAT | O_WRONLY).unwrap();
        assert!(w.lfind("/d/new").is_ok());
    }
}

#[test]
fn restricted_walks() {
    let w = World::tmp();
    w.mkdir("/in").unwrap();
    w.mkdir("/in/sub").unwrap();
    w.put("/out", "");
    w.put("/in/f", "");
    w.symlink("/out", "/in/abs").unwrap();
    w.symlink("../out", "/in/up").unwrap();
    w.symlink("f", "/in/ok").unwrap();
    let dir = w.find("/in").unwrap();
    let walk = |path: &str, flags| {
        lookup(
            &w.fs,
            &w.creds,
            Some(&dir),
            path.as_bytes(),
            flags | Flags::FOLLOW,
        )
    };
    let beneath = Flags::BENEATH;
    assert!(walk("ok", beneath).is_ok());
    assert!(walk("sub/../f", beneath).is_ok());
    for path in ["abs", "up", "..", "../in/f", "/out", "sub/../../out"] {
        assert_eq!(walk(path, beneath).err(), Some(Errno::EXDEV), "{path}");
    }
    assert!(walk("/../f", Flags::IN_ROOT).is_ok());
    assert_eq!(walk("abs", Flags::IN_ROOT).err(), Some(Errno::ENOENT));
    assert_eq!(walk("ok", Flags::NO_SYMLINKS).err(), Some(Errno::ELOOP));
    let below = World::tmp();
    let other = mount::Mount::new(below.fs.root().dentry, b"", b"", b"", 0);
    mount::attach(&other, &w.find("/in/sub").unwrap()).unwrap();
    assert_eq!(walk("sub", Flags::NO_XDEV).err(), Some(Errno::EXDEV));
    assert!(walk("f", Flags::NO_XDEV).is_ok());
}

#[test]
fn search_permission_is_asked_of_every_directory() {
    for w in World::all() {
        w.mkdir("/a").unwrap();
        w.mkdir("/a/b").unwrap();
        w.put("/a/b/f", "secret");
        let user = w.user(1000);
        let as_user = |p: &str| lookup(&w.fs, &user, None, p.as_bytes(), Flags::FOLLOW).map(drop);
        assert_eq!(as_user("/a/b/f"), Ok(()));
        let a = crate::fs::attr::Object::at(w.find("/a").unwrap());
        crate::fs::attr::chmod(&a, 0o700, &w.creds).unwrap();
        assert_eq!(as_user("/a/b/f"), Err(Errno::EACCES));
        assert_eq!(as_user("/a"), Ok(()));
        assert_eq!(as_user("/a/."), Err(Errno::EACCES));
        let f = crate::fs::attr::Object::at(w.find("/a/b/f").unwrap());
        crate::fs::attr::chmod(&a, 0o755, &w.creds).unwrap();
        crate::fs::attr::chmod(&f, 0o600, &w.creds).unwrap();
        let open = |flags| crate::fs::open(&w.fs, &user, None, b"/a/b/f", How::new(flags, 0)).map(drop);
        assert_eq!(open(O_RDONLY), Err(Errno::EACCES));
        crate::fs::attr::chmod(&f, 0o604, &w.creds).unwrap();
        assert_eq!(open(O_RDONLY), Ok(()));
        assert_eq!(open(O_WRONLY), Err(Errno::EACCES));
        assert_eq!(crate::fs::attr::chmod(&f, 0o666, &user), Err(Errno::EPERM));
    }
}

#[test]
fn mounts_hide_and_refuse() {
    let w = World::tmp();
    w.mkdir("/m").unwrap();
    w.put("/m/below", "");
    let other = World::tmp();
    other.put("/top", "");
    let m = mount::Mount::new(
        other.fs.root().dentry,
        b"src",
        b"tmpfs",
        b"",
        u64::from(MS_RDONLY),
    );
    mount::attach(&m, &w.find("/m").unwrap()).unwrap();
    assert_eq!(w.list("/m"), ["top"]);
    assert_eq!(w.open("/m/new", O_CREAT | O_WRONLY).err(), Some(Errno::EROFS));
    assert_eq!(w.open("/m/top", O_WRONLY).err(), Some(Errno::EROFS));
    assert_eq!(w.rmdir("/m").err(), Some(Errno::EBUSY));
    assert!(w.find("/m/..").unwrap().same(&w.fs.root()));
    assert_eq!(w.find("/m/top").unwrap().absolute(), b"/m/top");
    let list = mount::list(&w.fs.root());
    assert!(list.iter().any(|i| i.point == b"/m" && i.source == b"src"));
    drop(m);
    let open = w.open("/m/top", O_RDONLY).unwrap();
    assert_eq!(mount::detach(w.find("/m").unwrap(), false), Err(Errno::EBUSY));
    drop(open);
    assert_eq!(mount::detach(w.find("/m").unwrap(), false), Ok(()));
    assert_eq!(w.list("/m"), ["below"]);
    assert_eq!(mount::detach(w.find("/m").unwrap(), false), Err(Errno::EINVAL));
}

#[test]
fn bind_mounts_show_the_same_tree() {
    let w = World::tmp();
    w.mkdir("/a").unwrap();
    w.mkdir("/b").unwrap();
    w.put("/a/f", "1");
    mount::bind(&w.find("/a").unwrap(), &w.find("/b").unwrap(), true).unwrap();
    w.put("/b/g", "2");
    assert_eq!(w.list("/a"), ["f", "g"]);
    assert_eq!(w.find("/b/g").unwrap().absolute(), b"/b/g");
    assert!(w.find("/b/..").unwrap().same(&w.fs.root()));
    assert_eq!(w.rename("/a/f", "/b/f2", 0), Err(Errno::EXDEV));
    // A single file.
    w.put("/x", "x");
    w.put("/y", "y");
    mount::bind(&w.find("/x").unwrap(), &w.find("/y").unwrap(), false).unwrap();
    assert_eq!(w.get("/y").unwrap(), "x");
    assert_eq!(w.find("/y").unwrap().absolute(), b"/y");
    let translate = mount::copy_tree(&w.fs.root().mount, crate::ns::FIRST_USER).unwrap();
    let copied = translate(&w.fs.root());
    assert!(!alloc::sync::Arc::ptr_eq(&copied.mount, &w.fs.root().mount));
    let fs = crate::fs::path::FsContext::new(copied.clone(), copied.clone(), 0);
    mount::detach(w.find("/y").unwrap(), true).unwrap();
    assert_eq!(w.get("/y").unwrap(), "y");
    let y = lookup(&fs, &w.creds, None, b"/y", Flags::FOLLOW).unwrap();
    let x = w.find("/x").unwrap();
    assert!(alloc::sync::Arc::ptr_eq(&y.dentry, &x.dentry));
    mount::drop_tree(&copied.mount);
}

/// What a model tree holds at a path.
#[derive(Clone, Debug)]
enum Node {
    Dir,
    File,
    Link(String),
}

/// Resolves a path in the model by its own rules: components on a stack.
fn model_walk(tree: &BTreeMap<String, Node>, path: &str) -> Result<String, Errno> {
    let mut todo: Vec<String> = path.split('/').rev().map(ToString::to_string).collect();
    let mut here: Vec<String> = Vec::new();
    let mut links = 0;
    let key = |v: &[String]| format!("/{}", v.join("/"));
    while let Some(part) = todo.pop() {
        if part.is_empty() || part == "." {
            continue;
        }
        if part == ".." {
            here.pop();
            continue;
        }
        here.push(part);
        match tree.get(&key(&here)) {
            None => return Err(Errno::ENOENT),
            Some(Node::Dir) => {}
            Some(Node::File) if todo.iter().any(|t| !t.is_empty()) => return Err(Errno::ENOTDIR),
            Some(Node::File) => {}
            Some(Node::Link(target)) => {
                links += 1;
                if links > 40 {
                    return Err(Errno::ELOOP);
                }
                here.pop();
                if target.starts_with('/') {
                    here.clear();
                }
                todo.extend(target.split('/').rev().map(ToString::to_string));
            }
        }
    }
    Ok(key(&here))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn walks_agree_with_a_model(
        nodes in proptest::collection::vec((0usize..3, "[ab]", "[abc]", "(\\.\\./)?[abc](/[abc])?|/[ab]"), 0..12),
        paths in proptest::collection::vec("(/(a|b|c|\\.|\\.\\.)){1,6}", 1..12),
        on_host in any::<bool>(),
    ) {
        let w = if on_host { World::host(true) } else { World::tmp() };
        let mut tree = BTreeMap::new();
        for d in ["/a", "/b"] {
            w.mkdir(d).unwrap();
            tree.insert(d.to_string(), Node::Dir);
        }
        for (kind, dir, name, target) in nodes {
            let path = format!("/{dir}/{name}");
            if tree.contains_key(&path) {
                continue;
            }
            let node = match kind {
                0 => { w.mkdir(&path).unwrap(); Node::Dir }
                1 => { w.put(&path, ""); Node::File }
                _ => { w.symlink(&target, &path).unwrap(); Node::Link(target) }
            };
            tree.insert(path, node);
        }
        for p in paths {
            let found = w.find(&p).map(|f| String::from_utf8(f.absolute()).unwrap());
            prop_assert_eq!(found, model_walk(&tree, &p), "{}", p);
        }
    }
}
