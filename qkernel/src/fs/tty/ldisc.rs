//! The line discipline N_TTY: editing, echo, signals and flow control on the way from the terminal to the app.
//! It only computes; [`super::Tty`] carries out what it says. Source: `termios(3)`, Linux `drivers/tty/n_tty.c`.

use super::output::{Column, is_continuation, is_control};
use super::termios::{DISABLED, Termios};
use crate::signal::signo;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use hal::uapi::general as g;

/// Bytes the input buffer holds, as in Linux.
pub const BUFFER: usize = 4096;

/// Marks the last byte of a line.
const END: u16 = 0x100;
/// The byte is not data but the end of file.
const EOF: u16 = 0x200;

/// What became of input besides the buffer.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Bytes to show, after output processing.
    pub echo: Vec<u8>,
    /// Signals for the foreground group.
    pub signals: Vec<u32>,
    /// Output typed before the signal is to be dropped.
    pub flush_output: bool,
    /// Output was stopped (`true`) or started.
    pub flow: Option<bool>,
    /// Something can be read now.
    pub readable: bool,
}

/// Input buffer and editing state of a terminal.
#[derive(Default)]
pub struct Ldisc {
    buf: VecDeque<u16>,
    /// Bytes at the front of `buf` that belong to finished lines.
    canon: usize,
    /// The next byte is taken literally.
    lnext: bool,
    /// Between `\` and `/` of ECHOPRT.
    erasing: bool,
    /// Cursor.
    pub column: Column,
    /// Output is stopped by VSTOP.
    pub stopped: bool,
}

impl Ldisc {
    /// Bytes that may come now without being lost.
    pub fn room(&self, t: &Termios) -> usize {
        let free = (BUFFER - 1).saturating_sub(self.buf.len());
        if free == 0 && t.canonical() && self.canon == 0 {
            // Nothing could ever be read: take the byte, so that a newline can end the line.
            1
        } else {
            free
        }
    }
    /// Bytes a read could get now.
    pub fn available(&self, t: &Termios) -> usize {
        if t.canonical() { self.canon } else { self.buf.len() }
    }
    /// Whether `poll` reports input: a line, or VMIN bytes.
    pub fn readable(&self, t: &Termios) -> bool {
        if t.canonical() {
            return self.canon > 0;
        }
        let min = match (t.cc(g::VTIME), t.cc(g::VMIN)) {
            (0, m) if m > 0 => usize::from(m),
            _ => 1,
        };
        self.buf.len() >= min
    }
    /// Drops all input.
    pub fn flush(&mut self) {
        self.buf.clear();
        self.canon = 0;
        self.lnext = false;
        self.erasing = false;
    }
    /// Adapts the buffer to new settings.
    pub fn settings_changed(&mut self, old: &Termios, new: &Termios) {
        if (old.lflag ^ new.lflag) & (g::ICANON | g::EXTPROC) != 0 {
            for c in &mut self.buf {
                *c &= 0xff | EOF;
            }
            self.canon = 0;
            if new.canonical()
                && let Some(last) = self.buf.back_mut()
            {
                // What was typed in raw mode can be read as one line.
                *last |= END;
                self.canon = self.buf.len();
            }
            self.erasing = false;
            self.lnext = false;
        }
        if !new.input(g::IXON) && old.input(g::IXON) {
            self.stopped = false;
        }
    }
    /// Takes at most `max` bytes for a read: in canonical mode at most one line. The second value tells that the end of the
    /// line (or of the file) was reached.
    pub fn take(&mut self, t: &Termios, max: usize) -> (Vec<u8>, bool) {
        let mut out = Vec::new();
        if !t.canonical() {
            let n = max.min(self.buf.len());
            out.extend(self.buf.drain(..n).map(|c| c as u8));
            self.canon = self.canon.saturating_sub(n);
            return (out, false);
        }
        while self.canon > 0 && out.len() < max {
            let Some(c) = self.buf.pop_front() else { break };
            self.canon -= 1;
            if c & EOF == 0 {
                out.push(c as u8);
            }
            if c & END != 0 {
                return (out, true);
            }
        }
        (out, false)
    }
    /// Processes one byte that came from the terminal.
    pub fn receive(&mut self, t: &Termios, mut c: u8, fx: &mut Effects) {
        if t.input(g::ISTRIP) {
            c &= 0x7f;
        }
        if t.input(g::IUCLC) && t.local(g::IEXTEN) {
            c = c.to_ascii_lowercase();
        }
        if self.lnext {
            self.lnext = false;
            return self.ordinary(t, c, fx);
        }
        if t.local(g::EXTPROC) {
            return self.put(t, c, 0, fx);
        }
        if t.input(g::IXON) {
            if t.is(g::VSTART, c) {
                return self.flow(false, fx);
            }
            if t.is(g::VSTOP, c) {
                return self.flow(true, fx);
            }
        }
        if t.local(g::ISIG) {
            for (which, sig) in [
                (g::VINTR, signo::SIGINT),
                (g::VQUIT, signo::SIGQUIT),
                (g::VSUSP, signo::SIGTSTP),
            ] {
                if t.is(which, c) {
                    return self.signal(t, c, sig, fx);
                }
            }
        }
        if self.stopped && t.input(g::IXON) && t.input(g::IXANY) {
            self.flow(false, fx);
        }
        match c {
            b'\r' if t.input(g::IGNCR) => return,
            b'\r' if t.input(g::ICRNL) => c = b'\n',
            b'\n' if t.input(g::INLCR) => c = b'\r',
            _ => {}
        }
        if t.canonical() && self.edit(t, c, fx) {
            return;
        }
        if c == b'\n' && t.local(g::ECHO) {
            self.finish_erasing(t, fx);
            self.column.emit(t, b'\n', &mut fx.echo);
            return self.put(t, c, 0, fx);
        }
        self.ordinary(t, c, fx);
    }

    fn flow(&mut self, stop: bool, fx: &mut Effects) {
        if self.stopped != stop {
            self.stopped = stop;
            fx.flow = Some(stop);
        }
    }

    fn signal(&mut self, t: &Termios, c: u8, sig: u32, fx: &mut Effects) {
        if !t.local(g::NOFLSH) {
            self.flush();
            fx.echo.clear();
            fx.flush_output = true;
        }
        fx.signals.push(sig);
        if t.input(g::IXON) {
            self.flow(false, fx);
        }
        if t.local(g::ECHO) {
            self.echo(t, c, fx);
        }
    }

    /// A byte without a meaning of its own.
    fn ordinary(&mut self, t: &Termios, c: u8, fx: &mut Effects) {
        if self.stopped && t.input(g::IXON) && t.input(g::IXANY) {
            self.flow(false, fx);
        }
        if t.local(g::ECHO) {
            self.finish_erasing(t, fx);
            self.mark_line_start();
            self.echo(t, c, fx);
        }
        if c == 0xff && t.input(g::PARMRK) {
            self.put(t, c, 0, fx);
        }
        self.put(t, c, 0, fx);
    }

    fn put(&mut self, t: &Termios, c: u8, mark: u16, fx: &mut Effects) {
        if self.buf.len() >= BUFFER {
            return;
        }
        if self.buf.len() == BUFFER - 1 && mark == 0 && t.canonical() {
            // The last place is kept for the end of the line.
            return;
        }
        self.buf.push_back(u16::from(c) | mark);
        if mark & END != 0 {
            self.canon = self.buf.len();
        }
        if !t.canonical() || mark & END != 0 {
            fx.readable = true;
        }
    }

    fn mark_line_start(&mut self) {
        if self.canon == self.buf.len() {
            self.column.canon = self.column.now;
        }
    }

    fn echo(&mut self, t: &Termios, c: u8, fx: &mut Effects) {
        if t.local(g::ECHOCTL) && is_control(c) && c != b'\t' {
            // Two columns that output processing must not touch.
            fx.echo.push(b'^');
            fx.echo.push(c ^ 0x40);
            self.column.now += 2;
        } else {
            self.column.emit(t, c, &mut fx.echo);
        }
    }

    fn raw(&mut self, t: &Termios, bytes: &[u8], fx: &mut Effects) {
        for b in bytes {
            self.column.emit(t, *b, &mut fx.echo);
        }
    }

    fn finish_erasing(&mut self, t: &Termios, fx: &mut Effects) {
        if core::mem::take(&mut self.erasing) {
            self.raw(t, b"/", fx);
        }
    }

    /// Line editing; `true` when the byte was used up.
    fn edit(&mut self, t: &Termios, c: u8, fx: &mut Effects) -> bool {
        let extended = t.local(g::IEXTEN);
        if t.is(g::VERASE, c) || t.is(g::VKILL, c) || t.is(g::VWERASE, c) && extended {
            self.erase(t, c, fx);
            return true;
        }
        if t.is(g::VLNEXT, c) && extended {
            self.lnext = true;
            if t.local(g::ECHO) {
                self.finish_erasing(t, fx);
                if t.local(g::ECHOCTL) {
                    self.raw(t, b"^\x08", fx);
                }
            }
            return true;
        }
        if t.is(g::VREPRINT, c) && t.local(g::ECHO) && extended {
            self.finish_erasing(t, fx);
            self.echo(t, c, fx);
            self.raw(t, b"\n", fx);
            let line: Vec<u8> = self.buf.iter().skip(self.canon).map(|c| *c as u8).collect();
            for b in line {
                self.echo(t, b, fx);
            }
            return true;
        }
        if c == b'\n' {
            if t.local(g::ECHO) || t.local(g::ECHONL) {
                self.raw(t, b"\n", fx);
            }
            self.put(t, c, END, fx);
            return true;
        }
        if t.is(g::VEOF, c) {
            self.put(t, DISABLED, END | EOF, fx);
            return true;
        }
        if t.is(g::VEOL, c) || t.is(g::VEOL2, c) && extended {
            if t.local(g::ECHO) {
                self.mark_line_start();
                self.echo(t, c, fx);
            }
            if c == 0xff && t.input(g::PARMRK) {
                self.put(t, c, 0, fx);
            }
            self.put(t, c, END, fx);
            return true;
        }
        false
    }

    /// VERASE, VWERASE and VKILL.
    fn erase(&mut self, t: &Termios, key: u8, fx: &mut Effects) {
        if self.buf.len() == self.canon {
            return;
        }
        let one = t.is(g::VERASE, key);
        let word = !one && t.is(g::VWERASE, key) && t.local(g::IEXTEN);
        let echo = t.local(g::ECHO);
        if !one && !word {
            if !echo {
                self.buf.truncate(self.canon);
                return;
            }
            if !t.local(g::ECHOK) || !t.local(g::ECHOKE) || !t.local(g::ECHOE) {
                self.buf.truncate(self.canon);
                self.finish_erasing(t, fx);
                self.echo(t, key, fx);
                if t.local(g::ECHOK) {
                    self.raw(t, b"\n", fx);
                }
                return;
            }
        }
        let mut seen_word = false;
        while self.buf.len() > self.canon {
            let mut head = self.buf.len() - 1;
            while is_continuation(t, self.buf[head] as u8) && head > self.canon {
                head -= 1;
            }
            let c = self.buf[head] as u8;
            if is_continuation(t, c) {
                break;
            }
            if word {
                if c.is_ascii_alphanumeric() || c == b'_' {
                    seen_word = true;
                } else if seen_word {
                    break;
                }
            }
            let tail: Vec<u8> = self.buf.drain(head..).skip(1).map(|c| c as u8).collect();
            if echo {
                self.echo_erased(t, key, one, c, &tail, fx);
            }
            if one {
                break;
            }
        }
        if self.buf.len() == self.canon && echo {
            self.finish_erasing(t, fx);
        }
    }

    fn echo_erased(&mut self, t: &Termios, key: u8, one: bool, c: u8, tail: &[u8], fx: &mut Effects) {
        if t.local(g::ECHOPRT) {
            if !self.erasing {
                self.raw(t, b"\\", fx);
                self.erasing = true;
            }
            self.echo(t, c, fx);
            self.raw(t, tail, fx);
        } else if one && !t.local(g::ECHOE) {
            self.echo(t, key, fx);
        } else if c == b'\t' {
            self.erase_tab(t, fx);
        } else {
            if is_control(c) && t.local(g::ECHOCTL) {
                self.raw(t, b"\x08 \x08", fx);
            }
            if !is_control(c) || t.local(g::ECHOCTL) {
                self.raw(t, b"\x08 \x08", fx);
            }
        }
    }

    /// Moves the cursor back over a tab: to where the text before it ends.
    fn erase_tab(&mut self, t: &Termios, fx: &mut Effects) {
        let mut chars = 0;
        let mut after_tab = false;
        for c in self.buf.iter().skip(self.canon).rev().map(|c| *c as u8) {
            if c == b'\t' {
                after_tab = true;
                break;
            } else if is_control(c) {
                chars += if t.local(g::ECHOCTL) { 2 } else { 0 };
            } else if !is_continuation(t, c) {
                chars += 1;
            }
        }
        if !after_tab {
            chars += self.column.canon;
        }
        for _ in 0..8 - (chars & 7) {
            fx.echo.push(0x08);
            self.column.now = self.column.now.saturating_sub(1);
        }
    }
}
