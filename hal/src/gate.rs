//! Whether a CPU may use translations that are gone: what it says of itself, and what CPUs that change tables tell it.
//!
//! A CPU passes its gate before it runs the app or touches its memory, and leaves when it is back in the kernel. Who has
//! changed tables tells the gate. A CPU outside flushes when it passes next, so that nobody waits for it; one inside is
//! interrupted, which has it leave, and waited for. After that no translation of before is used.

#[cfg(not(loom))]
use core::sync::atomic::{AtomicBool, Ordering};
#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, Ordering};

/// The gate of one CPU.
#[derive(Debug)]
pub(crate) struct Gate {
    /// The CPU runs the app, or copies from or to its memory.
    inside: AtomicBool,
    /// Tables were changed since the CPU last flushed.
    told: AtomicBool,
}

impl Gate {
    /// A gate nobody has passed.
    pub fn new() -> Self {
        Self {
            inside: AtomicBool::new(false),
            told: AtomicBool::new(false),
        }
    }

    /// The gate's CPU is about to use translations; `flush` makes it forget those it has.
    pub fn enter(&self, flush: impl FnOnce()) {
        self.inside.store(true, Ordering::SeqCst);
        // Taken before it is served: what is told between the two must not be lost.
        if self.told.swap(false, Ordering::SeqCst) {
            flush();
        }
    }

    /// The gate's CPU uses none any more.
    pub fn leave(&self) {
        self.inside.store(false, Ordering::SeqCst);
    }

    /// The gate's CPU is about to flush for a reason of its own, and is not inside.
    pub fn forget(&self) {
        self.told.store(false, Ordering::SeqCst);
    }

    /// Tells that tables were changed; whether the CPU must be interrupted and waited for ([`Gate::waits`]).
    pub fn tell(&self) -> bool {
        // A swap, as in `enter`: of the two that come together the later one sees what the other stored before.
        self.told.swap(true, Ordering::SeqCst);
        self.is_inside()
    }

    /// Whether the CPU may still use what it knew when it was told.
    pub fn waits(&self) -> bool {
        self.told.load(Ordering::SeqCst) && self.is_inside()
    }

    /// Whether the CPU is inside.
    pub fn is_inside(&self) -> bool {
        self.inside.load(Ordering::SeqCst)
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::Gate;
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicBool, Ordering, fence};
    use loom::thread;

    /// A page table of two entries, and whether the frames behind them were given to somebody else.
    struct Machine {
        gate: Gate,
        mapped: [AtomicBool; 2],
        freed: [AtomicBool; 2],
    }

    /// What a CPU does that unmaps a page and frees its frame, if it need not wait, or no more when it looks.
    fn unmap(m: &Machine, page: usize) {
        m.mapped[page].store(false, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if !m.gate.tell() || !m.gate.waits() {
            m.freed[page].store(true, Ordering::SeqCst);
        }
    }

    #[test]
    fn under_loom_no_frame_is_freed_that_a_cpu_still_reaches() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let flag = AtomicBool::new;
            let m = Arc::new(Machine {
                gate: Gate::new(),
                mapped: [flag(true), flag(true)],
                freed: [flag(false), flag(false)],
            });
            let others: Vec<_> = (0..2)
                .map(|page| {
                    let m = m.clone();
                    thread::spawn(move || unmap(&m, page))
                })
                .collect();
            // The CPU whose gate it is: its TLB has both pages.
            let mut tlb = [true; 2];
            for _ in 0..2 {
                m.gate.enter(|| tlb = [false; 2]);
                for (page, known) in tlb.iter_mut().enumerate() {
                    *known = *known || m.mapped[page].load(Ordering::Relaxed);
                    assert!(!*known || !m.freed[page].load(Ordering::SeqCst), "page {page}");
                }
                m.gate.leave();
            }
            for o in others {
                o.join().unwrap();
            }
        });
    }
}
