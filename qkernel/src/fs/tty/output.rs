//! Output processing: what a byte written (or echoed) looks like on the wire, and where the cursor is.

use super::termios::Termios;
use alloc::vec::Vec;
use hal::uapi::general as g;

/// Cursor columns as far as the kernel can know them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Column {
    /// Now.
    pub now: usize,
    /// Where the line being edited began.
    pub canon: usize,
}

/// Whether `c` is shown as two characters by ECHOCTL.
pub fn is_control(c: u8) -> bool {
    c < 0x20 || c == 0x7f
}

/// Whether `c` continues a UTF-8 character.
pub fn is_continuation(t: &Termios, c: u8) -> bool {
    t.input(g::IUTF8) && c & 0xc0 == 0x80
}

impl Column {
    /// Appends what `c` becomes by OPOST (or `c` itself without).
    pub fn emit(&mut self, t: &Termios, mut c: u8, out: &mut Vec<u8>) {
        if !t.output(g::OPOST) {
            out.push(c);
            return;
        }
        match c {
            b'\n' => {
                if t.output(g::ONLRET) {
                    self.now = 0;
                }
                if t.output(g::ONLCR) {
                    self.now = 0;
                    out.push(b'\r');
                }
                self.canon = self.now;
            }
            b'\r' => {
                if t.output(g::ONOCR) && self.now == 0 {
                    return;
                }
                if t.output(g::OCRNL) {
                    c = b'\n';
                }
                if c == b'\r' || t.output(g::ONLRET) {
                    self.now = 0;
                    self.canon = 0;
                }
            }
            b'\t' => {
                let spaces = 8 - (self.now & 7);
                self.now += spaces;
                if t.oflag & g::TABDLY == g::XTABS {
                    out.extend(core::iter::repeat_n(b' ', spaces));
                    return;
                }
            }
            0x08 => self.now = self.now.saturating_sub(1),
            _ if !is_control(c) => {
                if t.output(g::OLCUC) {
                    c = c.to_ascii_uppercase();
                }
                if !is_continuation(t, c) {
                    self.now += 1;
                }
            }
            _ => {}
        }
        out.push(c);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opost_table() {
        let base = Termios::default();
        let cases: &[(u32, &[u8], &[u8])] = &[
            (g::OPOST | g::ONLCR, b"a\nb", b"a\r\nb"),
            (g::OPOST, b"a\nb", b"a\nb"),
            (0, b"a\nb\t", b"a\nb\t"),
            (g::OPOST | g::OCRNL, b"a\rb", b"a\nb"),
            (g::OPOST | g::ONOCR, b"\ra\r", b"a\r"),
            (g::OPOST | g::XTABS, b"ab\tc\t", b"ab      c       "),
            (g::OPOST | g::XTABS | g::ONLCR, b"abc\n\tx", b"abc\r\n        x"),
            (g::OPOST | g::OLCUC, b"abC1", b"ABC1"),
        ];
        for (oflag, input, want) in cases {
            let t = Termios {
                oflag: *oflag,
                ..base
            };
            let mut out = Vec::new();
            let mut col = Column::default();
            for c in *input {
                col.emit(&t, *c, &mut out);
            }
            assert_eq!(&out, want, "oflag {oflag:o}");
        }
    }
}
