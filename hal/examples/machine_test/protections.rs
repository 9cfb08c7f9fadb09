//! What the CPU must refuse the kernel itself: tried, not only looked up.

use crate::cases::{A, in_space};
use crate::native;
use alloc::boxed::Box;
use hal::aspace::Prot;
use hal::user;

/// What is tried, at an address.
#[derive(Clone, Copy, Debug)]
pub enum Attempt {
    /// Loading a byte.
    Read = 0,
    /// Storing a byte (the one that is there).
    Write = 1,
    /// Calling a function.
    Call = 2,
}

/// How it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Nothing stopped it.
    Permitted,
    /// The page is there and its rights stopped it.
    Refused,
    /// Something else: the architecture's code of it.
    Other(u64),
}

/// Registers first, then the attempts.
pub fn run() {
    for (name, on) in native::protections() {
        log::info!("protection {name}: {}", if on { "on" } else { "off" });
        assert!(on, "{name} is off");
    }
    let info = hal::boot::info();
    let (text, function) = (info.text.start, Box::new(*b"a page of the heap"));
    assert_eq!(native::attempt(Attempt::Read, text), Probe::Permitted);
    assert_eq!(native::attempt(Attempt::Write, text), Probe::Refused);
    // Read-only data: a constant.
    let constant = native::RETURN.as_ptr() as u64;
    assert_eq!(native::attempt(Attempt::Write, constant), Probe::Refused);
    assert_eq!(native::attempt(Attempt::Call, constant), Probe::Refused);
    let heap = function.as_ptr() as u64;
    assert_eq!(native::attempt(Attempt::Write, heap), Probe::Permitted);
    assert_eq!(native::attempt(Attempt::Call, heap), Probe::Refused);
    in_space(|s| {
        assert_eq!(s.map_anon(A, Prot::READ | Prot::WRITE), Ok(()));
        assert_eq!(user::copy_out(A.start, native::RETURN), Ok(()));
        assert_eq!(s.protect(A, Prot::READ | Prot::EXEC), Ok(()));
        // The page is the app's to read and execute.
        let mut first = [0];
        assert_eq!(user::copy_in(&mut first, A.start), Ok(()));
        assert_eq!(native::attempt(Attempt::Call, A.start), Probe::Refused);
        let read = native::attempt(Attempt::Read, A.start);
        if native::app_memory_is_closed() {
            assert_eq!(read, Probe::Refused);
        } else {
            log::info!("protection of app memory: this CPU has none");
        }
    });
}
