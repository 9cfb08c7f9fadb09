//! The `kvm` machine: a virtual machine of RAM, virtual CPUs, a window for host files, and two rings. No other devices.

mod engine;
mod image;
mod layout;
mod memory;
mod probe;
mod relay;
mod rings;
mod service;
mod window;

pub use probe::probe;

use super::process::BootParams;
use crate::confined;
use crate::seccomp::Role;
use crate::vcpu::{self, Bells, Exit};
use arch::boot::CpuFeatures;
use engine::Engine;
use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use layout::Layout;
use memory::Memory;
use rings::Area;
use rustix::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};
use rustix::rand::GetRandomFlags;
use service::{Ending, Service};
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use window::Window;

/// Largest kernel image accepted, bytes.
const MAX_IMAGE: u64 = 256 << 20;
/// Memory beyond the container's limit, for the kernel's own needs.
const KERNEL_RAM: u64 = 128 << 20;
/// Guest-physical room for host files.
const WINDOW_BYTES: u64 = 8 << 30;
/// Log level at which the machine tells of itself.
const DEBUG: u32 = 4;
/// Exit code of a machine that could not be made or broke (EX_OSERR).
const BROKEN: i32 = 71;

/// Why the virtual machine could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `/dev/kvm` cannot be opened.
    #[error("/dev/kvm: {0}")]
    Open(rustix::io::Errno),
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
    Host(&'static str, rustix::io::Errno),
    /// A thread or an event descriptor could not be made.
    #[error("{0}: {1}")]
    Os(&'static str, std::io::Error),
    /// A request to KVM failed.
    #[error(transparent)]
    Kvm(#[from] vcpu::Error),
    /// The guest's memory does not hold the kernel.
    #[error("the memory limit is too small for the guest kernel")]
    TooSmall,
}

/// All that is needed to start the machine. The descriptors are the child's ends.
pub struct Launch {
    /// `/dev/kvm`, from [`open`].
    pub kvm: OwnedFd,
    /// The QKernel ELF file.
    pub kernel: OwnedFd,
    /// Boot parameters.
    pub boot: BootParams,
    /// The control channel (`SOCK_SEQPACKET`).
    pub control: OwnedFd,
    /// Where log lines go.
    pub log: OwnedFd,
    /// Who does the guest's data operations.
    pub engine: super::Engine,
}

/// Confines the calling thread to what the role needs.
pub type Confine = Arc<dyn Fn(Role) -> std::io::Result<()> + Send + Sync>;

/// Which engine a machine would have, in words for a person.
pub fn describe_engine(request: super::Engine) -> String {
    match Engine::choose(request) {
        Ok((_, why)) => why,
        Err(e) => format!("none: the host has no io_uring: {e}"),
    }
}

/// Opens `/dev/kvm`.
///
/// # Errors
/// [`Error::Open`].
pub fn open() -> Result<OwnedFd, Error> {
    use rustix::fs::{Mode, OFlags};
    rustix::fs::open("/dev/kvm", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(Error::Open)
}

/// A machine that is ready to be made in the process that is to run it.
pub struct Prepared {
    kvm: OwnedFd,
    image: Vec<u8>,
    boot: BootParams,
    control: OwnedFd,
    log: OwnedFd,
    engine: super::Engine,
}

fn random(buf: &mut [u8]) -> Result<(), Error> {
    match rustix::rand::getrandom(&mut *buf, GetRandomFlags::empty()) {
        Ok(n) if n == buf.len() => Ok(()),
        Ok(_) => Err(Error::Host("getrandom", rustix::io::Errno::IO)),
        Err(e) => Err(Error::Host("getrandom", e)),
    }
}

/// Reads the image; makes nothing yet, because a virtual machine belongs to the process that makes it.
///
/// # Errors
/// The image cannot be read.
pub fn prepare(l: Launch) -> Result<Prepared, Error> {
    let file = std::fs::File::from(l.kernel);
    let length = file.metadata().map_err(Error::Image)?.len();
    if length > MAX_IMAGE {
        return Err(Error::Format("it is too large"));
    }
    let mut image = vec![0; length as usize];
    file.read_exact_at(&mut image, 0).map_err(Error::Image)?;
    Ok(Prepared {
        kvm: l.kvm,
        image,
        boot: l.boot,
        control: l.control,
        log: l.log,
        engine: l.engine,
    })
}

impl Prepared {
    /// Descriptors that must stay open in the process that runs the machine.
    pub fn survivors(&self) -> Vec<RawFd> {
        [&self.kvm, &self.control, &self.log]
            .iter()
            .map(|f| f.as_raw_fd())
            .collect()
    }

    /// Makes the machine, runs the guest when every thread is confined, and ends the process with the guest's exit code. A
    /// failure is written to the log descriptor.
    pub fn enter(self, confine: Confine) -> ! {
        let log = self.log.try_clone();
        let code = match self.run(&confine) {
            Ok((code, reason)) => {
                // A container that ends with a status of its own is no error, and has no reason.
                if code != 0 && !reason.is_empty() {
                    complain(&log, &reason);
                }
                code
            }
            Err(e) => {
                complain(&log, &e.to_string());
                BROKEN
            }
        };
        // SAFETY: ends the process with all its threads; nothing that was forked is flushed or dropped.
        unsafe { libc::_exit(code) }
    }

    fn run(self, confine: &Confine) -> Result<Ending, Error> {
        let _ = rustix::thread::set_name(c"quark-machine");
        // SAFETY: the descriptor is that of /dev/kvm, and it is given away.
        let kvm = unsafe { <Kvm as std::os::fd::FromRawFd>::from_raw_fd(self.kvm.into_raw_fd()) };
        let vm = vcpu::ask("KVM_CREATE_VM", kvm.create_vm())?;
        let memory = Arc::new(Memory::new(vcpu::RAM_BASE, ram_bytes(&self.boot))?);
        let window = Window::new(memory.end().next_multiple_of(1 << 30), WINDOW_BYTES)?;
        add_slot(
            &vm,
            0,
            memory.start(),
            memory.end() - memory.start(),
            memory.host_address(),
        )?;
        add_slot(&vm, 1, window.start(), window.len(), window.host_address())?;
        let interrupts = vcpu::create_interrupts(&vm)?;
        let cpus = self.boot.cpus.max(1);
        let mut vcpus: Vec<(VcpuFd, CpuFeatures)> = Vec::new();
        for i in 0..cpus {
            let v = vcpu::ask("KVM_CREATE_VCPU", vm.create_vcpu(i.into()))?;
            let features = vcpu::prepare(&kvm, &vm, &v, i)?;
            vcpus.push((v, features));
        }
        let bells = Bells::new().map_err(|e| Error::Os("eventfd", e))?;
        interrupts.finish(&vm, &bells)?;
        let mut layout = Layout::build(&self.image, &memory, &window, &self.boot)?;
        let (hz, now) = vcpu::counter(&vcpus[0].0)?;
        layout.info.counter_hz = hz;
        let wall = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| d.as_nanos() as u64);
        layout.info.realtime_offset_ns =
            wall.wrapping_sub((u128::from(now) * 1_000_000_000 / u128::from(hz.max(1))) as u64);
        (layout.info.hwcap, layout.info.hwcap2) = vcpu::hwcap(&vcpus[0].0)?;
        layout.write_info(&memory);
        for (i, (v, features)) in vcpus.iter().enumerate() {
            vcpu::start(v, &vcpu::boot_cpu(&layout.plan(i as u32, *features)))?;
        }
        let area = Area::new(memory, layout.rings()).ok_or(Error::TooSmall)?;
        let (ending, ended) = channel();
        let (engine, why) = Engine::choose(self.engine).map_err(|e| Error::Os("io_uring", e))?;
        if self.boot.log_level >= DEBUG {
            let _ = rustix::io::write(&self.log, format!("DEBUG engine: {why}\n").as_bytes());
        }
        let service = Service::start(
            area,
            window,
            bells,
            self.control,
            self.log,
            ending.clone(),
            engine,
            confine,
        )
        .map_err(|e| Error::Os("starting the service threads", e))?;
        let gate = Arc::new(Gate::default());
        for (i, (v, _)) in vcpus.into_iter().enumerate() {
            let (service, gate, ending) = (service.clone(), gate.clone(), ending.clone());
            let confine = confine.clone();
            confined::spawn(
                format!("quark-vcpu{i}"),
                512 << 10,
                move || confine(Role::Vcpu),
                move || run_vcpu(v, i == 0, &service, &gate, &ending),
            )
            .map_err(|e| Error::Os("starting a virtual CPU's thread", e))?;
        }
        confine(Role::Keeper).map_err(|e| Error::Os("confining the virtual machine", e))?;
        gate.open(START);
        let verdict = ended
            .recv()
            .unwrap_or((BROKEN, "the machine's threads ended".to_owned()));
        // The interrupt controller and the VM live until here.
        drop((interrupts, vm));
        Ok(verdict)
    }
}

fn complain(log: &std::io::Result<OwnedFd>, why: &str) {
    if let Ok(log) = log {
        let _ = rustix::io::write(log, format!("ERROR {why}\n").as_bytes());
    }
}

/// The guest's RAM: what the container may use and the kernel needs besides, at most what the host has.
fn ram_bytes(boot: &BootParams) -> u64 {
    let host = rustix::system::sysinfo();
    let most = (host.totalram as u64).saturating_mul(u64::from(host.mem_unit));
    // The kernel's own needs grow with what its apps use: page tables, files in memory.
    let wanted = boot
        .memory_limit
        .saturating_add(boot.memory_limit / 8)
        .saturating_add(KERNEL_RAM);
    wanted.min(most.max(KERNEL_RAM)) & !(arch::table::BLOCK_SIZE - 1)
}

fn add_slot(vm: &VmFd, slot: u32, start: u64, len: u64, host: u64) -> Result<(), Error> {
    let region = kvm_userspace_memory_region {
        slot,
        flags: 0,
        guest_phys_addr: start,
        memory_size: len,
        userspace_addr: host,
    };
    // SAFETY: the range is a mapping of this process that lives as long as the VM: the process ends before either goes.
    let r = unsafe { vm.set_user_memory_region(region) };
    Ok(vcpu::ask("giving memory to the VM", r)?)
}

/// Nobody may run.
const CLOSED: u32 = 0;
/// The boot CPU may run.
const START: u32 = 1;
/// All may.
const ALL: u32 = 2;

/// Where virtual CPUs wait for their start.
#[derive(Default)]
struct Gate {
    state: Mutex<u32>,
    changed: Condvar,
}

impl Gate {
    fn open(&self, to: u32) {
        let mut s = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *s = (*s).max(to);
        self.changed.notify_all();
    }
    fn wait(&self, needed: u32) {
        let mut s = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while *s < needed.max(CLOSED + 1) {
            s = self.changed.wait(s).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// A virtual CPU's thread.
fn run_vcpu(mut v: VcpuFd, boot: bool, service: &Service, gate: &Gate, ending: &Sender<Ending>) {
    gate.wait(if boot { START } else { ALL });
    let broken = |v: &VcpuFd, what: &str| {
        let _ = ending.send((
            BROKEN,
            format!("the guest kernel broke: {what}; {}", vcpu::dump(v)),
        ));
    };
    loop {
        let exit = match v.run() {
            Ok(exit) => vcpu::decode(&exit),
            Err(e) if e.errno() == libc::EINTR || e.errno() == libc::EAGAIN => Exit::Interrupted,
            // A file under the window became shorter.
            Err(e) if e.errno() == libc::EFAULT && service.window_is_short() => match vcpu::memory_gone(&v) {
                Ok(()) => Exit::Interrupted,
                Err(e) => return broken(&v, &e.to_string()),
            },
            Err(e) => return broken(&v, &format!("KVM_RUN: {e}")),
        };
        match exit {
            Exit::Ring => service.ring(),
            Exit::StartCpus => gate.open(ALL),
            Exit::Stop(code) => {
                service.end(code as i32, service.reason());
                return;
            }
            Exit::Log => service.log_line(),
            Exit::Interrupted => {}
            Exit::Broken(what) => return broken(&v, what),
        }
    }
}
