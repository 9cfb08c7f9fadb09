//! A growing byte string to format into: names need not be UTF-8.

use alloc::vec::Vec;
use core::fmt;

/// Text of a generated file.
#[derive(Default)]
pub struct Text(Vec<u8>);

impl Text {
    /// An empty text.
    pub fn new() -> Self {
        Self::default()
    }
    /// Appends formatted text.
    pub fn put(&mut self, args: fmt::Arguments<'_>) -> &mut Self {
        // Writing to a vector cannot fail.
        let _ = fmt::Write::write_fmt(self, args);
        self
    }
    /// Appends bytes.
    pub fn bytes(&mut self, b: &[u8]) -> &mut Self {
        self.0.extend_from_slice(b);
        self
    }
    /// Appends blanks until the line that began at `from` is `width` long.
    pub fn pad(&mut self, from: usize, width: usize) -> &mut Self {
        while self.0.len() < from + width {
            self.0.push(b' ');
        }
        self
    }
    /// Appends a name with blanks, tabs, newlines and backslashes as octal escapes (`/proc/mounts`, `/proc/PID/maps`).
    pub fn escaped(&mut self, b: &[u8], also: &[u8]) -> &mut Self {
        for &c in b {
            if also.contains(&c) {
                self.put(format_args!("\\{c:03o}"));
            } else {
                self.0.push(c);
            }
        }
        self
    }
    /// Length so far.
    pub fn len(&self) -> usize {
        self.0.len()
    }
    /// Whether there is nothing yet.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    /// The finished text.
    pub fn finish(self) -> Vec<u8> {
        self.0
    }
}

impl fmt::Write for Text {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        self.0.extend_from_slice(s.as_bytes());
        Ok(())
    }
}

/// Appends formatted text: `put!(text, "{} kB\n", n)`.
#[macro_export]
macro_rules! put {
    ($text:expr, $($arg:tt)*) => { $text.put(format_args!($($arg)*)) };
}
