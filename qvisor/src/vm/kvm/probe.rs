//! Shows that `/dev/kvm` runs guests correctly and fast: boots a guest of a few instructions whose user mode makes system
//! calls. It runs in a process of its own, because a KVM that emulates may hang in it.

use super::memory::Memory;
use super::{Error, add_slot};
use crate::vcpu::{self, Bells, DEVICE_MAPS, Exit, KERNEL_HALF, Pte, SHARED_ROOT, SelfTest};
use arch::boot::BootPlan;
use arch::table::{Attr, Store, Tables};
use kvm_ioctls::Kvm;
use qlib::{PAGE_SIZE, PhysAddr, VirtAddr};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fd::{AsFd, IntoRawFd, OwnedFd};
use rustix::process::{Pid, Signal, WaitOptions};
use std::time::{Duration, Instant};

/// A guest that takes longer is not one a person would want.
const PATIENCE: Timespec = Timespec {
    tv_sec: 10,
    tv_nsec: 0,
};
/// Slowest system call that still counts as hardware virtualization. Nested in a busy emulated machine one takes up to 20 µs;
/// what emulates ring 0 instruction by instruction needs several times as much for each of them.
const SLOWEST: Duration = Duration::from_micros(100);
/// Other work on the machine can slow any one round; what the machine is slows them all.
const ROUNDS: usize = 5;

/// Tests `/dev/kvm`; what was found, in words for a person.
///
/// # Errors
/// Why it cannot be used.
pub fn probe(kvm: OwnedFd) -> Result<String, String> {
    let failed = |what: &str, e: rustix::io::Errno| format!("{what}: {}", std::io::Error::from(e));
    let (read, write) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|e| failed("pipe", e))?;
    let child = crate::sys::fork_into(0).map_err(|e| format!("the self-test's process: {e}"))?;
    if child == 0 {
        let verdict = match best_round(&kvm) {
            Ok(Ok(per_call)) if per_call > SLOWEST => format!(
                "-/dev/kvm is present but emulates ring 0 in software: a system call takes {} µs",
                per_call.as_micros()
            ),
            Ok(Ok(per_call)) => format!("+user mode works, a system call takes {} ns", per_call.as_nanos()),
            Ok(Err(why)) => format!("-{why}"),
            Err(e) => format!("-/dev/kvm is present, but not fit for guests: {e}"),
        };
        let _ = rustix::io::write(&write, verdict.as_bytes());
        crate::sys::exit_now(0);
    }
    drop((write, kvm));
    let verdict = hear(&read);
    let pid = Pid::from_raw(child);
    if let Some(pid) = pid {
        let _ = rustix::process::kill_process(pid, Signal::KILL);
        let _ = rustix::process::waitpid(Some(pid), WaitOptions::empty());
    }
    verdict
}

/// The time of a call in the first round that is fast enough, or in the best; or why KVM is not fit.
fn best_round(kvm: &OwnedFd) -> Result<Result<Duration, String>, Error> {
    let mut best = Duration::MAX;
    for _ in 0..ROUNDS {
        match run(kvm.try_clone().map_err(|e| Error::Os("dup", e))?)? {
            Ok(per_call) => best = best.min(per_call),
            no => return Ok(no),
        }
        if best <= SLOWEST {
            break;
        }
    }
    Ok(Ok(best))
}

/// Waits for the child's words.
fn hear(read: &OwnedFd) -> Result<String, String> {
    let mut fds = [PollFd::from_borrowed_fd(read.as_fd(), PollFlags::IN)];
    let came = rustix::event::poll(&mut fds, Some(&PATIENCE));
    if came != Ok(1) {
        return Err(format!(
            "/dev/kvm is present but emulates ring 0 in software: its self-test did not end within {} s",
            PATIENCE.tv_sec
        ));
    }
    let mut text = [0; 300];
    let n = rustix::io::read(read, &mut text).unwrap_or(0);
    let text = String::from_utf8_lossy(&text[..n]).into_owned();
    match text.strip_prefix('+') {
        Some(good) => Ok(format!("/dev/kvm passed its self-test: {good}")),
        None if text.is_empty() => Err("/dev/kvm is present, but the self-test died".to_owned()),
        None => Err(text.trim_start_matches('-').to_owned()),
    }
}

/// Tables at the start of a small memory.
struct Low<'a> {
    memory: &'a Memory,
    next: u64,
}

impl Store for Low<'_> {
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
        self.next += PAGE_SIZE;
        (self.next <= self.memory.end()).then_some(PhysAddr(self.next - PAGE_SIZE))
    }
    fn free(&mut self, _: PhysAddr) {}
}

/// Where the self-test's kernel page lies.
const KERNEL: u64 = KERNEL_HALF + (1 << 40);
/// Where its app's page lies.
const USER: u64 = 0x40_0000;

/// Runs the guest; the time of a call, or why KVM is not fit.
fn run(kvm: OwnedFd) -> Result<Result<Duration, String>, Error> {
    // SAFETY: the descriptor is that of /dev/kvm, and it is given away.
    let kvm = unsafe { <Kvm as std::os::fd::FromRawFd>::from_raw_fd(kvm.into_raw_fd()) };
    let vm = vcpu::ask("KVM_CREATE_VM", kvm.create_vm())?;
    let memory = Memory::new(vcpu::RAM_BASE, 2 << 20)?;
    add_slot(
        &vm,
        0,
        memory.start(),
        memory.end() - memory.start(),
        memory.host_address(),
    )?;
    let interrupts = vcpu::create_interrupts(&vm)?;
    let mut v = vcpu::ask("KVM_CREATE_VCPU", vm.create_vcpu(0))?;
    let features = vcpu::prepare(&kvm, &vm, &v, 0)?;
    let bells = Bells::new().map_err(|e| Error::Os("eventfd", e))?;
    interrupts.finish(&vm, &bells)?;
    let test = vcpu::self_test();
    if test.kernel.len().max(test.user.len()) as u64 > PAGE_SIZE {
        return Err(Error::TooSmall);
    }
    let [kernel_page, user_page] = [memory.start(), memory.start() + PAGE_SIZE].map(PhysAddr);
    memory.write(kernel_page, test.kernel);
    memory.write(user_page, test.user);
    let mut store = Low {
        memory: &memory,
        next: memory.start() + 4 * PAGE_SIZE,
    };
    let root = store.alloc().ok_or(Error::TooSmall)?;
    let user_root = if SHARED_ROOT {
        root
    } else {
        store.alloc().ok_or(Error::TooSmall)?
    };
    let full = |_| Error::TooSmall;
    let mut t = Tables::<Pte, _>::new(root, &mut store);
    for &(va, pa, len) in DEVICE_MAPS {
        t.map_range(va, PhysAddr(pa), len, Attr::READ | Attr::WRITE | Attr::DEVICE)
            .map_err(full)?;
    }
    t.map_range(KERNEL, kernel_page, PAGE_SIZE, Attr::READ | Attr::EXEC)
        .map_err(full)?;
    let mut t = Tables::<Pte, _>::new(user_root, &mut store);
    t.map_range(USER, user_page, PAGE_SIZE, Attr::READ | Attr::EXEC | Attr::USER)
        .map_err(full)?;
    let plan = BootPlan {
        cpu: 0,
        entry: VirtAddr(KERNEL),
        boot_info: VirtAddr(USER),
        stack_top: VirtAddr(KERNEL),
        kernel_root: root,
        user_root,
        features,
    };
    vcpu::start(&v, &vcpu::boot_cpu(&plan))?;
    let began = Instant::now();
    loop {
        let exit = match v.run() {
            Ok(exit) => vcpu::decode(&exit),
            Err(e) if e.errno() == libc::EINTR || e.errno() == libc::EAGAIN => Exit::Interrupted,
            Err(e) => {
                return Ok(Err(format!(
                    "/dev/kvm is present but does not run guests: KVM_RUN: {e}"
                )));
            }
        };
        match exit {
            Exit::Interrupted => {}
            Exit::Stop(0) => break,
            Exit::Stop(_) => {
                return Ok(Err(
                    "/dev/kvm is present but emulates ring 0 in software: a system call from user mode arrives wrongly"
                        .to_owned(),
                ));
            }
            other => {
                return Ok(Err(format!(
                    "/dev/kvm is present but emulates ring 0 in software: the self-test's guest broke ({other:?})"
                )));
            }
        }
    }
    Ok(Ok(began.elapsed() / SelfTest::CALLS))
}
