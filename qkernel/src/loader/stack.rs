//! The initial stack: strings, argv, envp, auxv. Source: System V ABI, `getauxval(3)`.

use crate::loader::elf::Mapped;
use crate::mm::Mm;
use crate::task::creds::Creds;
use alloc::vec::Vec;
use qlib::Errno;

/// Clock ticks per second as apps see them (`sysconf(_SC_CLK_TCK)`).
const CLOCK_TICKS: u64 = 100;

#[allow(missing_docs)]
mod at {
    pub const NULL: u64 = 0;
    pub const PHDR: u64 = 3;
    pub const PHENT: u64 = 4;
    pub const PHNUM: u64 = 5;
    pub const PAGESZ: u64 = 6;
    pub const BASE: u64 = 7;
    pub const FLAGS: u64 = 8;
    pub const ENTRY: u64 = 9;
    pub const UID: u64 = 11;
    pub const EUID: u64 = 12;
    pub const GID: u64 = 13;
    pub const EGID: u64 = 14;
    pub const PLATFORM: u64 = 15;
    pub const HWCAP: u64 = 16;
    pub const CLKTCK: u64 = 17;
    pub const SECURE: u64 = 23;
    pub const RANDOM: u64 = 25;
    pub const HWCAP2: u64 = 26;
    pub const EXECFN: u64 = 31;
    pub const SYSINFO_EHDR: u64 = 33;
    pub const MINSIGSTKSZ: u64 = 51;
}

/// What goes on the stack.
pub struct Initial<'a> {
    /// Arguments.
    pub args: &'a [Vec<u8>],
    /// Environment.
    pub env: &'a [Vec<u8>],
    /// The path given to execve.
    pub path: &'a [u8],
    /// The mapped program.
    pub program: Mapped,
    /// Load bias of the interpreter, 0 without one.
    pub interpreter_base: u64,
    /// Credentials after the exec.
    pub creds: &'a Creds,
    /// Set-user-ID or the like.
    pub secure: bool,
    /// Address of the vDSO, 0 without one.
    pub vdso: u64,
}

/// Writes the stack below `top`; returns the initial stack pointer. Fills in the layout's argument ranges.
///
/// # Errors
/// E2BIG when it does not fit in `room` bytes.
pub fn build(mm: &Mm, top: u64, room: u64, init: &Initial<'_>) -> Result<u64, Errno> {
    let mut strings: Vec<u8> = Vec::new();
    let push = |strings: &mut Vec<u8>, s: &[u8]| {
        let at = strings.len() as u64;
        strings.extend_from_slice(s);
        strings.push(0);
        at
    };
    let args: Vec<u64> = init.args.iter().map(|s| push(&mut strings, s)).collect();
    let args_end = strings.len() as u64;
    let env: Vec<u64> = init.env.iter().map(|s| push(&mut strings, s)).collect();
    let env_end = strings.len() as u64;
    let execfn = push(&mut strings, init.path);
    let platform = push(&mut strings, hal::native::MACHINE_NAME.as_bytes());
    let mut random = [0u8; 16];
    hal::clock::random(&mut random);
    let random_at = strings.len() as u64;
    strings.extend_from_slice(&random);

    // The last eight bytes stay zero, as Linux leaves them.
    let base = (top - 8).checked_sub(strings.len() as u64).ok_or(Errno::E2BIG)? & !15;
    let c = init.creds;
    let info = hal::boot::info();
    let auxv = [
        (at::SYSINFO_EHDR, init.vdso),
        (at::MINSIGSTKSZ, 4096),
        (at::HWCAP, info.hwcap),
        (at::PAGESZ, qlib::PAGE_SIZE),
        (at::CLKTCK, CLOCK_TICKS),
        (at::PHDR, init.program.phdr),
        (at::PHENT, 56),
        (at::PHNUM, init.program.phnum),
        (at::BASE, init.interpreter_base),
        (at::FLAGS, 0),
        (at::ENTRY, init.program.entry),
        (at::UID, u64::from(c.shown_uid(c.uid))),
        (at::EUID, u64::from(c.shown_uid(c.euid))),
        (at::GID, u64::from(c.shown_gid(c.gid))),
        (at::EGID, u64::from(c.shown_gid(c.egid))),
        (at::SECURE, u64::from(init.secure)),
        (at::RANDOM, base + random_at),
        (at::HWCAP2, info.hwcap2),
        (at::EXECFN, base + execfn),
        (at::PLATFORM, base + platform),
        (at::NULL, 0),
    ];
    let mut words: Vec<u64> = Vec::new();
    words.push(args.len() as u64);
    words.extend(args.iter().map(|a| base + a));
    words.push(0);
    words.extend(env.iter().map(|a| base + a));
    words.push(0);
    let vector_at = words.len();
    for (k, v) in auxv {
        // Without a vDSO the entry is left out, not zero.
        if k != at::SYSINFO_EHDR || v != 0 {
            words.extend([k, v]);
        }
    }
    let sp = base.checked_sub(words.len() as u64 * 8).ok_or(Errno::E2BIG)? & !15;
    if top - sp > room {
        return Err(Errno::E2BIG);
    }
    let mut bytes = Vec::with_capacity(words.len() * 8);
    for w in &words {
        bytes.extend_from_slice(&w.to_le_bytes());
    }
    hal::user::copy_out(sp, &bytes)?;
    hal::user::copy_out(base, &strings)?;
    let mut l = mm.layout.lock();
    l.start_stack = sp;
    l.arg_start = base;
    l.arg_end = base + args_end;
    l.env_start = base + args_end;
    l.env_end = base + env_end;
    l.auxv = bytes.split_off(vector_at * 8);
    l.args = strings[..args_end as usize].to_vec();
    l.env = strings[args_end as usize..env_end as usize].to_vec();
    Ok(sp)
}
