//! The `log` facade, and the kernel's panic handler.

use crate::machine;
use core::fmt::Write;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};
use log::{Level, LevelFilter, Log, Metadata, Record};

/// Exit code of a sandbox whose kernel panicked (EX_SOFTWARE).
const PANIC_CODE: i32 = 70;

/// A line on the stack: the logger must work when the heap does not. Longer lines are cut.
struct Line {
    bytes: [u8; 480],
    len: usize,
}

impl Write for Line {
    fn write_str(&mut self, s: &str) -> core::fmt::Result {
        let n = s.len().min(self.bytes.len() - self.len);
        self.bytes[self.len..self.len + n].copy_from_slice(&s.as_bytes()[..n]);
        self.len += n;
        Ok(())
    }
}

impl Line {
    fn new() -> Self {
        Self {
            bytes: [0; 480],
            len: 0,
        }
    }
    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

struct HostLog;

impl Log for HostLog {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &Record<'_>) {
        let level = match record.level() {
            Level::Error => 1,
            Level::Warn => 2,
            Level::Info => 3,
            Level::Debug => 4,
            Level::Trace => 5,
        };
        let mut line = Line::new();
        let _ = write!(line, "{}: {}", record.target(), record.args());
        machine!(HostService::log(level, line.as_bytes()));
    }
    fn flush(&self) {}
}

/// Turns logging on at the level BootInfo names.
pub(crate) fn init(level: u32) {
    let filter = match level {
        0 => LevelFilter::Off,
        1 => LevelFilter::Error,
        2 => LevelFilter::Warn,
        3 => LevelFilter::Info,
        4 => LevelFilter::Debug,
        _ => LevelFilter::Trace,
    };
    if log::set_logger(&HostLog).is_ok() {
        log::set_max_level(filter);
    }
}

static PANICKING: AtomicBool = AtomicBool::new(false);

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    if PANICKING.swap(true, Ordering::SeqCst) {
        machine!(Threads::power_off(
            PANIC_CODE,
            "the kernel panicked while it panicked"
        ))
    }
    let mut line = Line::new();
    let _ = write!(line, "kernel panic: {}", info.message());
    if let Some(at) = info.location() {
        let _ = write!(line, " at {}:{}", at.file(), at.line());
    }
    machine!(HostService::log(1, line.as_bytes()));
    let reason = core::str::from_utf8(line.as_bytes()).unwrap_or("kernel panic");
    machine!(Threads::power_off(PANIC_CODE, reason))
}
