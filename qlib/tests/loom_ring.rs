//! The rings under loom: whatever the interleaving, entries arrive in order and a sleeping consumer is woken.
//! Run with `RUSTFLAGS="--cfg loom" cargo test -p qlib --test loom_ring --release`.
#![allow(clippy::unwrap_used, clippy::expect_used)]
#![cfg(loom)]

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, Ordering, fence};
use loom::thread;
use qlib::ring::{Consumer, Layout, Producer, Pushed, Shared};

const LAYOUT: Layout = Layout {
    base: 0,
    slots: 2,
    slot_bytes: 4,
};

/// Header words and slots. A slot is accessed without ordering: that of the indices must do.
struct Words(Vec<AtomicU32>);

#[derive(Clone)]
struct Memory(Arc<Words>);

/// loom allows few atomics at once: the words that are used, by their offset.
fn index(at: usize) -> usize {
    match at {
        0 => 0,
        64 => 1,
        128 => 2,
        slot => 3 + (slot - 192) / 4,
    }
}

impl Memory {
    fn new() -> Self {
        Self(Arc::new(Words((0..5).map(|_| AtomicU32::new(0)).collect())))
    }
}

impl Shared for Memory {
    fn load(&self, at: usize) -> u32 {
        self.0.0[index(at)].load(Ordering::Acquire)
    }
    fn store(&self, at: usize, value: u32) {
        self.0.0[index(at)].store(value, Ordering::Release);
    }
    fn fence(&self) {
        fence(Ordering::SeqCst);
    }
    fn read(&self, at: usize, bytes: &mut [u8]) {
        bytes.copy_from_slice(&self.0.0[index(at)].load(Ordering::Relaxed).to_le_bytes());
    }
    fn write(&self, at: usize, bytes: &[u8]) {
        let mut word = [0; 4];
        word.copy_from_slice(bytes);
        self.0.0[index(at)].store(u32::from_le_bytes(word), Ordering::Relaxed);
    }
}

#[test]
fn under_loom_no_entry_and_no_wake_up_is_lost() {
    loom::model(|| {
        let memory = Memory::new();
        let bell = Arc::new(AtomicU32::new(0));
        let (theirs, rung) = (memory.clone(), bell.clone());
        let producer = thread::spawn(move || {
            let mut p = Producer::new(theirs, LAYOUT);
            for i in 1..=2u32 {
                match p.push(&i.to_le_bytes()) {
                    Ok(Pushed::Quiet) => {}
                    Ok(Pushed::Ring) => {
                        rung.fetch_add(1, Ordering::SeqCst);
                    }
                    other => panic!("{other:?}"),
                }
            }
        });
        let mut c = Consumer::new(memory, LAYOUT);
        let mut expected = 1u32;
        let mut asleep = false;
        // As far as it gets without waiting; then it sleeps, and must have been rung for whatever came after.
        for _ in 0..3 {
            let mut b = [0; 4];
            if c.pop(&mut b) == Ok(true) {
                assert_eq!(u32::from_le_bytes(b), expected);
                expected += 1;
            } else if c.sleep() == Ok(true) {
                asleep = true;
                break;
            }
        }
        producer.join().unwrap();
        let left = 3 - expected;
        assert_eq!(c.waiting(), Ok(left));
        if asleep && left > 0 {
            assert!(
                bell.load(Ordering::SeqCst) > 0,
                "entries wait for a consumer nobody rang for"
            );
        }
    });
}
