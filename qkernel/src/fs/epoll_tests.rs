use super::*;
use crate::fs::eventfd::eventfd;
use crate::fs::pipe::pipe;
use hal::host::{Dest, Src};
use hal::uapi::general::O_NONBLOCK;
use std::time::Duration;

fn add_to(f: &File, n: u64) {
    f.ops().write(f, &mut Src::kernel(&n.to_ne_bytes()), 0).unwrap();
}
fn drain(f: &File) {
    let mut b = [0; 4096];
    let _ = f.ops().read(f, &mut Dest::kernel(&mut b), 0);
}
fn now(e: &File) -> Vec<(Events, u64)> {
    let e = e.downcast::<Epoll>().unwrap();
    e.wait(16, Some(0)).unwrap_or_default()
}
fn ep(f: &File) -> &Epoll {
    f.downcast().unwrap()
}

#[test]
fn level_tells_until_the_state_ends() {
    let e = Epoll::create();
    let f = eventfd(0, false, O_NONBLOCK);
    ep(&e).add(3, &f, Events::IN, 77).unwrap();
    assert_eq!(ep(&e).add(3, &f, Events::IN, 77), Err(Errno::EEXIST));
    assert_eq!(now(&e), []);
    add_to(&f, 1);
    for _ in 0..3 {
        assert_eq!(now(&e), [(Events::IN, 77)]);
    }
    drain(&f);
    assert_eq!(now(&e), []);
    add_to(&f, 1);
    assert_eq!(now(&e).len(), 1);
    ep(&e).remove(3, &f).unwrap();
    assert_eq!(now(&e), []);
    assert_eq!(ep(&e).remove(3, &f), Err(Errno::ENOENT));
}

#[test]
fn an_edge_is_told_once_per_change() {
    let e = Epoll::create();
    let (r, w) = pipe(O_NONBLOCK);
    ep(&e).add(3, &r, Events::IN | Events::ET, 1).unwrap();
    let write = |b: &[u8]| w.ops().write(&w, &mut Src::kernel(b), 0).unwrap();
    write(b"a");
    assert_eq!(now(&e), [(Events::IN, 1)]);
    assert_eq!(now(&e), []);
    // More data is a new edge though the old was not read.
    write(b"b");
    assert_eq!(now(&e), [(Events::IN, 1)]);
    drain(&r);
    assert_eq!(now(&e), []);
    // Added while ready: told at once.
    let f = Epoll::create();
    write(b"c");
    ep(&f).add(3, &r, Events::IN | Events::ET, 2).unwrap();
    assert_eq!(now(&f), [(Events::IN, 2)]);
    drop(w);
    assert!(now(&f)[0].0.contains(Events::HUP));
}

#[test]
fn a_change_counts_though_it_is_over() {
    let e = Epoll::create();
    let (r, w) = pipe(O_NONBLOCK);
    let write = |b: &[u8]| w.ops().write(&w, &mut Src::kernel(b), 0).unwrap();
    write(b"a");
    ep(&e).add_for_changes(&r, Events::IN | Events::PRI, 1).unwrap();
    assert_eq!(now(&e), []);
    write(b"b");
    drain(&r);
    assert_eq!(now(&e), [(Events::IN, 1)]);
    assert_eq!(now(&e), []);
    // The end is told to everyone, whatever it is to them.
    drop(w);
    assert_eq!(now(&e), [(Events::HUP, 1)]);
}

#[test]
fn one_shot_sleeps_until_it_is_armed_again() {
    let e = Epoll::create();
    let f = eventfd(1, false, O_NONBLOCK);
    ep(&e).add(3, &f, Events::IN | Events::ONESHOT, 1).unwrap();
    assert_eq!(now(&e).len(), 1);
    add_to(&f, 1);
    assert_eq!(now(&e), []);
    ep(&e).modify(3, &f, Events::IN | Events::ONESHOT, 2).unwrap();
    assert_eq!(now(&e), [(Events::IN, 2)]);
    assert_eq!(now(&e), []);
}

#[test]
fn a_closed_file_leaves_the_list() {
    let e = Epoll::create();
    let f = eventfd(1, false, 0);
    ep(&e).add(3, &f, Events::IN, 1).unwrap();
    // A pipe's queue lives on with the other end.
    let (r, w) = pipe(O_NONBLOCK);
    ep(&e).add(4, &r, Events::IN, 2).unwrap();
    drop(f);
    drop(r);
    assert_eq!(now(&e), []);
    assert!(ep(&e).items.lock().is_empty());
    drop(w);
}

#[test]
fn exclusive_has_rules() {
    let e = Epoll::create();
    let f = eventfd(1, false, 0);
    let shot = Events::IN | Events::EXCLUSIVE | Events::ONESHOT;
    assert_eq!(ep(&e).add(3, &f, shot, 1), Err(Errno::EINVAL));
    ep(&e).add(3, &f, Events::IN | Events::EXCLUSIVE, 1).unwrap();
    assert_eq!(ep(&e).modify(3, &f, Events::IN, 1), Err(Errno::EINVAL));
    assert_eq!(now(&e).len(), 1);
}

#[test]
fn instances_nest_but_not_in_circles() {
    let a = Epoll::create();
    let b = Epoll::create();
    let f = eventfd(0, false, O_NONBLOCK);
    ep(&a).add(3, &f, Events::IN, 1).unwrap();
    ep(&b).add(4, &a, Events::IN, 2).unwrap();
    assert_eq!(ep(&a).add(5, &b, Events::IN, 3), Err(Errno::ELOOP));
    assert_eq!(ep(&a).add(5, &a, Events::IN, 3), Err(Errno::EINVAL));
    assert_eq!(now(&b), []);
    add_to(&f, 1);
    assert_eq!(now(&b), [(Events::IN, 2)]);
    assert_eq!(now(&a), [(Events::IN, 1)]);
    drain(&f);
    assert_eq!(now(&b), []);
    // Five in a row are fine, six are not.
    let mut tower = std::vec![Epoll::create()];
    for i in 1..5 {
        let next = Epoll::create();
        ep(&next).add(9, &tower[i - 1], Events::IN, 0).unwrap();
        tower.push(next);
    }
    let top = Epoll::create();
    assert_eq!(ep(&top).add(9, &tower[4], Events::IN, 0), Err(Errno::ELOOP));
    let below = Epoll::create();
    assert_eq!(ep(&tower[0]).add(9, &below, Events::IN, 0), Err(Errno::ELOOP));
}

#[test]
fn a_waiter_sleeps_until_the_event() {
    let e = Epoll::create();
    let f = eventfd(0, false, 0);
    ep(&e).add(3, &f, Events::IN, 9).unwrap();
    let waiter = e.clone();
    let t = std::thread::spawn(move || ep(&waiter).wait(4, None).unwrap());
    std::thread::sleep(Duration::from_millis(20));
    add_to(&f, 1);
    assert_eq!(t.join().unwrap(), [(Events::IN, 9)]);
    let soon = hal::clock::monotonic_ns() + 3_000_000;
    drain(&f);
    assert_eq!(ep(&e).wait(4, Some(soon)), Err(WaitError::TimedOut));
}

#[test]
fn more_ready_than_asked_for_are_all_told_in_turn() {
    let e = Epoll::create();
    let files: Vec<_> = (0..10).map(|_| eventfd(1, false, O_NONBLOCK)).collect();
    for (i, f) in files.iter().enumerate() {
        ep(&e).add(i as i32, f, Events::IN, i as u64).unwrap();
    }
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..4 {
        for (_, d) in ep(&e).wait(3, Some(0)).unwrap() {
            seen.insert(d);
        }
    }
    assert_eq!(seen.len(), 10);
}

#[test]
fn an_instance_may_end_while_its_objects_tell() {
    let f = eventfd(0, false, O_NONBLOCK);
    let g = f.clone();
    let teller = std::thread::spawn(move || {
        for _ in 0..20_000 {
            add_to(&g, 1);
            drain(&g);
        }
    });
    while !teller.is_finished() {
        let e = Epoll::create();
        ep(&e).add(3, &f, Events::IN, 1).unwrap();
    }
    teller.join().unwrap();
}
