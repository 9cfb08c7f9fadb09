//! The CPUs a task may run on. Source: `sched_setaffinity(2)`.

use alloc::vec;
use alloc::vec::Vec;

/// A set of the machine's CPUs, never empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuSet {
    /// One bit per CPU; no words = all CPUs.
    words: Vec<u64>,
}

impl CpuSet {
    /// Reads a mask as the app passes it; CPUs the machine does not have are left out. `None`: nothing remains.
    pub fn from_bytes(mask: &[u8]) -> Option<Self> {
        let cpus = hal::boot::cpus();
        let mut words = vec![0u64; words(cpus)];
        for cpu in 0..cpus as usize {
            if mask.get(cpu / 8).is_some_and(|b| b >> (cpu % 8) & 1 != 0) {
                words[cpu / 64] |= 1 << (cpu % 64);
            }
        }
        words.iter().any(|w| *w != 0).then_some(Self { words })
    }
    /// The mask as the app gets it: whole 64-bit words.
    pub fn to_bytes(&self) -> Vec<u8> {
        let cpus = hal::boot::cpus();
        let mut out = vec![0u8; words(cpus) * 8];
        for cpu in (0..cpus).filter(|c| self.contains(*c)) {
            out[cpu as usize / 8] |= 1 << (cpu % 8);
        }
        out
    }
    /// Whether a CPU of the machine is in the set.
    pub fn contains(&self, cpu: u32) -> bool {
        self.words.is_empty()
            || self
                .words
                .get(cpu as usize / 64)
                .is_some_and(|w| w >> (cpu % 64) & 1 != 0)
    }
}

fn words(cpus: u32) -> usize {
    (cpus as usize).div_ceil(64).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_keeps_what_the_machine_has() {
        crate::tests::boot();
        let all = CpuSet::default().to_bytes();
        assert!(all.len().is_multiple_of(8) && all[0] & 1 == 1);
        assert_eq!(CpuSet::from_bytes(&[0xff; 128]).map(|s| s.to_bytes()), Some(all));
        assert_eq!(CpuSet::from_bytes(&[]), None);
        let beyond = hal::boot::cpus() as usize;
        let mut mask = [0u8; 256];
        mask[beyond / 8] |= 1 << (beyond % 8);
        assert_eq!(CpuSet::from_bytes(&mask), None);
        mask[0] |= 1;
        let first = CpuSet::from_bytes(&mask).unwrap();
        assert!(first.contains(0) && !first.contains(beyond as u32));
        assert_eq!(first.to_bytes()[0], 1);
    }
}
