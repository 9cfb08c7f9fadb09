//! Clocks and randomness: the host's. Clocks are read through the host's vDSO, which needs no host call where the host's
//! clock source allows it; where not, the vDSO's own call traps, and the trap handler answers it.

use super::{Process, sys};
use crate::boot;
use crate::contract::Clock;
use crate::native::hosted;
use crate::sync::Once;
use crate::uapi::general as g;

type ClockGettime = extern "C" fn(u32, *mut g::__kernel_timespec) -> i32;

/// The vDSO's `clock_gettime`, if it has one.
static VDSO: Once<Option<ClockGettime>> = Once::new();

/// Bounds for what is read of the vDSO: it is the host's, and a few pages long.
const MAX_SYMBOLS: u64 = 64;
const DT_HASH: u64 = 4;
const DT_STRTAB: u64 = 5;
const DT_SYMTAB: u64 = 6;
const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;

/// Reads a value of the vDSO; `None` outside of it.
fn peek<T: Copy>(addr: u64) -> Option<T> {
    let range = boot::info().vdso_range;
    let end = addr.checked_add(size_of::<T>() as u64)?;
    if addr < range.start || end > range.end {
        return None;
    }
    // SAFETY: the vDSO is mapped for as long as the process lives, readable, and its tables are aligned or not: all the
    // same to an unaligned read.
    Some(unsafe { (addr as *const T).read_unaligned() })
}

fn has_name(mut at: u64, name: &str) -> bool {
    for b in name.bytes().chain([0]) {
        if peek::<u8>(at) != Some(b) {
            return false;
        }
        at += 1;
    }
    true
}

/// Finds a function in the vDSO's symbol table.
fn find(name: &str) -> Option<u64> {
    let base = boot::info().vdso;
    if base == 0 {
        return None;
    }
    let (headers, count) = (base + peek::<u64>(base + 32)?, peek::<u16>(base + 56)?);
    let (mut load, mut dynamic) = (None, None);
    for i in 0..count as u64 {
        let at = headers + 56 * i;
        match peek::<u32>(at)? {
            PT_LOAD if load.is_none() => {
                load = Some(peek::<u64>(at + 16)?.wrapping_sub(peek::<u64>(at + 8)?))
            }
            PT_DYNAMIC => dynamic = Some(peek::<u64>(at + 16)?),
            _ => {}
        }
    }
    let bias = base.wrapping_sub(load?);
    let (mut hash, mut strings, mut symbols) = (None, None, None);
    let mut at = bias.wrapping_add(dynamic?);
    loop {
        let value = bias.wrapping_add(peek::<u64>(at + 8)?);
        match peek::<u64>(at)? {
            0 => break,
            DT_HASH => hash = Some(value),
            DT_STRTAB => strings = Some(value),
            DT_SYMTAB => symbols = Some(value),
            _ => {}
        }
        at += 16;
    }
    let (strings, symbols) = (strings?, symbols?);
    // Without the old hash table nothing tells how many symbols there are; names end the search all the same.
    let count = hash
        .and_then(|h| peek::<u32>(h + 4))
        .map_or(MAX_SYMBOLS, |n| (n as u64).min(MAX_SYMBOLS));
    for i in 1..count {
        let symbol = symbols + 24 * i;
        let (name_at, section, value) = (
            peek::<u32>(symbol)?,
            peek::<u16>(symbol + 6)?,
            peek::<u64>(symbol + 8)?,
        );
        if section != 0 && has_name(strings + name_at as u64, name) {
            return Some(bias.wrapping_add(value));
        }
    }
    None
}

/// Looks the vDSO up. Before that clocks are read by host calls.
pub(super) fn init() {
    VDSO.call_once(|| {
        let at = find(hosted::VDSO_CLOCK_GETTIME)?;
        // SAFETY: the symbol is the vDSO's function of this type.
        Some(unsafe { core::mem::transmute::<u64, ClockGettime>(at) })
    });
}

fn clock(id: u32) -> u64 {
    let mut t = sys::timespec(0);
    let told = match VDSO.get() {
        Some(Some(f)) => f(id, &raw mut t) == 0,
        _ => false,
    };
    if !told {
        // SAFETY: the host writes the time.
        let _ = unsafe { sys::call(g::__NR_clock_gettime, [id as u64, &raw mut t as u64]) };
    }
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

/// A CPU-time clock of the host, ns; `None` when it has no such clock (any more).
pub(super) fn cpu(id: i32) -> Option<u64> {
    let mut t = sys::timespec(0);
    // SAFETY: the host writes the time.
    unsafe { sys::call(g::__NR_clock_gettime, [id as u64, &raw mut t as u64]) }.ok()?;
    Some(t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64)
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
