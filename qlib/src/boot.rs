//! What QVisor tells QKernel before its first instruction.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// [`BootInfo::magic`]: "QUARKBI1", little-endian.
pub const BOOT_MAGIC: u64 = 0x3149_424b_5241_5551;

/// Version of everything in `qlib`; the host refuses a kernel image of another version.
pub const ABI_VERSION: u32 = 2;

/// The machine QKernel runs on; [`BootInfo::machine`] holds the integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum MachineKind {
    /// A virtual machine: guest ring 0 / EL1.
    Kvm = 1,
    /// No hardware virtualization: the kernel is mapped into every process of the sandbox.
    Process = 2,
}

impl TryFrom<u32> for MachineKind {
    type Error = u32;
    fn try_from(v: u32) -> Result<Self, u32> {
        match v {
            1 => Ok(Self::Kvm),
            2 => Ok(Self::Process),
            other => Err(other),
        }
    }
}

/// A half-open range of addresses (virtual or physical as the field says), in bytes.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Range {
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
}

impl Range {
    /// Whether `addr` lies inside.
    pub const fn contains(&self, addr: u64) -> bool {
        self.start <= addr && addr < self.end
    }
    /// Length in bytes.
    pub const fn len(&self) -> u64 {
        self.end - self.start
    }
    /// Whether the range has no bytes.
    pub const fn is_empty(&self) -> bool {
        self.end <= self.start
    }
}

/// Most broker channels a `process` machine may be given.
pub const MAX_CHANNELS: usize = 8;

/// The boot page. Fields that a machine does not use are zero.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct BootInfo {
    /// [`BOOT_MAGIC`].
    pub magic: u64,
    /// [`ABI_VERSION`] of the host.
    pub abi_version: u32,
    /// [`MachineKind`] as an integer.
    pub machine: u32,
    /// Virtual CPUs the guest may use (and shows to apps), at least 1.
    pub cpus: u32,
    /// Log level: 0 off, 1 error, 2 warn, 3 info, 4 debug, 5 trace.
    pub log_level: u32,
    /// Random identity of this boot; a restored or cloned sandbox gets a new one.
    pub generation: [u8; 16],
    /// Entropy for the guest's random generator.
    pub entropy: [u8; 32],
    /// Where the kernel image lies (virtual).
    pub image: Range,
    /// The executable part of the image (virtual); the `process` filter routes by it.
    pub text: Range,
    /// Memory for the kernel's heap and stacks: virtual on `process`, unused on `kvm`.
    pub heap: Range,
    /// Guest RAM (physical), `kvm` only.
    pub ram: Range,
    /// First byte of RAM not used by image, boot page tables and boot page (physical), `kvm` only.
    pub ram_free: u64,
    /// Virtual address at which all of RAM is mapped (`kvm` only).
    pub direct_map: u64,
    /// Window (physical) into which the host maps files (DAX), `kvm` only.
    pub window: Range,
    /// Submission/completion ring area (physical), `kvm` only.
    pub rings: Range,
    /// Ticks per second of the TSC / generic counter; 0 when unknown (`process` reads the host clock).
    pub counter_hz: u64,
    /// Host CLOCK_REALTIME minus counter time at boot, ns (`kvm`).
    pub realtime_offset_ns: u64,
    /// Address of the host vDSO's ELF header in every process (`process`), else 0.
    pub vdso: u64,
    /// Bytes of the host vDSO with its data pages before it: the range that must stay mapped (`process`).
    pub vdso_range: Range,
    /// Memory the container may use, bytes; `u64::MAX` = no limit.
    pub memory_limit: u64,
    /// Processes and threads the container may have; `u64::MAX` = no limit.
    pub pids_limit: u64,
    /// Host descriptor of the control channel (`process`).
    pub control_fd: i32,
    /// Host descriptor for log lines (`process`).
    pub log_fd: i32,
    /// Host descriptors of the broker channels (`process`); -1 = unused.
    pub channel_fds: [i32; MAX_CHANNELS],
    /// Bit set of [`features`].
    pub features: u64,
    /// AT_HWCAP for apps.
    pub hwcap: u64,
    /// AT_HWCAP2 for apps.
    pub hwcap2: u64,
}

/// Bits of [`BootInfo::features`]: what the host measured.
pub mod features {
    /// RDFSBASE/WRFSBASE may be used in user mode.
    pub const FSGSBASE: u64 = 1 << 0;
    /// Protection keys are usable for the kernel's memory.
    pub const PKEYS: u64 = 1 << 1;
    /// Call sites of apps may be patched (`process`); only with [`FSGSBASE`].
    pub const PATCH_CALLS: u64 = 1 << 2;
}
