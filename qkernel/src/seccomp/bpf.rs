//! Classic BPF as seccomp uses it: what a program may be, and running it.
//!
//! Source: `seccomp(2)`; Linux `kernel/seccomp.c` (`seccomp_check_filter`) and `net/core/filter.c` (`bpf_check_classic`) for what is
//! accepted.

use alloc::vec::Vec;
use qlib::Errno;

/// Longest program, instructions (`BPF_MAXINSNS`).
pub const MAX_LEN: usize = 4096;
/// Words of scratch memory (`BPF_MEMWORDS`).
const MEMORY: usize = 16;
/// Words of `struct seccomp_data`.
pub const DATA_WORDS: usize = 16;
/// Word of the call's number.
pub const NUMBER: usize = 0;
/// Word of the architecture.
pub const ARCH: usize = 1;

const LD_IMM: u16 = 0x00;
const LDX_IMM: u16 = 0x01;
const LD_ABS: u16 = 0x20;
const LD_MEM: u16 = 0x60;
const LDX_MEM: u16 = 0x61;
const LD_LEN: u16 = 0x80;
const LDX_LEN: u16 = 0x81;
const ST: u16 = 0x02;
const STX: u16 = 0x03;
const RET_K: u16 = 0x06;
const RET_A: u16 = 0x16;
const TAX: u16 = 0x07;
const TXA: u16 = 0x87;
const NEG: u16 = 0x84;
const JA: u16 = 0x05;
/// Class bits and the source bit of arithmetic and jumps.
const CLASS: u16 = 0x07;
const ALU: u16 = 0x04;
const JMP: u16 = 0x05;
const BY_X: u16 = 0x08;
const OPERATION: u16 = 0xf0;
const ADD: u16 = 0x00;
const SUB: u16 = 0x10;
const MUL: u16 = 0x20;
const DIV: u16 = 0x30;
const OR: u16 = 0x40;
const AND: u16 = 0x50;
const LSH: u16 = 0x60;
const RSH: u16 = 0x70;
const XOR: u16 = 0xa0;
const JEQ: u16 = 0x10;
const JGT: u16 = 0x20;
const JGE: u16 = 0x30;
const JSET: u16 = 0x40;

/// One instruction: `struct sock_filter`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Insn {
    pub code: u16,
    pub jt: u8,
    pub jf: u8,
    pub k: u32,
}

/// A program that was checked: every jump stays inside, every path ends in a return, nothing reads memory it did not write.
pub struct Program(Vec<Insn>);

/// What an instruction does to the flow.
enum Flow {
    Next,
    Return,
    Jump(usize),
    Branch(usize, usize),
}

fn check_insn(i: &Insn) -> Result<Flow, Errno> {
    let k = i.k as usize;
    match i.code {
        LD_ABS if k >= DATA_WORDS * 4 || !k.is_multiple_of(4) => return Err(Errno::EINVAL),
        LD_MEM | LDX_MEM | ST | STX if k >= MEMORY => return Err(Errno::EINVAL),
        LD_ABS | LD_MEM | LDX_MEM | ST | STX | LD_IMM | LDX_IMM | LD_LEN | LDX_LEN | TAX | TXA | NEG => {}
        RET_K | RET_A => return Ok(Flow::Return),
        JA => return Ok(Flow::Jump(k)),
        c if c & CLASS == ALU && c & !(CLASS | OPERATION | BY_X) == 0 => match c & OPERATION {
            DIV if c & BY_X == 0 && k == 0 => return Err(Errno::EINVAL),
            LSH | RSH if c & BY_X == 0 && k >= 32 => return Err(Errno::EINVAL),
            ADD | SUB | MUL | DIV | OR | AND | LSH | RSH | XOR => {}
            _ => return Err(Errno::EINVAL),
        },
        c if c & CLASS == JMP && c & !(CLASS | OPERATION | BY_X) == 0 => match c & OPERATION {
            JEQ | JGT | JGE | JSET => return Ok(Flow::Branch(i.jt.into(), i.jf.into())),
            _ => return Err(Errno::EINVAL),
        },
        _ => return Err(Errno::EINVAL),
    }
    Ok(Flow::Next)
}

impl Program {
    /// Checks a program.
    ///
    /// # Errors
    /// EINVAL.
    pub fn new(code: Vec<Insn>) -> Result<Self, Errno> {
        let len = code.len();
        if len == 0 || len > MAX_LEN {
            return Err(Errno::EINVAL);
        }
        // Which memory words every way to an instruction has written. Jumps only go forward, so one pass is enough.
        let mut written = alloc::vec![u16::MAX; len];
        let mut here = 0u16;
        for (at, i) in code.iter().enumerate() {
            here &= written[at];
            let mut reach = |by: usize, have: u16| {
                let to = at.saturating_add(by).saturating_add(1);
                let slot = written.get_mut(to).ok_or(Errno::EINVAL)?;
                *slot &= have;
                Ok(())
            };
            match i.code {
                LD_MEM | LDX_MEM if i.k as usize >= MEMORY || here & 1 << i.k == 0 => {
                    return Err(Errno::EINVAL);
                }
                _ => {}
            }
            match check_insn(i)? {
                Flow::Next => {
                    if matches!(i.code, ST | STX) {
                        here |= 1 << i.k;
                    }
                    reach(0, here)?;
                }
                // What follows is reached by jumps only.
                Flow::Return => here = u16::MAX,
                Flow::Jump(by) => {
                    reach(by, here)?;
                    here = u16::MAX;
                }
                Flow::Branch(yes, no) => {
                    reach(yes, here)?;
                    reach(no, here)?;
                    here = u16::MAX;
                }
            }
        }
        match code[len - 1].code {
            RET_K | RET_A => Ok(Self(code)),
            _ => Err(Errno::EINVAL),
        }
    }

    /// Instructions.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none; a checked program has at least one.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Runs the program over what `load` gives for each word of `struct seccomp_data`; `None` when `load` has nothing to give.
    pub fn run(&self, load: impl Fn(usize) -> Option<u32>) -> Option<u32> {
        let (mut a, mut x) = (0u32, 0u32);
        let mut memory = [0u32; MEMORY];
        let mut pc = 0;
        loop {
            // The check keeps `pc` inside; should it not have, the strictest answer is the right one.
            let Some(i) = self.0.get(pc) else { return Some(0) };
            pc += 1;
            match i.code {
                LD_ABS => a = load(i.k as usize / 4)?,
                LD_IMM => a = i.k,
                LDX_IMM => x = i.k,
                LD_LEN => a = (DATA_WORDS * 4) as u32,
                LDX_LEN => x = (DATA_WORDS * 4) as u32,
                LD_MEM => a = memory[i.k as usize % MEMORY],
                LDX_MEM => x = memory[i.k as usize % MEMORY],
                ST => memory[i.k as usize % MEMORY] = a,
                STX => memory[i.k as usize % MEMORY] = x,
                TAX => x = a,
                TXA => a = x,
                NEG => a = a.wrapping_neg(),
                RET_K => return Some(i.k),
                RET_A => return Some(a),
                JA => pc += i.k as usize,
                code => {
                    let by = if code & BY_X != 0 { x } else { i.k };
                    if code & CLASS == JMP {
                        let holds = match code & OPERATION {
                            JEQ => a == by,
                            JGT => a > by,
                            JGE => a >= by,
                            _ => a & by != 0,
                        };
                        pc += usize::from(if holds { i.jt } else { i.jf });
                        continue;
                    }
                    a = match code & OPERATION {
                        ADD => a.wrapping_add(by),
                        SUB => a.wrapping_sub(by),
                        MUL => a.wrapping_mul(by),
                        // A division by zero ends the program with 0.
                        DIV => match a.checked_div(by) {
                            Some(v) => v,
                            None => return Some(0),
                        },
                        OR => a | by,
                        AND => a & by,
                        LSH => a.wrapping_shl(by),
                        RSH => a.wrapping_shr(by),
                        _ => a ^ by,
                    };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    fn insn(code: u16, jt: u8, jf: u8, k: u32) -> Insn {
        Insn { code, jt, jf, k }
    }
    fn op(code: u16, k: u32) -> Insn {
        insn(code, 0, 0, k)
    }
    fn accepted(code: &[Insn]) -> bool {
        Program::new(code.to_vec()).is_ok()
    }
    fn result(code: &[Insn]) -> u32 {
        let data: Vec<u32> = (100..116).collect();
        Program::new(code.to_vec())
            .unwrap()
            .run(|i| Some(data[i]))
            .unwrap()
    }

    #[test]
    fn malformed_programs_are_refused() {
        let ret = op(RET_K, 0);
        assert!(accepted(&[ret]));
        assert!(accepted(&[op(LD_ABS, 60), ret]));
        for bad in [
            vec![],
            vec![op(LD_IMM, 1)],
            vec![op(LD_ABS, 64), ret],
            vec![op(LD_ABS, 2), ret],
            vec![op(0x28, 0), ret],
            vec![op(0x30, 0), ret],
            vec![op(0x40, 0), ret],
            vec![op(0xb1, 0), ret],
            vec![op(JA, 1), ret],
            vec![op(JA, u32::MAX), ret],
            vec![insn(JMP | JEQ, 0, 1, 0), ret],
            vec![insn(JMP | JEQ, 1, 0, 0), ret],
            vec![op(ALU | DIV, 0), ret],
            vec![op(ALU | 0x90, 3), ret],
            vec![op(ALU | LSH, 32), ret],
            vec![op(ST, 16), ret],
            vec![op(LD_MEM, 3), ret],
            vec![op(LD_MEM, 99), ret],
            vec![op(0x16 | BY_X, 0), ret],
            vec![op(0xffff, 0), ret],
        ] {
            assert!(!accepted(&bad), "{bad:?}");
        }
        assert!(!accepted(&vec![ret; MAX_LEN + 1]));
        assert!(accepted(&vec![ret; MAX_LEN]));
    }

    #[test]
    fn memory_must_be_written_on_every_path() {
        let one_way = [insn(JMP | JEQ, 0, 1, 7), op(ST, 2), op(LD_MEM, 2), op(RET_A, 0)];
        assert!(!accepted(&one_way));
        let both = [
            insn(JMP | JEQ, 0, 2, 7),
            op(ST, 2),
            op(JA, 1),
            op(ST, 2),
            op(LD_MEM, 2),
            op(RET_A, 0),
        ];
        assert!(accepted(&both));
    }

    #[test]
    fn arithmetic_and_jumps() {
        assert_eq!(result(&[op(LD_ABS, 8), op(RET_A, 0)]), 102);
        assert_eq!(result(&[op(LD_LEN, 0), op(RET_A, 0)]), 64);
        let with =
            |operation: u16, a: u32, k: u32| result(&[op(LD_IMM, a), op(ALU | operation, k), op(RET_A, 0)]);
        assert_eq!(with(ADD, u32::MAX, 2), 1);
        assert_eq!(with(SUB, 1, 2), u32::MAX);
        assert_eq!(with(MUL, 7, 6), 42);
        assert_eq!(with(DIV, 7, 2), 3);
        assert_eq!(with(AND, 6, 3), 2);
        assert_eq!(with(OR, 6, 3), 7);
        assert_eq!(with(XOR, 6, 3), 5);
        assert_eq!(with(LSH, 1, 31), 1 << 31);
        assert_eq!(with(RSH, 1 << 31, 31), 1);
        assert_eq!(
            result(&[op(LD_IMM, 5), op(NEG, 0), op(RET_A, 0)]),
            5u32.wrapping_neg()
        );
        let by_zero = [
            op(LD_IMM, 9),
            op(LDX_IMM, 0),
            op(ALU | DIV | BY_X, 0),
            op(RET_K, 5),
        ];
        assert_eq!(result(&by_zero), 0);
        for (jump, a, k, holds) in [
            (JEQ, 3, 3, true),
            (JGT, 3, 3, false),
            (JGE, 3, 3, true),
            (JSET, 3, 4, false),
            (JSET, 3, 2, true),
        ] {
            let code = [
                op(LD_IMM, a),
                insn(JMP | jump, 1, 0, k),
                op(RET_K, 0),
                op(RET_K, 1),
            ];
            assert_eq!(result(&code) == 1, holds, "{jump:#x}");
        }
        let scratch = [
            op(LD_IMM, 8),
            op(ST, 15),
            op(LDX_MEM, 15),
            op(STX, 0),
            op(TXA, 0),
            op(TAX, 0),
            op(LD_MEM, 0),
            op(RET_A, 0),
        ];
        assert_eq!(result(&scratch), 8);
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_ends(raw in prop::collection::vec((any::<u16>(), any::<u8>(), any::<u8>(), any::<u32>()), 1..40)) {
            let codes = [LD_ABS, LD_IMM, LD_MEM, LDX_MEM, ST, STX, RET_K, RET_A, JA, JMP | JEQ, JMP | JSET | BY_X, ALU | DIV | BY_X,
                ALU | LSH | BY_X, TAX, TXA, NEG];
            let mut code: Vec<Insn> = raw
                .iter()
                .map(|(c, jt, jf, k)| insn(codes[usize::from(*c) % codes.len()], jt % 8, jf % 8, k % 64))
                .collect();
            code.push(op(RET_K, 1));
            if let Ok(p) = Program::new(code) {
                prop_assert!(p.run(|i| Some(i as u32)).is_some());
            }
        }
    }
}
