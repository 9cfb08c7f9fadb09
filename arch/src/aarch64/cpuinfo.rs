//! `/proc/cpuinfo` of one CPU. Source: Arm ARM "MIDR_EL1", Linux `arch/arm64/kernel/cpuinfo.c`.

use alloc::string::String;
use core::fmt::Write;

/// Names of AT_HWCAP's bits, from bit 0.
const HWCAP: [&str; 32] = [
    "fp", "asimd", "evtstrm", "aes", "pmull", "sha1", "sha2", "crc32", "atomics", "fphp", "asimdhp", "cpuid",
    "asimdrdm", "jscvt", "fcma", "lrcpc", "dcpop", "sha3", "sm3", "sm4", "asimddp", "sha512", "sve",
    "asimdfhm", "dit", "uscat", "ilrcpc", "flagm", "ssbs", "sb", "paca", "pacg",
];

/// The lines of CPU `cpu` whose MIDR_EL1 is `midr`; `hz` is the counter's frequency.
pub fn show(cpu: u32, midr: u64, hwcap: u64, hz: u64) -> String {
    let mut s = String::new();
    let _ = write!(
        s,
        "processor\t: {cpu}\nBogoMIPS\t: {}.{:02}\nFeatures\t:",
        hz / 500_000,
        hz / 5000 % 100
    );
    for (bit, name) in HWCAP.iter().enumerate() {
        if hwcap >> bit & 1 != 0 {
            let _ = write!(s, " {name}");
        }
    }
    let _ = write!(
        s,
        "\nCPU implementer\t: 0x{:02x}\nCPU architecture: 8\n",
        midr >> 24 & 0xff
    );
    let _ = write!(
        s,
        "CPU variant\t: 0x{:x}\nCPU part\t: 0x{:03x}\n",
        midr >> 20 & 0xf,
        midr >> 4 & 0xfff
    );
    let _ = writeln!(s, "CPU revision\t: {}", midr & 0xf);
    s
}

/// The lines of CPU `cpu`; `hz` is the counter's frequency, `hwcap` what apps are told of the CPU.
#[cfg(target_arch = "aarch64")]
pub fn describe(cpu: u32, _count: u32, hz: u64, hwcap: u64) -> String {
    let midr: u64;
    // SAFETY: reading MIDR_EL1 has no side effects; at EL0 Linux emulates the read (HWCAP_CPUID, since 4.11).
    unsafe { core::arch::asm!("mrs {}, midr_el1", out(reg) midr, options(nomem, nostack, preserves_flags)) };
    show(cpu, midr, hwcap, hz)
}

#[cfg(test)]
mod tests {
    #[test]
    fn lines_are_those_of_linux() {
        // Neoverse N1 r3p1.
        let s = super::show(3, 0x413f_d0c1, 0b11, 62_500_000);
        assert_eq!(
            s,
            "processor\t: 3\nBogoMIPS\t: 125.00\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\nCPU architecture: 8\n\
             CPU variant\t: 0x3\nCPU part\t: 0xd0c\nCPU revision\t: 1\n"
        );
    }
}
