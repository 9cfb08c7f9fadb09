//! Terminals.

/// A terminal: line discipline, foreground group, window size.
pub struct Tty {}
