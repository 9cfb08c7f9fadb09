//! x86_64: KVM_SET_SREGS, KVM_SET_CPUID2, the in-kernel LAPIC.

use super::{Bells, Error, Exit, ask};
use arch::boot::CpuFeatures;
use arch::x86_64::boot::{BootCpu, KERNEL_CS, KERNEL_DS};
use arch::x86_64::{doorbell, vector};
use kvm_bindings::{
    CpuId, KVM_CAP_SPLIT_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_MAX_CPUID_ENTRIES, KVM_MP_STATE_RUNNABLE,
    KvmIrqRouting, Msrs, kvm_cpuid_entry2, kvm_enable_cap, kvm_irq_routing_entry, kvm_mp_state,
    kvm_msr_entry, kvm_regs, kvm_segment, kvm_xcrs,
};
use kvm_ioctls::{IoEventAddress, Kvm, NoDatamatch, VcpuExit, VcpuFd, VmFd};

pub use arch::x86_64::boot::boot_cpu;
pub use arch::x86_64::paging::{KERNEL_HALF, Pte, SHARED_ROOT};

/// First byte of RAM: above the hole in which the interrupt controllers' registers lie.
pub const RAM_BASE: u64 = 1 << 32;
/// Device memory the kernel reaches by address: (virtual, physical, bytes). This machine has ports instead.
pub const DEVICE_MAPS: &[(u64, u64, u64)] = &[];

const IA32_TSC: u32 = 0x10;
/// State components an app may have: x87, SSE, AVX, AVX-512.
const XCR0_ALLOWED: u64 = 0b1110_0111;
/// Where Intel CPUs without unrestricted guests want three pages; any hole below 4 GiB does.
const TSS_ADDRESS: usize = 0xfffb_d000;

/// The interrupt controller of a VM: the LAPICs live in the kernel, there is no other.
pub struct Interrupts;

/// Creates the interrupt controller. Called before the virtual CPUs are made; [`Interrupts::finish`] after.
///
/// # Errors
/// The request that KVM refused.
pub fn create_interrupts(vm: &VmFd) -> Result<Interrupts, Error> {
    ask("KVM_SET_TSS_ADDR", vm.set_tss_address(TSS_ADDRESS))?;
    let mut cap = kvm_enable_cap {
        cap: KVM_CAP_SPLIT_IRQCHIP,
        ..kvm_enable_cap::default()
    };
    // Routes that MSIs may use.
    cap.args[0] = 24;
    ask("creating the interrupt controller (LAPIC)", vm.enable_cap(&cap))?;
    Ok(Interrupts)
}

impl Interrupts {
    /// Connects the bells.
    ///
    /// # Errors
    /// The request that KVM refused.
    pub fn finish(&self, vm: &VmFd, bells: &Bells) -> Result<(), Error> {
        let mut route = kvm_irq_routing_entry {
            gsi: 0,
            type_: KVM_IRQ_ROUTING_MSI,
            ..kvm_irq_routing_entry::default()
        };
        // Physical destination 0: the boot CPU. Edge, fixed delivery.
        route.u.msi.address_lo = 0xfee0_0000;
        route.u.msi.data = vector::HOST.into();
        let routing = KvmIrqRouting::from_entries(&[route]).map_err(|_| Error {
            what: "making an interrupt route",
            source: kvm_ioctls::Error::new(libc::ENOMEM),
        })?;
        ask("setting the interrupt route", vm.set_gsi_routing(&routing))?;
        let at = IoEventAddress::Pio(doorbell::RING.into());
        ask(
            "connecting the doorbell",
            vm.register_ioevent(&bells.submissions, &at, NoDatamatch),
        )?;
        ask(
            "connecting the completion interrupt",
            vm.register_irqfd(&bells.completions, 0),
        )
    }
}

fn unsupported(what: &'static str) -> Error {
    Error {
        what,
        source: kvm_ioctls::Error::new(libc::EOPNOTSUPP),
    }
}

/// Makes a fresh virtual CPU ready for [`start`]: filters what CPUID tells.
///
/// # Errors
/// The request that KVM refused, or what the CPU lacks.
pub fn prepare(kvm: &Kvm, _vm: &VmFd, vcpu: &VcpuFd, index: u32) -> Result<CpuFeatures, Error> {
    let cpuid = ask("asking for CPUID", kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES))?;
    let mut features = CpuFeatures::default();
    let entries: Vec<kvm_cpuid_entry2> = cpuid
        .as_slice()
        .iter()
        .filter_map(|e| filter(*e, index, &mut features))
        .collect();
    for (has, what) in [
        (features.fsgsbase, "the CPU lacks FSGSBASE"),
        (features.xsave, "the CPU lacks XSAVE"),
    ] {
        if !has {
            return Err(unsupported(what));
        }
    }
    let cpuid = CpuId::from_entries(&entries).map_err(|_| unsupported("too many CPUID entries"))?;
    ask("setting CPUID", vcpu.set_cpuid2(&cpuid))?;
    Ok(features)
}

/// What the guest sees of one CPUID leaf; `None` hides it. Notes what the kernel may use.
fn filter(mut e: kvm_cpuid_entry2, index: u32, f: &mut CpuFeatures) -> Option<kvm_cpuid_entry2> {
    let bit = |v: u32, n: u32| v >> n & 1 != 0;
    match (e.function, e.index) {
        // KVM's own leaves: QKernel uses no paravirtual clock or event.
        (0x4000_0000..=0x4000_ffff, _) => return None,
        (1, _) => {
            // MONITOR, VMX out; x2APIC, TSC-deadline, hypervisor in.
            e.ecx = e.ecx & !(1 << 3 | 1 << 5) | 1 << 21 | 1 << 24 | 1 << 31;
            e.ebx = e.ebx & 0x00ff_ffff | index << 24;
            f.xsave = bit(e.ecx, 26);
        }
        (7, 0) => {
            // Protection keys, shadow stacks, 5-level paging, RDPID (needs TSC_AUX), waiting instructions out.
            e.ecx &= !(1 << 3 | 1 << 4 | 1 << 5 | 1 << 7 | 1 << 16 | 1 << 22);
            // AMX, user interrupts, indirect branch tracking out.
            e.edx &= !(1 << 5 | 1 << 20 | 1 << 22 | 1 << 24 | 1 << 25);
            f.fsgsbase = bit(e.ebx, 0);
            f.smep = bit(e.ebx, 7);
            f.smap = bit(e.ebx, 20);
            f.umip = bit(e.ecx, 2);
        }
        (0xb | 0x1f, _) => e.edx = index,
        (0xd, 0) => {
            f.xcr0 = (u64::from(e.edx) << 32 | u64::from(e.eax)) & XCR0_ALLOWED;
            e.eax = f.xcr0 as u32;
            e.edx = (f.xcr0 >> 32) as u32;
        }
        // XSAVES and its components.
        (0xd, 1) => {
            e.eax &= !(1 << 3);
            e.ecx = 0;
            e.edx = 0;
        }
        (0xd, component) if component >= 2 && XCR0_ALLOWED >> component & 1 == 0 => return None,
        // SVM; RDTSCP (needs TSC_AUX, which stays 0).
        (0x8000_0001, _) => {
            e.ecx &= !(1 << 2);
            f.pcid = false;
        }
        (0x8000_000a, _) => return None,
        _ => {}
    }
    Some(e)
}

fn segment(selector: u16, code: bool) -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector,
        // Execute/read or read/write, accessed.
        type_: if code { 11 } else { 3 },
        present: 1,
        dpl: 0,
        db: u8::from(!code),
        s: 1,
        l: u8::from(code),
        g: 1,
        avl: 0,
        unusable: 0,
        padding: 0,
    }
}

/// Writes the first registers.
///
/// # Errors
/// The request that KVM refused.
pub fn start(vcpu: &VcpuFd, cpu: &BootCpu) -> Result<(), Error> {
    let mut s = ask("KVM_GET_SREGS", vcpu.get_sregs())?;
    s.cs = segment(KERNEL_CS, true);
    s.ss = segment(KERNEL_DS, false);
    s.ds = s.ss;
    s.es = s.ss;
    s.fs = s.ss;
    s.gs = s.ss;
    s.cr0 = cpu.cr0;
    s.cr3 = cpu.cr3;
    s.cr4 = cpu.cr4;
    s.efer = cpu.efer;
    ask("KVM_SET_SREGS", vcpu.set_sregs(&s))?;
    let mut xcrs = kvm_xcrs {
        nr_xcrs: 1,
        ..kvm_xcrs::default()
    };
    xcrs.xcrs[0].value = cpu.xcr0;
    ask("KVM_SET_XCRS", vcpu.set_xcrs(&xcrs))?;
    let r = kvm_regs {
        rip: cpu.rip,
        rsp: cpu.rsp,
        rflags: cpu.rflags,
        rdi: cpu.rdi,
        rsi: cpu.rsi,
        ..kvm_regs::default()
    };
    ask("KVM_SET_REGS", vcpu.set_regs(&r))?;
    let runnable = kvm_mp_state {
        mp_state: KVM_MP_STATE_RUNNABLE,
    };
    ask("KVM_SET_MP_STATE", vcpu.set_mp_state(runnable))
}

/// The guest's counter: ticks per second, and its value now.
///
/// # Errors
/// The request that KVM refused.
pub fn counter(vcpu: &VcpuFd) -> Result<(u64, u64), Error> {
    let khz = ask("KVM_GET_TSC_KHZ", vcpu.get_tsc_khz())?;
    let entry = kvm_msr_entry {
        index: IA32_TSC,
        ..kvm_msr_entry::default()
    };
    let mut msrs = Msrs::from_entries(&[entry]).map_err(|_| unsupported("reading the counter"))?;
    ask("KVM_GET_MSRS", vcpu.get_msrs(&mut msrs))?;
    let now = msrs.as_slice().first().map_or(0, |e| e.data);
    Ok((u64::from(khz) * 1000, now))
}

/// AT_HWCAP and AT_HWCAP2 of the filtered CPU: CPUID leaf 1's EDX, and that user mode may set FS and GS bases.
///
/// # Errors
/// The request that KVM refused.
pub fn hwcap(vcpu: &VcpuFd) -> Result<(u64, u64), Error> {
    let cpuid = ask("KVM_GET_CPUID2", vcpu.get_cpuid2(KVM_MAX_CPUID_ENTRIES))?;
    let leaf = cpuid.as_slice().iter().find(|e| e.function == 1);
    Ok((leaf.map_or(0, |e| e.edx.into()), arch::x86_64::HWCAP2_FSGSBASE))
}

/// Tells the guest that there is no memory where it just was: a machine check at the instruction that did not end.
///
/// # Errors
/// The request that KVM refused.
pub fn memory_gone(vcpu: &VcpuFd) -> Result<(), Error> {
    let mut e = ask("KVM_GET_VCPU_EVENTS", vcpu.get_vcpu_events())?;
    e.exception.injected = 1;
    e.exception.nr = vector::MEMORY_GONE;
    e.exception.has_error_code = 0;
    ask("KVM_SET_VCPU_EVENTS", vcpu.set_vcpu_events(&e))
}

/// Where a CPU starts after a reset.
const RESET_RIP: u64 = 0xfff0;

/// Registers for a message about a guest that broke.
pub fn dump(vcpu: &VcpuFd) -> String {
    let (Ok(r), Ok(s)) = (vcpu.get_regs(), vcpu.get_sregs()) else {
        return "registers unknown".to_owned();
    };
    if (r.rip, s.cr3) == (RESET_RIP, 0) {
        // AMD leaves the state undefined after a shutdown, so KVM resets the CPU.
        return "registers lost: KVM has reset the CPU (its trace event kvm:kvm_exit has rip)".to_owned();
    }
    format!(
        "rip {:#x} rsp {:#x} rflags {:#x} cs {:#x} cr2 {:#x} cr3 {:#x} cr4 {:#x} gs {:#x} gdt {:#x}+{:#x} idt {:#x}+{:#x} \
         tr {:#x} rax {:#x} rcx {:#x} rdi {:#x} rsi {:#x}",
        r.rip,
        r.rsp,
        r.rflags,
        s.cs.selector,
        s.cr2,
        s.cr3,
        s.cr4,
        s.gs.base,
        s.gdt.base,
        s.gdt.limit,
        s.idt.base,
        s.idt.limit,
        s.tr.base,
        r.rax,
        r.rcx,
        r.rdi,
        r.rsi
    )
}

/// Says what an exit means.
pub fn decode(exit: &VcpuExit<'_>) -> Exit {
    match exit {
        VcpuExit::IoOut(port, data) => {
            let mut bytes = [0; 4];
            let n = data.len().min(4);
            bytes[..n].copy_from_slice(&data[..n]);
            match *port {
                doorbell::RING => Exit::Ring,
                doorbell::START_CPUS => Exit::StartCpus,
                doorbell::STOP => Exit::Stop(u32::from_le_bytes(bytes)),
                doorbell::LOG => Exit::Log,
                _ => Exit::Broken("a write to a port that is not there"),
            }
        }
        VcpuExit::IoIn(..) => Exit::Broken("a read from a port that is not there"),
        VcpuExit::MmioRead(..) | VcpuExit::MmioWrite(..) => {
            Exit::Broken("an access to memory that is not there")
        }
        VcpuExit::Shutdown => Exit::Broken("a triple fault"),
        VcpuExit::FailEntry(..) => Exit::Broken("the CPU refused to enter the guest"),
        VcpuExit::InternalError => Exit::Broken("KVM cannot emulate what the guest did"),
        VcpuExit::Intr | VcpuExit::Hlt => Exit::Interrupted,
        _ => Exit::Broken("an exit that means nothing here"),
    }
}

std::arch::global_asm!(
    ".pushsection .rodata.quark_self_test, \"a\"",
    ".globl quark_self_test",
    "quark_self_test:",
    // STAR: kernel code 0x10, user base 0x23.
    "mov ecx, 0xc0000081",
    "xor eax, eax",
    "mov edx, 0x00230010",
    "wrmsr",
    "mov ecx, 0xc0000082",
    "lea rax, [rip + 2f]",
    "mov rdx, rax",
    "shr rdx, 32",
    "wrmsr",
    "mov ecx, 0xc0000084",
    "mov eax, 0x200",
    "xor edx, edx",
    "wrmsr",
    "mov r12d, 2000",
    "mov rcx, rdi",
    "mov r11d, 2",
    "sysretq",
    // The system call: the app has put its code selector into r14.
    "2: mov eax, 1",
    "cmp r14d, 0x33",
    "jne 3f",
    "mov eax, cs",
    "cmp eax, 0x10",
    "mov eax, 2",
    "jne 3f",
    "xor eax, eax",
    "dec r12d",
    "jz 3f",
    "sysretq",
    "3: mov edx, 0x518",
    "out dx, eax",
    "4: jmp 4b",
    ".globl quark_self_test_user",
    "quark_self_test_user:",
    "5: mov r14d, cs",
    "syscall",
    "jmp 5b",
    ".globl quark_self_test_end",
    "quark_self_test_end:",
    ".popsection",
);

unsafe extern "C" {
    static quark_self_test: u8;
    static quark_self_test_user: u8;
    static quark_self_test_end: u8;
}

/// The self-test of this architecture.
pub fn self_test() -> super::SelfTest {
    let [start, user, end] = [
        &raw const quark_self_test,
        &raw const quark_self_test_user,
        &raw const quark_self_test_end,
    ];
    let (kernel_len, user_len) = (user as usize - start as usize, end as usize - user as usize);
    // SAFETY: the three labels delimit bytes assembled above, which are never written.
    let kernel = unsafe { std::slice::from_raw_parts(start, kernel_len) };
    // SAFETY: as above.
    let user = unsafe { std::slice::from_raw_parts(user, user_len) };
    super::SelfTest { kernel, user }
}
