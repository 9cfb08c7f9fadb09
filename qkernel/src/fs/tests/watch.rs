//! inotify events.

use super::{World, write};
use crate::fs::attr::{self, Object};
use crate::fs::inotify::Inotify;
use crate::fs::notify::{self, mask};
use crate::fs::{File, FileOps};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use hal::host::Dest;
use hal::uapi::general::{O_NONBLOCK, O_RDONLY, O_WRONLY};
use qlib::Errno;

struct Watcher {
    instance: Arc<Inotify>,
    file: Arc<File>,
}

fn watcher() -> Watcher {
    let instance = Inotify::new(0).unwrap();
    let file = File::new(instance.clone(), None, O_RDONLY | O_NONBLOCK);
    Watcher { instance, file }
}

impl Watcher {
    fn add(&self, w: &World, path: &str, wanted: u32) -> i32 {
        let id = w.find(path).unwrap().inode().id();
        self.instance.add(id, wanted).unwrap()
    }
    /// Pending events: descriptor, mask, cookie, name.
    fn take(&self) -> Vec<(i32, u32, u32, String)> {
        let mut out = Vec::new();
        let mut buf = vec![0u8; 4096];
        let n = match self.instance.read(&self.file, &mut Dest::kernel(&mut buf), 0) {
            Err(Errno::EAGAIN) => return out,
            n => n.unwrap(),
        };
        let mut at = 0;
        while at < n {
            let word = |i: usize| u32::from_le_bytes(buf[at + i * 4..at + i * 4 + 4].try_into().unwrap());
            let len = word(3) as usize;
            let name = &buf[at + 16..at + 16 + len];
            let name = name.split(|b| *b == 0).next().unwrap();
            let name = String::from_utf8_lossy(name).into_owned();
            out.push((word(0) as i32, word(1), word(2), name));
            at += 16 + len;
        }
        out
    }
    fn masks(&self) -> Vec<(u32, String)> {
        self.take().into_iter().map(|(_, m, _, n)| (m, n)).collect()
    }
}

#[test]
fn directories_tell_of_their_entries() {
    for w in World::all() {
        w.mkdir("/d").unwrap();
        w.mkdir("/e").unwrap();
        let x = watcher();
        x.add(
            &w,
            "/d",
            mask::CREATE | mask::DELETE | mask::MOVED_FROM | mask::MOVED_TO,
        );
        drop(w.put("/d/f", "1"));
        w.mkdir("/d/sub").unwrap();
        w.symlink("f", "/d/l").unwrap();
        w.link("/d/f", "/d/hard").unwrap();
        let created: Vec<_> = x.masks();
        let want = [
            (mask::CREATE, "f"),
            (mask::CREATE | mask::ISDIR, "sub"),
            (mask::CREATE, "l"),
            (mask::CREATE, "hard"),
        ];
        assert_eq!(created, want.map(|(m, n)| (m, String::from(n))));
        w.rename("/d/f", "/d/g", 0).unwrap();
        let moved = x.take();
        assert_eq!((moved[0].1, moved[1].1), (mask::MOVED_FROM, mask::MOVED_TO));
        assert_eq!((moved[0].3.as_str(), moved[1].3.as_str()), ("f", "g"));
        assert!(moved[0].2 == moved[1].2 && moved[0].2 != 0);
        w.rename("/d/g", "/e/g", 0).unwrap();
        w.rmdir("/d/sub").unwrap();
        w.unlink("/d/l").unwrap();
        let want = [
            (mask::MOVED_FROM, "g"),
            (mask::DELETE | mask::ISDIR, "sub"),
            (mask::DELETE, "l"),
        ];
        assert_eq!(x.masks(), want.map(|(m, n)| (m, String::from(n))));
    }
}

#[test]
fn files_tell_what_happens_to_them() {
    for w in World::all() {
        drop(w.put("/f", "1"));
        let x = watcher();
        let wd = x.add(&w, "/f", mask::ALL);
        let f = w.open("/f", O_WRONLY).unwrap();
        write(&f, 0, b"22");
        notify::file(&f, mask::MODIFY);
        drop(f);
        attr::chmod(&Object::at(w.find("/f").unwrap()), 0o600, &w.creds).unwrap();
        let got: Vec<u32> = x.take().into_iter().map(|e| e.1).collect();
        assert_eq!(got, [mask::OPEN, mask::MODIFY, mask::CLOSE_WRITE, mask::ATTRIB]);
        w.unlink("/f").unwrap();
        let got: Vec<(i32, u32)> = x.take().into_iter().map(|e| (e.0, e.1)).collect();
        assert_eq!(
            got,
            [(wd, mask::ATTRIB), (wd, mask::DELETE_SELF), (wd, mask::IGNORED)]
        );
        assert_eq!(x.instance.remove(wd), Err(Errno::EINVAL));
    }
}

#[test]
fn watches_change_and_end() {
    let w = World::tmp();
    w.mkdir("/d").unwrap();
    let x = watcher();
    let wd = x.add(&w, "/d", mask::CREATE);
    assert_eq!(x.add(&w, "/d", mask::DELETE), wd);
    w.put("/d/f", "");
    assert_eq!(x.take(), []);
    w.unlink("/d/f").unwrap();
    assert_eq!(x.masks(), [(mask::DELETE, String::from("f"))]);
    x.add(&w, "/d", mask::CREATE | hal::uapi::general::IN_MASK_ADD);
    w.put("/d/f", "");
    w.unlink("/d/f").unwrap();
    assert_eq!(x.take().len(), 2);
    x.instance.remove(wd).unwrap();
    assert_eq!(x.masks(), [(mask::IGNORED, String::new())]);
    w.put("/d/g", "");
    assert_eq!(x.take(), []);
    let once = x.add(&w, "/d", mask::CREATE | mask::ONESHOT);
    w.put("/d/h", "");
    w.put("/d/i", "");
    let got: Vec<(i32, u32)> = x.take().into_iter().map(|e| (e.0, e.1)).collect();
    assert_eq!(got, [(once, mask::CREATE), (once, mask::IGNORED)]);
    assert_eq!(x.instance.add(Default::default(), 0), Err(Errno::EINVAL));
}
