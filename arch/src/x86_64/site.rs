//! Call sites: the instructions around an app's `syscall`, and the jump to a stub that may stand in their place.
//!
//! Two shapes are known. In both, an instruction is replaced by one of the same length or shorter, the boundaries of the
//! instructions around it stay what they are, and no thread can be in the middle:
//!
//! - *immediate*: `mov $nr, %eax` before the `syscall` becomes a jump of the same five bytes to the stub. The `syscall`
//!   stays where it is, for whoever stands before it or winds back to it.
//! - *padded*: the two bytes of `syscall` become a short jump to padding behind the function (see [`super::padding`]), which
//!   becomes the jump to the stub. Nothing of the code before is known: the system call may be another one each time.
//!
//! Source: Intel SDM volume 2 (encodings).

/// Bytes looked at before the end of the `syscall` instruction.
pub const BEFORE: usize = 10;
/// Bytes looked at behind it: as far as a short jump reaches, and to where the padding found there must end.
pub const AFTER: usize = 160;
/// Bytes of a jump with a 32-bit displacement.
pub const JUMP: usize = 5;
/// Farthest a short jump reaches.
const FAR: usize = 127;
/// First byte of a jump with an 8-bit displacement.
pub const SHORT_JUMP: u8 = 0xeb;
/// Bytes of a stub, and its alignment.
pub const STUB_BYTES: usize = 64;

/// `syscall`.
const SYSCALL: [u8; 2] = [0x0f, 0x05];
/// First bytes of instructions with an operand in memory and a 32-bit immediate, whose end may look like a move to `eax`.
const STORES: [u8; 4] = [0x69, 0x81, 0xc7, 0xf7];
/// Calls that never return to where they were made, that change what the stub's way back relies on, or that need the whole
/// signal frame: rt_sigreturn, clone, fork, vfork, execve, exit, exit_group, execveat, clone3.
const NEVER: [u32; 9] = [15, 56, 57, 58, 59, 60, 231, 322, 435];

/// Whether a system call must be made by the instruction, also where a stub is in its place.
pub fn must_trap(number: u64) -> bool {
    NEVER.iter().any(|n| u64::from(*n) == number)
}

/// Offsets in a stub.
const AT_SLOW: usize = 18;
/// Where a trap of the stub's own `syscall` finds the program counter.
const AT_SLOW_END: usize = 20;
/// What was at the padding.
const AT_PADDING: usize = 26;
/// End of the site, the stub's own `syscall`, the kernel's entry.
const AT_RECORD: usize = 32;
/// What was at the site; how far before the end, how many bytes, and one more than how far behind it the padding is.
const AT_ORIGINAL: usize = 56;

/// A call site of a known shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Site {
    /// Address behind the `syscall` instruction.
    pub end: u64,
    /// The system call of the immediate shape.
    pub number: u32,
    /// Distance from the first byte that changes to `end`.
    pub back: u8,
    /// Bytes that change at the site.
    pub len: u8,
    /// Distance from `end` to the padding that takes the jump, for the padded shape, and what it is.
    pub padding: Option<(u8, [u8; JUMP])>,
}

impl Site {
    /// Looks at the bytes around `end`, behind a `syscall` that just asked for `number`.
    pub fn recognise(end: u64, bytes: &[u8; BEFORE + AFTER], number: u64) -> Option<Site> {
        let (before, after) = bytes.split_at(BEFORE);
        let head = before.strip_suffix(&SYSCALL)?;
        if must_trap(number) {
            return None;
        }
        let number = u32::try_from(number).ok()?;
        if let Some((back, len)) = immediate(head, number) {
            return Some(Site {
                end,
                number,
                back,
                len,
                padding: None,
            });
        }
        let at = super::padding::find(after, end, JUMP, FAR)?;
        Some(Site {
            end,
            number: 0,
            back: 2,
            len: 2,
            padding: Some((u8::try_from(at).ok()?, *after.get(at..)?.first_chunk()?)),
        })
    }

    /// First byte that changes.
    pub fn start(&self) -> u64 {
        self.end - u64::from(self.back)
    }

    /// What replaces the padding, and what replaces the bytes at the site; `None` when the stub is too far away. The first
    /// is empty where the shape needs no padding.
    pub fn changes(&self, stub: u64) -> Option<([u8; JUMP], [u8; JUMP])> {
        match self.padding {
            None => Some(([0; JUMP], jump(self.start(), stub)?)),
            Some((p, _)) => {
                let padding = self.end + u64::from(p);
                // Behind the two bytes of the short jump is `end`.
                let mut short = [0; JUMP];
                short[..2].copy_from_slice(&[SHORT_JUMP, p]);
                Some((jump(padding, stub)?, short))
            }
        }
    }

    /// The stub at `stub` that enters the kernel at `entry`; `original` are the bytes at the site.
    pub fn stub(&self, stub: u64, entry: u64, original: [u8; JUMP]) -> [u8; STUB_BYTES] {
        let mut s = [0xcc; STUB_BYTES];
        if self.padding.is_none() {
            s[0] = 0xb8; // mov $nr, %eax
            s[1..5].copy_from_slice(&self.number.to_le_bytes());
        } else {
            s[..5].copy_from_slice(&[0x0f, 0x1f, 0x44, 0, 0]); // nop: the app has set eax
        }
        s[5..12].copy_from_slice(&[0x4c, 0x8d, 0x1d, 20, 0, 0, 0]); // lea record(%rip), %r11
        s[12..18].copy_from_slice(&[0xff, 0x25, 30, 0, 0, 0]); // jmp *entry(%rip)
        s[AT_SLOW..AT_SLOW_END].copy_from_slice(&SYSCALL);
        s[AT_SLOW_END..26].copy_from_slice(&[0xff, 0x25, 6, 0, 0, 0]); // jmp *end(%rip)
        for (at, word) in [
            (AT_RECORD, self.end),
            (AT_RECORD + 8, slow(stub)),
            (AT_RECORD + 16, entry),
        ] {
            s[at..at + 8].copy_from_slice(&word.to_le_bytes());
        }
        s[AT_ORIGINAL..AT_ORIGINAL + JUMP].copy_from_slice(&original);
        let tail = &mut s[AT_ORIGINAL + JUMP..];
        tail.copy_from_slice(&[self.back, self.len, 0]);
        if let Some((p, was)) = self.padding {
            tail[2] = p + 1;
            s[AT_PADDING..AT_PADDING + JUMP].copy_from_slice(&was);
        }
        s
    }
}

/// Distance from the move of the number to the end, and how many bytes of it change.
fn immediate(head: &[u8], number: u32) -> Option<(u8, u8)> {
    let rest = head.strip_suffix(&number.to_le_bytes())?;
    // mov $nr, %rax, sign-extended: the last bytes of the longer form stay, and are jumped over.
    if rest.ends_with(&[0x48, 0xc7, 0xc0]) {
        return Some((9, JUMP as u8));
    }
    let &[.., c, b, a, 0xb8] = rest else { return None };
    // With a prefix it is another instruction; and so it is as the end of a store.
    let prefixed = a & 0xf0 == 0x40 || a == 0x66;
    let stored = STORES.contains(&b) || STORES.contains(&c);
    (!prefixed && !stored).then_some((7, JUMP as u8))
}

/// What a stub says of its site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Address behind the `syscall`.
    pub end: u64,
    /// First byte that was changed.
    pub start: u64,
    /// How many were.
    pub len: usize,
    /// What they were.
    pub original: [u8; JUMP],
    /// Address of the padding that was changed, and what it was.
    pub padding: Option<(u64, [u8; JUMP])>,
}

/// What a stub says of its site.
pub fn origin(stub: &[u8; STUB_BYTES]) -> Option<Origin> {
    let end = u64::from_le_bytes(*stub[AT_RECORD..].first_chunk()?);
    let (original, tail) = stub[AT_ORIGINAL..].split_first_chunk()?;
    let &[back, len, p] = tail else { return None };
    let known = (4096..1 << 47).contains(&end) && matches!((back, len, p), (7 | 9, 5, 0) | (2, 2, 1..=128));
    if !known {
        return None;
    }
    let padding = (p != 0).then_some((end + u64::from(p) - 1, *stub[AT_PADDING..].first_chunk()?));
    Some(Origin {
        end,
        start: end - u64::from(back),
        len: usize::from(len),
        original: *original,
        padding,
    })
}

/// Where a thread that was interrupted `at` bytes into the stub stands as far as the app knows: program counter, and `rax`
/// if it is not loaded yet. `stepping`: it must get on, even so.
pub fn outside(
    stub: &[u8; STUB_BYTES],
    address: u64,
    at: usize,
    stepping: bool,
) -> Option<(u64, Option<u64>)> {
    let Origin { end, start, .. } = origin(stub)?;
    if at >= AT_SLOW_END {
        return Some((end, None));
    }
    if end - start == 2 {
        // The site itself leads here again.
        return Some((if stepping { slow(address) } else { start }, None));
    }
    let number = u32::from_le_bytes([stub[1], stub[2], stub[3], stub[4]]);
    Some((end - 2, Some(u64::from(number))))
}

/// The own `syscall` of the stub at `stub`.
pub fn slow(stub: u64) -> u64 {
    stub + AT_SLOW as u64
}

/// Where the bytes at `from` jump, when they are a jump with a 32-bit displacement.
pub fn target(from: u64, bytes: [u8; JUMP]) -> Option<u64> {
    let [0xe9, by @ ..] = bytes else { return None };
    let by = i64::from(i32::from_le_bytes(by));
    Some((from + JUMP as u64).wrapping_add_signed(by))
}

fn jump(from: u64, to: u64) -> Option<[u8; JUMP]> {
    let by = to.wrapping_sub(from + JUMP as u64) as i64;
    let by = i32::try_from(by).ok()?;
    let mut b = [0xe9, 0, 0, 0, 0];
    b[1..].copy_from_slice(&by.to_le_bytes());
    Some(b)
}
