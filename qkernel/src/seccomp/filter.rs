//! Filters, and the chain of them that a task has.

use super::bpf::{ARCH, DATA_WORDS, Insn, NUMBER, Program};
use super::ret;
use alloc::sync::Arc;
use alloc::vec::Vec;
use qlib::Errno;

/// Numbers of calls that the cache knows.
const CACHED: usize = 640;

/// The words of `struct seccomp_data`.
pub type Data = [u32; DATA_WORDS];

/// What a filter is asked about a call.
pub fn data(number: u64, pc: u64, args: [u64; 6]) -> Data {
    let mut d = [0; DATA_WORDS];
    d[NUMBER] = number as u32;
    d[ARCH] = hal::native::AUDIT_ARCH;
    let words = core::iter::once(pc).chain(args);
    for (i, v) in words.enumerate() {
        d[2 + 2 * i] = v as u32;
        d[3 + 2 * i] = (v >> 32) as u32;
    }
    d
}

/// A set of call numbers.
#[derive(Clone)]
struct Numbers([u64; CACHED / 64]);

impl Numbers {
    fn has(&self, n: u64) -> bool {
        self.0
            .get(n as usize / 64)
            .is_some_and(|w| w >> (n % 64) & 1 != 0)
    }
}

/// One filter.
pub struct Filter {
    program: Program,
    /// Tell the log of every answer but ALLOW.
    logs: bool,
    /// Calls the program allows whatever their arguments.
    allows: Numbers,
}

impl Filter {
    /// Checks a program and looks which calls it always allows.
    ///
    /// # Errors
    /// EINVAL.
    pub fn new(code: Vec<Insn>, logs: bool) -> Result<Self, Errno> {
        let program = Program::new(code)?;
        let mut allows = Numbers([0; CACHED / 64]);
        for n in 0..CACHED {
            let known = |word| match word {
                NUMBER => Some(n as u32),
                ARCH => Some(hal::native::AUDIT_ARCH),
                _ => None,
            };
            if program.run(known) == Some(ret::ALLOW) {
                allows.0[n / 64] |= 1 << (n % 64);
            }
        }
        Ok(Self {
            program,
            logs,
            allows,
        })
    }

    /// From the bytes of `struct sock_filter`s.
    ///
    /// # Errors
    /// EINVAL.
    pub fn from_bytes(bytes: &[u8], logs: bool) -> Result<Self, Errno> {
        let (insns, rest) = bytes.as_chunks::<8>();
        if !rest.is_empty() {
            return Err(Errno::EINVAL);
        }
        let code = insns
            .iter()
            .map(|b| Insn {
                code: u16::from_le_bytes([b[0], b[1]]),
                jt: b[2],
                jf: b[3],
                k: u32::from_le_bytes([b[4], b[5], b[6], b[7]]),
            })
            .collect();
        Self::new(code, logs)
    }

    /// Instructions.
    pub fn len(&self) -> usize {
        self.program.len()
    }

    /// Never: a program has at least one instruction.
    pub fn is_empty(&self) -> bool {
        self.program.is_empty()
    }
}

/// The filters of a task, oldest first.
pub struct Chain {
    filters: Vec<Arc<Filter>>,
    /// Calls that every filter always allows.
    allows: Numbers,
    total: usize,
}

impl Chain {
    /// `old` with one more filter.
    pub fn with(old: Option<&Chain>, filter: Filter) -> Self {
        let (mut filters, mut allows, mut total) =
            (Vec::new(), filter.allows.clone(), filter.len() + super::PENALTY);
        if let Some(old) = old {
            filters.extend(old.filters.iter().cloned());
            for (a, b) in allows.0.iter_mut().zip(old.allows.0) {
                *a &= b;
            }
            total += old.total;
        }
        filters.push(Arc::new(filter));
        Self {
            filters,
            allows,
            total,
        }
    }
    /// Number of filters.
    pub fn len(&self) -> usize {
        self.filters.len()
    }
    /// Never: a chain has at least one filter.
    pub fn is_empty(&self) -> bool {
        self.filters.is_empty()
    }
    /// Instructions of all filters with the penalty of each.
    pub fn total(&self) -> usize {
        self.total
    }
    /// Whether `older` is where this chain came from.
    pub fn begins_with(&self, older: &Chain) -> bool {
        let same = |(a, b): (&Arc<Filter>, &Arc<Filter>)| Arc::ptr_eq(a, b);
        older.len() <= self.len() && self.filters.iter().zip(&older.filters).all(same)
    }
    /// Whether no filter needs to run for this call.
    pub fn always_allows(&self, number: u64) -> bool {
        self.allows.has(number)
    }
    /// The strictest answer of all filters; among equals that of the newest.
    pub fn verdict(&self, data: &Data) -> u32 {
        // KILL_PROCESS is the strictest and the largest number: as signed numbers the order is right.
        let strictness = |v: u32| (v & ret::ACTION) as i32;
        let mut verdict = ret::ALLOW;
        let mut logs = false;
        for f in self.filters.iter().rev() {
            let v = f
                .program
                .run(|i| data.get(i).copied())
                .unwrap_or(ret::KILL_PROCESS);
            if strictness(v) < strictness(verdict) {
                (verdict, logs) = (v, f.logs);
            }
        }
        if logs {
            log::info!("seccomp: call {} is answered {verdict:#x}", data[NUMBER]);
        }
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(code: &[(u16, u8, u8, u32)]) -> Filter {
        let code = code
            .iter()
            .map(|(code, jt, jf, k)| Insn {
                code: *code,
                jt: *jt,
                jf: *jf,
                k: *k,
            })
            .collect();
        Filter::new(code, false).unwrap()
    }
    /// Answers `hit` for call `n`, else ALLOW.
    fn only(n: u32, hit: u32) -> Filter {
        filter(&[
            (0x20, 0, 0, 0),
            (0x15, 0, 1, n),
            (6, 0, 0, hit),
            (6, 0, 0, ret::ALLOW),
        ])
    }

    #[test]
    fn the_cache_knows_calls_that_are_always_allowed() {
        // Call 5 depends on its first argument, all others are allowed.
        let f = filter(&[
            (0x20, 0, 0, 0),
            (0x15, 0, 3, 5),
            (0x20, 0, 0, 16),
            (0x15, 0, 1, 1),
            (6, 0, 0, ret::ERRNO | 1),
            (6, 0, 0, ret::ALLOW),
        ]);
        let c = Chain::with(None, f);
        assert!(c.always_allows(4) && !c.always_allows(5) && !c.always_allows(100_000));
        assert_eq!(c.verdict(&data(5, 0, [1, 0, 0, 0, 0, 0])), ret::ERRNO | 1);
        assert_eq!(c.verdict(&data(5, 0, [2, 0, 0, 0, 0, 0])), ret::ALLOW);
        let both = Chain::with(Some(&c), only(4, ret::TRAP));
        assert!(!both.always_allows(4) && !both.always_allows(5) && both.always_allows(3));
    }

    #[test]
    fn the_strictest_answer_counts_and_the_newest_among_equals() {
        let base = Chain::with(None, only(1, ret::ERRNO | 1));
        let verdict = |hit| Chain::with(Some(&base), only(1, hit)).verdict(&data(1, 0, [0; 6]));
        assert_eq!(verdict(ret::ERRNO | 2), ret::ERRNO | 2);
        assert_eq!(verdict(ret::LOG), ret::ERRNO | 1);
        assert_eq!(verdict(ret::TRAP), ret::TRAP);
        assert_eq!(verdict(ret::KILL_THREAD), ret::KILL_THREAD);
        assert_eq!(verdict(ret::KILL_PROCESS), ret::KILL_PROCESS);
        let most = Chain::with(
            Some(&Chain::with(None, only(1, ret::KILL_PROCESS))),
            only(1, ret::KILL_THREAD),
        );
        assert_eq!(most.verdict(&data(1, 0, [0; 6])), ret::KILL_PROCESS);
    }

    #[test]
    fn chains_know_where_they_come_from() {
        let a = Chain::with(None, only(1, 0));
        let b = Chain::with(Some(&a), only(2, 0));
        let other = Chain::with(None, only(1, 0));
        assert!(b.begins_with(&a) && b.begins_with(&b) && !a.begins_with(&b) && !b.begins_with(&other));
        assert_eq!((b.len(), b.total()), (2, 16));
    }

    #[test]
    fn arguments_are_split_low_word_first() {
        let d = data(7, 0x1_0000_0002, [0x3_0000_0004, 0, 0, 0, 0, 0x5_0000_0006]);
        assert_eq!(
            (d[0], d[2], d[3], d[4], d[5], d[14], d[15]),
            (7, 2, 1, 4, 3, 6, 5)
        );
    }
}
