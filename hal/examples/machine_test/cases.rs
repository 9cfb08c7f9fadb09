//! The cases. Each asserts; a failed assertion is a kernel panic, which ends the machine with a non-zero code.

use crate::app::{self, Program};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use hal::aspace::{Access, Advice, FaultOutcome, Prot};
use hal::boot::Trap;
use hal::clock::monotonic_ns;
use hal::host::{self, Dest, Handle, PollItem, Src};
use hal::thread::{self, NewSpace};
use hal::user::{self, UserSlice};
use qlib::Errno;
use qlib::boot::Range;

const MS: u64 = 1_000_000;

/// The start hook.
pub fn run() {
    let cases: [(&str, fn()); 20] = [
        ("park and unpark", park),
        ("kernel threads come and go", many_threads),
        ("registers survive a call", registers),
        ("thread pointer", tls),
        ("faults", faults),
        ("a mapped file is cut short", short_file),
        ("protections", crate::protections::run),
        ("memory is copied by fork", fork),
        ("threads share memory", threads),
        ("exec beside others, and alone", exec),
        ("vector registers", vectors),
        ("processes come and go", many_processes),
        ("kick", kick),
        ("cost of a call", cost),
        ("clocks", clock),
        ("ranges", ranges),
        ("user memory", user_memory),
        ("memory files", memory_files),
        ("reads of many pieces", crate::reads::run),
        ("waiting for handles", waiting),
    ];
    for (name, case) in cases {
        log::info!("case: {name}");
        case();
    }
    thread::power_off(0, "all cases passed");
}

fn spawn(f: impl FnOnce() + Send + 'static) -> thread::ThreadRef {
    match thread::spawn("test", None, NewSpace::Kernel, f) {
        Ok(t) => t,
        Err(e) => panic!("spawn: {e}"),
    }
}

/// Waits until `f` holds.
fn until(what: &str, f: impl Fn() -> bool) {
    let deadline = monotonic_ns() + 10_000 * MS;
    while !f() {
        assert!(monotonic_ns() < deadline, "timeout: {what}");
        thread::park(Some(monotonic_ns() + MS / 10));
    }
}

fn park() {
    let start = monotonic_ns();
    thread::park(Some(start + 20 * MS));
    let slept = monotonic_ns() - start;
    assert!(slept >= 19 * MS, "a deadline came after {slept} ns");
    // A token left before makes the next park return at once.
    thread::current().unpark();
    let start = monotonic_ns();
    thread::park(Some(start + 5000 * MS));
    assert!(monotonic_ns() - start < 1000 * MS);
    // Ping-pong.
    let count = Arc::new(AtomicU32::new(0));
    let (me, theirs) = (thread::current(), count.clone());
    let other = spawn(move || {
        for i in 0..1000 {
            while theirs.load(Ordering::SeqCst) != 2 * i + 1 {
                thread::park(None);
            }
            theirs.store(2 * i + 2, Ordering::SeqCst);
            me.unpark();
        }
    });
    let start = monotonic_ns();
    for i in 0..1000 {
        count.store(2 * i + 1, Ordering::SeqCst);
        other.unpark();
        while count.load(Ordering::SeqCst) != 2 * i + 2 {
            thread::park(None);
        }
    }
    log::info!("park round trip: {} ns", (monotonic_ns() - start) / 1000);
}

fn many_threads() {
    static RAN: AtomicU32 = AtomicU32::new(0);
    static HIGHEST: AtomicU64 = AtomicU64::new(0);
    static LOWEST: AtomicU64 = AtomicU64::new(u64::MAX);
    for i in 0..1000u32 {
        let t = spawn(|| {
            let here = 0u8;
            HIGHEST.fetch_max(&raw const here as u64, Ordering::SeqCst);
            LOWEST.fetch_min(&raw const here as u64, Ordering::SeqCst);
            RAN.fetch_add(1, Ordering::SeqCst);
        });
        if i % 10 == 9 {
            until("threads end", || {
                RAN.load(Ordering::SeqCst) == i + 1 && !t.is_started()
            });
        }
    }
    // Stacks are reused: a thousand threads, ten at a time, need no more than a few dozen.
    let used = (HIGHEST.load(Ordering::SeqCst) - LOWEST.load(Ordering::SeqCst)) >> 16;
    assert!(used < 64, "{used} stacks");
}

fn registers() {
    assert_eq!(*app::run(Program::Registers).reports.lock(), [1]);
}

fn tls() {
    assert_eq!(*app::run(Program::Tls).reports.lock(), [66, 66, 66]);
}

fn faults() {
    let app = app::run(Program::Faults);
    let traps: Vec<Trap> = app.traps.lock().iter().map(|t| t.0).collect();
    let fault = |addr, access| Trap::PageFault { addr, access };
    assert_eq!(traps[0], fault(app::HOLE + 0x10, Access::Read));
    assert_eq!(traps[1], fault(app::HOLE + 0x20, Access::Write));
    assert_eq!(traps[2], fault(app::CODE.start, Access::Write));
    assert_eq!(traps[3], fault(app::DATA.start, Access::Execute));
    assert_eq!(traps[4..], crate::native::faults());
}

fn short_file() {
    let app = app::run(Program::Short);
    let traps: Vec<Trap> = app.traps.lock().iter().map(|t| t.0).collect();
    let lost = |offset| Trap::BusError {
        addr: app::FILE.start + offset,
    };
    assert_eq!(traps, [lost(0x1020), lost(0x1030)]);
    assert_eq!(*app.reports.lock(), [0]);
}

fn fork() {
    let app = app::run(Program::Fork);
    let mut reports = app.reports.lock().clone();
    reports.sort_unstable();
    assert_eq!(reports, [8, 107]);
}

fn threads() {
    assert_eq!(*app::run(Program::Threads).reports.lock(), [33]);
}

fn exec() {
    let app = app::run(Program::Exec);
    let mut reports = app.reports.lock().clone();
    reports.sort_unstable();
    // The old memory keeps 44; the new ones start with zero.
    assert_eq!(reports, [44, 1000, 2000]);
}

fn vectors() {
    assert_eq!(*app::run(Program::Vectors).reports.lock(), [1, 1, 1]);
}

fn many_processes() {
    let start = monotonic_ns();
    app::run(Program::Forks);
    log::info!("fork and exit: {} us", (monotonic_ns() - start) / 200_000);
    let start = monotonic_ns();
    for _ in 0..100 {
        app::run(Program::Exit);
    }
    log::info!(
        "fresh process and exit: {} us",
        (monotonic_ns() - start) / 100_000
    );
}

fn kick() {
    let mut worst = 0;
    for _ in 0..50 {
        let (app, t) = app::spawn(Program::Spin);
        until("the app spins", || app.reports.lock().len() == 1);
        thread::park(Some(monotonic_ns() + MS / 2));
        let start = monotonic_ns();
        t.kick();
        app::wait(&app);
        let latency = app.interrupted.load(Ordering::SeqCst).saturating_sub(start);
        worst = worst.max(latency);
        assert_eq!(*app.reports.lock(), [1, 2]);
    }
    log::info!("kick: worst of 50 {worst} ns");
    assert!(worst < 1000 * MS);
}

fn cost() {
    let start = monotonic_ns();
    app::run(Program::Calls);
    log::info!("a call: {} ns", (monotonic_ns() - start) / 100_000);
}

fn clock() {
    let (mut last, start) = (0, monotonic_ns());
    for _ in 0..10_000 {
        let now = monotonic_ns();
        assert!(now >= last);
        last = now;
    }
    log::info!("reading a clock: {} ns", (last - start) / 10_000);
    assert!(hal::clock::realtime_ns() > 1_600_000_000_000 * MS);
}

/// Runs `f` on a thread with an empty address space.
pub(crate) fn in_space(f: impl FnOnce(&hal::aspace::AddressSpace) + Send + 'static) {
    let cell: &'static hal::sync::Once<hal::aspace::AddressSpace> =
        alloc::boxed::Box::leak(Default::default());
    let done = Arc::new(AtomicU32::new(0));
    let set = done.clone();
    let t = thread::spawn("space", None, NewSpace::Fresh(cell), move || {
        match cell.get() {
            Some(s) => f(s),
            None => panic!("no space"),
        }
        set.store(1, Ordering::SeqCst);
    });
    assert!(t.is_ok());
    until("the thread in a space ends", || done.load(Ordering::SeqCst) == 1);
}

pub(crate) const A: Range = Range {
    start: 0x1000_0000,
    end: 0x1000_4000,
};
const B: Range = Range {
    start: 0x2000_0000,
    end: 0x2000_8000,
};

fn ranges() {
    in_space(|s| {
        let rw = Prot::READ | Prot::WRITE;
        assert_eq!(s.map_anon(A, rw), Ok(()));
        assert_eq!(user::copy_out(A.start + 0x2000, b"hello"), Ok(()));
        let mut resident = [9u8; 4];
        assert_eq!(s.resident(A, &mut resident), Ok(()));
        assert_eq!(resident.map(|r| r & 1), [0, 0, 1, 0]);
        assert_eq!(s.remap(A, B), Ok(()));
        let mut back = [0u8; 5];
        assert_eq!(user::copy_in(&mut back, B.start + 0x2000), Ok(()));
        assert_eq!(&back, b"hello");
        assert_eq!(user::copy_in(&mut back, A.start), Err(Errno::EFAULT));
        assert_eq!(
            s.fault(qlib::VirtAddr(A.start), Access::Read),
            FaultOutcome::Unmapped
        );
        // Shrinks and grows in place.
        let half = Range {
            start: B.start,
            end: B.start + 0x4000,
        };
        assert_eq!(s.remap(B, half), Ok(()));
        assert_eq!(s.remap(half, B), Ok(()));
        assert_eq!(s.protect(B, Prot::READ), Ok(()));
        assert_eq!(user::copy_out(B.start, b"x"), Err(Errno::EFAULT));
        assert_eq!(
            s.fault(qlib::VirtAddr(B.start), Access::Write),
            FaultOutcome::Protection
        );
        assert_eq!(s.protect(B, rw), Ok(()));
        assert_eq!(s.advise(B, Advice::DontNeed), Ok(()));
        assert_eq!(user::copy_in(&mut back, B.start + 0x2000), Ok(()));
        assert_eq!(back, [0; 5]);
        assert_eq!(s.unmap(B), Ok(()));
        assert_eq!(user::copy_in(&mut back, B.start), Err(Errno::EFAULT));
        // The machine's own ranges are refused, whatever is asked.
        for r in hal::aspace::reserved() {
            assert_eq!(
                s.map_anon(
                    Range {
                        start: r.start,
                        end: r.start + 4096
                    },
                    rw
                ),
                Err(Errno::EINVAL)
            );
            assert_eq!(
                s.unmap(Range {
                    start: r.end - 4096,
                    end: r.end
                }),
                Err(Errno::EINVAL)
            );
            assert_eq!(
                s.unmap(Range {
                    start: r.start - 4096,
                    end: r.end + 4096
                }),
                Err(Errno::EINVAL)
            );
        }
        assert!(UserSlice::new(hal::boot::info().text.start, 8).is_err());
        assert!(UserSlice::new(hal::boot::info().image.start - 4096, 1 << 32).is_err());
    });
}

fn user_memory() {
    in_space(|s| {
        assert_eq!(s.map_anon(A, Prot::READ | Prot::WRITE), Ok(()));
        // A copy that faults half way says so.
        let bytes = vec![7u8; 0x5000];
        let slice = [UserSlice::new(A.start + 0x1000, 0x5000).unwrap_or_default()];
        let mut dest = Dest::user(&slice);
        assert_eq!(dest.put(&bytes), Ok(0x3000));
        assert_eq!(user::load_u32(A.start + 0x1000), Ok(0x0707_0707));
        assert_eq!(user::load_u32(A.end), Err(Errno::EFAULT));
        assert_eq!(user::cmpxchg_u32(A.start, 0, 5), Ok(0));
        assert_eq!(user::cmpxchg_u32(A.start, 0, 6), Ok(5));
        assert_eq!(user::load_u32(A.start), Ok(5));
        assert_eq!(user::cmpxchg_u32(A.end, 0, 6), Err(Errno::EFAULT));
        assert_eq!(
            UserSlice::new(A.start, 0x5000).and_then(|s| s.zero()),
            Err(Errno::EFAULT)
        );
        assert_eq!(user::load_u32(A.start + 0x1000), Ok(0));
        let start = monotonic_ns();
        for _ in 0..1000 {
            assert_eq!(user::load_u32(A.end), Err(Errno::EFAULT));
        }
        log::info!("a fault fixed up: {} ns", (monotonic_ns() - start) / 1000);
    });
}

fn memory_files() {
    in_space(|s| {
        let file = match host::mem_file(b"test") {
            Ok(f) => f,
            Err(e) => panic!("mem_file: {e}"),
        };
        let h = file.handle();
        assert_eq!(host::truncate(h, 0x3000), Ok(()));
        let rw = Prot::READ | Prot::WRITE;
        let [first, second] = [A.start, B.start].map(|start| Range {
            start,
            end: start + 0x2000,
        });
        assert_eq!(s.map_file(first, rw, h, 0x1000, true), Ok(()));
        assert_eq!(s.map_file(second, rw, h, 0x1000, false), Ok(()));
        assert_eq!(
            host::write(h, &mut Src::kernel(b"from the file"), Some(0x1000), false),
            Ok(13)
        );
        let mut back = [0u8; 13];
        assert_eq!(user::copy_in(&mut back, first.start), Ok(()));
        assert_eq!(&back, b"from the file");
        assert_eq!(user::copy_out(second.start, b"private"), Ok(()));
        assert_eq!(user::copy_out(first.start + 5, b"THE"), Ok(()));
        let mut dest = Dest::kernel(&mut back);
        assert_eq!(host::read(h, &mut dest, Some(0x1000)), Ok(13));
        assert_eq!(&back, b"from THE file");
        // Many segments: more than one host call's worth.
        let segments: Vec<UserSlice> = (0..40)
            .filter_map(|i| UserSlice::new(first.start + 64 * i, 10).ok())
            .collect();
        assert_eq!(
            host::write(h, &mut Src::user(&segments), Some(0x2000), false),
            Ok(400)
        );
        assert_eq!(host::read(h, &mut Dest::user(&segments), Some(0x2000)), Ok(400));
        let stat = host::stat(h, b"");
        assert_eq!(stat.map(|s| s.size), Ok(0x3000));
        // Behind the end of the file, where both mappings have a page.
        assert_eq!(user::copy_out(first.start + 0x1000, b"gone"), Ok(()));
        assert_eq!(user::copy_in(&mut back, second.start + 0x1000), Ok(()));
        assert_eq!(host::truncate(h, 0x1000), Ok(()));
        assert_eq!(user::copy_in(&mut back, first.start + 0x1000), Err(Errno::EFAULT));
        assert_eq!(user::load_u32(first.start + 0x1000), Err(Errno::EFAULT));
        assert_eq!(user::cmpxchg_u32(first.start + 0x1000, 0, 1), Err(Errno::EFAULT));
        assert_eq!(user::copy_out(second.start + 0x1000, b"gone"), Err(Errno::EFAULT));
        // It grows again.
        assert_eq!(host::truncate(h, 0x3000), Ok(()));
        assert_eq!(user::copy_in(&mut back, first.start + 0x1000), Ok(()));
        assert_eq!(back, [0; 13]);
    });
}

fn waiting() {
    let s = host::socket(Handle::NONE, 1, 1, 0);
    let Ok(s) = s else { panic!("socket: {:?}", s.err()) };
    let item = PollItem {
        handle: s.handle(),
        events: 1,
        revents: 0,
    };
    // An unconnected stream socket hangs up: ready at once.
    assert_eq!(host::ready(&mut [item]), Ok(1));
    let Ok(d) = host::socket(Handle::NONE, 1, 2, 0) else {
        panic!("datagram socket")
    };
    let mut items = [PollItem {
        handle: d.handle(),
        events: 1,
        revents: 0,
    }];
    assert_eq!(host::ready(&mut items), Ok(0));
    // Waits may end early, for a token that was left; not often, and none ends late.
    let (start, mut rounds) = (monotonic_ns(), 0);
    while monotonic_ns() - start < 20 * MS {
        assert_eq!(host::wait_ready(&mut items, Some(start + 20 * MS)), Ok(0));
        rounds += 1;
    }
    assert!(rounds < 5, "{rounds} waits of one time-out");
    // Unparked while it waits, again and again.
    let me = thread::current();
    static GO: AtomicU32 = AtomicU32::new(0);
    static DONE: AtomicU32 = AtomicU32::new(0);
    spawn(move || {
        for i in 1..=200 {
            until("the waiter is back", || GO.load(Ordering::SeqCst) == i);
            if i % 2 == 0 {
                thread::park(Some(monotonic_ns() + MS / 5));
            }
            DONE.store(i, Ordering::SeqCst);
            me.unpark();
        }
    });
    let start = monotonic_ns();
    for i in 1..=200 {
        GO.store(i, Ordering::SeqCst);
        while DONE.load(Ordering::SeqCst) != i {
            assert_eq!(
                host::wait_ready(&mut items, Some(monotonic_ns() + 5000 * MS)),
                Ok(0)
            );
        }
    }
    assert!(monotonic_ns() - start < 4000 * MS, "an unpark was lost");
}
