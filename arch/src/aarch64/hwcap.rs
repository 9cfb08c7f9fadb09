//! AT_HWCAP and AT_HWCAP2: what apps are told of the CPU, from its ID registers. Source: Arm ARM D24.2 (the registers),
//! `arch/arm64/include/uapi/asm/hwcap.h` (the bits), Linux `Documentation/arch/arm64/elf_hwcaps.rst`.

/// The ID registers that tell of what an app can use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct IdRegisters {
    pub pfr0: u64,
    pub pfr1: u64,
    pub isar0: u64,
    pub isar1: u64,
    pub mmfr2: u64,
}

/// One feature: a field of four bits, the value from which on it is there, and its bit.
struct Feature {
    register: fn(&IdRegisters) -> u64,
    shift: u32,
    least: u64,
    bit: u32,
}

const fn feature(register: fn(&IdRegisters) -> u64, shift: u32, least: u64, bit: u32) -> Feature {
    Feature {
        register,
        shift,
        least,
        bit,
    }
}

fn isar0(r: &IdRegisters) -> u64 {
    r.isar0
}
fn isar1(r: &IdRegisters) -> u64 {
    r.isar1
}
fn pfr0(r: &IdRegisters) -> u64 {
    r.pfr0
}
fn pfr1(r: &IdRegisters) -> u64 {
    r.pfr1
}
fn mmfr2(r: &IdRegisters) -> u64 {
    r.mmfr2
}

/// Features in AT_HWCAP but the floating point, whose field is signed. What QKernel would have to switch for an app (SVE,
/// pointer authentication), or emulate (reading ID registers), is left out.
const HWCAP: &[Feature] = &[
    feature(isar0, 4, 1, 3),   // AES
    feature(isar0, 4, 2, 4),   // PMULL
    feature(isar0, 8, 1, 5),   // SHA1
    feature(isar0, 12, 1, 6),  // SHA2
    feature(isar0, 16, 1, 7),  // CRC32
    feature(isar0, 20, 2, 8),  // ATOMICS
    feature(isar0, 28, 1, 12), // ASIMDRDM
    feature(isar1, 12, 1, 13), // JSCVT
    feature(isar1, 16, 1, 14), // FCMA
    feature(isar1, 20, 1, 15), // LRCPC
    feature(isar1, 0, 1, 16),  // DCPOP
    feature(isar0, 32, 1, 17), // SHA3
    feature(isar0, 36, 1, 18), // SM3
    feature(isar0, 40, 1, 19), // SM4
    feature(isar0, 44, 1, 20), // ASIMDDP
    feature(isar0, 12, 2, 21), // SHA512
    feature(isar0, 48, 1, 23), // ASIMDFHM
    feature(pfr0, 48, 1, 24),  // DIT
    feature(mmfr2, 32, 1, 25), // USCAT
    feature(isar1, 20, 2, 26), // ILRCPC
    feature(isar0, 52, 1, 27), // FLAGM
    feature(pfr1, 4, 2, 28),   // SSBS
    feature(isar1, 36, 1, 29), // SB
];

/// Features in AT_HWCAP2.
const HWCAP2: &[Feature] = &[
    feature(isar1, 0, 2, 0),   // DCPODP
    feature(isar0, 52, 2, 7),  // FLAGM2
    feature(isar1, 32, 1, 8),  // FRINT
    feature(isar1, 52, 1, 13), // I8MM
    feature(isar1, 44, 1, 14), // BF16
    feature(isar1, 48, 1, 15), // DGH
    feature(isar0, 60, 1, 16), // RNG
];

fn field(register: u64, shift: u32) -> u64 {
    register >> shift & 0xf
}

/// AT_HWCAP and AT_HWCAP2 of a CPU with these registers.
pub fn hwcap(r: &IdRegisters) -> (u64, u64) {
    let bits = |list: &[Feature]| {
        let there = |f: &&Feature| field((f.register)(r), f.shift) >= f.least;
        list.iter().filter(there).fold(0, |bits, f| bits | 1 << f.bit)
    };
    let mut first = bits(HWCAP);
    // FP and AdvSIMD: 0 is there, 1 with half precision, 15 is absent.
    for (shift, plain, half) in [(16, 0, 9), (20, 1, 10)] {
        match field(r.pfr0, shift) {
            15 => {}
            n => first |= 1 << plain | u64::from(n >= 1) << half,
        }
    }
    (first, bits(HWCAP2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_neoverse_n1() {
        // Its Technical Reference Manual, B2.58 and others.
        let r = IdRegisters {
            pfr0: 0x1100_0000_1111_1112,
            pfr1: 0x20,
            isar0: 0x0000_1000_1021_1120,
            isar1: 0x0010_0001,
            mmfr2: 0x0000_0001_0000_1011,
        };
        let names = |bits: u64| {
            (0..64)
                .filter(move |b| bits >> b & 1 != 0)
                .collect::<alloc::vec::Vec<_>>()
        };
        let (first, second) = hwcap(&r);
        // fp asimd aes pmull sha1 sha2 crc32 atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp uscat ssbs
        assert_eq!(
            names(first),
            [0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 16, 20, 25, 28]
        );
        assert_eq!(second, 0);
    }

    #[test]
    fn what_qkernel_does_not_switch_is_never_told() {
        let all = IdRegisters {
            pfr0: 0x1111_1111_1111_1111,
            pfr1: u64::MAX,
            isar0: u64::MAX,
            isar1: u64::MAX,
            mmfr2: u64::MAX,
        };
        let (first, second) = hwcap(&all);
        // CPUID, SVE, PACA, PACG; SVE2, BTI, MTE.
        for bit in [11, 22, 30, 31] {
            assert_eq!(first >> bit & 1, 0, "{bit}");
        }
        for bit in [1, 17, 18] {
            assert_eq!(second >> bit & 1, 0, "{bit}");
        }
    }

    #[test]
    fn without_floating_point() {
        let none = IdRegisters {
            pfr0: 0xff_0000,
            ..IdRegisters::default()
        };
        assert_eq!(hwcap(&none), (0, 0));
    }
}
