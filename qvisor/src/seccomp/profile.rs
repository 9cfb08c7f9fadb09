//! `linux.seccomp` of `config.json`, compiled as libseccomp and runc compile it. The guest kernel runs the program on the
//! app's calls; the host never sees those.

use super::compile::{
    ALU_AND_K, ARCH, ARGS, Assembler, JMP_JEQ_K, JMP_JGE_K, JMP_JGT_K, LD_W_ABS, Label, MAX_INSTRUCTIONS, NR,
    RET_K,
};
use super::names::Arch;
use arch::sysno::Sysno;
use libc::sock_filter;
use oci_spec::runtime::{
    Arch as ArchName, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompFilterFlag,
    LinuxSeccompOperator as Operator, LinuxSyscall,
};
use std::collections::BTreeMap;

/// Bit of the x32 calls' numbers.
const X32: u32 = 0x4000_0000;
/// The number a tracer sets to skip a call: no x32 call.
const SKIPPED: u32 = u32::MAX;

/// Why a profile cannot be enforced; the text begins with the JSON path.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It hands calls to an agent.
    #[error("linux.seccomp: SCMP_ACT_NOTIFY is not supported: no agent can answer for the guest kernel")]
    Notify,
    /// A condition on an argument that does not exist.
    #[error("linux.seccomp.syscalls: {0}: a call has the arguments 0 to 5")]
    Argument(String),
    /// The program is longer than the kernel takes.
    #[error("linux.seccomp: the profile is too long")]
    TooLong,
}

/// A profile as the guest kernel takes it.
#[derive(Clone, Debug, Default)]
pub struct Compiled {
    /// `struct sock_filter`s, little-endian.
    pub program: Vec<u8>,
    /// Log every answer but "allow".
    pub log: bool,
}

/// Compiles the profile for the architecture this runs on.
pub fn compile(profile: &LinuxSeccomp) -> Result<Compiled, Error> {
    let code = program(profile, Arch::host())?;
    let bytes = |i: &sock_filter| {
        let [c0, c1] = i.code.to_le_bytes();
        let [k0, k1, k2, k3] = i.k.to_le_bytes();
        [c0, c1, i.jt, i.jf, k0, k1, k2, k3]
    };
    let flags = profile.flags().iter().flatten();
    Ok(Compiled {
        program: code.iter().flat_map(bytes).collect(),
        log: flags
            .into_iter()
            .any(|f| *f == LinuxSeccompFilterFlag::SeccompFilterFlagLog),
    })
}

/// What happens to a call.
#[derive(Clone, PartialEq)]
enum Outcome {
    /// Always this.
    Always(u32),
    /// The first of these whose conditions all hold, else the default.
    When(Vec<(Vec<LinuxSeccompArg>, u32)>),
}

fn value(action: Action, errno: Option<u32>) -> Result<u32, Error> {
    let data = errno.unwrap_or(libc::EPERM as u32) & 0xffff;
    Ok(match action {
        Action::ScmpActKill | Action::ScmpActKillThread => libc::SECCOMP_RET_KILL_THREAD,
        Action::ScmpActKillProcess => libc::SECCOMP_RET_KILL_PROCESS,
        Action::ScmpActTrap => libc::SECCOMP_RET_TRAP,
        Action::ScmpActErrno => libc::SECCOMP_RET_ERRNO | data,
        Action::ScmpActTrace => libc::SECCOMP_RET_TRACE | data,
        Action::ScmpActLog => libc::SECCOMP_RET_LOG,
        Action::ScmpActAllow => libc::SECCOMP_RET_ALLOW,
        Action::ScmpActNotify => return Err(Error::Notify),
    })
}

/// A call's number; names the architecture does not have are left out of a profile, as runc leaves them out.
fn number(arch: Arch, name: &str) -> Option<u32> {
    let call = Sysno::ALL.iter().find(|s| match s {
        Sysno::sysctl_ => name == "_sysctl",
        s => s.name() == name,
    })?;
    let numbers = call.numbers();
    let n = match arch {
        Arch::X86_64 => numbers.x86_64,
        Arch::Aarch64 => numbers.aarch64,
    };
    n.map(u32::from)
}

/// The lists of conditions of an entry, one of which must hold in full.
fn alternatives(entry: &LinuxSyscall) -> Result<Vec<Vec<LinuxSeccompArg>>, Error> {
    let args = entry.args().clone().unwrap_or_default();
    if args.iter().any(|a| a.index() > 5) {
        return Err(Error::Argument(entry.names().join(", ")));
    }
    let mut indices: Vec<usize> = args.iter().map(LinuxSeccompArg::index).collect();
    indices.sort_unstable();
    indices.dedup();
    // Several conditions on one argument are alternatives.
    if indices.len() < args.len() {
        return Ok(args.into_iter().map(|a| vec![a]).collect());
    }
    Ok(vec![args])
}

/// What the profile says of each call, the default, and the largest number it names.
fn outcomes(profile: &LinuxSeccomp, arch: Arch) -> Result<(BTreeMap<u32, Outcome>, u32, u32), Error> {
    let default = value(profile.default_action(), profile.default_errno_ret())?;
    let mut calls: BTreeMap<u32, Outcome> = BTreeMap::new();
    let mut last = 0;
    for entry in profile.syscalls().iter().flatten() {
        let action = value(entry.action(), entry.errno_ret())?;
        let alternatives = alternatives(entry)?;
        for name in entry.names() {
            let Some(n) = number(arch, name) else { continue };
            last = last.max(n);
            if action == default {
                continue;
            }
            for conditions in &alternatives {
                let slot = calls.entry(n).or_insert_with(|| Outcome::When(Vec::new()));
                match slot {
                    // A rule without conditions covers all others of the call.
                    Outcome::Always(_) => {}
                    slot if conditions.is_empty() => *slot = Outcome::Always(action),
                    Outcome::When(list) => list.push((conditions.clone(), action)),
                }
            }
        }
    }
    Ok((calls, default, last))
}

fn program(profile: &LinuxSeccomp, arch: Arch) -> Result<Vec<sock_filter>, Error> {
    let (calls, default, last) = outcomes(profile, arch)?;
    let mut a = Assembler::default();
    let right = a.label();
    a.emit(LD_W_ABS, ARCH);
    a.jump_if(JMP_JEQ_K, arch.audit(), right);
    a.emit(RET_K, libc::SECCOMP_RET_KILL_THREAD);
    a.place(right);
    a.emit(LD_W_ABS, NR);
    if arch == Arch::X86_64 {
        let known = a.label();
        let listed = profile.architectures().iter().flatten();
        let x32 = listed.into_iter().any(|a| *a == ArchName::ScmpArchX32);
        let is_x32 = a.label();
        a.jump_if(JMP_JEQ_K, SKIPPED, known);
        a.jump_if(JMP_JGE_K, X32, is_x32);
        a.jump(known);
        a.place(is_x32);
        if x32 {
            a.emit(ALU_AND_K, !X32);
        } else {
            a.emit(RET_K, libc::SECCOMP_RET_KILL_THREAD);
        }
        a.place(known);
    }
    // Calls newer than the profile are not there, rather than forbidden: libraries fall back.
    let enosys = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
    let permissive = [
        libc::SECCOMP_RET_ALLOW,
        libc::SECCOMP_RET_LOG,
        libc::SECCOMP_RET_TRACE,
    ];
    let beyond = if permissive.contains(&(default & 0xffff_0000)) {
        default
    } else {
        enosys
    };
    let mut ranges = vec![(0, Outcome::Always(default))];
    for (n, outcome) in calls {
        ranges.push((n, outcome));
        ranges.push((n + 1, Outcome::Always(default)));
    }
    ranges.push((last + 1, Outcome::Always(beyond)));
    // Of two that begin at one number the later is meant; neighbours that agree are one.
    let mut merged: Vec<(u32, Outcome)> = Vec::new();
    for range in ranges {
        if merged.last().is_some_and(|m| m.0 == range.0) {
            merged.pop();
        }
        if merged.last().is_none_or(|m| m.1 != range.1) {
            merged.push(range);
        }
    }
    search(&mut a, &merged, default);
    let code = a.finish();
    if code.len() > MAX_INSTRUCTIONS {
        return Err(Error::TooLong);
    }
    Ok(code)
}

/// Code that decides among ranges of numbers, the number in the accumulator.
fn search(a: &mut Assembler, ranges: &[(u32, Outcome)], default: u32) {
    match ranges {
        [] => a.emit(RET_K, default),
        [(_, Outcome::Always(verdict))] => a.emit(RET_K, *verdict),
        [(_, Outcome::When(rules))] => {
            for (conditions, verdict) in rules {
                let next = a.label();
                for c in conditions {
                    condition(a, c, next);
                }
                a.emit(RET_K, *verdict);
                a.place(next);
            }
            a.emit(RET_K, default);
        }
        _ => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            let upper = a.label();
            a.jump_if(JMP_JGE_K, high[0].0, upper);
            search(a, low, default);
            a.place(upper);
            search(a, high, default);
        }
    }
}

/// Code that goes on when the condition holds, else to `fails`.
fn condition(a: &mut Assembler, c: &LinuxSeccompArg, fails: Label) {
    let low = ARGS + c.index() as u32 * 8;
    let high = low + 4;
    let split = |v: u64| ((v >> 32) as u32, v as u32);
    let (value_high, value_low) = split(c.value());
    let holds = a.label();
    // Goes to `yes` when the argument is above the value (or equal, as `low_compare` says), else to `no`.
    let above = |a: &mut Assembler, low_compare: u16, yes: Label, no: Label| {
        let same = a.label();
        a.emit(LD_W_ABS, high);
        a.jump_if(JMP_JGT_K, value_high, yes);
        a.jump_if(JMP_JEQ_K, value_high, same);
        a.jump(no);
        a.place(same);
        a.emit(LD_W_ABS, low);
        a.jump_if(low_compare, value_low, yes);
        a.jump(no);
    };
    let equal = |a: &mut Assembler, mask: Option<u64>, wanted: u64, yes: Label, no: Label| {
        let (wanted_high, wanted_low) = split(wanted);
        let same = a.label();
        a.emit(LD_W_ABS, high);
        if let Some(m) = mask {
            a.emit(ALU_AND_K, split(m).0);
        }
        a.jump_if(JMP_JEQ_K, wanted_high, same);
        a.jump(no);
        a.place(same);
        a.emit(LD_W_ABS, low);
        if let Some(m) = mask {
            a.emit(ALU_AND_K, split(m).1);
        }
        a.jump_if(JMP_JEQ_K, wanted_low, yes);
        a.jump(no);
    };
    match c.op() {
        Operator::ScmpCmpEq => equal(a, None, c.value(), holds, fails),
        Operator::ScmpCmpNe => equal(a, None, c.value(), fails, holds),
        Operator::ScmpCmpMaskedEq => {
            equal(a, Some(c.value()), c.value_two().unwrap_or(0), holds, fails);
        }
        Operator::ScmpCmpGt => above(a, JMP_JGT_K, holds, fails),
        Operator::ScmpCmpGe => above(a, JMP_JGE_K, holds, fails),
        Operator::ScmpCmpLe => above(a, JMP_JGT_K, fails, holds),
        Operator::ScmpCmpLt => above(a, JMP_JGE_K, fails, holds),
    }
    a.place(holds);
}

#[cfg(test)]
mod tests {
    use super::super::compile::tests::interpret;
    use super::*;
    use serde_json::{Value, json};

    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
    const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
    const EPERM: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;

    fn ask(profile: &Value, arch: Arch, name: &str, args: [u64; 6]) -> u32 {
        ask_number(profile, arch, number(arch, name).unwrap(), args)
    }
    fn ask_number(profile: &Value, arch: Arch, n: u32, args: [u64; 6]) -> u32 {
        let profile: LinuxSeccomp = serde_json::from_value(profile.clone()).unwrap();
        interpret(&program(&profile, arch).unwrap(), arch.audit(), n, 0, args)
    }

    #[test]
    fn actions_defaults_and_unknown_names() {
        let p = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["mkdir", "mkdirat", "no_such_call"], "action": "SCMP_ACT_ERRNO"},
            {"names": ["getppid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 71},
            {"names": ["sync"], "action": "SCMP_ACT_KILL_PROCESS"},
            {"names": ["acct"], "action": "SCMP_ACT_KILL"},
            {"names": ["gettid"], "action": "SCMP_ACT_TRAP"},
            {"names": ["getuid"], "action": "SCMP_ACT_ALLOW"}]});
        for arch in [Arch::X86_64, Arch::Aarch64] {
            assert_eq!(ask(&p, arch, "mkdirat", [0; 6]), EPERM);
            assert_eq!(ask(&p, arch, "getppid", [0; 6]), libc::SECCOMP_RET_ERRNO | 71);
            assert_eq!(ask(&p, arch, "sync", [0; 6]), libc::SECCOMP_RET_KILL_PROCESS);
            assert_eq!(ask(&p, arch, "acct", [0; 6]), libc::SECCOMP_RET_KILL_THREAD);
            assert_eq!(ask(&p, arch, "gettid", [0; 6]), libc::SECCOMP_RET_TRAP);
            assert_eq!(ask(&p, arch, "getuid", [0; 6]), ALLOW);
            assert_eq!(ask_number(&p, arch, 599, [0; 6]), ALLOW);
        }
        assert_eq!(ask(&p, Arch::X86_64, "mkdir", [0; 6]), EPERM);
    }

    #[test]
    fn what_is_newer_than_an_allow_list_is_not_there() {
        let p = json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1,
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
            "syscalls": [{"names": ["read", "openat2"], "action": "SCMP_ACT_ALLOW"}]});
        let arch = Arch::X86_64;
        assert_eq!(ask(&p, arch, "read", [0; 6]), ALLOW);
        assert_eq!(ask(&p, arch, "openat2", [0; 6]), ALLOW);
        assert_eq!(ask(&p, arch, "write", [0; 6]), EPERM);
        assert_eq!(ask(&p, arch, "clone3", [0; 6]), EPERM);
        assert_eq!(ask(&p, arch, "pidfd_getfd", [0; 6]), ENOSYS);
        assert_eq!(ask_number(&p, arch, X32, [0; 6]), libc::SECCOMP_RET_KILL_THREAD);
        assert_eq!(ask_number(&p, arch, SKIPPED, [0; 6]), ENOSYS);
    }

    #[test]
    fn every_operator_on_both_halves() {
        let cases: [(&str, u64, u64, &[u64], &[u64]); 7] = [
            (
                "SCMP_CMP_EQ",
                0x1_0000_0002,
                0,
                &[0x1_0000_0002],
                &[2, 0x1_0000_0000, 0x1_0000_0003],
            ),
            (
                "SCMP_CMP_NE",
                0x1_0000_0002,
                0,
                &[2, 0x1_0000_0003, 0x2_0000_0002],
                &[0x1_0000_0002],
            ),
            (
                "SCMP_CMP_GT",
                0x1_0000_0002,
                0,
                &[0x1_0000_0003, 0x2_0000_0000],
                &[0x1_0000_0002, 0xffff_ffff],
            ),
            (
                "SCMP_CMP_GE",
                0x1_0000_0002,
                0,
                &[0x1_0000_0002, 0x2_0000_0000],
                &[0x1_0000_0001, 0xffff_ffff],
            ),
            (
                "SCMP_CMP_LT",
                0x1_0000_0002,
                0,
                &[0x1_0000_0001, 0xffff_ffff],
                &[0x1_0000_0002, 0x2_0000_0000],
            ),
            (
                "SCMP_CMP_LE",
                0x1_0000_0002,
                0,
                &[0x1_0000_0002, 0xffff_ffff],
                &[0x1_0000_0003, 0x2_0000_0000],
            ),
            (
                "SCMP_CMP_MASKED_EQ",
                0x1_0000_00f0,
                0x1_0000_0010,
                &[0x3_0000_0f1f],
                &[0x10, 0x1_0000_0020],
            ),
        ];
        for (op, value, two, hits, misses) in cases {
            let p = json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW",
                "args": [{"index": 2, "value": value, "valueTwo": two, "op": op}]}]});
            let at = |v| ask(&p, Arch::X86_64, "read", [0, 0, v, 0, 0, 0]);
            for v in hits {
                assert_eq!(at(*v), ALLOW, "{op} {v:#x}");
            }
            for v in misses {
                assert_eq!(at(*v), EPERM, "{op} {v:#x}");
            }
        }
    }

    #[test]
    fn conditions_of_one_entry_are_all_needed_unless_they_are_on_one_argument() {
        let arg = |index: u32, value: u64| json!({"index": index, "value": value, "op": "SCMP_CMP_EQ"});
        let p = |args: Value| {
            json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
                {"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": args}]})
        };
        let call = |p: &Value, a: u64, b: u64| ask(p, Arch::X86_64, "personality", [a, b, 0, 0, 0, 0]);
        let both = p(json!([arg(0, 1), arg(1, 2)]));
        assert_eq!((call(&both, 1, 2), call(&both, 1, 0)), (ALLOW, EPERM));
        let either = p(json!([arg(0, 1), arg(0, 8)]));
        assert_eq!(
            (call(&either, 1, 0), call(&either, 8, 0), call(&either, 2, 0)),
            (ALLOW, ALLOW, EPERM)
        );
    }

    #[test]
    fn a_rule_without_conditions_covers_the_call() {
        let conditional = json!({"names": ["read"], "action": "SCMP_ACT_KILL", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]});
        let plain = json!({"names": ["read"], "action": "SCMP_ACT_ALLOW"});
        for list in [json!([conditional, plain]), json!([plain, conditional])] {
            let p = json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": list});
            assert_eq!(ask(&p, Arch::X86_64, "read", [1, 0, 0, 0, 0, 0]), ALLOW);
        }
    }

    #[test]
    fn what_cannot_be_enforced_is_refused() {
        let refused = |p: Value| program(&serde_json::from_value(p).unwrap(), Arch::X86_64).is_err();
        assert!(refused(json!({"defaultAction": "SCMP_ACT_NOTIFY"})));
        assert!(refused(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["read"], "action": "SCMP_ACT_KILL", "args": [{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}]}]})));
    }
}
