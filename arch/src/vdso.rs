//! The vDSO of the bare machine: an ELF image of one page that the machine maps into every address space, behind a page of
//! clock parameters ([`Clocks`]). Its functions are each architecture's `vdso` module; here is the linker that turns their
//! code into a shared object (`vdso(7)`; System V ABI, chapters 4 and 5).

use qlib::PAGE_SIZE_USIZE;

/// Bytes at the start of the image for ELF header and tables; code follows.
pub const HEADER_BYTES: usize = 2048;

/// One page, as the app sees it.
pub type Image = [u8; PAGE_SIZE_USIZE];

/// The clock page, one page before the image. Native byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Clocks {
    /// Nanoseconds per tick of the counter, a 32.32 fixed-point number.
    pub ns_per_tick: u64,
    /// What CLOCK_REALTIME is ahead of CLOCK_MONOTONIC, ns.
    pub realtime_offset_ns: u64,
    /// Odd while the fields above change.
    pub sequence: u32,
    /// Zero.
    pub reserved: u32,
}

/// An exported function.
#[derive(Clone, Copy, Debug)]
pub struct Symbol {
    /// Its name.
    pub name: &'static str,
    /// Where it starts in the image.
    pub offset: usize,
    /// Bytes of code.
    pub size: usize,
}

/// What [`link`] needs to know besides the code.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// ELF `e_machine`.
    pub machine: u16,
    /// DT_SONAME.
    pub name: &'static str,
    /// The version all symbols have.
    pub version: &'static str,
    /// The functions.
    pub symbols: &'a [Symbol],
}

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const FLAGS_READ: u32 = 4;
const FLAGS_READ_EXEC: u32 = 5;

/// Writes tables one after the other.
struct Tables<'a> {
    image: &'a mut [u8],
    at: usize,
}

impl Tables<'_> {
    fn put(&mut self, bytes: &[u8]) -> Option<()> {
        self.image
            .get_mut(self.at..self.at + bytes.len())?
            .copy_from_slice(bytes);
        self.at += bytes.len();
        Some(())
    }
    fn u16(&mut self, v: u16) -> Option<()> {
        self.put(&v.to_le_bytes())
    }
    fn u32(&mut self, v: u32) -> Option<()> {
        self.put(&v.to_le_bytes())
    }
    fn u64(&mut self, v: u64) -> Option<()> {
        self.put(&v.to_le_bytes())
    }
    fn align(&mut self) -> usize {
        self.at = self.at.next_multiple_of(8);
        self.at
    }
}

/// The SysV ABI's symbol hash.
const fn hash(name: &str) -> u32 {
    let (mut h, mut i) = (0u32, 0);
    while i < name.len() {
        h = (h << 4).wrapping_add(name.as_bytes()[i] as u32);
        let high = h & 0xf000_0000;
        h = (h ^ high >> 24) & !high;
        i += 1;
    }
    h
}

fn program_header(
    t: &mut Tables<'_>,
    kind: u32,
    flags: u32,
    at: usize,
    len: usize,
    align: u64,
) -> Option<()> {
    t.u32(kind)?;
    t.u32(flags)?;
    for v in [at, at, at, len, len] {
        t.u64(v as u64)?;
    }
    t.u64(align)
}

/// Fills the first [`HEADER_BYTES`] of `image`, whose code is in place; `None` when the tables do not fit there.
pub fn link(image: &mut Image, parts: &Parts<'_>) -> Option<()> {
    const DYNAMIC_ENTRIES: usize = 10;
    let count = parts.symbols.len() + 1;
    image[..HEADER_BYTES].fill(0);
    let mut t = Tables {
        image: &mut image[..HEADER_BYTES],
        at: 64 + 2 * 56,
    };

    // Strings: an empty one, the names, the object's name, the version.
    let strings = t.align();
    t.u32(0)?;
    t.at = strings + 1;
    let name = |t: &mut Tables<'_>, s: &str| {
        let at = t.at - strings;
        t.put(s.as_bytes())?;
        t.put(&[0])?;
        Some(at as u32)
    };
    let mut offsets = [0u32; 16];
    if parts.symbols.len() > offsets.len() {
        return None;
    }
    for (s, o) in parts.symbols.iter().zip(offsets.iter_mut()) {
        *o = name(&mut t, s.name)?;
    }
    let soname = name(&mut t, parts.name)?;
    let version = name(&mut t, parts.version)?;
    let strings_len = t.at - strings;

    let symbols = t.align();
    t.at += 24;
    for (s, o) in parts.symbols.iter().zip(offsets) {
        t.u32(o)?;
        // A global function, of default visibility, of some section: there is no section table.
        t.put(&[0x12, 0])?;
        t.u16(1)?;
        t.u64(s.offset as u64)?;
        t.u64(s.size as u64)?;
    }

    // One bucket: a chain through all symbols.
    let hashes = t.align();
    for v in [1, count as u32, 1] {
        t.u32(v)?;
    }
    for i in 0..count {
        t.u32(if i == 0 || i + 1 == count { 0 } else { i as u32 + 1 })?;
    }

    let versions = t.align();
    for i in 0..count {
        t.u16(if i == 0 { 0 } else { 2 })?;
    }
    // Version 1 is the object itself (VER_FLG_BASE), version 2 the symbols'.
    let definitions = t.align();
    for (flags, index, text, at, next) in [(1, 1, parts.name, soname, 28), (0, 2, parts.version, version, 0)]
    {
        for v in [1, flags, index, 1] {
            t.u16(v)?;
        }
        for v in [hash(text), 20, next, at, 0] {
            t.u32(v)?;
        }
    }

    let dynamic = t.align();
    let entries: [(u64, usize); DYNAMIC_ENTRIES] = [
        (14, soname as usize),
        (4, hashes),
        (5, strings),
        (6, symbols),
        (10, strings_len),
        (11, 24),
        (0x6fff_fff0, versions),
        (0x6fff_fffc, definitions),
        (0x6fff_fffd, 2),
        (0, 0),
    ];
    for (tag, value) in entries {
        t.u64(tag)?;
        t.u64(value as u64)?;
    }

    t.at = 0;
    t.put(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0")?;
    // ET_DYN, version 1, no entry point, program headers after this, no sections, no flags.
    t.u16(3)?;
    t.u16(parts.machine)?;
    t.u32(1)?;
    for v in [0, 64, 0] {
        t.u64(v)?;
    }
    t.u32(0)?;
    for v in [64, 56, 2, 64, 0, 0] {
        t.u16(v)?;
    }
    program_header(
        &mut t,
        PT_LOAD,
        FLAGS_READ_EXEC,
        0,
        PAGE_SIZE_USIZE,
        PAGE_SIZE_USIZE as u64,
    )?;
    program_header(&mut t, PT_DYNAMIC, FLAGS_READ, dynamic, DYNAMIC_ENTRIES * 16, 8)
}
