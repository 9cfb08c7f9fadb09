//! The two decisions behind reads of mapped files, apart from the machine that makes them, so that tests reach them: when to
//! map a file ([`Rent`]), and what to give up when too much is mapped ([`ClockQueue`]).

use alloc::collections::VecDeque;

/// Requests that mapping a file for reads costs: its file system, its status, a handle of our own, its first piece.
const PRICE: u32 = 4;
/// Requests after which a file is tried again, at most.
const HIGHEST_PRICE: u32 = 1 << 16;

/// Whether to rent or to buy. A read by a request is rent; a mapping is a purchase, after which reads are free. Who buys when
/// the rent paid has reached the price pays at most twice what he would have paid knowing the future.
#[derive(Clone, Copy, Debug)]
pub struct Rent {
    paid: u32,
    price: u32,
}

impl Default for Rent {
    fn default() -> Self {
        Self {
            paid: 0,
            price: PRICE,
        }
    }
}

impl Rent {
    /// One more request was made.
    pub fn pay(&mut self) {
        self.paid = self.paid.saturating_add(1);
    }
    /// Whether it is time to buy.
    pub fn due(&self) -> bool {
        self.paid >= self.price
    }
    /// It was bought. What is lost later must be earned again.
    pub fn bought(&mut self) {
        self.paid = 0;
    }
    /// It was not to be had: the next try comes later, and later still.
    pub fn refused(&mut self) {
        self.paid = 0;
        self.price = (self.price * 2).min(HIGHEST_PRICE);
    }
}

/// What becomes of an item of a [`ClockQueue`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was used since it was last looked at: it goes to the end of the queue.
    Keep,
    /// It leaves the queue.
    Drop,
}

/// A queue from which what is not used goes: the clock, or second chance, of page replacement.
pub struct ClockQueue<T>(VecDeque<T>);

impl<T> ClockQueue<T> {
    /// An empty queue.
    pub const fn new() -> Self {
        Self(VecDeque::new())
    }
    /// How many items there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }
    /// Adds an item, which is looked at last.
    pub fn push(&mut self, item: T) {
        self.0.push_back(item);
    }
    /// Looks at items until one leaves; `false` when none does after every one was looked at twice: the first look may only
    /// have taken note that the item was used.
    pub fn drop_one(&mut self, mut judge: impl FnMut(&T) -> Verdict) -> bool {
        for _ in 0..2 * self.0.len() {
            let Some(item) = self.0.pop_front() else { break };
            match judge(&item) {
                Verdict::Drop => return true,
                Verdict::Keep => self.0.push_back(item),
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn rent_is_paid_to_the_price_and_no_further() {
        let mut r = Rent::default();
        let mut paid = 0;
        while !r.due() {
            r.pay();
            paid += 1;
        }
        assert_eq!(paid, PRICE);
        r.bought();
        assert!(!r.due());
        // Never to be had: the tries become rare, but do not end.
        let mut tries = 0;
        for _ in 0..4 * HIGHEST_PRICE {
            r.pay();
            if r.due() {
                r.refused();
                tries += 1;
            }
        }
        assert!((14..=20).contains(&tries), "{tries} tries");
    }

    /// Against a model: what was used since the last look stays, the oldest of the others goes, nothing is lost.
    #[test]
    fn the_clock_keeps_what_is_used() {
        let mut clock = ClockQueue::new();
        let (mut order, mut used, mut next) = (Vec::new(), HashSet::<usize>::new(), 0usize);
        let mut random = 1u64;
        for _ in 0..20_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let which = (random >> 40) as usize;
            match random >> 62 {
                0 | 1 if order.len() < 12 => {
                    clock.push(next);
                    order.push(next);
                    next += 1;
                }
                0..=2 => {
                    used.extend(order.get(which % 16));
                }
                _ => {
                    let (mut gone, mut spared) = (None, Vec::new());
                    let dropped = clock.drop_one(|i| {
                        if used.remove(i) {
                            spared.push(*i);
                            return Verdict::Keep;
                        }
                        gone = Some(*i);
                        Verdict::Drop
                    });
                    assert_eq!(dropped, !order.is_empty());
                    if dropped {
                        order.rotate_left(spared.len());
                        assert_eq!(gone, Some(order.remove(0)));
                        assert!(order.ends_with(&spared) || spared.len() > order.len());
                    }
                }
            }
            assert_eq!(clock.len(), order.len());
        }
    }

    #[test]
    fn items_in_use_are_never_dropped() {
        for n in 0..50 {
            let mut clock = ClockQueue::new();
            (0..n).for_each(|i| clock.push(i));
            assert!(!clock.drop_one(|_| Verdict::Keep));
            assert_eq!(clock.len(), n);
        }
    }
}
