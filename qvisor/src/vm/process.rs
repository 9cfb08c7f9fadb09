//! The process machine's host side: loads the kernel image into a shared region and enters it.

use crate::vcpu::isa;
use goblin::elf::Elf;
use goblin::elf::program_header::{PF_W, PF_X, PT_GNU_RELRO, PT_LOAD, ProgramHeader};
use qlib::PAGE_SIZE;
use qlib::boot::{ABI_VERSION, BOOT_MAGIC, BootInfo, MAX_CHANNELS, MachineKind, Range, features};
use rustix::fs::{MemfdFlags, Mode, SealFlags};
use rustix::io::Errno;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};
use rustix::rand::GetRandomFlags;
use std::ffi::c_void;
use std::fmt::Display;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use zerocopy::{FromZeros, IntoBytes};

/// The kernel's base is a multiple of this.
const ALIGN: u64 = 2 << 20;
/// Bases lie in this range: below where Linux puts libraries and stacks (at most 1 TiB below the 47-bit limit), and above
/// all that programs claim at fixed addresses. The address and thread sanitizers leave nothing else free: they map or
/// protect `0x0100_…` to `0x54ff_…` and `0x5680_…` to `0x7e7f_…`.
const BASES: Range = Range {
    start: 0x7e80_0000_0000,
    end: 0x7ef0_0000_0000,
};
/// Address space for the kernel's heap and stacks; memory only as it is touched.
const HEAP_BYTES: u64 = 16 << 30;
/// A kernel stack, aligned to its size; the boot stack is one.
const STACK_BYTES: u64 = 64 << 10;
/// Largest kernel image accepted.
const MAX_IMAGE: u64 = 256 << 20;

/// Most pages of data that a host maps below its vDSO.
const MAX_VVAR_PAGES: u64 = 6;
/// No vDSO is larger.
const MAX_VDSO_BYTES: u64 = 64 << 10;
/// Exit code of a child that cannot enter the kernel (EX_OSERR).
const EXIT_CODE: i32 = 71;
/// Index of the log descriptor among those the kernel keeps.
const LOG: usize = 1;

/// Why the process machine could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel image cannot be read.
    #[error("cannot read the kernel image: {0}")]
    Image(std::io::Error),
    /// The kernel image is not what the machine can load.
    #[error("bad kernel image: {0}")]
    Format(&'static str),
    /// The kernel image is not an ELF file.
    #[error("bad kernel image: {0}")]
    Elf(#[from] goblin::error::Error),
    /// A host call failed.
    #[error("{0}: {1}")]
    Host(&'static str, Errno),
}

/// What QKernel is told at boot.
#[derive(Clone, Copy, Debug)]
pub struct BootParams {
    /// CPUs the guest may use and shows.
    pub cpus: u32,
    /// 0 off … 5 trace.
    pub log_level: u32,
    /// Bytes; `u64::MAX` = no limit.
    pub memory_limit: u64,
    /// Processes and threads; `u64::MAX` = no limit.
    pub pids_limit: u64,
    /// Whether call sites of apps may be patched.
    pub patch_calls: bool,
}

/// All that is needed to start the machine. The descriptors are the child's ends.
pub struct Launch {
    /// The QKernel ELF file.
    pub kernel: OwnedFd,
    /// Boot parameters.
    pub boot: BootParams,
    /// The control channel (`SOCK_SEQPACKET`).
    pub control: OwnedFd,
    /// Where log lines go.
    pub log: OwnedFd,
    /// Broker channels (`SOCK_SEQPACKET`), at most [`MAX_CHANNELS`].
    pub channels: Vec<OwnedFd>,
}

/// One read-only segment, mapped from the image file.
struct Segment {
    /// Page-aligned offset in the file, and address less the base.
    file_offset: u64,
    start: u64,
    end: u64,
    executable: bool,
}

/// A loaded kernel, ready to be entered in the process that is to become the sandbox's first.
pub struct Prepared {
    image: File,
    region: OwnedFd,
    segments: Vec<Segment>,
    /// First byte of the writable part, less the base.
    data_start: u64,
    /// Relocated data that must not be written again, less the base.
    relro: Range,
    entry: u64,
    boot_page: u64,
    boot_stack_top: u64,
    info: BootInfo,
    /// Kept open for the kernel.
    fds: Vec<OwnedFd>,
}

fn page_down(v: u64) -> u64 {
    v & !(PAGE_SIZE - 1)
}

fn page_up(v: u64) -> u64 {
    v.next_multiple_of(PAGE_SIZE)
}

fn host(what: &'static str) -> impl Fn(Errno) -> Error {
    move |e| Error::Host(what, e)
}

fn random(buf: &mut [u8]) -> Result<(), Error> {
    let n = rustix::rand::getrandom(&mut *buf, GetRandomFlags::empty()).map_err(host("getrandom"))?;
    if n == buf.len() {
        Ok(())
    } else {
        Err(Error::Host("getrandom", Errno::IO))
    }
}

/// A random base for the image.
fn pick_base() -> Result<u64, Error> {
    let mut bytes = [0; 8];
    random(&mut bytes)?;
    let slots = (BASES.len() - HEAP_BYTES - MAX_IMAGE) / ALIGN;
    Ok(BASES.start + u64::from_ne_bytes(bytes) % slots * ALIGN)
}

/// Reads, checks and relocates the kernel; starts nothing. Runs before the fork, with the host's privileges.
///
/// # Errors
/// An image that is not a static PIE of this architecture and ABI, or a host call that failed.
pub fn prepare(l: Launch) -> Result<Prepared, Error> {
    let image = File::from(l.kernel);
    let length = image.metadata().map_err(Error::Image)?.len();
    if length > MAX_IMAGE {
        return Err(Error::Format("it is too large"));
    }
    let mut bytes = vec![0; length as usize];
    image.read_exact_at(&mut bytes, 0).map_err(Error::Image)?;
    let elf = Elf::parse(&bytes)?;
    check(&elf)?;
    let base = pick_base()?;
    let loads: Vec<&ProgramHeader> = elf
        .program_headers
        .iter()
        .filter(|p| p.p_type == PT_LOAD)
        .collect();
    let end = loads
        .iter()
        .map(|p| page_up(p.p_vaddr + p.p_memsz))
        .max()
        .unwrap_or(0);
    let data_start = loads
        .iter()
        .filter(|p| p.p_flags & PF_W != 0)
        .map(|p| page_down(p.p_vaddr))
        .min()
        .unwrap_or(end);
    let segments = read_only_segments(&loads, data_start)?;

    let boot_page = end;
    let boot_stack = (boot_page + PAGE_SIZE).next_multiple_of(STACK_BYTES);
    let boot_stack_top = boot_stack + STACK_BYTES;
    let heap_start = boot_stack_top.next_multiple_of(ALIGN);
    let region = rustix::fs::memfd_create("quark-kernel", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
        .map_err(host("memfd_create"))?;
    let size = heap_start + HEAP_BYTES;
    rustix::fs::ftruncate(&region, size).map_err(host("ftruncate"))?;
    rustix::fs::fcntl_add_seals(&region, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)
        .map_err(host("sealing the region"))?;
    write_data(&region, &elf, &bytes, base)?;

    let relro = elf.program_headers.iter().find(|p| p.p_type == PT_GNU_RELRO);
    let relro = relro.map_or(Range::default(), |p| Range {
        start: page_down(p.p_vaddr),
        end: page_down(p.p_vaddr + p.p_memsz),
    });
    let text = segments
        .iter()
        .find(|s| s.executable)
        .ok_or(Error::Format("no executable segment"))?;
    let text = Range {
        start: base + text.start,
        end: base + text.end,
    };
    let mut info = BootInfo::new_zeroed();
    info.magic = BOOT_MAGIC;
    info.abi_version = ABI_VERSION;
    info.machine = MachineKind::Process as u32;
    info.cpus = l.boot.cpus.max(1);
    info.log_level = l.boot.log_level;
    info.image = Range {
        start: base,
        end: base + heap_start,
    };
    info.text = text;
    info.heap = Range {
        start: base + heap_start,
        end: base + size,
    };
    info.memory_limit = l.boot.memory_limit;
    info.pids_limit = l.boot.pids_limit;
    random(&mut info.generation)?;
    random(&mut info.entropy)?;
    (info.vdso, info.vdso_range) = vdso();
    info.features = host_features();
    let (hwcap, hwcap2) = rustix::param::linux_hwcap();
    (info.hwcap, info.hwcap2) = (hwcap as u64, hwcap2 as u64);
    if l.boot.patch_calls && info.features & features::FSGSBASE != 0 {
        info.features |= features::PATCH_CALLS;
    }
    info.control_fd = l.control.as_raw_fd();
    info.log_fd = l.log.as_raw_fd();
    info.channel_fds = [-1; MAX_CHANNELS];
    for (slot, fd) in info.channel_fds.iter_mut().zip(&l.channels) {
        *slot = fd.as_raw_fd();
    }
    let mut fds = vec![l.control, l.log];
    fds.extend(l.channels);
    Ok(Prepared {
        image,
        region,
        segments,
        data_start,
        relro,
        entry: base + elf.entry,
        boot_page: base + boot_page,
        boot_stack_top: base + boot_stack_top,
        info,
        fds,
    })
}

fn check(elf: &Elf<'_>) -> Result<(), Error> {
    let machine = isa::ELF_MACHINE;
    if !elf.is_64 || !elf.little_endian || elf.header.e_machine != machine {
        return Err(Error::Format("it is of another architecture"));
    }
    if elf.header.e_type != goblin::elf::header::ET_DYN || elf.interpreter.is_some() {
        return Err(Error::Format("it is no static position-independent executable"));
    }
    if !elf.libraries.is_empty() || !elf.pltrelocs.is_empty() || !elf.dynrels.is_empty() {
        return Err(Error::Format("it needs a dynamic linker"));
    }
    Ok(())
}

fn read_only_segments(loads: &[&ProgramHeader], data_start: u64) -> Result<Vec<Segment>, Error> {
    let mut segments = Vec::new();
    for p in loads {
        if p.p_vaddr.checked_add(p.p_memsz).is_none_or(|e| e > MAX_IMAGE) {
            return Err(Error::Format("it is too large"));
        }
        if p.p_flags & PF_W != 0 {
            if p.p_flags & PF_X != 0 {
                return Err(Error::Format("a segment is writable and executable"));
            }
            continue;
        }
        if p.p_vaddr % PAGE_SIZE != p.p_offset % PAGE_SIZE || p.p_memsz != p.p_filesz {
            return Err(Error::Format(
                "a read-only segment cannot be mapped from the file",
            ));
        }
        let segment = Segment {
            file_offset: page_down(p.p_offset),
            start: page_down(p.p_vaddr),
            end: page_up(p.p_vaddr + p.p_memsz),
            executable: p.p_flags & PF_X != 0,
        };
        if segment.end > data_start {
            return Err(Error::Format("a read-only segment lies behind writable ones"));
        }
        if segment.executable && segments.iter().any(|s: &Segment| s.executable) {
            return Err(Error::Format("it has more than one executable segment"));
        }
        segments.push(segment);
    }
    Ok(segments)
}

/// Copies the writable segments into the region, relocated to `base`.
fn write_data(region: &OwnedFd, elf: &Elf<'_>, bytes: &[u8], base: u64) -> Result<(), Error> {
    let relative = isa::ELF_RELATIVE;
    let file = File::from(region.try_clone().map_err(|_| Error::Host("dup", Errno::MFILE))?);
    let mut relocated = 0;
    for p in elf
        .program_headers
        .iter()
        .filter(|p| p.p_type == PT_LOAD && p.p_flags & PF_W != 0)
    {
        let range = p.p_offset as usize..(p.p_offset + p.p_filesz) as usize;
        let mut data = bytes.get(range).ok_or(Error::Format("it is cut short"))?.to_vec();
        for r in elf.dynrelas.iter() {
            if r.r_type != relative {
                return Err(Error::Format("it has a relocation that is not relative"));
            }
            let Some(at) = r.r_offset.checked_sub(p.p_vaddr) else {
                continue;
            };
            let Some(word) = usize::try_from(at).ok().and_then(|at| data.get_mut(at..at + 8)) else {
                continue;
            };
            let value = base.wrapping_add_signed(r.r_addend.unwrap_or(0));
            word.copy_from_slice(&value.to_le_bytes());
            relocated += 1;
        }
        file.write_all_at(&data, p.p_vaddr)
            .map_err(|_| Error::Host("writing the region", Errno::NOMEM))?;
    }
    // One that lies in no writable segment would need writable text.
    if relocated != elf.dynrelas.len() {
        return Err(Error::Format("it has relocations in read-only segments"));
    }
    Ok(())
}

/// The host's vDSO in this process (and its forks): address of the ELF header, and the range with its data pages, which
/// the host maps just below. There may be no `/proc` to ask here.
fn vdso() -> (u64, Range) {
    // SAFETY: reads the auxiliary vector.
    let header = unsafe { libc::getauxval(libc::AT_SYSINFO_EHDR) };
    if header == 0 {
        return (0, Range::default());
    }
    let is_mapped = |page: u64| {
        let mut resident = 0u8;
        // SAFETY: the host writes one byte; an address where nothing is mapped is an error, not a fault.
        unsafe { libc::mincore(page as *mut c_void, PAGE_SIZE as usize, &raw mut resident) == 0 }
    };
    let below = (1..=MAX_VVAR_PAGES)
        .take_while(|n| is_mapped(header - n * PAGE_SIZE))
        .count() as u64;
    // SAFETY: the host maps the vDSO, an ELF image whose header fits its first page, for as long as the process lives.
    let image = unsafe { std::slice::from_raw_parts(header as *const u8, PAGE_SIZE as usize) };
    let word = |at: usize| {
        image
            .get(at..at + 8)
            .and_then(|b| b.try_into().ok())
            .map_or(0, u64::from_le_bytes)
    };
    let (table, count) = (word(32) as usize, word(56) as u16 as usize);
    // p_type and flags, p_offset, p_vaddr, p_paddr, p_filesz, p_memsz, p_align
    let loads = (0..count)
        .map(|i| table + 56 * i)
        .filter(|at| word(*at) as u32 == PT_LOAD);
    let bytes = loads
        .map(|at| word(at + 8).saturating_add(word(at + 40)))
        .max()
        .unwrap_or(PAGE_SIZE);
    let end = header + page_up(bytes.clamp(PAGE_SIZE, MAX_VDSO_BYTES));
    (
        header,
        Range {
            start: header - below * PAGE_SIZE,
            end,
        },
    )
}

#[allow(clippy::bad_bit_mask)] // On aarch64 the mask is empty.
fn host_features() -> u64 {
    let (_, hwcap2) = rustix::param::linux_hwcap();
    if hwcap2 as u64 & isa::HWCAP2_FSGSBASE != 0 {
        features::FSGSBASE
    } else {
        0
    }
}

impl Prepared {
    /// Descriptors that must stay open in the child.
    pub fn survivors(&self) -> Vec<RawFd> {
        let mut fds: Vec<RawFd> = self.fds.iter().map(AsRawFd::as_raw_fd).collect();
        fds.extend([self.image.as_raw_fd(), self.region.as_raw_fd()]);
        fds
    }

    /// Maps the kernel, installs the filter over its text (host calls pass only from there) and jumps to it. Runs in the
    /// jail, in a process without other threads. Never returns; a failure is written to the log descriptor.
    pub fn enter<E: Display>(self, install: impl FnOnce(Range) -> Result<(), E>) -> ! {
        let text = self.info.text;
        // Modes are QKernel's to mask.
        rustix::process::umask(Mode::empty());
        if let Err(e) = self.map() {
            self.give_up(&e);
        }
        if let Err(e) = install(text) {
            self.give_up(&e);
        }
        let (entry, page, stack) = (self.entry, self.boot_page, self.boot_stack_top);
        // The kernel owns the descriptors now.
        std::mem::forget(self.fds);
        std::mem::forget((self.image, self.region));
        // SAFETY: the kernel is mapped, its boot page is filled, and its stack is fresh.
        unsafe { crate::vcpu::jump(entry, page, stack) }
    }

    fn give_up(&self, why: &dyn Display) -> ! {
        if let Some(log) = self.fds.get(LOG) {
            let _ = rustix::io::write(log, format!("ERROR {why}\n").as_bytes());
        }
        // SAFETY: ends the process; nothing of the parent's that was forked is flushed or dropped.
        unsafe { libc::_exit(EXIT_CODE) }
    }

    fn map(&self) -> Result<(), Error> {
        let base = self.info.image.start;
        for s in &self.segments {
            let mut prot = ProtFlags::READ;
            if s.executable {
                prot |= ProtFlags::EXEC;
            }
            map_fixed(
                base + s.start,
                s.end - s.start,
                prot,
                MapFlags::PRIVATE,
                self.image.as_fd(),
                s.file_offset,
            )?;
        }
        let data = base + self.data_start;
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        let len = self.info.heap.end - data;
        map_fixed(
            data,
            len,
            ProtFlags::READ | ProtFlags::WRITE,
            flags,
            self.region.as_fd(),
            self.data_start,
        )?;
        if !self.relro.is_empty() {
            let start = (base + self.relro.start) as *mut c_void;
            // SAFETY: the range was mapped just above, and this process does not use it.
            unsafe { rustix::mm::mprotect(start, self.relro.len() as usize, MprotectFlags::READ) }
                .map_err(host("mprotect"))?;
        }
        let page = self.boot_page as *mut u8;
        let info = self.info.as_bytes();
        // SAFETY: the boot page is mapped writable, and BootInfo fits a page.
        unsafe { std::ptr::copy_nonoverlapping(info.as_ptr(), page, info.len()) };
        // The mappings hold the files. The descriptors must not be the sandbox's: the region's could be mapped anew.
        for fd in [self.image.as_raw_fd(), self.region.as_raw_fd()] {
            // SAFETY: `enter` forgets the owners.
            unsafe { rustix::io::close(fd) };
        }
        Ok(())
    }
}

fn map_fixed(
    addr: u64,
    len: u64,
    prot: ProtFlags,
    flags: MapFlags,
    fd: std::os::fd::BorrowedFd<'_>,
    offset: u64,
) -> Result<(), Error> {
    let flags = flags | MapFlags::FIXED_NOREPLACE;
    // SAFETY: the host refuses to replace what is mapped, so nothing of this process changes.
    unsafe { rustix::mm::mmap(addr as *mut c_void, len as usize, prot, flags, fd, offset) }
        .map_err(host("mapping the kernel"))?;
    Ok(())
}

const _: () = assert!(size_of::<BootInfo>() <= PAGE_SIZE as usize);
