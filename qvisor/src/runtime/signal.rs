//! Signal names and numbers as `kill(1)` takes them.

/// Names of the signals 1–31 on x86_64 and aarch64. Source: `signal(7)`.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// The signal called `name`: a number (0 only asks whether it could be sent), `TERM` or `SIGTERM`, `RTMIN+3`; in any case.
pub fn parse(name: &str) -> Option<u32> {
    if let Ok(number) = name.parse::<u32>() {
        return (0..=64).contains(&number).then_some(number);
    }
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(index) = NAMES.iter().position(|n| *n == bare) {
        return Some(index as u32 + 1);
    }
    match bare {
        "IOT" => Some(6),
        "POLL" => Some(29),
        "RTMIN" => Some(34),
        "RTMAX" => Some(64),
        _ => {
            let number = if let Some(plus) = bare.strip_prefix("RTMIN+") {
                plus.parse::<u32>().ok()?.checked_add(34)?
            } else {
                64u32.checked_sub(bare.strip_prefix("RTMAX-")?.parse().ok()?)?
            };
            (34..=64).contains(&number).then_some(number)
        }
    }
}

/// The exit code that tells of wait status `status`: the program's own, or 128 + the signal that ended it.
pub fn exit_code(status: u32) -> i32 {
    let signal = status & 0x7f;
    if signal == 0 {
        (status >> 8 & 0xff) as i32
    } else {
        128 + signal as i32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for (name, number) in [
            ("0", 0),
            ("9", 9),
            ("KILL", 9),
            ("SIGTERM", 15),
            ("sigsys", 31),
            ("RTMIN+2", 36),
            ("SIGRTMAX-1", 63),
        ] {
            assert_eq!(parse(name), Some(number), "{name}");
        }
        for bad in ["65", "", "SIG", "NOPE", "RTMIN+31", "RTMAX-99", "-1"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn exit_codes_of_wait_statuses() {
        assert_eq!(exit_code(3 << 8), 3);
        assert_eq!(exit_code(libc::SIGKILL as u32), 137);
        assert_eq!(
            exit_code(libc::SIGSEGV as u32 | 0x80),
            139,
            "the core-dump bit is no signal"
        );
    }
}
