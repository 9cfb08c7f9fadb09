//! Making, renaming and removing.

use super::{Names, World, read, write};
use crate::fs::attr::{self, Object};
use crate::fs::{Stat, names};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use hal::uapi::general::{
    O_CREAT, O_DIRECTORY, O_EXCL, O_PATH, O_RDONLY, O_RDWR, O_WRONLY, RENAME_EXCHANGE, RENAME_NOREPLACE,
};
use proptest::prelude::*;
use qlib::Errno;
use std::collections::BTreeMap;

fn stat(w: &World, path: &str) -> Stat {
    w.lfind(path).unwrap().inode().stat().unwrap()
}

#[test]
fn renames_follow_the_rules() {
    for w in World::all() {
        w.mkdir("/d").unwrap();
        w.mkdir("/d/sub").unwrap();
        w.mkdir("/e").unwrap();
        w.put("/f", "f");
        w.put("/g", "g");
        assert_eq!(w.rename("/f", "/d", 0), Err(Errno::EISDIR));
        assert_eq!(w.rename("/e", "/f", 0), Err(Errno::ENOTDIR));
        assert_eq!(w.rename("/d", "/d/sub/x", 0), Err(Errno::EINVAL));
        assert_eq!(w.rename("/e", "/d", 0), Err(Errno::ENOTEMPTY));
        assert_eq!(w.rename("/d/sub", "/d", 0), Err(Errno::ENOTEMPTY));
        assert_eq!(w.rename("/none", "/f", 0), Err(Errno::ENOENT));
        assert_eq!(w.rename("/f", "/g", RENAME_NOREPLACE), Err(Errno::EEXIST));
        assert_eq!(w.rename("/f", "/h", RENAME_EXCHANGE), Err(Errno::ENOENT));
        w.rename("/f", "/g", RENAME_EXCHANGE).unwrap();
        assert_eq!(
            (w.get("/f").unwrap(), w.get("/g").unwrap()),
            ("g".into(), "f".into())
        );
        w.rename("/f", "/d/sub/f", 0).unwrap();
        assert_eq!(w.get("/d/sub/f").unwrap(), "g");
        assert_eq!(w.get("/f"), Err(Errno::ENOENT));
        w.rename("/d/sub", "/e", 0).unwrap();
        assert_eq!(w.get("/e/f").unwrap(), "g");
        assert_eq!(w.list("/"), ["d", "e", "g"]);
    }
}

#[test]
fn open_files_and_directories_survive_renames() {
    for w in World::all() {
        w.mkdir("/d").unwrap();
        w.mkdir("/d/deep").unwrap();
        let f = w.put("/d/deep/f", "one");
        let cwd = w.find("/d/deep").unwrap();
        w.rename("/d", "/moved", 0).unwrap();
        assert_eq!(f.path().unwrap().absolute(), b"/moved/deep/f");
        assert_eq!(cwd.absolute(), b"/moved/deep");
        w.fs.set_cwd(cwd);
        assert_eq!(w.get("f").unwrap(), "one");
        w.put("new", "n");
        assert_eq!(w.get("/moved/deep/new").unwrap(), "n");
        // The inode finds its file by the new name.
        assert_eq!(stat(&w, "/moved/deep/f").size, 3);
        attr::chmod(&Object::of(&f).unwrap(), 0o600, &w.creds).unwrap();
        assert_eq!(stat(&w, "/moved/deep/f").mode & 0o777, 0o600);
        w.fs.set_cwd(w.fs.root());
    }
}

#[test]
fn hard_links_are_one_file() {
    for w in World::all() {
        let f = w.put("/a", "text");
        w.link("/a", "/b").unwrap();
        assert_eq!(stat(&w, "/b").nlink, 2);
        assert_eq!(
            w.find("/a").unwrap().inode().id(),
            w.find("/b").unwrap().inode().id()
        );
        write(&f, 0, b"TEXT");
        assert_eq!(w.get("/b").unwrap(), "TEXT");
        attr::chmod(&Object::at(w.find("/a").unwrap()), 0o600, &w.creds).unwrap();
        // The mode is the file's, whichever name it is asked by.
        assert_eq!(w.find("/b").unwrap().inode().attr().unwrap().mode & 0o777, 0o600);
        assert_eq!(w.rename("/a", "/b", 0), Ok(()));
        assert_eq!(w.list("/"), ["a", "b"]);
        w.unlink("/a").unwrap();
        assert_eq!(stat(&w, "/b").nlink, 1);
        attr::chmod(&Object::of(&f).unwrap(), 0o644, &w.creds).unwrap();
        assert_eq!(stat(&w, "/b").mode & 0o777, 0o644);
        w.mkdir("/d").unwrap();
        assert_eq!(w.link("/d", "/d2"), Err(Errno::EPERM));
        assert_eq!(w.link("/b", "/d"), Err(Errno::EEXIST));
    }
}

#[test]
fn unlinked_files_live_while_open() {
    for w in World::all() {
        let f = w.put("/f", "kept");
        w.unlink("/f").unwrap();
        assert_eq!(w.get("/f"), Err(Errno::ENOENT));
        assert_eq!(read(&f), "kept");
        write(&f, 0, b"K");
        let s = f.ops().stat(&f).unwrap();
        assert_eq!((s.nlink, s.size), (0, 4));
        assert_eq!(f.path().unwrap().absolute(), b"/f (deleted)");
        // A new file of the name is another one.
        let g = w.put("/f", "new");
        assert_eq!((read(&f), read(&g)), (String::from("Kept"), String::from("new")));
        assert_eq!(f.path().unwrap().inode().stat().unwrap().ino, s.ino);
        attr::chmod(&Object::of(&f).unwrap(), 0o600, &w.creds).unwrap();
        assert_eq!(f.ops().stat(&f).unwrap().mode & 0o777, 0o600);
        assert_eq!(stat(&w, "/f").mode & 0o777, 0o644);
        // Replaced by a rename it lives as well.
        w.put("/other", "other");
        w.rename("/other", "/f", 0).unwrap();
        assert_eq!((read(&g), w.get("/f").unwrap()), ("new".into(), "other".into()));
    }
}

#[test]
fn directories_are_removed_only_empty() {
    for w in World::all() {
        w.mkdir("/d").unwrap();
        w.put("/d/f", "");
        assert_eq!(w.rmdir("/d"), Err(Errno::ENOTEMPTY));
        assert_eq!(w.unlink("/d"), Err(Errno::EISDIR));
        assert_eq!(w.rmdir("/d/f"), Err(Errno::ENOTDIR));
        w.unlink("/d/f").unwrap();
        let cwd = w.find("/d").unwrap();
        w.rmdir("/d").unwrap();
        w.fs.set_cwd(cwd);
        assert_eq!(w.open("x", O_CREAT | O_WRONLY).err(), Some(Errno::ENOENT));
        assert_eq!(w.mkdir("x").err(), Some(Errno::ENOENT));
        assert!(w.find("..").is_ok());
        let here = w.open(".", O_RDONLY | O_DIRECTORY).unwrap();
        assert_eq!(here.ops().stat(&here).unwrap().mode & 0o170_000, 0o040_000);
        w.put("/p", "p");
        let by_path = w.open("/p", O_PATH).unwrap();
        w.unlink("/p").unwrap();
        assert_eq!(by_path.path().unwrap().inode().stat().unwrap().nlink, 0);
        w.fs.set_cwd(w.fs.root());
    }
}

#[test]
fn listing_goes_on_where_it_was_while_entries_go() {
    for w in World::all() {
        w.mkdir("/d").unwrap();
        for i in 0..600 {
            w.put(&format!("/d/file-with-a-longer-name-{i:04}"), "");
        }
        let f = w.open("/d", O_RDONLY | O_DIRECTORY).unwrap();
        struct Few(Vec<String>);
        impl crate::fs::file::DirSink for Few {
            fn entry(&mut self, name: &[u8], _: u64, _: u8, _: u64) -> bool {
                if self.0.len() == 7 {
                    return false;
                }
                self.0.push(String::from_utf8_lossy(name).into_owned());
                true
            }
        }
        let mut seen = Vec::new();
        let mut pos = 0;
        loop {
            let mut few = Few(Vec::new());
            pos = f.ops().read_dir(&f, pos, &mut few).unwrap();
            if few.0.is_empty() {
                break;
            }
            for n in few.0.iter().filter(|n| *n != "." && *n != "..") {
                w.unlink(&format!("/d/{n}")).unwrap();
            }
            seen.extend(few.0);
        }
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 602);
        assert_eq!(w.list("/d"), Vec::<String>::new());
        w.rmdir("/d").unwrap();
    }
}

#[test]
fn directory_positions_can_be_sought() {
    for w in World::all() {
        for i in 0..20 {
            w.put(&format!("/f{i}"), "");
        }
        let f = w.open("/", O_RDONLY | O_DIRECTORY).unwrap();
        let mut all = Names::default();
        f.ops().read_dir(&f, 0, &mut all).unwrap();
        assert_eq!(all.0.len(), 22);
        for k in [0, 3, 11, 20] {
            let mut rest = Names::default();
            f.ops().read_dir(&f, all.0[k].1, &mut rest).unwrap();
            assert_eq!(rest.0, all.0[k + 1..], "after entry {k}");
        }
    }
}

#[test]
fn sticky_directories_protect_files_of_others() {
    for w in World::all() {
        w.mkdir("/t").unwrap();
        attr::chmod(&Object::at(w.find("/t").unwrap()), 0o1777, &w.creds).unwrap();
        let (alice, bob) = (w.user(1001), w.user(1002));
        let dir = w.find("/t").unwrap();
        // Only root may give files away on the machine the tests run on.
        if names::mknod_at(&dir, b"f", 0o100_644, 0, &alice).is_err() {
            continue;
        }
        let owner = stat(&w, "/t/f").uid;
        if owner != 1001 {
            std::eprintln!("not root: files cannot be given to other users, so the sticky bit is not tested");
            continue;
        }
        assert_eq!(names::unlink_at(&dir, b"f", false, &bob), Err(Errno::EPERM));
        assert_eq!(names::unlink_at(&dir, b"f", false, &alice), Ok(()));
        let closed = w.find("/").unwrap();
        assert_eq!(
            names::mknod_at(&closed, b"f", 0o100_644, 0, &alice).err(),
            Some(Errno::EACCES)
        );
        assert_eq!(
            names::mknod_at(&dir, b"n", 0o020_644, 0x103, &alice).err(),
            Some(Errno::EPERM)
        );
    }
}

#[test]
fn exclusive_creation_and_setgid_directories() {
    for w in World::all() {
        w.put("/f", "");
        assert_eq!(w.open("/f", O_CREAT | O_EXCL | O_RDWR).err(), Some(Errno::EEXIST));
        w.symlink("nowhere", "/l").unwrap();
        assert_eq!(w.open("/l", O_CREAT | O_EXCL | O_RDWR).err(), Some(Errno::EEXIST));
        w.mkdir("/d").unwrap();
        attr::chmod(&Object::at(w.find("/d").unwrap()), 0o2775, &w.creds).unwrap();
        w.mkdir("/d/sub").unwrap();
        assert_eq!(stat(&w, "/d/sub").mode & 0o7777, 0o2755);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Make(u8),
    Dir(u8),
    Remove(u8),
    Rename(u8, u8),
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn names_agree_with_a_model(
        steps in proptest::collection::vec(prop_oneof![
            (0u8..9).prop_map(Step::Make),
            (0u8..9).prop_map(Step::Dir),
            (0u8..9).prop_map(Step::Remove),
            (0u8..9, 0u8..9).prop_map(|(a, b)| Step::Rename(a, b)),
        ], 1..40),
        on_host in any::<bool>(),
    ) {
        // Nine names: three in the root, three in each of two directories.
        let path = |n: u8| match n / 3 {
            0 => format!("/n{}", n % 3),
            d => format!("/d{d}/n{}", n % 3),
        };
        let w = if on_host { World::host(true) } else { World::tmp() };
        w.mkdir("/d1").unwrap();
        w.mkdir("/d2").unwrap();
        // The model: path → text of a file, or nothing for a directory (which stays empty).
        let mut model: BTreeMap<String, Option<String>> = BTreeMap::new();
        for (i, step) in steps.into_iter().enumerate() {
            match step {
                Step::Make(n) => {
                    let p = path(n);
                    let text = format!("{i}");
                    let r = w.open(&p, O_CREAT | O_EXCL | O_RDWR);
                    prop_assert_eq!(r.is_ok(), !model.contains_key(&p));
                    if let Ok(f) = r {
                        write(&f, 0, text.as_bytes());
                        model.insert(p, Some(text));
                    }
                }
                Step::Dir(n) => {
                    let p = path(n);
                    prop_assert_eq!(w.mkdir(&p).is_ok(), !model.contains_key(&p));
                    model.entry(p).or_insert(None);
                }
                Step::Remove(n) => {
                    let p = path(n);
                    let r = match model.remove(&p) {
                        None => { prop_assert_eq!(w.unlink(&p), Err(Errno::ENOENT)); Ok(()) }
                        Some(None) => w.rmdir(&p),
                        Some(Some(_)) => w.unlink(&p),
                    };
                    prop_assert_eq!(r, Ok(()));
                }
                Step::Rename(a, b) => {
                    let (a, b) = (path(a), path(b));
                    let want = match (model.get(&a), model.get(&b)) {
                        (None, _) => Err(Errno::ENOENT),
                        (Some(None), Some(Some(_))) => Err(Errno::ENOTDIR),
                        (Some(Some(_)), Some(None)) => Err(Errno::EISDIR),
                        _ => Ok(()),
                    };
                    prop_assert_eq!(w.rename(&a, &b, 0), want);
                    if want.is_ok() && let Some(v) = model.remove(&a) {
                        model.insert(b, v);
                    }
                }
            }
        }
        for n in 0..9 {
            let p = path(n);
            match model.get(&p) {
                None => prop_assert!(w.lfind(&p).is_err()),
                Some(None) => prop_assert!(w.list(&p).is_empty()),
                Some(Some(text)) => prop_assert_eq!(&w.get(&p).unwrap(), text),
            }
        }
    }
}
