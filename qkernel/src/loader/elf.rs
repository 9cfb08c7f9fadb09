//! ELF images. Source: `elf(5)`, System V gABI.

use crate::fs::file::File;
use crate::mm::Mm;
use crate::mm::ops::{Backing, MapRequest, Place};
use crate::mm::vma::Label;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use hal::aspace::{Prot, reserved, user_range};
use qlib::{Errno, PAGE_SIZE};
use zerocopy::{FromBytes, Immutable, KnownLayout};

const PT_LOAD: u32 = 1;
const PT_INTERP: u32 = 3;
const ET_EXEC: u16 = 2;
const ET_DYN: u16 = 3;
const PF_X: u32 = 1;
const PF_W: u32 = 2;
const PF_R: u32 = 4;

/// ELF header, 64 bit.
#[derive(FromBytes, Immutable, KnownLayout, Clone, Copy)]
#[repr(C)]
struct Header {
    ident: [u8; 16],
    kind: u16,
    machine: u16,
    version: u32,
    entry: u64,
    phoff: u64,
    shoff: u64,
    flags: u32,
    ehsize: u16,
    phentsize: u16,
    phnum: u16,
    shentsize: u16,
    shnum: u16,
    shstrndx: u16,
}

/// Program header, 64 bit.
#[derive(FromBytes, Immutable, KnownLayout, Clone, Copy, Debug)]
#[repr(C)]
struct Segment {
    kind: u32,
    flags: u32,
    offset: u64,
    vaddr: u64,
    paddr: u64,
    filesz: u64,
    memsz: u64,
    align: u64,
}

/// A checked image, not yet mapped.
pub struct Image {
    file: Arc<File>,
    header: Header,
    segments: Vec<Segment>,
    /// The program interpreter's path.
    pub interpreter: Option<Vec<u8>>,
}

/// Where a mapped image lies.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mapped {
    /// Entry point.
    pub entry: u64,
    /// Load bias.
    pub bias: u64,
    /// Address of the program headers.
    pub phdr: u64,
    /// Their count.
    pub phnum: u64,
    /// Code range.
    pub code: (u64, u64),
    /// Data range.
    pub data: (u64, u64),
    /// End of everything.
    pub end: u64,
}

impl Image {
    /// Reads and checks the headers.
    ///
    /// # Errors
    /// ENOEXEC when it is no ELF image of this architecture.
    pub fn parse(file: Arc<File>) -> Result<Self, Errno> {
        let mut head = [0u8; size_of::<Header>()];
        if file.read_kernel(&mut head, 0)? < head.len() {
            return Err(Errno::ENOEXEC);
        }
        let header = Header::read_from_bytes(&head).map_err(|_| Errno::ENOEXEC)?;
        let class_64_little = [0x7f, b'E', b'L', b'F', 2, 1];
        let known = header.ident[..6] == class_64_little && header.machine == hal::native::ELF_MACHINE;
        let sized = header.phentsize as usize == size_of::<Segment>() && (1..=128).contains(&header.phnum);
        if !known || !sized || !matches!(header.kind, ET_EXEC | ET_DYN) {
            return Err(Errno::ENOEXEC);
        }
        let mut table = vec![0u8; header.phnum as usize * size_of::<Segment>()];
        if file.read_kernel(&mut table, header.phoff)? < table.len() {
            return Err(Errno::ENOEXEC);
        }
        let mut segments = Vec::with_capacity(header.phnum as usize);
        for bytes in table.chunks_exact(size_of::<Segment>()) {
            segments.push(Segment::read_from_bytes(bytes).map_err(|_| Errno::ENOEXEC)?);
        }
        let user_end = user_range().end;
        for s in segments.iter().filter(|s| s.kind == PT_LOAD) {
            let end = s.vaddr.checked_add(s.memsz).ok_or(Errno::ENOEXEC)?;
            if s.filesz > s.memsz || end > user_end || s.vaddr % PAGE_SIZE != s.offset % PAGE_SIZE {
                return Err(Errno::ENOEXEC);
            }
        }
        if !segments.iter().any(|s| s.kind == PT_LOAD) {
            return Err(Errno::ENOEXEC);
        }
        let mut interpreter = None;
        if let Some(s) = segments.iter().find(|s| s.kind == PT_INTERP) {
            if s.filesz < 2 || s.filesz > 4096 {
                return Err(Errno::ENOEXEC);
            }
            let mut path = vec![0u8; s.filesz as usize];
            if file.read_kernel(&mut path, s.offset)? < path.len() || path.pop() != Some(0) {
                return Err(Errno::ENOEXEC);
            }
            interpreter = Some(path);
        }
        Ok(Self {
            file,
            header,
            segments,
            interpreter,
        })
    }

    /// Maps the image. `base` is the wanted load address of a position-independent image, `None` = near the other mappings.
    ///
    /// # Errors
    /// As `mmap(2)`.
    pub fn map(&self, mm: &Mm, base: Option<u64>) -> Result<Mapped, Errno> {
        let loads = || self.segments.iter().filter(|s| s.kind == PT_LOAD);
        let low = loads()
            .map(|s| s.vaddr & !(PAGE_SIZE - 1))
            .min()
            .ok_or(Errno::ENOEXEC)?;
        let high = loads().map(|s| s.vaddr + s.memsz).max().ok_or(Errno::ENOEXEC)?;
        let bias = if self.header.kind == ET_DYN {
            let align = loads()
                .map(|s| s.align)
                .filter(|a| a.is_power_of_two())
                .max()
                .unwrap_or(PAGE_SIZE)
                .max(PAGE_SIZE);
            let len = high - low;
            let mut vmas = mm.vmas.lock();
            let at = match base {
                Some(b) => Some(b & !(align - 1)),
                None => {
                    let top = mm.layout.lock().mmap_base;
                    let room = len.checked_add(align).ok_or(Errno::ENOMEM)?;
                    vmas.find_free(room, PAGE_SIZE * 16, top, reserved())
                        .map(|a| (a + align - 1) & !(align - 1))
                }
            };
            at.ok_or(Errno::ENOMEM)?.wrapping_sub(low)
        } else {
            0
        };
        let mut out = Mapped {
            entry: self.header.entry.wrapping_add(bias),
            bias,
            phnum: u64::from(self.header.phnum),
            code: (u64::MAX, 0),
            ..Mapped::default()
        };
        for s in loads() {
            self.map_segment(mm, s, bias, &mut out)?;
        }
        Ok(out)
    }

    fn map_segment(&self, mm: &Mm, s: &Segment, bias: u64, out: &mut Mapped) -> Result<(), Errno> {
        let mut prot = Prot::empty();
        for (flag, p) in [(PF_R, Prot::READ), (PF_W, Prot::WRITE), (PF_X, Prot::EXEC)] {
            if s.flags & flag != 0 {
                prot |= p;
            }
        }
        let start = s.vaddr.wrapping_add(bias);
        let page = start & !(PAGE_SIZE - 1);
        let file_end = start + s.filesz;
        let mem_end = start + s.memsz;
        let request = |at: u64, len: u64| MapRequest {
            place: Place::Fixed(at),
            len,
            prot,
            label: Label::None,
            grows_down: false,
            locked: false,
            limit: u64::MAX,
        };
        let mut mapped_to = page;
        if s.filesz > 0 {
            let offset = s.offset - (start - page);
            let backing = Backing::File {
                file: self.file.clone(),
                offset,
                shared: false,
            };
            mm.map(&request(page, file_end - page), backing)?;
            mapped_to = (file_end + PAGE_SIZE - 1) & !(PAGE_SIZE - 1);
            if mem_end > file_end && prot.contains(Prot::WRITE) {
                // The rest of the last file page is zero, beyond .bss too: the dynamic linker's first allocations are there.
                let n = mapped_to - file_end;
                hal::user::UserSlice::new(file_end, n)?.zero()?;
            }
        }
        if mem_end > mapped_to {
            mm.map(&request(mapped_to, mem_end - mapped_to), Backing::Anonymous)?;
        }
        if (s.offset..s.offset + s.filesz).contains(&self.header.phoff) {
            out.phdr = start + (self.header.phoff - s.offset);
        }
        if s.flags & PF_X != 0 {
            out.code = (out.code.0.min(start), out.code.1.max(file_end));
        } else if s.flags & PF_W != 0 {
            out.data = (start, file_end);
        }
        out.end = out.end.max(mem_end);
        Ok(())
    }

    /// Whether the image is position-independent.
    pub fn is_dynamic(&self) -> bool {
        self.header.kind == ET_DYN
    }
}
