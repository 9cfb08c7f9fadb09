//! CPU sets as text.

use alloc::format;
use alloc::string::String;
use alloc::vec;

/// CPUs of `cpus` that `has` takes, as Linux prints a mask: 32-bit groups, the highest first.
pub fn cpu_mask_where(cpus: u32, has: impl Fn(u32) -> bool) -> String {
    let mut words = vec![0u32; cpus.div_ceil(32).max(1) as usize];
    for cpu in (0..cpus).filter(|c| has(*c)) {
        words[cpu as usize / 32] |= 1 << (cpu % 32);
    }
    let mut s = String::new();
    for (i, w) in words.iter().rev().enumerate() {
        let text = if i == 0 {
            format!("{w:x}")
        } else {
            format!(",{w:08x}")
        };
        s.push_str(&text);
    }
    s
}

/// CPUs 0..n as a mask.
pub fn cpu_mask(cpus: u32) -> String {
    cpu_mask_where(cpus, |_| true)
}

/// Only `cpu` of `cpus`, as a mask.
pub fn cpu_mask_of(cpu: u32, cpus: u32) -> String {
    cpu_mask_where(cpus, |c| c == cpu)
}

/// CPUs of `cpus` that `has` takes, as a list: `0-3,8`.
pub fn cpu_list_where(cpus: u32, has: impl Fn(u32) -> bool) -> String {
    let mut s = String::new();
    let mut cpu = 0;
    while cpu < cpus {
        if !has(cpu) {
            cpu += 1;
            continue;
        }
        let first = cpu;
        while cpu + 1 < cpus && has(cpu + 1) {
            cpu += 1;
        }
        if !s.is_empty() {
            s.push(',');
        }
        s.push_str(&if first == cpu {
            format!("{cpu}")
        } else {
            format!("{first}-{cpu}")
        });
        cpu += 1;
    }
    s
}

/// CPUs 0..n as a list.
pub fn cpu_list(cpus: u32) -> String {
    match cpus {
        0 | 1 => String::from("0"),
        n => format!("0-{}", n - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_print_as_in_linux() {
        assert_eq!(cpu_mask(1), "1");
        assert_eq!(cpu_mask(6), "3f");
        assert_eq!(cpu_mask(32), "ffffffff");
        assert_eq!(cpu_mask(34), "3,ffffffff");
        assert_eq!(cpu_mask_of(33, 34), "2,00000000");
        assert_eq!(cpu_list_where(6, |c| c != 2 && c != 4), "0-1,3,5");
        assert_eq!(cpu_mask_where(6, |c| c == 5), "20");
        assert_eq!((cpu_list(1).as_str(), cpu_list(4).as_str()), ("0", "0-3"));
    }
}
