//! What lies where in a fresh virtual machine: the image, the boot page, stacks, rings, page tables; then free RAM.

use super::image::{self, Image};
use super::memory::Memory;
use super::window::Window;
use super::{BootParams, Error, random};
use crate::vcpu::{DEVICE_MAPS, KERNEL_HALF, Pte};
use arch::boot::{BOOT_STACK_BYTES, BootPlan, CpuFeatures};
use arch::table::{Attr, BLOCK_SIZE, Store, Tables};
use qlib::boot::{ABI_VERSION, BOOT_MAGIC, BootInfo, MachineKind, Range};
use qlib::ring::AREA_BYTES;
use qlib::{PAGE_SIZE, PhysAddr, VirtAddr};
use zerocopy::{FromZeros, IntoBytes};

/// Where the direct map may begin: the kernel's half less room for the image and the device maps at its end.
const DIRECT_MAP: u64 = KERNEL_HALF + (1 << 40);
/// Random choice of the direct map's place, in steps of 1 GiB: 2^14 of them.
const DIRECT_STEPS: u64 = 1 << 14;
/// Where images may lie, and the steps of the random choice.
const IMAGES: u64 = KERNEL_HALF + (64 << 40);
const IMAGE_STEPS: u64 = 1 << 20;

/// A machine's memory as the CPUs will find it.
pub struct Layout {
    pub info: BootInfo,
    entry: u64,
    boot_info: u64,
    stacks: u64,
    root: PhysAddr,
    user_root: PhysAddr,
    rings: PhysAddr,
    /// Where [`BootInfo`] lies.
    page: PhysAddr,
}

/// Page tables in guest memory, taken one after the other from `next`.
struct Builder<'a> {
    memory: &'a Memory,
    next: u64,
}

impl Store for Builder<'_> {
    fn read(&self, table: PhysAddr, index: usize) -> u64 {
        let mut b = [0; 8];
        self.memory.read(PhysAddr(table.0 + 8 * index as u64), &mut b);
        u64::from_le_bytes(b)
    }
    fn write(&mut self, table: PhysAddr, index: usize, entry: u64) {
        self.memory
            .write(PhysAddr(table.0 + 8 * index as u64), &entry.to_le_bytes());
    }
    fn alloc(&mut self) -> Option<PhysAddr> {
        let at = self.next;
        self.next += PAGE_SIZE;
        // Fresh guest memory reads as zero.
        (self.next <= self.memory.end()).then_some(PhysAddr(at))
    }
    fn free(&mut self, _: PhysAddr) {}
}

fn random_u64() -> Result<u64, Error> {
    let mut b = [0; 8];
    random(&mut b)?;
    Ok(u64::from_ne_bytes(b))
}

impl Layout {
    /// Loads the image and builds the tables.
    ///
    /// # Errors
    /// A bad image; too little memory.
    pub fn build(bytes: &[u8], memory: &Memory, window: &Window, boot: &BootParams) -> Result<Self, Error> {
        let image_pa = PhysAddr(memory.start());
        let base = IMAGES + random_u64()? % IMAGE_STEPS * BLOCK_SIZE;
        let direct_map = DIRECT_MAP + random_u64()? % DIRECT_STEPS * (1 << 30);
        let image = image::load(bytes, memory, image_pa, base)?;
        let cpus = boot.cpus.max(1);
        let page = image_pa.0 + image.len;
        let rings = page + PAGE_SIZE;
        let stacks = (rings + AREA_BYTES as u64).next_multiple_of(BOOT_STACK_BYTES);
        let mut tables = Builder {
            memory,
            next: stacks + u64::from(cpus) * BOOT_STACK_BYTES,
        };
        let (root, user_root) = map(&mut tables, &image, image_pa, base, direct_map, memory, window)?;
        let mut info = BootInfo::new_zeroed();
        info.magic = BOOT_MAGIC;
        info.abi_version = ABI_VERSION;
        info.machine = MachineKind::Kvm as u32;
        info.cpus = cpus;
        info.log_level = boot.log_level;
        random(&mut info.generation)?;
        random(&mut info.entropy)?;
        info.image = Range {
            start: base,
            end: base + image.len,
        };
        info.text = Range {
            start: base + image.text.start,
            end: base + image.text.end,
        };
        info.ram = Range {
            start: memory.start(),
            end: memory.end(),
        };
        info.ram_free = tables.next;
        info.direct_map = direct_map;
        info.window = Range {
            start: window.start(),
            end: window.start() + window.len(),
        };
        info.rings = Range {
            start: rings,
            end: rings + AREA_BYTES as u64,
        };
        info.memory_limit = boot.memory_limit;
        info.pids_limit = boot.pids_limit;
        info.control_fd = -1;
        info.log_fd = -1;
        info.channel_fds = [-1; qlib::boot::MAX_CHANNELS];
        Ok(Self {
            info,
            entry: base + image.entry,
            boot_info: direct_map + page,
            stacks: direct_map + stacks,
            root,
            user_root,
            rings: PhysAddr(rings),
            page: PhysAddr(page),
        })
    }

    /// Writes the boot page.
    pub fn write_info(&self, memory: &Memory) {
        memory.write(self.page, self.info.as_bytes());
    }

    /// Where the ring area lies.
    pub fn rings(&self) -> PhysAddr {
        self.rings
    }

    /// How CPU `cpu` starts.
    pub fn plan(&self, cpu: u32, features: CpuFeatures) -> BootPlan {
        BootPlan {
            cpu,
            entry: VirtAddr(self.entry),
            boot_info: VirtAddr(self.boot_info),
            stack_top: VirtAddr(self.stacks + (u64::from(cpu) + 1) * BOOT_STACK_BYTES),
            kernel_root: self.root,
            user_root: self.user_root,
            features,
        }
    }
}

/// Builds the kernel's half: the image by its segments, RAM writable but not executable (the image's read-only part is not
/// writable there either), the window readable. Returns the roots of the kernel's and of an empty app's half.
fn map(
    tables: &mut Builder<'_>,
    image: &Image,
    image_pa: PhysAddr,
    base: u64,
    direct_map: u64,
    memory: &Memory,
    window: &Window,
) -> Result<(PhysAddr, PhysAddr), Error> {
    let root = tables.alloc().ok_or(Error::TooSmall)?;
    let user_root = if arch_shares_root() {
        root
    } else {
        tables.alloc().ok_or(Error::TooSmall)?
    };
    let full = |_| Error::TooSmall;
    let data = Attr::READ | Attr::WRITE | Attr::GLOBAL;
    let mut t = Tables::<Pte, _>::new(root, tables);
    let mut done = 0;
    for s in &image.segments {
        let pa = |o: u64| PhysAddr(image_pa.0 + o);
        t.map_range(base + s.range.start, pa(s.range.start), s.range.len(), s.attr)
            .map_err(full)?;
        // Gaps belong to nobody.
        let in_direct = if s.attr.contains(Attr::WRITE) {
            data
        } else {
            Attr::READ | Attr::GLOBAL
        };
        let from = direct_map + image_pa.0 + s.range.start;
        t.map_range(from, pa(s.range.start), s.range.len(), in_direct)
            .map_err(full)?;
        done = s.range.end;
    }
    let rest = image_pa.0 + done;
    t.map_range(direct_map + rest, PhysAddr(rest), memory.end() - rest, data)
        .map_err(full)?;
    let readable = Attr::READ | Attr::GLOBAL;
    t.map_range(
        direct_map + window.start(),
        PhysAddr(window.start()),
        window.len(),
        readable,
    )
    .map_err(full)?;
    for &(va, pa, len) in DEVICE_MAPS {
        t.map_range(va, PhysAddr(pa), len, data | Attr::DEVICE)
            .map_err(full)?;
    }
    Ok((root, user_root))
}

/// Whether both halves hang on one root table.
const fn arch_shares_root() -> bool {
    crate::vcpu::SHARED_ROOT
}
