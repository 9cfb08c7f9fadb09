//! Shapes of call sites, and the bytes that replace them.

use arch::x86_64::site::{AFTER, BEFORE, Origin, STUB_BYTES, Site, origin, outside};

const END: u64 = 0x40_1000;
const STUB: u64 = 0x3f_0000;

fn around(before: &[u8], after: &[u8]) -> [u8; BEFORE + AFTER] {
    // No instruction, and so no padding.
    let mut w = [0x06; BEFORE + AFTER];
    w[BEFORE - before.len()..BEFORE].copy_from_slice(before);
    w[BEFORE..BEFORE + after.len()].copy_from_slice(after);
    w
}

/// Where a jump with a 32-bit displacement at `from` leads.
fn target(from: u64, jump: &[u8]) -> u64 {
    assert_eq!(jump[0], 0xe9);
    let by = i32::from_le_bytes([jump[1], jump[2], jump[3], jump[4]]);
    from.wrapping_add(5).wrapping_add_signed(i64::from(by))
}

#[test]
fn a_move_of_the_number_becomes_a_jump_of_its_length() {
    let w = around(&[0xb8, 39, 0, 0, 0, 0x0f, 0x05], &[0xc3]);
    let site = Site::recognise(END, &w, 39).unwrap();
    assert_eq!((site.start(), site.len, site.padding), (END - 7, 5, None));
    let (_, bytes) = site.changes(STUB).unwrap();
    assert_eq!(target(END - 7, &bytes), STUB);
    // Another number than the one asked for: the bytes are something else.
    assert_eq!(Site::recognise(END, &w, 40), None);
}

#[test]
fn the_longer_move_keeps_its_tail() {
    let w = around(&[0x48, 0xc7, 0xc0, 39, 0, 0, 0, 0x0f, 0x05], &[0xc3]);
    let site = Site::recognise(END, &w, 39).unwrap();
    assert_eq!((site.start(), site.len), (END - 9, 5));
}

#[test]
fn what_only_looks_like_a_move_is_left_alone() {
    for before in [
        &[0x41, 0xb8, 39, 0, 0, 0, 0x0f, 0x05][..],         // mov $39, %r8d
        &[0xc7, 0x45, 0xb8, 39, 0, 0, 0, 0x0f, 0x05],       // movl $39, -72(%rbp)
        &[0xc7, 0x44, 0x24, 0xb8, 39, 0, 0, 0, 0x0f, 0x05], // movl $39, -72(%rsp)
        &[0xb9, 39, 0, 0, 0, 0x0f, 0x05],                   // mov $39, %ecx
        &[0xb8, 39, 0, 0, 0, 0x0f, 0x34],                   // sysenter
    ] {
        assert_eq!(
            Site::recognise(END, &around(before, &[0xc3]), 39),
            None,
            "{before:x?}"
        );
    }
}

#[test]
fn calls_that_need_the_whole_frame_stay_traps() {
    for nr in [15u8, 56, 57, 58, 59, 60, 231] {
        let w = around(&[0xb8, nr, 0, 0, 0, 0x0f, 0x05], &[]);
        assert_eq!(Site::recognise(END, &w, u64::from(nr)), None);
    }
}

/// cmp $-4096, %rax; ja; ret; nop up to an aligned address, when the site ends 13 bytes after one.
const READ: [u8; 19] = [
    0x48, 0x3d, 0x00, 0xf0, 0xff, 0xff, 0x77, 0x5b, 0xc3, 0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0,
];
const PADDED_END: u64 = END + 13;

#[test]
fn the_c_library_s_read_jumps_by_its_padding() {
    let before = [0x31, 0xc0, 0x0f, 0x05];
    let site = Site::recognise(PADDED_END, &around(&before, &READ), 0).unwrap();
    assert_eq!((site.start(), site.len), (PADDED_END - 2, 2));
    assert_eq!(site.padding, Some((9, [0x66, 0x2e, 0x0f, 0x1f, 0x84])));
    let (via, bytes) = site.changes(STUB).unwrap();
    assert_eq!(bytes[..2], [0xeb, 9]);
    assert_eq!(target(PADDED_END + 9, &via), STUB);
    // Any number will do, but those that need the whole frame.
    assert!(Site::recognise(PADDED_END, &around(&before, &READ), 202).is_some());
    assert_eq!(Site::recognise(PADDED_END, &around(&before, &READ), 56), None);
    // Without the return the nops are code; and so they may be where they do not end aligned.
    let mut code = READ;
    code[8] = 0x90;
    assert_eq!(Site::recognise(PADDED_END, &around(&before, &code), 0), None);
    assert_eq!(Site::recognise(PADDED_END - 1, &around(&before, &READ), 0), None);
}

#[test]
fn a_stub_too_far_away_is_no_change() {
    let site = Site::recognise(END, &around(&[0xb8, 39, 0, 0, 0, 0x0f, 0x05], &[]), 39).unwrap();
    assert!(site.changes(END + (3 << 30)).is_none());
}

#[test]
fn a_stub_tells_what_its_site_was() {
    let original = [0xb8, 39, 0, 0, 0];
    let site = Site::recognise(END, &around(&[0xb8, 39, 0, 0, 0, 0x0f, 0x05], &[]), 39).unwrap();
    let stub = site.stub(STUB, 0x1234_5678_9abc, original);
    assert_eq!(stub[..5], original);
    let what = Origin {
        end: END,
        start: END - 7,
        len: 5,
        original,
        padding: None,
    };
    assert_eq!(origin(&stub), Some(what));
    let original = [0x0f, 0x05, 0x48, 0x3d, 0];
    let site = Site::recognise(PADDED_END, &around(&[0x0f, 0x05], &READ), 1).unwrap();
    let what = Origin {
        end: PADDED_END,
        start: PADDED_END - 2,
        len: 2,
        original,
        padding: Some((PADDED_END + 9, [0x66, 0x2e, 0x0f, 0x1f, 0x84])),
    };
    assert_eq!(origin(&site.stub(STUB, 1, original)), Some(what));
    assert_eq!(origin(&[0; STUB_BYTES]), None);
}

#[test]
fn a_thread_in_a_stub_stands_at_its_site() {
    let bytes = [0xb8, 39, 0, 0, 0, 0x0f, 0x05];
    let site = Site::recognise(END, &around(&bytes, &[]), 39).unwrap();
    let stub = site.stub(STUB, 0, [0xb8, 39, 0, 0, 0]);
    for at in [0, 5, 12, 18] {
        assert_eq!(outside(&stub, STUB, at, false), Some((END - 2, Some(39))));
    }
    assert_eq!(outside(&stub, STUB, 20, false), Some((END, None)));
    let site = Site::recognise(PADDED_END, &around(&[0x31, 0xc0, 0x0f, 0x05], &READ), 0).unwrap();
    let stub = site.stub(STUB, 0, [0x0f, 0x05, 0, 0, 0]);
    assert_eq!(outside(&stub, STUB, 5, false), Some((PADDED_END - 2, None)));
    // A step must not come back to the same place for ever.
    assert_eq!(outside(&stub, STUB, 5, true), Some((STUB + 18, None)));
}
