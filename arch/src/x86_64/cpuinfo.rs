//! `/proc/cpuinfo` of one CPU. Source: Intel SDM volume 2A "CPUID", Linux `arch/x86/kernel/cpu/proc.c`.

use alloc::string::String;
use core::fmt::Write;

/// Words of CPUID that hold feature bits, with the names Linux gives the bits.
const FEATURES: &[(Word, &[(u32, &str)])] = &[
    (
        Word::Edx1,
        &[
            (0, "fpu"),
            (1, "vme"),
            (2, "de"),
            (3, "pse"),
            (4, "tsc"),
            (5, "msr"),
            (6, "pae"),
            (7, "mce"),
            (8, "cx8"),
            (9, "apic"),
            (11, "sep"),
            (12, "mtrr"),
            (13, "pge"),
            (14, "mca"),
            (15, "cmov"),
            (16, "pat"),
            (17, "pse36"),
            (19, "clflush"),
            (23, "mmx"),
            (24, "fxsr"),
            (25, "sse"),
            (26, "sse2"),
            (27, "ss"),
            (28, "ht"),
        ],
    ),
    (
        Word::EdxExt,
        &[
            (11, "syscall"),
            (20, "nx"),
            (26, "pdpe1gb"),
            (27, "rdtscp"),
            (29, "lm"),
        ],
    ),
    (
        Word::Ecx1,
        &[
            (0, "pni"),
            (1, "pclmulqdq"),
            (9, "ssse3"),
            (12, "fma"),
            (13, "cx16"),
            (17, "pcid"),
            (19, "sse4_1"),
            (20, "sse4_2"),
            (21, "x2apic"),
            (22, "movbe"),
            (23, "popcnt"),
            (24, "tsc_deadline_timer"),
            (25, "aes"),
            (26, "xsave"),
            (28, "avx"),
            (29, "f16c"),
            (30, "rdrand"),
            (31, "hypervisor"),
        ],
    ),
    (
        Word::EcxExt,
        &[
            (0, "lahf_lm"),
            (2, "svm"),
            (5, "abm"),
            (6, "sse4a"),
            (7, "misalignsse"),
            (8, "3dnowprefetch"),
        ],
    ),
    (
        Word::Ebx7,
        &[
            (0, "fsgsbase"),
            (3, "bmi1"),
            (4, "hle"),
            (5, "avx2"),
            (7, "smep"),
            (8, "bmi2"),
            (9, "erms"),
            (10, "invpcid"),
            (11, "rtm"),
            (14, "mpx"),
            (16, "avx512f"),
            (17, "avx512dq"),
            (18, "rdseed"),
            (19, "adx"),
            (20, "smap"),
            (21, "avx512ifma"),
            (23, "clflushopt"),
            (24, "clwb"),
            (28, "avx512cd"),
            (29, "sha_ni"),
            (30, "avx512bw"),
            (31, "avx512vl"),
        ],
    ),
    (
        Word::Ecx7,
        &[
            (1, "avx512vbmi"),
            (2, "umip"),
            (3, "pku"),
            (4, "ospke"),
            (6, "avx512_vbmi2"),
            (8, "gfni"),
            (9, "vaes"),
            (10, "vpclmulqdq"),
            (11, "avx512_vnni"),
            (12, "avx512_bitalg"),
            (14, "avx512_vpopcntdq"),
            (22, "rdpid"),
        ],
    ),
    (
        Word::Edx7,
        &[(4, "fsrm"), (14, "serialize"), (29, "arch_capabilities")],
    ),
];

#[derive(Clone, Copy)]
enum Word {
    Edx1,
    Ecx1,
    Ebx7,
    Ecx7,
    Edx7,
    EdxExt,
    EcxExt,
}

/// What CPUID says, as far as `/proc/cpuinfo` shows it.
#[derive(Clone, Debug, Default)]
pub struct Cpuid {
    /// Leaf 0: highest leaf, and the vendor's twelve letters.
    pub max_leaf: u32,
    /// Vendor.
    pub vendor: [u8; 12],
    /// Leaf 1: signature, feature words, and the byte with the cache-line size.
    pub signature: u32,
    /// Leaf 1 EBX.
    pub misc: u32,
    /// Leaf 1 EDX.
    pub edx1: u32,
    /// Leaf 1 ECX.
    pub ecx1: u32,
    /// Leaf 7 EBX, ECX, EDX.
    pub leaf7: [u32; 3],
    /// Leaf 0x80000001 EDX, ECX.
    pub extended: [u32; 2],
    /// Leaves 0x80000002..4.
    pub brand: [[u8; 16]; 3],
    /// Leaf 0x80000006 ECX: level-2 cache.
    pub cache: u32,
    /// Leaf 0x80000008 EAX: address sizes.
    pub addresses: u32,
}

impl Cpuid {
    fn word(&self, w: Word) -> u32 {
        match w {
            Word::Edx1 => self.edx1,
            Word::Ecx1 => self.ecx1,
            Word::Ebx7 => self.leaf7[0],
            Word::Ecx7 => self.leaf7[1],
            Word::Edx7 => self.leaf7[2],
            Word::EdxExt => self.extended[0],
            Word::EcxExt => self.extended[1],
        }
    }
    fn family(&self) -> u32 {
        let base = self.signature >> 8 & 0xf;
        if base == 0xf {
            base + (self.signature >> 20 & 0xff)
        } else {
            base
        }
    }
    fn model(&self) -> u32 {
        let base = self.signature >> 4 & 0xf;
        match self.signature >> 8 & 0xf {
            6 | 0xf => base | (self.signature >> 12 & 0xf0),
            _ => base,
        }
    }
    /// The lines of CPU `cpu` of `count`, whose counter runs at `hz`.
    pub fn show(&self, cpu: u32, count: u32, hz: u64) -> String {
        let mut s = String::new();
        let khz = hz / 1000;
        let text = |b: &[u8]| {
            let end = b.iter().position(|c| *c == 0).unwrap_or(b.len());
            String::from(String::from_utf8_lossy(&b[..end]).trim())
        };
        let _ = write!(s, "processor\t: {cpu}\nvendor_id\t: {}\n", text(&self.vendor));
        let _ = write!(
            s,
            "cpu family\t: {}\nmodel\t\t: {}\n",
            self.family(),
            self.model()
        );
        let _ = writeln!(s, "model name\t: {}", text(self.brand.as_flattened()));
        let _ = write!(s, "stepping\t: {}\nmicrocode\t: 0x1\n", self.signature & 0xf);
        let _ = writeln!(s, "cpu MHz\t\t: {}.{:03}", khz / 1000, khz % 1000);
        let _ = writeln!(s, "cache size\t: {} KB", self.cache >> 16);
        let _ = write!(s, "physical id\t: 0\nsiblings\t: {count}\ncore id\t\t: {cpu}\n");
        let _ = write!(
            s,
            "cpu cores\t: {count}\napicid\t\t: {cpu}\ninitial apicid\t: {cpu}\n"
        );
        let _ = write!(
            s,
            "fpu\t\t: yes\nfpu_exception\t: yes\ncpuid level\t: {}\nwp\t\t: yes\nflags\t\t:",
            self.max_leaf
        );
        for (word, names) in FEATURES {
            for (bit, name) in *names {
                if self.word(*word) >> bit & 1 != 0 {
                    let _ = write!(s, " {name}");
                }
            }
        }
        let line = (self.misc >> 8 & 0xff) * 8;
        let _ = write!(s, "\nbugs\t\t:\nbogomips\t: {}.{:02}\n", khz / 500, khz % 500 / 5);
        let _ = write!(s, "clflush size\t: {line}\ncache_alignment\t: {line}\n");
        let (physical, linear) = (self.addresses & 0xff, self.addresses >> 8 & 0xff);
        let _ = write!(
            s,
            "address sizes\t: {physical} bits physical, {linear} bits virtual\npower management:\n"
        );
        s
    }
}

/// Reads this CPU.
#[cfg(target_arch = "x86_64")]
pub fn read() -> Cpuid {
    use core::arch::x86_64::__cpuid_count as leaf;
    let zero = leaf(0, 0);
    let mut c = Cpuid {
        max_leaf: zero.eax,
        ..Cpuid::default()
    };
    for (i, r) in [zero.ebx, zero.edx, zero.ecx].iter().enumerate() {
        c.vendor[i * 4..i * 4 + 4].copy_from_slice(&r.to_le_bytes());
    }
    let one = leaf(1, 0);
    (c.signature, c.misc, c.edx1, c.ecx1) = (one.eax, one.ebx, one.edx, one.ecx);
    if zero.eax >= 7 {
        let seven = leaf(7, 0);
        c.leaf7 = [seven.ebx, seven.ecx, seven.edx];
    }
    let top = leaf(0x8000_0000, 0).eax;
    if top >= 0x8000_0001 {
        let e = leaf(0x8000_0001, 0);
        c.extended = [e.edx, e.ecx];
    }
    if top >= 0x8000_0004 {
        for n in 0..3u32 {
            let l = leaf(0x8000_0002 + n, 0);
            for (i, r) in [l.eax, l.ebx, l.ecx, l.edx].iter().enumerate() {
                let at = i * 4;
                c.brand[n as usize][at..at + 4].copy_from_slice(&r.to_le_bytes());
            }
        }
    }
    if top >= 0x8000_0006 {
        c.cache = leaf(0x8000_0006, 0).ecx;
    }
    if top >= 0x8000_0008 {
        c.addresses = leaf(0x8000_0008, 0).eax;
    }
    c
}

/// The lines of CPU `cpu` of `count`; `hz` is the counter's frequency, 0 when unknown. CPUID tells more than AT_HWCAP.
#[cfg(target_arch = "x86_64")]
pub fn describe(cpu: u32, count: u32, hz: u64, _hwcap: u64) -> String {
    use core::arch::x86_64::__cpuid_count as leaf;
    let id = read();
    let hz = match hz {
        0 if id.max_leaf >= 0x16 => u64::from(leaf(0x16, 0).eax & 0xffff) * 1_000_000,
        hz => hz,
    };
    id.show(cpu, count, hz)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_those_of_linux() {
        let mut c = Cpuid {
            max_leaf: 22,
            vendor: *b"GenuineIntel",
            signature: 0x5_0657,
            misc: 8 << 8,
            edx1: 1 | 1 << 4 | 1 << 26,
            cache: 1024 << 16,
            addresses: 46 | 48 << 8,
            ..Cpuid::default()
        };
        c.brand[0][..9].copy_from_slice(b"Some CPU ");
        let s = c.show(1, 2, 2_500_000_000);
        for line in [
            "processor\t: 1",
            "vendor_id\t: GenuineIntel",
            "cpu family\t: 6",
            "model\t\t: 85",
            "model name\t: Some CPU",
            "stepping\t: 7",
            "cpu MHz\t\t: 2500.000",
            "cache size\t: 1024 KB",
            "siblings\t: 2",
            "flags\t\t: fpu tsc sse2",
            "bogomips\t: 5000.00",
            "clflush size\t: 64",
            "address sizes\t: 46 bits physical, 48 bits virtual",
        ] {
            assert!(s.lines().any(|l| l == line), "{line} is missing in\n{s}");
        }
    }
}
