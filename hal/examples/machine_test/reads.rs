//! Reads of a file in more pieces than the window keeps for reads.

use alloc::vec;
use hal::host::{self, Dest, Handle, Src};

const PAGE: u64 = 4096;
/// Bytes of a piece of the window.
const PIECE: u64 = 2 << 20;
/// More than the share of the window that reads get.
const PIECES: u64 = 1100;

/// What lies at the beginning of a piece.
fn mark(n: u64) -> [u8; 8] {
    (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()
}

fn read(h: Handle, at: u64, want: usize) -> vec::Vec<u8> {
    let mut bytes = vec![0; want];
    let got = host::read(h, &mut Dest::kernel(&mut bytes), Some(at));
    bytes.truncate(got.unwrap_or(0));
    bytes
}

pub fn run() {
    let file = match host::mem_file(b"reads") {
        Ok(f) => f,
        Err(e) => panic!("mem_file: {e}"),
    };
    let h = file.handle();
    let end = PIECES * PIECE + 100;
    assert_eq!(host::truncate(h, end), Ok(()));
    for n in 0..PIECES {
        let put = host::write(h, &mut Src::kernel(&mark(n)), Some(n * PIECE), false);
        assert_eq!(put, Ok(8));
    }
    // Forwards, and backwards, where the first pieces have gone.
    for n in (0..PIECES).chain((0..PIECES).rev()) {
        assert_eq!(read(h, n * PIECE, 8), mark(n), "piece {n}");
        // From one piece into the next.
        let over = read(h, (n + 1) * PIECE - 4, 12);
        let next = if n + 1 < PIECES { mark(n + 1) } else { [0; 8] };
        assert_eq!(
            (&over[..4], &over[4..]),
            (&[0; 4][..], &next[..]),
            "behind piece {n}"
        );
    }
    // The same piece again and again, a long read, and the end.
    let before = hal::host_usage();
    for _ in 0..100 {
        assert_eq!(read(h, PAGE, 4 * PAGE as usize).len(), 4 * PAGE as usize);
    }
    let used = hal::host_usage().requests - before.requests;
    assert!(used < 10, "{used} requests for 100 reads of the same pages");
    assert_eq!(read(h, PIECE - (128 << 10), 256 << 10).len(), 256 << 10);
    assert_eq!(read(h, end - 50, 100).len(), 50);
    assert_eq!(read(h, end, 100).len(), 0);
    // It becomes shorter, in the middle of a page, and longer again.
    assert_eq!(host::truncate(h, PIECE + 10), Ok(()));
    assert_eq!(read(h, PIECE, 100).len(), 10);
    assert_eq!(read(h, PIECE - 100, 4096).len(), 110);
    assert_eq!(read(h, 7 * PIECE, 100).len(), 0);
    assert_eq!(host::truncate(h, end), Ok(()));
    assert_eq!(read(h, 7 * PIECE, 8), [0; 8]);
}
