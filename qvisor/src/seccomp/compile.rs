//! Compiles an allow-list to BPF: a binary search over call numbers, then argument checks.

use super::names::Arch;
use libc::sock_filter;
use qlib::boot::Range;
use std::collections::BTreeMap;

// Source: `include/uapi/linux/bpf_common.h`.
pub(super) const LD_W_ABS: u16 = 0x20;
pub(super) const ALU_AND_K: u16 = 0x54;
const JMP_JA: u16 = 0x05;
pub(super) const JMP_JEQ_K: u16 = 0x15;
pub(super) const JMP_JGT_K: u16 = 0x25;
pub(super) const JMP_JGE_K: u16 = 0x35;
pub(super) const RET_K: u16 = 0x06;

// Offsets in `struct seccomp_data`, little-endian. Source: `include/uapi/linux/seccomp.h`.
pub(super) const NR: u32 = 0;
pub(super) const ARCH: u32 = 4;
const IP_LOW: u32 = 8;
const IP_HIGH: u32 = 12;
pub(super) const ARGS: u32 = 16;

/// Longest program the kernel takes, instructions.
pub const MAX_INSTRUCTIONS: usize = 4096;

/// A condition on one argument's low 32 bits (the kernel's `int` arguments have no more).
#[derive(Clone, Debug)]
pub struct Condition {
    /// Argument, 0 to 5.
    pub arg: u32,
    /// Bits that count.
    pub mask: u32,
    /// Values, one of which they must have.
    pub values: Vec<u32>,
}

/// When a call is allowed: any of these lists of conditions that must all hold. Empty: always.
pub type Rule = Vec<Vec<Condition>>;

/// A place to jump to that may not be known yet.
#[derive(Clone, Copy)]
pub(super) struct Label(usize);

/// Puts instructions together; jumps go to labels.
#[derive(Default)]
pub(super) struct Assembler {
    code: Vec<sock_filter>,
    labels: Vec<Option<usize>>,
    jumps: Vec<(usize, Label)>,
}

impl Assembler {
    pub(super) fn emit(&mut self, code: u16, k: u32) {
        self.code.push(sock_filter {
            code,
            jt: 0,
            jf: 0,
            k,
        });
    }
    pub(super) fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }
    pub(super) fn place(&mut self, label: Label) {
        self.labels[label.0] = Some(self.code.len());
    }
    pub(super) fn jump(&mut self, to: Label) {
        self.jumps.push((self.code.len(), to));
        self.emit(JMP_JA, 0);
    }
    /// Jumps when the comparison holds. Conditional offsets have 8 bits, so each goes by an unconditional jump.
    pub(super) fn jump_if(&mut self, compare: u16, k: u32, to: Label) {
        self.code.push(sock_filter {
            code: compare,
            jt: 0,
            jf: 1,
            k,
        });
        self.jump(to);
    }
    pub(super) fn finish(mut self) -> Vec<sock_filter> {
        for (at, label) in self.jumps {
            if let Some(target) = self.labels[label.0] {
                self.code[at].k = (target - at - 1) as u32;
            }
        }
        self.code
    }
}

/// Compiles `rules` (by call number); what they do not allow kills the process. With a `text`, they are for calls made from
/// there, and from elsewhere a call raises SIGSYS.
pub fn compile(arch: Arch, text: Option<Range>, rules: &BTreeMap<u32, Rule>) -> Vec<sock_filter> {
    let mut a = Assembler::default();
    if let Some(text) = text {
        route(&mut a, text);
    }
    a.emit(LD_W_ABS, ARCH);
    let right = a.label();
    a.jump_if(JMP_JEQ_K, arch.audit(), right);
    a.emit(RET_K, libc::SECCOMP_RET_KILL_PROCESS);
    a.place(right);
    a.emit(LD_W_ABS, NR);
    let sorted: Vec<(&u32, &Rule)> = rules.iter().collect();
    search(&mut a, &sorted);
    a.finish()
}

/// Has a program raise SIGSYS where it would kill. A process that cannot take the signal is killed all the same.
pub fn trap(program: &mut [sock_filter]) {
    for i in program {
        if (i.code, i.k) == (RET_K, libc::SECCOMP_RET_KILL_PROCESS) {
            i.k = libc::SECCOMP_RET_TRAP;
        }
    }
}

/// Code that goes on for calls made from `text`, and raises SIGSYS for others.
fn route(a: &mut Assembler, text: Range) {
    let (outside, inside) = (a.label(), a.label());
    let split = |v: u64| ((v >> 32) as u32, v as u32);
    let (start_high, start_low) = split(text.start);
    let (end_high, end_low) = split(text.end);

    // ip >= start, by halves.
    let (above_start, start_checked) = (a.label(), a.label());
    a.emit(LD_W_ABS, IP_HIGH);
    a.jump_if(JMP_JGT_K, start_high, above_start);
    let same = a.label();
    a.jump_if(JMP_JEQ_K, start_high, same);
    a.jump(outside);
    a.place(same);
    a.emit(LD_W_ABS, IP_LOW);
    a.jump_if(JMP_JGE_K, start_low, start_checked);
    a.jump(outside);
    a.place(above_start);
    a.place(start_checked);
    // ip < end.
    let same = a.label();
    a.emit(LD_W_ABS, IP_HIGH);
    a.jump_if(JMP_JGT_K, end_high, outside);
    a.jump_if(JMP_JEQ_K, end_high, same);
    a.jump(inside);
    a.place(same);
    a.emit(LD_W_ABS, IP_LOW);
    a.jump_if(JMP_JGE_K, end_low, outside);
    a.jump(inside);

    a.place(outside);
    a.emit(RET_K, libc::SECCOMP_RET_TRAP);
    a.place(inside);
}

/// Code that decides among `rules`, with the call's number in the accumulator.
fn search(a: &mut Assembler, rules: &[(&u32, &Rule)]) {
    match rules {
        [] => a.emit(RET_K, libc::SECCOMP_RET_KILL_PROCESS),
        [(number, rule)] => {
            let hit = a.label();
            a.jump_if(JMP_JEQ_K, **number, hit);
            a.emit(RET_K, libc::SECCOMP_RET_KILL_PROCESS);
            a.place(hit);
            check(a, rule);
        }
        _ => {
            let (low, high) = rules.split_at(rules.len() / 2);
            let upper = a.label();
            a.jump_if(JMP_JGE_K, *high[0].0, upper);
            search(a, low);
            a.place(upper);
            search(a, high);
        }
    }
}

fn check(a: &mut Assembler, rule: &Rule) {
    if rule.is_empty() {
        return a.emit(RET_K, libc::SECCOMP_RET_ALLOW);
    }
    for conditions in rule {
        let next = a.label();
        for condition in conditions {
            let good = a.label();
            a.emit(LD_W_ABS, ARGS + condition.arg * 8);
            if condition.mask != u32::MAX {
                a.emit(ALU_AND_K, condition.mask);
            }
            for value in &condition.values {
                a.jump_if(JMP_JEQ_K, *value, good);
            }
            a.jump(next);
            a.place(good);
        }
        a.emit(RET_K, libc::SECCOMP_RET_ALLOW);
        a.place(next);
    }
    a.emit(RET_K, libc::SECCOMP_RET_KILL_PROCESS);
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Runs a program as the kernel would; gives its verdict.
    pub fn interpret(program: &[sock_filter], arch: u32, nr: u32, ip: u64, args: [u64; 6]) -> u32 {
        let mut data = [0u8; 64];
        data[..4].copy_from_slice(&nr.to_le_bytes());
        data[4..8].copy_from_slice(&arch.to_le_bytes());
        data[8..16].copy_from_slice(&ip.to_le_bytes());
        for (i, arg) in args.iter().enumerate() {
            data[16 + i * 8..24 + i * 8].copy_from_slice(&arg.to_le_bytes());
        }
        let (mut pc, mut acc) = (0, 0u32);
        loop {
            let i = &program[pc];
            pc += 1;
            let branch = |hit: bool| if hit { i.jt as usize } else { i.jf as usize };
            match i.code {
                LD_W_ABS => {
                    let k = i.k as usize;
                    acc = u32::from_le_bytes(data[k..k + 4].try_into().unwrap());
                }
                ALU_AND_K => acc &= i.k,
                JMP_JA => pc += i.k as usize,
                JMP_JEQ_K => pc += branch(acc == i.k),
                JMP_JGT_K => pc += branch(acc > i.k),
                JMP_JGE_K => pc += branch(acc >= i.k),
                RET_K => return i.k,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    #[test]
    fn routes_by_address_across_a_4_gib_line() {
        let rules = BTreeMap::from([(1, Rule::new())]);
        let text = Range {
            start: 0x1_ffff_f000,
            end: 0x2_0000_1000,
        };
        let program = compile(Arch::X86_64, Some(text), &rules);
        let at = |ip| interpret(&program, Arch::X86_64.audit(), 1, ip, [0; 6]);
        for ip in [
            0,
            0x1_ffff_efff,
            0x2_0000_1000,
            0x3_ffff_f800,
            0xffff_f800,
            u64::MAX,
        ] {
            assert_eq!(at(ip), libc::SECCOMP_RET_TRAP, "{ip:#x}");
        }
        for ip in [0x1_ffff_f000, 0x1_ffff_ffff, 0x2_0000_0000, 0x2_0000_0fff] {
            assert_eq!(at(ip), libc::SECCOMP_RET_ALLOW, "{ip:#x}");
        }
    }

    #[test]
    fn another_architectures_numbers_are_not_ours() {
        let rules = BTreeMap::from([(1, Rule::new())]);
        let program = compile(Arch::X86_64, None, &rules);
        assert_eq!(
            interpret(&program, 0x4000_0003, 1, 5, [0; 6]),
            libc::SECCOMP_RET_KILL_PROCESS
        );
    }

    #[test]
    fn the_search_finds_every_number_and_no_other() {
        let rules: BTreeMap<u32, Rule> = [0, 3, 4, 9, 200, 437].map(|n| (n, Rule::new())).into();
        let program = compile(Arch::X86_64, None, &rules);
        for nr in (0..600).chain([0x4000_0000, 0x4000_0003, u32::MAX]) {
            let verdict = interpret(&program, Arch::X86_64.audit(), nr, 5, [0; 6]);
            assert_eq!(
                verdict == libc::SECCOMP_RET_ALLOW,
                rules.contains_key(&nr),
                "{nr}"
            );
        }
    }
}
