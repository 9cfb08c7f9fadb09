//! `/proc/PID/stat` and `statm`: numbers in fixed places.

use super::ident::{TICK_NS, usage};
use super::status::{masks, name};
use super::who::Who;
use crate::fs::pseudo::Text;
use crate::mm::remote::{self, Resident};
use crate::mm::{Layout, Vma, VmaSet};
use crate::ns::pid::root;
use crate::put;
use crate::task::policy::Policy;
use crate::task::table;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use hal::aspace::Prot;
use qlib::{Errno, PAGE_SIZE};

/// CPU time, ns: user, system. Tasks that run are asked; those that sleep have told when they went to sleep.
pub fn cpu_ns(who: &Who) -> Result<(u64, u64), Errno> {
    let p = who.get()?;
    let tasks = match who.thread {
        true => vec![who.live()?],
        false => p.tasks.lock().clone(),
    };
    let me = crate::task::current();
    for t in &tasks {
        if me.as_ref().is_some_and(|m| Arc::ptr_eq(m, t)) {
            t.look_at_cpu(hal::clock::monotonic_ns());
        } else if t.see_cpu() {
        } else if t.state_letter() == b'R' && !t.exited.load(Ordering::Relaxed) {
            let asked = t.clone();
            let look = move || asked.look_at_cpu(hal::clock::monotonic_ns());
            match remote::ask(t, look) {
                // What is known is shown.
                Ok(()) | Err(Errno::EIO) => {}
                Err(e) => return Err(e),
            }
        }
    }
    if who.thread {
        return Ok((tasks[0].cpu.user_ns(), tasks[0].cpu.system_ns()));
    }
    let u = usage(&p);
    Ok((u.user_ns, u.system_ns))
}

/// A count of resident pages serves this long, ns: `ps` reads several files of each process.
const FRESH_NS: u64 = 200_000_000;

/// Areas of a process with the resident pages of each; a process that does not answer shows the last total in the first.
pub fn resident(who: &Who) -> Vec<(Vma, Resident)> {
    let (Ok(task), Some(mm)) = (who.live(), who.mm()) else {
        return Vec::new();
    };
    let all: Vec<Vma> = mm.vmas.lock().iter().cloned().collect();
    let wanted: Vec<Vma> = all.iter().filter(|v| !v.prot.is_empty()).cloned().collect();
    let counts = match remote::resident(&task, &wanted) {
        Ok(c) => {
            let pages = c.iter().map(|r| r.pages).sum();
            *mm.resident.lock() = (pages, hal::clock::monotonic_ns());
            c
        }
        Err(_) => vec![Resident {
            pages: mm.resident.lock().0,
            shared: 0,
        }],
    };
    let mut counts = counts.into_iter();
    all.into_iter()
        .map(|v| {
            let n = if v.prot.is_empty() {
                Resident::default()
            } else {
                counts.next().unwrap_or_default()
            };
            (v, n)
        })
        .collect()
}

/// Resident pages of the process.
pub fn rss_pages(who: &Who) -> u64 {
    let Some(mm) = who.mm() else { return 0 };
    let (known, when) = *mm.resident.lock();
    if when != 0 && hal::clock::monotonic_ns().saturating_sub(when) < FRESH_NS {
        return known;
    }
    resident(who).iter().map(|(_, n)| n.pages).sum()
}

/// Sums over areas, pages.
#[derive(Default)]
pub struct Sizes {
    /// All.
    pub total: u64,
    /// Executable file mappings.
    pub text: u64,
    /// Private writable areas without the stack.
    pub data: u64,
    /// The stack.
    pub stack: u64,
    /// mlocked.
    pub locked: u64,
    /// Shared libraries' text.
    pub library: u64,
}

/// Adds the areas up.
pub fn sizes(vmas: &VmaSet, l: &Layout) -> Sizes {
    let mut s = Sizes::default();
    for v in vmas.iter() {
        let pages = (v.end - v.start) / PAGE_SIZE;
        s.total += pages;
        if v.locked {
            s.locked += pages;
        }
        if v.grows_down || v.label == crate::mm::vma::Label::Stack {
            s.stack += pages;
        } else if v.prot.contains(Prot::WRITE) && !v.shared {
            s.data += pages;
        } else if v.prot.contains(Prot::EXEC) && v.file.is_some() {
            if v.start <= l.start_code && l.start_code < v.end {
                s.text += pages;
            } else {
                s.library += pages;
            }
        }
    }
    s
}

/// `/proc/PID/stat`. Source: Linux `do_task_stat`.
pub fn show(who: &Who) -> Result<Vec<u8>, Errno> {
    let p = who.get()?;
    let state = char::from(who.state());
    let ppid = p.parent_in(&who.ns);
    let (group, session) = {
        let f = p.family.lock();
        (f.group.clone(), f.session.clone())
    };
    let pgid = group.shown(&who.ns);
    let tty = session.as_ref().and_then(|s| s.tty.lock().clone());
    let (tty_nr, tpgid) = match &tty {
        Some(t) => (t.rdev() as i64, i64::from(who.ns.shown(t.foreground()))),
        None => (0, -1),
    };
    let (utime, stime) = cpu_ns(who)?;
    let own = super::ident::usage(&p).counts;
    let children = *p.child_usage.lock();
    let task = who.live().ok();
    let nice = task
        .as_ref()
        .map_or(0, |t| i64::from(t.nice.load(Ordering::Relaxed)) - 20);
    let policy = task.as_ref().map_or(Policy::default(), |t| *t.policy.lock());
    let priority = if policy.priority > 0 {
        -1 - i64::from(policy.priority)
    } else {
        20 + nice
    };
    let threads = p.tasks.lock().len();
    let start_ns = match &task {
        Some(t) if who.thread => t.start_ns,
        _ => p.start_ns,
    };
    let inspect = who.inspect().is_ok();
    let (vsize, rss, layout) = match who.mm() {
        Some(mm) => {
            let total = mm.vmas.lock().total();
            let layout = mm.layout.lock().clone();
            (total, rss_pages(who), layout)
        }
        None => (0, 0, Layout::default()),
    };
    let l = if inspect { layout } else { Layout::default() };
    let rsslim = p.rlimits.lock()[5].0;
    let m = masks(who, &p);
    let exit_signal = if who.thread {
        -1
    } else {
        p.exit_signal.load(Ordering::Relaxed) as i64
    };
    let exit_code = if inspect {
        p.exit_status.load(Ordering::Relaxed).max(0)
    } else {
        0
    };
    let mut t = Text::new();
    put!(t, "{} (", who.numbers(&p).shown(&who.ns));
    t.bytes(&name(who)?);
    put!(
        t,
        ") {state} {ppid} {pgid} {} {tty_nr} {tpgid}",
        session.map_or(0, |s| s.numbers.shown(&who.ns))
    );
    // PF_RANDOMIZE: what Linux sets for every program.
    put!(
        t,
        " 4194304 {} {} {} {}",
        own.minor_faults,
        children.counts.minor_faults,
        own.major_faults,
        children.counts.major_faults
    );
    put!(t, " {} {}", utime / TICK_NS, stime / TICK_NS);
    put!(
        t,
        " {} {}",
        children.user_ns / TICK_NS,
        children.system_ns / TICK_NS
    );
    put!(t, " {priority} {nice} {threads} 0 {}", start_ns / TICK_NS);
    put!(t, " {vsize} {rss} {rsslim}");
    let shown = |v: u64| if inspect { v } else { 1 };
    put!(
        t,
        " {} {} {} 0 0",
        shown(l.start_code),
        shown(l.end_code),
        l.start_stack
    );
    let low = |v: u64| v & 0x7fff_ffff;
    put!(
        t,
        " {} {} {} {}",
        low(m.pending),
        low(m.blocked),
        low(m.ignored),
        low(m.caught)
    );
    put!(
        t,
        " 0 0 0 {exit_signal} 0 {} {} 0 0 0",
        policy.priority,
        policy.kind
    );
    put!(t, " {} {} {}", l.start_data, l.end_data, l.start_brk);
    put!(
        t,
        " {} {} {} {} {exit_code}\n",
        l.arg_start,
        l.arg_end,
        l.env_start,
        l.env_end
    );
    Ok(t.finish())
}

/// `/proc/PID/statm`: size, resident, shared, text, library, data, dirty; pages.
pub fn statm(who: &Who) -> Result<Vec<u8>, Errno> {
    who.get()?;
    let Some(mm) = who.mm() else {
        return Ok(b"0 0 0 0 0 0 0\n".to_vec());
    };
    let vmas = mm.vmas.lock().clone();
    let layout = mm.layout.lock().clone();
    let s = sizes(&vmas, &layout);
    let areas = resident(who);
    let rss: u64 = areas.iter().map(|(_, n)| n.pages).sum();
    let shared: u64 = areas
        .iter()
        .filter(|(v, _)| v.file.is_some() && !v.prot.contains(Prot::WRITE))
        .map(|(_, n)| n.pages)
        .sum();
    let line = alloc::format!(
        "{} {rss} {} {} 0 {} 0\n",
        s.total,
        shared.min(rss),
        s.text,
        s.data + s.stack
    );
    Ok(line.into_bytes())
}

/// Processes that run now, for `/proc/stat` and `/proc/loadavg`.
pub fn running() -> usize {
    let all = table::processes();
    let running = all.iter().filter(|p| Who::process(p, root()).state() == b'R');
    running.count().max(1)
}
