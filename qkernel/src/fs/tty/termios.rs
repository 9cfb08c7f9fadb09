//! Terminal settings. Source: `termios(3)`, `ioctl_tty(2)`; defaults as Linux's `tty_std_termios`.

use hal::uapi::Plain;
use hal::uapi::general::{self as g, termio, termios, termios2};

/// A character that is switched off (`_POSIX_VDISABLE`).
pub const DISABLED: u8 = 0;

/// Settings of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Termios {
    pub iflag: u32,
    pub oflag: u32,
    pub cflag: u32,
    pub lflag: u32,
    pub line: u8,
    pub cc: [u8; 19],
    pub ispeed: u32,
    pub ospeed: u32,
}

impl Default for Termios {
    fn default() -> Self {
        let mut cc = [0; 19];
        for (i, c) in [
            (g::VINTR, 3),
            (g::VQUIT, 28),
            (g::VERASE, 127),
            (g::VKILL, 21),
            (g::VEOF, 4),
            (g::VMIN, 1),
            (g::VSTART, 17),
            (g::VSTOP, 19),
            (g::VSUSP, 26),
            (g::VREPRINT, 18),
            (g::VDISCARD, 15),
            (g::VWERASE, 23),
            (g::VLNEXT, 22),
        ] {
            cc[i as usize] = c;
        }
        Self {
            iflag: g::ICRNL | g::IXON,
            oflag: g::OPOST | g::ONLCR,
            cflag: g::B38400 | g::CS8 | g::CREAD,
            lflag: g::ISIG | g::ICANON | g::ECHO | g::ECHOE | g::ECHOK | g::ECHOCTL | g::ECHOKE | g::IEXTEN,
            line: 0,
            cc,
            ispeed: 38400,
            ospeed: 38400,
        }
    }
}

/// Speeds by their CBAUD code; codes from B57600 on have CBAUDEX set.
const SPEEDS: [u32; 16] = [
    0, 50, 75, 110, 134, 150, 200, 300, 600, 1200, 1800, 2400, 4800, 9600, 19200, 38400,
];
const FAST_SPEEDS: [u32; 15] = [
    57600, 115_200, 230_400, 460_800, 500_000, 576_000, 921_600, 1_000_000, 1_152_000, 1_500_000, 2_000_000,
    2_500_000, 3_000_000, 3_500_000, 4_000_000,
];

fn speed_of(code: u32, current: u32) -> u32 {
    let low = (code & 0xf) as usize;
    match code & g::CBAUDEX {
        0 => SPEEDS[low],
        // BOTHER: the number is given besides.
        _ if low == 0 => current,
        _ => FAST_SPEEDS[low - 1],
    }
}

impl Termios {
    /// Whether input flag `f` is set.
    pub fn input(&self, f: u32) -> bool {
        self.iflag & f != 0
    }
    /// Whether output flag `f` is set.
    pub fn output(&self, f: u32) -> bool {
        self.oflag & f != 0
    }
    /// Whether local flag `f` is set.
    pub fn local(&self, f: u32) -> bool {
        self.lflag & f != 0
    }
    /// Whether input is read by lines.
    pub fn canonical(&self) -> bool {
        self.local(g::ICANON)
    }
    /// Whether `c` is the special character `which` (V*), which may be switched off.
    pub fn is(&self, which: u32, c: u8) -> bool {
        c != DISABLED && self.cc[which as usize] == c
    }
    /// Value of the special character `which`.
    pub fn cc(&self, which: u32) -> u8 {
        self.cc[which as usize]
    }
    /// As TCGETS gives it.
    pub fn to_user(&self) -> termios {
        let mut t = termios::zeroed();
        t.c_iflag = self.iflag;
        t.c_oflag = self.oflag;
        t.c_cflag = self.cflag;
        t.c_lflag = self.lflag;
        t.c_line = self.line;
        t.c_cc = self.cc;
        t
    }
    /// As TCGETA gives it: the flags' lower halves and the first special characters.
    pub fn to_old_user(&self) -> termio {
        let mut t = termio::zeroed();
        t.c_iflag = self.iflag as u16;
        t.c_oflag = self.oflag as u16;
        t.c_cflag = self.cflag as u16;
        t.c_lflag = self.lflag as u16;
        t.c_line = self.line;
        let n = t.c_cc.len();
        t.c_cc.copy_from_slice(&self.cc[..n]);
        t
    }
    /// As TCGETS2 gives it.
    pub fn to_user2(&self) -> termios2 {
        let mut t = termios2::zeroed();
        t.c_iflag = self.iflag;
        t.c_oflag = self.oflag;
        t.c_cflag = self.cflag;
        t.c_lflag = self.lflag;
        t.c_line = self.line;
        t.c_cc = self.cc;
        t.c_ispeed = self.ispeed;
        t.c_ospeed = self.ospeed;
        t
    }
    /// With the settings TCSETS brings.
    #[must_use]
    pub fn set_user(&self, t: &termios) -> Self {
        let ospeed = speed_of(t.c_cflag & g::CBAUD, self.ospeed);
        Self {
            iflag: t.c_iflag,
            oflag: t.c_oflag,
            cflag: t.c_cflag,
            lflag: t.c_lflag,
            line: t.c_line,
            cc: t.c_cc,
            ispeed: ospeed,
            ospeed,
        }
    }
    /// With the settings TCSETA brings, which leave what they do not hold as it is.
    #[must_use]
    pub fn set_old_user(&self, t: &termio) -> Self {
        let low = |old: u32, new: u16| old & 0xffff_0000 | u32::from(new);
        let mut whole = self.to_user();
        whole.c_iflag = low(self.iflag, t.c_iflag);
        whole.c_oflag = low(self.oflag, t.c_oflag);
        whole.c_cflag = low(self.cflag, t.c_cflag);
        whole.c_lflag = low(self.lflag, t.c_lflag);
        whole.c_line = t.c_line;
        whole.c_cc[..t.c_cc.len()].copy_from_slice(&t.c_cc);
        self.set_user(&whole)
    }
    /// With the settings TCSETS2 brings.
    #[must_use]
    pub fn set_user2(&self, t: &termios2) -> Self {
        let other = |code: u32, given: u32| {
            if code == g::BOTHER {
                given
            } else {
                speed_of(code, given)
            }
        };
        let ospeed = other(t.c_cflag & g::CBAUD, t.c_ospeed);
        let in_code = t.c_cflag >> g::IBSHIFT & g::CBAUD;
        let ispeed = if in_code == 0 {
            ospeed
        } else {
            other(in_code, t.c_ispeed)
        };
        Self {
            iflag: t.c_iflag,
            oflag: t.c_oflag,
            cflag: t.c_cflag,
            lflag: t.c_lflag,
            line: t.c_line,
            cc: t.c_cc,
            ispeed,
            ospeed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_survive_a_round_trip() {
        let t = Termios::default();
        assert_eq!(t.set_user(&t.to_user()), t);
        assert_eq!(t.set_user2(&t.to_user2()), t);
        assert_eq!(t.set_old_user(&t.to_old_user()), t);
        let mut fast = t.to_user();
        fast.c_cflag = fast.c_cflag & !g::CBAUD | g::B115200;
        assert_eq!(t.set_user(&fast).ospeed, 115_200);
    }
}
