//! `/proc/PID/status`: the same and more, with names.

use super::cpu_sets::{cpu_list_where, cpu_mask_where};
use super::stat::{resident, sizes};
use super::who::Who;
use crate::fs::pseudo::Text;
use crate::put;
use crate::signal::{SIG_DFL, SIG_IGN};
use crate::task::Process;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use qlib::Errno;

/// Signal sets of a process or thread.
#[derive(Default)]
pub struct Masks {
    /// Pending for the thread.
    pub pending: u64,
    /// Pending for the process.
    pub shared: u64,
    /// Blocked.
    pub blocked: u64,
    /// Ignored.
    pub ignored: u64,
    /// Caught.
    pub caught: u64,
    /// Queued, all kinds.
    pub queued: usize,
}

/// Reads the signal sets.
pub fn masks(who: &Who, p: &Process) -> Masks {
    let mut m = Masks::default();
    if let Ok(t) = who.live() {
        let s = t.signals.lock();
        m.pending = s.pending.set().0;
        m.blocked = s.blocked.0;
        m.queued = s.pending.len();
    }
    {
        let s = p.pending.lock();
        m.shared = s.set().0;
        m.queued += s.len();
    }
    let handlers = p.handlers.lock().clone();
    for (i, a) in handlers.actions.lock().iter().enumerate() {
        match a.handler {
            SIG_DFL => {}
            SIG_IGN => m.ignored |= 1 << i,
            _ => m.caught |= 1 << i,
        }
    }
    m
}

/// The name (`comm`).
pub fn name(who: &Who) -> Result<Vec<u8>, Errno> {
    let p = who.get()?;
    match who.live() {
        Ok(t) => Ok(t.name()),
        Err(_) => Ok(p.last.lock().as_ref().map_or_else(Vec::new, |l| l.0.clone())),
    }
}

fn state_word(letter: u8) -> &'static str {
    match letter {
        b'R' => "R (running)",
        b'S' => "S (sleeping)",
        b'D' => "D (disk sleep)",
        b'T' => "T (stopped)",
        b't' => "t (tracing stop)",
        b'Z' => "Z (zombie)",
        _ => "X (dead)",
    }
}

/// The text.
pub fn show(who: &Who) -> Result<Vec<u8>, Errno> {
    let p = who.get()?;
    let task = who.live().ok();
    let creds = who.creds().unwrap_or_default();
    let parent = p.parent_in(&who.ns);
    let numbers = who.numbers(&p);
    let uid = |n: u32| crate::ns::shown_owner(n, 0).0;
    let gid = |n: u32| crate::ns::shown_owner(0, n).1;
    let mut t = Text::new();
    put!(t, "Name:\t");
    t.escaped(&name(who)?, b"\n\\");
    let tracer = task
        .as_ref()
        .and_then(|x| crate::trace::tracer_of(x))
        .map_or(0, |q| q.numbers.shown(&who.ns));
    let umask = task.as_ref().map_or(0, |x| x.fs().umask.load(Ordering::Relaxed));
    put!(t, "\nUmask:\t{umask:04o}\nState:\t{}\n", state_word(who.state()));
    put!(
        t,
        "Tgid:\t{}\nNgid:\t0\nPid:\t{}\nPPid:\t{parent}\nTracerPid:\t{tracer}\n",
        p.numbers.shown(&who.ns),
        numbers.shown(&who.ns)
    );
    put!(
        t,
        "Uid:\t{}\t{}\t{}\t{}\n",
        uid(creds.uid),
        uid(creds.euid),
        uid(creds.suid),
        uid(creds.fsuid)
    );
    put!(
        t,
        "Gid:\t{}\t{}\t{}\t{}\n",
        gid(creds.gid),
        gid(creds.egid),
        gid(creds.sgid),
        gid(creds.fsgid)
    );
    let slots = task
        .as_ref()
        .map_or(0, |x| x.files().list().last().map_or(0, |f| f.0.0 + 1));
    put!(
        t,
        "FDSize:\t{}\nGroups:\t",
        (slots as u32).next_power_of_two().max(64)
    );
    for g in creds.groups.iter() {
        put!(t, "{} ", gid(*g));
    }
    let (group, session) = {
        let f = p.family.lock();
        let session = f.session.as_ref().map(|s| s.numbers.clone());
        (f.group.clone(), session.unwrap_or_default())
    };
    for (label, pid) in [
        ("NStgid", &p.numbers),
        ("NSpid", &numbers),
        ("NSpgid", &group),
        ("NSsid", &session),
    ] {
        put!(t, "\n{label}:");
        for n in pid.shown_below(&who.ns) {
            put!(t, "\t{n}");
        }
    }
    put!(t, "\nKthread:\t0\n");
    memory(who, &p, &mut t);
    put!(t, "Threads:\t{}\n", p.tasks.lock().len().max(1));
    let m = masks(who, &p);
    put!(t, "SigQ:\t{}/{}\n", m.queued, p.rlimits.lock()[11].0);
    put!(t, "SigPnd:\t{:016x}\nShdPnd:\t{:016x}\n", m.pending, m.shared);
    put!(
        t,
        "SigBlk:\t{:016x}\nSigIgn:\t{:016x}\nSigCgt:\t{:016x}\n",
        m.blocked,
        m.ignored,
        m.caught
    );
    let c = creds.caps;
    let seccomp = task
        .as_ref()
        .map(|x| x.seccomp.lock().clone())
        .unwrap_or_default();
    put!(
        t,
        "CapInh:\t{:016x}\nCapPrm:\t{:016x}\n",
        c.inheritable,
        c.permitted
    );
    put!(
        t,
        "CapEff:\t{:016x}\nCapBnd:\t{:016x}\nCapAmb:\t{:016x}\n",
        c.effective,
        c.bounding,
        c.ambient
    );
    put!(
        t,
        "NoNewPrivs:\t{}\nSeccomp:\t{}\nSeccomp_filters:\t{}\n",
        u32::from(creds.no_new_privs),
        seccomp.number(),
        seccomp.filters()
    );
    put!(
        t,
        "Speculation_Store_Bypass:\tvulnerable\nSpeculationIndirectBranch:\tconditional enabled\n"
    );
    let cpus = hal::boot::cpus();
    let allowed = who.live().map(|t| t.cpus.lock().clone()).unwrap_or_default();
    put!(
        t,
        "Cpus_allowed:\t{}\nCpus_allowed_list:\t{}\n",
        cpu_mask_where(cpus, |c| allowed.contains(c)),
        cpu_list_where(cpus, |c| allowed.contains(c))
    );
    put!(t, "Mems_allowed:\t1\nMems_allowed_list:\t0\n");
    let counts = super::ident::usage(&p).counts;
    put!(
        t,
        "voluntary_ctxt_switches:\t{}\nnonvoluntary_ctxt_switches:\t{}\n",
        counts.voluntary,
        counts.involuntary
    );
    Ok(t.finish())
}

fn memory(who: &Who, p: &Process, t: &mut Text) {
    let Some(mm) = who.mm() else { return };
    let vmas = mm.vmas.lock().clone();
    let layout = mm.layout.lock().clone();
    let s = sizes(&vmas, &layout);
    let areas = resident(who);
    let rss: u64 = areas.iter().map(|(_, n)| n.pages).sum();
    let peak = super::ident::usage(p).counts.peak_rss_kib.max(rss * 4);
    let of = |f: fn(&crate::mm::Vma) -> bool| {
        areas
            .iter()
            .filter(|(v, _)| f(v))
            .map(|(_, n)| n.pages)
            .sum::<u64>()
    };
    let shmem = of(|v| v.file.is_none() && v.shared);
    let file = of(|v| v.file.is_some());
    for (label, kib) in [
        ("VmPeak", s.total * 4),
        ("VmSize", s.total * 4),
        ("VmLck", s.locked * 4),
        ("VmPin", 0),
        ("VmHWM", peak),
        ("VmRSS", rss * 4),
        ("RssAnon", rss.saturating_sub(file + shmem) * 4),
        ("RssFile", file * 4),
        ("RssShmem", shmem * 4),
        ("VmData", s.data * 4),
        ("VmStk", s.stack * 4),
        ("VmExe", s.text * 4),
        ("VmLib", s.library * 4),
        ("VmPTE", (s.total / 512).max(8) * 4),
        ("VmSwap", 0),
        ("HugetlbPages", 0),
    ] {
        put!(t, "{label}:\t{kib:>8} kB\n");
    }
    put!(
        t,
        "CoreDumping:\t0\nTHP_enabled:\t1\nuntag_mask:\t0xffffffffffffffff\n"
    );
}
