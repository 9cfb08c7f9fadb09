//! `/proc/PID/limits`.

use super::who::Who;
use crate::fs::pseudo::Text;
use crate::put;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use qlib::Errno;

/// Name and unit by RLIMIT_* number.
const NAMES: [(&str, &str); 16] = [
    ("Max cpu time", "seconds"),
    ("Max file size", "bytes"),
    ("Max data size", "bytes"),
    ("Max stack size", "bytes"),
    ("Max core file size", "bytes"),
    ("Max resident set", "bytes"),
    ("Max processes", "processes"),
    ("Max open files", "files"),
    ("Max locked memory", "bytes"),
    ("Max address space", "bytes"),
    ("Max file locks", "locks"),
    ("Max pending signals", "signals"),
    ("Max msgqueue size", "bytes"),
    ("Max nice priority", ""),
    ("Max realtime priority", ""),
    ("Max realtime timeout", "us"),
];

fn value(v: u64) -> String {
    if v == u64::MAX {
        String::from("unlimited")
    } else {
        format!("{v}")
    }
}

/// The table.
pub fn show(who: &Who) -> Result<Vec<u8>, Errno> {
    let limits = *who.get()?.rlimits.lock();
    Ok(table(&limits))
}

fn table(limits: &[(u64, u64)]) -> Vec<u8> {
    let mut t = Text::new();
    put!(
        t,
        "{:<25} {:<20} {:<20} {:<10}\n",
        "Limit",
        "Soft Limit",
        "Hard Limit",
        "Units"
    );
    for ((name, unit), (soft, hard)) in NAMES.iter().zip(limits) {
        let (soft, hard) = (value(*soft), value(*hard));
        if unit.is_empty() {
            put!(t, "{name:<25} {soft:<20} {hard:<20} \n");
        } else {
            put!(t, "{name:<25} {soft:<20} {hard:<20} {unit:<10}\n");
        }
    }
    t.finish()
}

#[cfg(test)]
mod tests {
    #[test]
    fn columns_are_those_of_linux() {
        let mut l = [(u64::MAX, u64::MAX); 16];
        l[7] = (1024, 4096);
        let text = alloc::string::String::from_utf8(super::table(&l)).unwrap();
        let lines: alloc::vec::Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0],
            "Limit                     Soft Limit           Hard Limit           Units     "
        );
        assert_eq!(
            lines[8],
            "Max open files            1024                 4096                 files     "
        );
        assert_eq!(
            lines[14],
            "Max nice priority         unlimited            unlimited            "
        );
        assert_eq!(lines.len(), 17);
    }
}
