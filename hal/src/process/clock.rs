//! Clocks and randomness: the host's.

use super::{Process, sys};
use crate::contract::Clock;
use crate::uapi::general as g;

fn clock(id: u32) -> u64 {
    let mut t = sys::timespec(0);
    // SAFETY: the host writes the time.
    let _ = unsafe { sys::call(g::__NR_clock_gettime, [id as u64, &raw mut t as u64]) };
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

impl Clock for Process {
    fn monotonic_ns() -> u64 {
        clock(g::CLOCK_MONOTONIC)
    }

    fn realtime_ns() -> u64 {
        clock(g::CLOCK_REALTIME)
    }

    fn random(buf: &mut [u8]) {
        let mut done = 0;
        while done < buf.len() {
            let rest = &mut buf[done..];
            // SAFETY: the host writes into the slice.
            match unsafe {
                sys::call(
                    g::__NR_getrandom,
                    [rest.as_mut_ptr() as u64, rest.len() as u64, 0],
                )
            } {
                Ok(n) => done += n as usize,
                Err(qlib::Errno::EINTR) => {}
                Err(_) => super::zygote::power_off(super::FAULT_CODE, "the host has no randomness"),
            }
        }
    }
}
