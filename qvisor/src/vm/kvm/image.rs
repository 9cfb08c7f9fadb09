//! Reads the kernel image into guest memory and relocates it to where the guest will see it.

use super::Error;
use super::memory::Memory;
use crate::vcpu::isa;
use arch::table::Attr;
use goblin::elf::Elf;
use goblin::elf::program_header::{PF_W, PF_X, PT_GNU_RELRO, PT_LOAD};
use qlib::boot::Range;
use qlib::{PAGE_SIZE, PhysAddr};

/// Largest image accepted, bytes.
const MAX_IMAGE: u64 = 256 << 20;

/// A part of the image with its rights; addresses are offsets from the base.
pub struct Segment {
    pub range: Range,
    pub attr: Attr,
}

/// The image in guest memory.
pub struct Image {
    pub segments: Vec<Segment>,
    /// Bytes from the base, page-aligned.
    pub len: u64,
    pub entry: u64,
    pub text: Range,
}

/// Loads `bytes` to guest-physical `at`, relocated to virtual `base`.
///
/// # Errors
/// An image that is not a static PIE of this architecture.
pub fn load(bytes: &[u8], memory: &Memory, at: PhysAddr, base: u64) -> Result<Image, Error> {
    let elf = Elf::parse(bytes)?;
    let machine = isa::ELF_MACHINE;
    if !elf.is_64 || !elf.little_endian || elf.header.e_machine != machine {
        return Err(Error::Format("it is of another architecture"));
    }
    if elf.header.e_type != goblin::elf::header::ET_DYN
        || elf.interpreter.is_some()
        || !elf.libraries.is_empty()
    {
        return Err(Error::Format("it is no static position-independent executable"));
    }
    let mut image = Image {
        segments: Vec::new(),
        len: 0,
        entry: elf.entry,
        text: Range::default(),
    };
    for p in elf.program_headers.iter().filter(|p| p.p_type == PT_LOAD) {
        let end = p
            .p_vaddr
            .checked_add(p.p_memsz)
            .filter(|e| *e <= MAX_IMAGE)
            .ok_or(Error::Format("it is too large"))?;
        let data = p
            .p_offset
            .checked_add(p.p_filesz)
            .and_then(|e| bytes.get(p.p_offset as usize..e as usize));
        let data = data.ok_or(Error::Format("it is cut short"))?;
        let (write, exec) = (p.p_flags & PF_W != 0, p.p_flags & PF_X != 0);
        if write && exec {
            return Err(Error::Format("a segment is writable and executable"));
        }
        if !memory.write(PhysAddr(at.0 + p.p_vaddr), data) {
            return Err(Error::Format("it does not fit guest memory"));
        }
        let range = Range {
            start: p.p_vaddr & !(PAGE_SIZE - 1),
            end: end.next_multiple_of(PAGE_SIZE),
        };
        if image.segments.last().is_some_and(|s| s.range.end > range.start) {
            return Err(Error::Format("its segments share pages"));
        }
        let mut attr = Attr::READ | Attr::GLOBAL;
        attr.set(Attr::WRITE, write);
        attr.set(Attr::EXEC, exec);
        if exec {
            image.text = range;
        }
        image.len = range.end;
        image.segments.push(Segment { range, attr });
    }
    relocate(&elf, memory, at, base, image.len)?;
    if let Some(p) = elf.program_headers.iter().find(|p| p.p_type == PT_GNU_RELRO) {
        protect_relro(
            &mut image,
            p.p_vaddr & !(PAGE_SIZE - 1),
            (p.p_vaddr + p.p_memsz) & !(PAGE_SIZE - 1),
        );
    }
    Ok(image)
}

fn relocate(elf: &Elf<'_>, memory: &Memory, at: PhysAddr, base: u64, len: u64) -> Result<(), Error> {
    let relative = isa::ELF_RELATIVE;
    if !elf.dynrels.is_empty() || !elf.pltrelocs.is_empty() {
        return Err(Error::Format("it needs a dynamic linker"));
    }
    for r in elf.dynrelas.iter() {
        if r.r_type != relative || r.r_offset.checked_add(8).is_none_or(|e| e > len) {
            return Err(Error::Format("it has a relocation that is not relative"));
        }
        let value = base.wrapping_add_signed(r.r_addend.unwrap_or(0));
        memory.write(PhysAddr(at.0 + r.r_offset), &value.to_le_bytes());
    }
    Ok(())
}

/// Relocated data that is never written again loses its write permission.
fn protect_relro(image: &mut Image, start: u64, end: u64) {
    let Some(i) = image.segments.iter().position(|s| s.range.contains(start)) else {
        return;
    };
    let (whole, attr) = (image.segments[i].range, image.segments[i].attr);
    let end = end.min(whole.end);
    if end <= start || !attr.contains(Attr::WRITE) {
        return;
    }
    let parts = [
        Segment {
            range: Range {
                start: whole.start,
                end: start,
            },
            attr,
        },
        Segment {
            range: Range { start, end },
            attr: attr - Attr::WRITE,
        },
        Segment {
            range: Range {
                start: end,
                end: whole.end,
            },
            attr,
        },
    ];
    image
        .segments
        .splice(i..=i, parts.into_iter().filter(|p| !p.range.is_empty()));
}
