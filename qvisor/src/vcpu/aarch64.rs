//! aarch64: KVM_ARM_VCPU_INIT, KVM_SET_ONE_REG, the GICv3 device.

use super::{Bells, Error, Exit, ask};
use arch::aarch64::boot::BootCpu;
use arch::aarch64::hwcap::{self, IdRegisters};
use arch::aarch64::{doorbell, vector};
use arch::boot::CpuFeatures;
use kvm_bindings::{
    KVM_ARM_VCPU_PSCI_0_2, KVM_DEV_ARM_VGIC_CTRL_INIT, KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_DEV_ARM_VGIC_GRP_CTRL,
    KVM_DEV_ARM_VGIC_GRP_NR_IRQS, KVM_REG_ARM_CORE, KVM_REG_ARM64, KVM_REG_ARM64_SYSREG, KVM_REG_SIZE_U64,
    KVM_VGIC_V3_ADDR_TYPE_DIST, KVM_VGIC_V3_ADDR_TYPE_REDIST, kvm_create_device, kvm_device_attr,
    kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_V3, kvm_vcpu_init,
};
use kvm_ioctls::{DeviceFd, IoEventAddress, Kvm, NoDatamatch, VcpuExit, VcpuFd, VmFd};

pub use arch::aarch64::boot::{RAM_BASE, boot_cpu};
pub use arch::aarch64::paging::{DEVICE_MAPS, KERNEL_HALF, Pte, SHARED_ROOT};

/// A core register: its place in `struct kvm_regs` in words of 32 bits (`uapi/asm/kvm.h`).
const fn core(word: u64) -> u64 {
    KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE as u64 | word
}

/// A system register by its encoding.
const fn system(op0: u64, op1: u64, crn: u64, crm: u64, op2: u64) -> u64 {
    let encoding = op0 << 14 | op1 << 11 | crn << 7 | crm << 3 | op2;
    KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM64_SYSREG as u64 | encoding
}

const X0: u64 = core(0);
const X1: u64 = core(2);
const PC: u64 = core(64);
const PSTATE: u64 = core(66);
const SP_EL1: u64 = core(68);
const SCTLR_EL1: u64 = system(3, 0, 1, 0, 0);
const CPACR_EL1: u64 = system(3, 0, 1, 0, 2);
const TTBR0_EL1: u64 = system(3, 0, 2, 0, 0);
const TTBR1_EL1: u64 = system(3, 0, 2, 0, 1);
const TCR_EL1: u64 = system(3, 0, 2, 0, 2);
const MAIR_EL1: u64 = system(3, 0, 10, 2, 0);
const CNTKCTL_EL1: u64 = system(3, 0, 14, 1, 0);
/// The virtual counter (`KVM_REG_ARM_TIMER_CNT`: its encoding is KVM's, not the register's).
const TIMER_COUNT: u64 = system(3, 3, 14, 3, 2);

const ID_AA64PFR0_EL1: u64 = system(3, 0, 0, 4, 0);
const ID_AA64PFR1_EL1: u64 = system(3, 0, 0, 4, 1);
const ID_AA64ISAR0_EL1: u64 = system(3, 0, 0, 6, 0);
const ID_AA64ISAR1_EL1: u64 = system(3, 0, 0, 6, 1);
const ID_AA64ISAR2_EL1: u64 = system(3, 0, 0, 6, 2);
const ID_AA64MMFR2_EL1: u64 = system(3, 0, 0, 7, 2);

/// Fields of ID registers that are hidden from the guest: what QKernel does not switch for its apps.
const HIDDEN: &[(u64, &[u32])] = &[
    // SVE, MPAM, AMU.
    (ID_AA64PFR0_EL1, &[32, 40, 44]),
    // MTE, SME.
    (ID_AA64PFR1_EL1, &[8, 24]),
    // APA, API, GPA, GPI (pointer authentication).
    (ID_AA64ISAR1_EL1, &[4, 8, 24, 28]),
    // GPA3, APA3.
    (ID_AA64ISAR2_EL1, &[8, 12]),
];

/// The interrupt controller of a VM; it lives as long as this.
pub struct Interrupts(DeviceFd);

fn attribute(group: u32, attr: u64, value: Option<&u64>) -> kvm_device_attr {
    kvm_device_attr {
        flags: 0,
        group,
        attr,
        addr: value.map_or(0, |v| core::ptr::from_ref(v) as u64),
    }
}

/// Creates the interrupt controller. Called before the virtual CPUs are made; [`Interrupts::finish`] after.
///
/// # Errors
/// The request that KVM refused.
pub fn create_interrupts(vm: &VmFd) -> Result<Interrupts, Error> {
    let mut device = kvm_create_device {
        type_: kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_V3,
        fd: 0,
        flags: 0,
    };
    ask(
        "creating the interrupt controller (GICv3)",
        vm.create_device(&mut device),
    )
    .map(Interrupts)
}

impl Interrupts {
    /// Puts the controller in its place and connects the bells. All virtual CPUs exist, none has run.
    ///
    /// # Errors
    /// The request that KVM refused.
    pub fn finish(&self, vm: &VmFd, bells: &Bells) -> Result<(), Error> {
        // The kernel reads a `u32` here; the machine is little-endian.
        let count = u64::from(vector::COUNT);
        let (distributor, redistributors) = (vector::DISTRIBUTOR, vector::REDISTRIBUTORS);
        let settings = [
            attribute(KVM_DEV_ARM_VGIC_GRP_NR_IRQS, 0, Some(&count)),
            attribute(
                KVM_DEV_ARM_VGIC_GRP_ADDR,
                KVM_VGIC_V3_ADDR_TYPE_DIST.into(),
                Some(&distributor),
            ),
            attribute(
                KVM_DEV_ARM_VGIC_GRP_ADDR,
                KVM_VGIC_V3_ADDR_TYPE_REDIST.into(),
                Some(&redistributors),
            ),
            attribute(KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_CTRL_INIT.into(), None),
        ];
        for s in &settings {
            ask("setting the interrupt controller up", self.0.set_device_attr(s))?;
        }
        let at = IoEventAddress::Mmio(doorbell::RING);
        ask(
            "connecting the doorbell",
            vm.register_ioevent(&bells.submissions, &at, NoDatamatch),
        )?;
        // GSIs are the shared peripheral interrupts, counted from the first.
        ask(
            "connecting the completion interrupt",
            vm.register_irqfd(&bells.completions, vector::HOST - 32),
        )
    }
}

/// Makes a fresh virtual CPU ready for [`start`].
///
/// # Errors
/// The request that KVM refused.
pub fn prepare(_kvm: &Kvm, vm: &VmFd, vcpu: &VcpuFd, _index: u32) -> Result<CpuFeatures, Error> {
    let mut init = kvm_vcpu_init::default();
    ask("asking for the CPU model", vm.get_preferred_target(&mut init))?;
    // Pointer authentication is not asked for, and with it hidden.
    init.features[0] |= 1 << KVM_ARM_VCPU_PSCI_0_2;
    ask("initialising a virtual CPU", vcpu.vcpu_init(&init))?;
    for (register, fields) in HIDDEN {
        let Ok(old) = get(vcpu, *register) else { continue };
        let new = fields.iter().fold(old, |v, shift| v & !(15 << shift));
        // Kernels before 6.6 refuse: what they show the guest is what QKernel asks for by itself anyway.
        if new != old {
            let _ = set(vcpu, *register, new);
        }
    }
    Ok(CpuFeatures::default())
}

fn set(vcpu: &VcpuFd, register: u64, value: u64) -> Result<(), Error> {
    ask(
        "setting a register",
        vcpu.set_one_reg(register, &value.to_le_bytes()),
    )
    .map(|_| ())
}

fn get(vcpu: &VcpuFd, register: u64) -> Result<u64, Error> {
    let mut bytes = [0; 8];
    ask("reading a register", vcpu.get_one_reg(register, &mut bytes))?;
    Ok(u64::from_le_bytes(bytes))
}

/// Writes the first registers.
///
/// # Errors
/// The request that KVM refused.
pub fn start(vcpu: &VcpuFd, cpu: &BootCpu) -> Result<(), Error> {
    let values = [
        (X0, cpu.x[0]),
        (X1, cpu.x[1]),
        (PC, cpu.pc),
        (SP_EL1, cpu.sp),
        (PSTATE, cpu.pstate),
        (MAIR_EL1, cpu.mair),
        (TCR_EL1, cpu.tcr),
        (TTBR0_EL1, cpu.ttbr0),
        (TTBR1_EL1, cpu.ttbr1),
        (CPACR_EL1, cpu.cpacr),
        (CNTKCTL_EL1, cpu.cntkctl),
        (SCTLR_EL1, cpu.sctlr),
    ];
    for (register, value) in values {
        set(vcpu, register, value)?;
    }
    Ok(())
}

/// The guest's counter: ticks per second, and its value now.
///
/// # Errors
/// The request that KVM refused.
pub fn counter(vcpu: &VcpuFd) -> Result<(u64, u64), Error> {
    let hz: u64;
    // SAFETY: CNTFRQ_EL0 is readable in user mode on Linux (`arch_timer` grants it) and reading has no effect.
    unsafe { core::arch::asm!("mrs {}, cntfrq_el0", out(reg) hz, options(nomem, nostack, preserves_flags)) };
    Ok((hz, get(vcpu, TIMER_COUNT)?))
}

/// Tells the guest that there is no memory where it just was: an external abort at the instruction that did not end, with the
/// address.
///
/// # Errors
/// The request that KVM refused.
pub fn memory_gone(vcpu: &VcpuFd) -> Result<(), Error> {
    let mut e = ask("KVM_GET_VCPU_EVENTS", vcpu.get_vcpu_events())?;
    e.exception.ext_dabt_pending = 1;
    ask("KVM_SET_VCPU_EVENTS", vcpu.set_vcpu_events(&e))
}

/// Registers for a message about a guest that broke.
pub fn dump(vcpu: &VcpuFd) -> String {
    let [pc, sp, pstate] = [PC, SP_EL1, PSTATE].map(|r| get(vcpu, r).unwrap_or(0));
    let [esr, far, elr] =
        [system(3, 0, 5, 2, 0), system(3, 0, 6, 0, 0), core(70)].map(|r| get(vcpu, r).unwrap_or(0));
    format!("pc {pc:#x} sp {sp:#x} pstate {pstate:#x} esr {esr:#x} far {far:#x} elr {elr:#x}")
}

/// Says what an exit means.
pub fn decode(exit: &VcpuExit<'_>) -> Exit {
    match exit {
        VcpuExit::MmioWrite(at, data) => {
            let mut bytes = [0; 4];
            let n = data.len().min(4);
            bytes[..n].copy_from_slice(&data[..n]);
            let value = u32::from_le_bytes(bytes);
            match *at {
                doorbell::RING => Exit::Ring,
                doorbell::START_CPUS => Exit::StartCpus,
                doorbell::STOP => Exit::Stop(value),
                doorbell::LOG => Exit::Log,
                _ => Exit::Broken("a store to a device that is not there"),
            }
        }
        VcpuExit::MmioRead(..) => Exit::Broken("a load from a device that is not there"),
        VcpuExit::SystemEvent(..) => Exit::Broken("an unexpected power request"),
        VcpuExit::FailEntry(..) => Exit::Broken("the CPU refused to enter the guest"),
        VcpuExit::InternalError => Exit::Broken("KVM cannot emulate what the guest did"),
        VcpuExit::Intr => Exit::Interrupted,
        _ => Exit::Broken("an exit that means nothing here"),
    }
}

/// AT_HWCAP and AT_HWCAP2 of the filtered CPU.
///
/// # Errors
/// The request that KVM refused.
pub fn hwcap(vcpu: &VcpuFd) -> Result<(u64, u64), Error> {
    // Where KVM did not let a field be hidden, it is left out here all the same.
    let visible = |register: u64| {
        let hidden = HIDDEN
            .iter()
            .find(|(r, _)| *r == register)
            .map_or(&[][..], |(_, f)| f);
        let value = get(vcpu, register)?;
        Ok::<u64, Error>(hidden.iter().fold(value, |v, shift| v & !(15 << shift)))
    };
    Ok(hwcap::hwcap(&IdRegisters {
        pfr0: visible(ID_AA64PFR0_EL1)?,
        pfr1: visible(ID_AA64PFR1_EL1)?,
        isar0: visible(ID_AA64ISAR0_EL1)?,
        isar1: visible(ID_AA64ISAR1_EL1)?,
        mmfr2: visible(ID_AA64MMFR2_EL1)?,
    }))
}

/// Where the self-test's guest says that it stops: [`doorbell::STOP`] as the kernel sees it.
const STOP: u64 = doorbell::VIRT + (doorbell::STOP - doorbell::PHYS);

std::arch::global_asm!(
    ".pushsection .rodata.quark_self_test, \"a\"",
    ".balign 2048",
    ".globl quark_self_test",
    "quark_self_test:",
    // x0: the app's page.
    "adr x1, 2f",
    "msr vbar_el1, x1",
    "mov x2, #0x3c0",
    "msr spsr_el1, x2",
    "msr elr_el1, x0",
    "mov x19, #2000",
    "isb",
    "eret",
    // The end: w0 is the verdict.
    "3:",
    "movz x1, #{stop0}",
    "movk x1, #{stop1}, lsl #16",
    "movk x1, #{stop2}, lsl #32",
    "movk x1, #{stop3}, lsl #48",
    "str w0, [x1]",
    "4: b 4b",
    // The vectors, which fill the rest of the page. What is not a system call of the app ends the test.
    ".balign 2048",
    "2:",
    ".rept 8",
    "mov w0, #1",
    "b 3b",
    ".balign 128",
    ".endr",
    // Synchronous, from EL0 in AArch64 state.
    "mrs x1, esr_el1",
    "lsr x1, x1, #26",
    "mov w0, #2",
    "cmp x1, #0x15",
    "b.ne 3b",
    "mov w0, #0",
    "subs x19, x19, #1",
    "b.eq 3b",
    "eret",
    ".balign 128",
    ".rept 7",
    "mov w0, #1",
    "b 3b",
    ".balign 128",
    ".endr",
    ".globl quark_self_test_user",
    "quark_self_test_user:",
    "5: svc #0",
    "b 5b",
    ".globl quark_self_test_end",
    "quark_self_test_end:",
    ".popsection",
    stop0 = const STOP & 0xffff,
    stop1 = const STOP >> 16 & 0xffff,
    stop2 = const STOP >> 32 & 0xffff,
    stop3 = const STOP >> 48,
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
