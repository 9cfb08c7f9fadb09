//! What an exception says: ESR_EL1 and FAR_EL1 decoded (Arm ARM D24.2.40, "ESR_EL1").

/// How memory was touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touch {
    /// Load.
    Read,
    /// Store.
    Write,
    /// Instruction fetch.
    Execute,
}

/// A synchronous exception, in the kernel's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exception {
    /// SVC from 64-bit code.
    Syscall,
    /// A translation, access-flag or permission fault.
    PageFault {
        /// Address touched, without its tag.
        addr: u64,
        /// How.
        touch: Touch,
    },
    /// An external abort, or a mapping that no memory answers behind.
    BusError {
        /// Address touched, without its tag.
        addr: u64,
    },
    /// A misaligned access, program counter or stack pointer.
    Alignment {
        /// Address touched, without its tag.
        addr: u64,
    },
    /// An instruction that is undefined here, or that the kernel does not grant.
    Illegal,
    /// BRK, a hardware breakpoint or a watchpoint.
    Breakpoint,
    /// One instruction was stepped.
    Step,
    /// A trapped floating-point exception; the value is `si_code` (FPE_*).
    Arithmetic(i32),
    /// None of these: the kernel has a bug, or the machine does.
    Other,
}

/// Exception class: bits 31–26.
const fn class(esr: u64) -> u64 {
    esr >> 26 & 0x3f
}

/// EC of a misaligned stack pointer.
pub const CLASS_SP_ALIGNMENT: u64 = 0x26;
/// EC of an SVC from 64-bit code.
pub const CLASS_SVC64: u64 = 0x15;

/// `si_code` values of SIGFPE (`uapi/asm-generic/siginfo.h`).
const FPE_FLTDIV: i32 = 3;
const FPE_FLTOVF: i32 = 4;
const FPE_FLTUND: i32 = 5;
const FPE_FLTRES: i32 = 6;
const FPE_FLTINV: i32 = 7;
const FPE_FLTUNK: i32 = 14;

/// Takes the tag (top byte) off a user address: TCR_EL1.TBI0 lets apps carry one.
pub const fn untag(addr: u64) -> u64 {
    if addr & 1 << 55 == 0 {
        addr & 0x00ff_ffff_ffff_ffff
    } else {
        addr
    }
}

/// Decodes a synchronous exception.
pub fn decode(esr: u64, far: u64) -> Exception {
    let addr = untag(far);
    match class(esr) {
        CLASS_SVC64 => Exception::Syscall,
        0x20 | 0x21 => abort(esr, addr, Touch::Execute),
        0x24 | 0x25 => {
            // Cache maintenance by address reports itself as a write but needs no more than read permission.
            let (writes, maintenance) = (esr & 1 << 6 != 0, esr & 1 << 8 != 0);
            abort(
                esr,
                addr,
                if writes && !maintenance {
                    Touch::Write
                } else {
                    Touch::Read
                },
            )
        }
        // Of the program counter, of the stack pointer.
        0x22 | CLASS_SP_ALIGNMENT => Exception::Alignment { addr },
        0x2c => Exception::Arithmetic(fpe_code(esr)),
        0x30 | 0x31 | 0x34 | 0x35 | 0x3c => Exception::Breakpoint,
        0x32 | 0x33 => Exception::Step,
        // Unknown, WFx, FP/SVE/SME access, PAuth, BTI, illegal state, SVC32, trapped system registers, FPAC.
        0x00 | 0x01 | 0x07 | 0x09 | 0x0d | 0x0e | 0x11 | 0x18 | 0x19 | 0x1c | 0x1d | 0x38 => {
            Exception::Illegal
        }
        _ => Exception::Other,
    }
}

/// Decodes the fault status code of an instruction or data abort.
fn abort(esr: u64, addr: u64, touch: Touch) -> Exception {
    match esr & 0x3f {
        // Translation, access-flag and permission faults at levels 0..=3.
        0x04..=0x0f => Exception::PageFault { addr, touch },
        // Address size faults: nothing can be there.
        0x00..=0x03 => Exception::PageFault { addr, touch },
        0x21 => Exception::Alignment { addr },
        // External aborts, ECC errors, unsupported atomics on odd memory types.
        _ => Exception::BusError { addr },
    }
}

/// `si_code` of a trapped floating-point exception, in Linux's order of precedence.
fn fpe_code(esr: u64) -> i32 {
    // TFV: whether the flags below mean anything.
    if esr & 1 << 23 == 0 {
        return FPE_FLTUNK;
    }
    let order = [
        (0, FPE_FLTINV),
        (1, FPE_FLTDIV),
        (2, FPE_FLTOVF),
        (3, FPE_FLTUND),
        (4, FPE_FLTRES),
    ];
    order
        .iter()
        .find(|(bit, _)| esr & 1 << bit != 0)
        .map_or(FPE_FLTUNK, |(_, code)| *code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_calls_and_aborts() {
        assert_eq!(decode(0x5600_0000, 0), Exception::Syscall);
        // Write, translation fault level 3, EL0.
        let e = decode(0x9200_0047, 0x1234);
        assert_eq!(
            e,
            Exception::PageFault {
                addr: 0x1234,
                touch: Touch::Write
            }
        );
        // Read, permission fault level 3, tagged address.
        let e = decode(0x9200_000f, 0xab00_0000_0000_1000);
        assert_eq!(
            e,
            Exception::PageFault {
                addr: 0x1000,
                touch: Touch::Read
            }
        );
        // DC CVAU on an unmapped page says WnR, and is a read.
        let e = decode(0x9200_0147, 0x2000);
        assert_eq!(
            e,
            Exception::PageFault {
                addr: 0x2000,
                touch: Touch::Read
            }
        );
        let e = decode(0x8200_0007, 0x3000);
        assert_eq!(
            e,
            Exception::PageFault {
                addr: 0x3000,
                touch: Touch::Execute
            }
        );
        assert_eq!(decode(0x9200_0021, 3), Exception::Alignment { addr: 3 });
        assert_eq!(decode(0x9200_0010, 3), Exception::BusError { addr: 3 });
    }

    #[test]
    fn kernel_addresses_keep_their_top() {
        assert_eq!(untag(0xffff_8000_0000_0000), 0xffff_8000_0000_0000);
    }

    #[test]
    fn debug_illegal_and_floating_point() {
        assert_eq!(decode(0xf200_0000, 0), Exception::Breakpoint);
        assert_eq!(decode(0xca00_0022, 0), Exception::Step);
        assert_eq!(decode(0x0200_0000, 0), Exception::Illegal);
        assert_eq!(decode(0x6232_0000, 0), Exception::Illegal);
        assert_eq!(decode(0xb280_0002, 0), Exception::Arithmetic(FPE_FLTDIV));
        assert_eq!(decode(0xb200_0002, 0), Exception::Arithmetic(FPE_FLTUNK));
    }
}
