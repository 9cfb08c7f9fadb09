//! ChaCha20 (RFC 8439) as a random generator: keyed by the host's seed, rekeyed with its own output after every request,
//! so that a later look at memory tells nothing about earlier numbers.

use crate::sync::SpinLock;

struct Generator {
    key: [u32; 8],
    counter: u64,
}

static GENERATOR: SpinLock<Generator> = SpinLock::new(Generator {
    key: [0; 8],
    counter: 0,
});

/// Keys the generator.
pub(super) fn init(seed: &[u8; 32], generation: &[u8; 16]) {
    let mut g = GENERATOR.lock();
    for (word, bytes) in g.key.iter_mut().zip(seed.chunks_exact(4)) {
        *word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }
    for (word, bytes) in g.key.iter_mut().zip(generation.chunks_exact(4)) {
        *word ^= u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }
}

/// Fills `buf`.
pub(super) fn fill(buf: &mut [u8]) {
    let mut g = GENERATOR.lock();
    for chunk in buf.chunks_mut(64) {
        let block = g.next();
        chunk.copy_from_slice(&block[..chunk.len()]);
    }
    let block = g.next();
    for (word, bytes) in g.key.iter_mut().zip(block.chunks_exact(4)) {
        *word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }
}

fn quarter(s: &mut [u32; 16], a: usize, b: usize, c: usize, d: usize) {
    for (x, y, z, turn) in [(a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)] {
        s[x] = s[x].wrapping_add(s[y]);
        s[z] = (s[z] ^ s[x]).rotate_left(turn);
    }
}

impl Generator {
    fn next(&mut self) -> [u8; 64] {
        let mut s = [0u32; 16];
        s[..4].copy_from_slice(&[0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574]);
        s[4..12].copy_from_slice(&self.key);
        s[12] = self.counter as u32;
        s[13] = (self.counter >> 32) as u32;
        self.counter = self.counter.wrapping_add(1);
        let start = s;
        for _ in 0..10 {
            quarter(&mut s, 0, 4, 8, 12);
            quarter(&mut s, 1, 5, 9, 13);
            quarter(&mut s, 2, 6, 10, 14);
            quarter(&mut s, 3, 7, 11, 15);
            quarter(&mut s, 0, 5, 10, 15);
            quarter(&mut s, 1, 6, 11, 12);
            quarter(&mut s, 2, 7, 8, 13);
            quarter(&mut s, 3, 4, 9, 14);
        }
        let mut out = [0; 64];
        for (bytes, (a, b)) in out.chunks_exact_mut(4).zip(s.iter().zip(start)) {
            bytes.copy_from_slice(&a.wrapping_add(b).to_le_bytes());
        }
        out
    }
}
