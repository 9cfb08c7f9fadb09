//! The rings against a hostile other side.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use qlib::ring::{
    AREA_BYTES, Broken, COMPLETE, Consumer, LOG_BYTES, Layout, Producer, Pushed, SUBMIT, Shared,
};
use std::cell::RefCell;
use std::rc::Rc;

#[derive(Clone)]
struct Memory(Rc<RefCell<Vec<u8>>>);

impl Memory {
    fn new(len: usize) -> Self {
        Self(Rc::new(RefCell::new(vec![0; len])))
    }
}

impl Shared for Memory {
    fn load(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.0.borrow()[at..at + 4].try_into().unwrap())
    }
    fn store(&self, at: usize, value: u32) {
        self.0.borrow_mut()[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    fn fence(&self) {}
    fn read(&self, at: usize, bytes: &mut [u8]) {
        bytes.copy_from_slice(&self.0.borrow()[at..at + bytes.len()]);
    }
    fn write(&self, at: usize, bytes: &[u8]) {
        self.0.borrow_mut()[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

const SMALL: Layout = Layout {
    base: 64,
    slots: 4,
    slot_bytes: 8,
};

#[test]
fn the_area_holds_both_rings_without_overlap() {
    assert_eq!(SUBMIT.slot_bytes, size_of::<qlib::qcall::Request>());
    assert_eq!(COMPLETE.slot_bytes, size_of::<qlib::qcall::Reply>());
    assert!(SUBMIT.base >= LOG_BYTES && COMPLETE.base >= SUBMIT.end() && AREA_BYTES >= COMPLETE.end());
    assert!(SUBMIT.slots.is_power_of_two() && COMPLETE.slots.is_power_of_two());
}

#[test]
fn entries_go_round_and_round() {
    let m = Memory::new(SMALL.end());
    let (mut p, mut c) = (Producer::new(m.clone(), SMALL), Consumer::new(m, SMALL));
    for i in 0..999u64 {
        assert_eq!(p.push(&i.to_le_bytes()), Ok(Pushed::Quiet));
        if i % 3 == 2 {
            for j in i - 2..=i {
                let mut b = [0; 8];
                assert_eq!(c.pop(&mut b), Ok(true));
                assert_eq!(u64::from_le_bytes(b), j);
            }
            assert_eq!(c.pop(&mut [0; 8]), Ok(false));
        }
    }
    for _ in 0..4 {
        assert_eq!(p.push(&[0; 8]), Ok(Pushed::Quiet));
    }
    assert_eq!(p.push(&[0; 8]), Ok(Pushed::Full));
}

#[test]
fn a_sleeping_consumer_is_rung_for() {
    let m = Memory::new(SMALL.end());
    let (mut p, mut c) = (Producer::new(m.clone(), SMALL), Consumer::new(m, SMALL));
    assert_eq!(c.sleep(), Ok(true));
    assert_eq!(p.push(&[1; 8]), Ok(Pushed::Ring));
    c.awake();
    assert_eq!(p.push(&[2; 8]), Ok(Pushed::Quiet));
    assert_eq!(c.sleep(), Ok(false));
}

#[test]
fn indices_out_of_range_are_told() {
    for lie in [5u32, 1000, 1 << 31, u32::MAX - 100] {
        let m = Memory::new(SMALL.end());
        let mut c = Consumer::new(m.clone(), SMALL);
        // The producer's index.
        m.store(SMALL.base + 64, lie);
        assert_eq!(c.pop(&mut [0; 8]), Err(Broken));
        assert_eq!(c.sleep(), Err(Broken));
        let m = Memory::new(SMALL.end());
        let mut p = Producer::new(m.clone(), SMALL);
        // The consumer's index.
        m.store(SMALL.base, lie);
        assert_eq!(p.push(&[0; 8]), Err(Broken));
    }
}
