//! Padding behind a piece of code: room that no thread ever executes, found by walking over the instructions up to it.
//!
//! Only the instructions compilers put behind a system call are known by their length; at any other the walk gives up.
//!
//! Source: Intel SDM volume 2 (opcode maps, ModR/M and SIB bytes, the recommended forms of multi-byte nop).

/// Where padding may end: what follows begins at such an address.
const ALIGNMENT: u64 = 16;

/// One instruction: its length, and whether what follows is reached only by a jump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Instruction {
    len: usize,
    leaves: bool,
}

/// Offset of `room` bytes of padding that begin at most `far` bytes into `code`, which lies at `address`. `code` begins with
/// an instruction.
pub fn find(code: &[u8], address: u64, room: usize, far: usize) -> Option<usize> {
    let mut at = 0;
    loop {
        let i = instruction(code.get(at..)?)?;
        at += i.len;
        if at > far {
            return None;
        }
        if i.leaves && is_padding(code.get(at..)?, address + at as u64, room) {
            return Some(at);
        }
    }
}

/// Whether nops or breakpoints fill at least `room` bytes up to an aligned address. Where the first byte is aligned it may
/// be the beginning of something.
fn is_padding(code: &[u8], address: u64, room: usize) -> bool {
    if address.is_multiple_of(ALIGNMENT) {
        return false;
    }
    let mut at = 0;
    while let Some(len) = code.get(at..).and_then(filler) {
        at += len;
        if (address + at as u64).is_multiple_of(ALIGNMENT) {
            return at >= room;
        }
    }
    false
}

/// Length of a nop or breakpoint.
fn filler(code: &[u8]) -> Option<usize> {
    let prefixes = code.iter().take_while(|b| **b == 0x66).count();
    let rest = &code[prefixes..];
    match *rest {
        [0xcc, ..] if prefixes == 0 => Some(1),
        [0x90, ..] => Some(prefixes + 1),
        [0x0f, 0x1f, 0x00, ..] => Some(prefixes + 3),
        [0x0f, 0x1f, 0x40, 0, ..] => Some(prefixes + 4),
        [0x0f, 0x1f, 0x44, 0, 0, ..] => Some(prefixes + 5),
        [0x0f, 0x1f, 0x80, 0, 0, 0, 0, ..] => Some(prefixes + 7),
        [0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0, ..] => Some(prefixes + 8),
        [0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0, ..] => Some(prefixes + 9),
        _ => None,
    }
}

/// Bytes of ModR/M, SIB and displacement, and the register field.
fn operand(code: &[u8]) -> Option<(usize, u8)> {
    let modrm = *code.first()?;
    let (mode, reg, rm) = (modrm >> 6, modrm >> 3 & 7, modrm & 7);
    let (mut len, mut base) = (1, rm);
    if mode != 3 && rm == 4 {
        base = *code.get(1)? & 7;
        len += 1;
    }
    len += match mode {
        0 if base == 5 => 4,
        1 => 1,
        2 => 4,
        _ => 0,
    };
    Some((len, reg))
}

fn instruction(code: &[u8]) -> Option<Instruction> {
    let mut at = 0;
    let (mut narrow, mut wide) = (false, false);
    // Operand size, repeats, segments, lock; then REX.
    while let Some(b @ (0x66 | 0xf2 | 0xf3 | 0x2e | 0x3e | 0x64 | 0x65 | 0xf0)) = code.get(at) {
        narrow |= *b == 0x66;
        at += 1;
    }
    if let Some(rex @ 0x40..=0x4f) = code.get(at) {
        wide = rex & 8 != 0;
        at += 1;
    }
    let opcode = *code.get(at)?;
    at += 1;
    let rest = code.get(at..)?;
    let done = |more: usize| {
        let len = at + more;
        (len <= code.len()).then_some(Instruction { len, leaves: false })
    };
    let leaving = |more: usize| done(more).map(|i| Instruction { leaves: true, ..i });
    let with_operand = |immediate: usize| done(operand(rest)?.0 + immediate);
    // A 16-bit immediate is not worth knowing.
    let word = if narrow { None } else { Some(4) };
    match opcode {
        0x0f => second_map(rest, done, leaving),
        0x00..=0x3f => match opcode & 7 {
            0..=3 => with_operand(0),
            4 => done(1),
            5 => done(word?),
            _ => None,
        },
        0x50..=0x5f | 0x90..=0x99 | 0xc9 => done(0),
        0x63 | 0x84..=0x8b | 0x8d | 0xd0..=0xd3 | 0xfe => with_operand(0),
        0x68 | 0xa9 => done(word?),
        0x6a | 0xa8 | 0xb0..=0xb7 => done(1),
        0x69 | 0x81 | 0xc7 => with_operand(word?),
        0x6b | 0x80 | 0x83 | 0xc0 | 0xc1 | 0xc6 => with_operand(1),
        0x70..=0x7f => done(1),
        0xb8..=0xbf => done(if wide { 8 } else { word? }),
        0xc3 => leaving(0),
        0xe8 => done(4),
        0xe9 => leaving(4),
        0xeb => leaving(1),
        0xf6 | 0xf7 => {
            let (len, reg) = operand(rest)?;
            let immediate = match (reg, opcode) {
                (0 | 1, 0xf6) => 1,
                (0 | 1, _) => word?,
                _ => 0,
            };
            done(len + immediate)
        }
        0xff => {
            let (len, reg) = operand(rest)?;
            match reg {
                0 | 1 | 2 | 6 => done(len),
                4 => leaving(len),
                _ => None,
            }
        }
        _ => None,
    }
}

fn second_map(
    rest: &[u8],
    done: impl Fn(usize) -> Option<Instruction>,
    leaving: impl Fn(usize) -> Option<Instruction>,
) -> Option<Instruction> {
    let (opcode, rest) = rest.split_first()?;
    match opcode {
        0x05 | 0xa2 => done(1),
        0x0b => leaving(1),
        0x80..=0x8f => done(5),
        0x10..=0x17 | 0x1e | 0x1f | 0x28..=0x2f | 0x40..=0x4f | 0x51..=0x6f | 0x7e | 0x7f | 0x90..=0x9f => {
            done(1 + operand(rest)?.0)
        }
        0xa3 | 0xab | 0xaf | 0xb0 | 0xb1 | 0xb3 | 0xb6 | 0xb7 | 0xbb..=0xc1 | 0xd6 | 0xef => {
            done(1 + operand(rest)?.0)
        }
        0x70 | 0xba => done(2 + operand(rest)?.0),
        0xc8..=0xcf => done(1),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has_lengths(code: &[u8], expected: &[usize]) {
        let mut at = 0;
        for len in expected {
            assert_eq!(instruction(&code[at..]).map(|i| i.len), Some(*len), "at {at}");
            at += len;
        }
        assert_eq!(at, code.len());
    }

    #[test]
    fn instructions_have_their_lengths() {
        // cmp $-4096, %rax; ja .+0x36; mov %r8d, %edi; mov %rax, 8(%rsp); call; mov 8(%rsp), %rax; add $0x28, %rsp; ret
        let code = [
            0x48, 0x3d, 0, 0xf0, 0xff, 0xff, 0x77, 0x34, 0x44, 0x89, 0xc7, 0x48, 0x89, 0x44, 0x24, 8, 0xe8,
            1, 2, 3, 4, 0x48, 0x8b, 0x44, 0x24, 8, 0x48, 0x83, 0xc4, 0x28, 0xc3,
        ];
        has_lengths(&code, &[6, 2, 3, 5, 5, 5, 4, 1]);
        // mov x(%rip), %rcx; neg %eax; mov %eax, %fs:(%rcx); or $-1, %rax; test $1, %dil; mov $7, %rax; movabs
        let code = [
            0x48, 0x8b, 0x0d, 1, 2, 3, 4, 0xf7, 0xd8, 0x64, 0x89, 1, 0x48, 0x83, 0xc8, 0xff, 0x40, 0xf6,
            0xc7, 1, 0x48, 0xc7, 0xc0, 7, 0, 0, 0, 0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8,
        ];
        has_lengths(&code, &[7, 2, 3, 4, 4, 7, 10]);
        // ja near; movzbl; cmove; xadd with lock; mov disp32(base, index), %eax
        let code = [
            0x0f, 0x87, 1, 2, 3, 4, 0x0f, 0xb6, 0xc0, 0x48, 0x0f, 0x44, 0xc1, 0xf0, 0x0f, 0xc1, 0x07, 0x8b,
            0x84, 0x8b, 1, 2, 3, 4,
        ];
        has_lengths(&code, &[6, 3, 4, 4, 7]);
        for unknown in [
            &[0xc5, 0xf8, 0x77][..],
            &[0x67, 0x89, 0],
            &[0x66, 0x81, 0xc0, 1, 2],
            &[0xcc],
            &[0x06],
        ] {
            assert_eq!(instruction(unknown), None, "{unknown:x?}");
        }
        // Cut short.
        assert_eq!(instruction(&[0xe8, 1, 2, 3]), None);
        assert_eq!(instruction(&[0x48]), None);
    }

    #[test]
    fn padding_lies_behind_what_never_falls_through() {
        // ja .+5; ret; nop of ten bytes; of three
        let code = [
            0x77, 0x5b, 0xc3, 0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0, 0x0f, 0x1f, 0,
        ];
        assert_eq!(find(&code, 0x1000, 5, 127), Some(3));
        assert_eq!(find(&code, 0x1000, 5, 2), None);
        // It does not end where something may begin.
        assert_eq!(find(&code, 0x1001, 5, 127), None);
        // It begins there.
        assert_eq!(find(&code, 0x100d, 5, 127), None);
        // Nothing leaves.
        let mut falls = code;
        falls[2] = 0x90;
        assert_eq!(find(&falls, 0x1000, 5, 127), None);
        // Too little room; the next one is taken.
        let code = [
            0xc3, 0x0f, 0x1f, 0, 0x31, 0xc0, 0xc3, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc,
        ];
        assert_eq!(find(&code, 0x1002, 5, 127), Some(7));
    }
}
