//! The control thread: QVisor's commands, and events for it.

use crate::fs::fdtable::FdTable;
use crate::fs::path::{FsContext, Path};
use crate::fs::tty::WinSize;
use crate::fs::tty::{Tty, console, job};
use crate::fs::walk::Flags;
use crate::fs::{hostio, mount};
use crate::loader::exec;
use crate::ns::pid::{self, INIT};
use crate::seccomp::Mode;
use crate::seccomp::filter::{Chain, Filter};
use crate::signal::info::code;
use crate::signal::send::{from_host, kill_group};
use crate::signal::{SigInfo, signo};
use crate::task::clone::{Parts, default_handlers, make_process, make_task, run};
use crate::task::creds::Creds;
use crate::task::process::RLIMITS;
use crate::task::{Process, Session, Task, table};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use hal::UserContext;
use hal::host::{self, MessageIn};
use hal::sync::{Once, SpinLock};
use hal::thread::{self, NewSpace};
use qlib::Errno;
use qlib::control::{Command, ContainerSpec, Event, ExecId, ProcessEntry, ProcessSpec};
use qlib::qcall::HandleId;

/// Why a command failed: an error number and what went wrong, for a person.
struct Failure(Errno, String);

/// The container.
struct Container {
    root: Path,
    init: ProcessSpec,
    seccomp: Mode,
}

static CONTAINER: SpinLock<Option<Arc<Container>>> = SpinLock::new(None);
/// Terminals of processes the host started, by [`ExecId`].
static TERMINALS: SpinLock<BTreeMap<u32, Weak<Tty>>> = SpinLock::new(BTreeMap::new());
/// Rows and columns for init's terminal, told before it was started.
static INIT_SIZE: SpinLock<(u32, u32)> = SpinLock::new((0, 0));
/// The status init ended with, once it did.
static ENDED: SpinLock<Option<i32>> = SpinLock::new(None);

/// Sends an event to QVisor; without QVisor the sandbox ends.
pub fn send(event: &Event) {
    if host::control_send(&event.encode()).is_err() {
        thread::power_off(1, "the control channel to QVisor is closed");
    }
}

/// Serves commands until QVisor closes the channel.
pub fn serve() {
    crate::net::tables::init();
    send(&Event::Ready);
    loop {
        match host::control_recv() {
            Ok(message) => handle(message),
            Err(e) => {
                log::info!("control channel: {e}");
                thread::power_off(0, "QVisor closed the control channel");
            }
        }
    }
}

/// Init ended: once every other process is gone too, the guest stops.
pub fn init_ended(status: i32) {
    *ENDED.lock() = Some(status);
    let code = match status & 0x7f {
        0 => status >> 8 & 0xff,
        sig => 128 + sig,
    };
    thread::power_off(code, "");
}

fn handle(message: MessageIn) {
    let command = match Command::decode(&message.bytes) {
        Ok(c) => c,
        Err(e) => {
            log::error!("undecodable control message: {e:?}");
            return;
        }
    };
    match command {
        Command::Create(mut spec) => {
            take_handles(&mut spec.process, &message);
            for m in &mut spec.mounts {
                m.handle = resolve(m.handle, &message);
            }
            match create(spec) {
                Ok(()) => send(&Event::Created),
                Err(f) => fail(ExecId::INIT, f),
            }
        }
        Command::Start => {
            let container = CONTAINER.lock().clone();
            match container {
                Some(c) => {
                    let mut init = c.init.clone();
                    if init.rows == 0 && init.cols == 0 {
                        (init.rows, init.cols) = *INIT_SIZE.lock();
                    }
                    start(&c, ExecId::INIT, &init);
                }
                None => fail(
                    ExecId::INIT,
                    Failure(Errno::EINVAL, String::from("start before create")),
                ),
            }
        }
        Command::Exec(id, mut spec) => {
            take_handles(&mut spec, &message);
            let container = CONTAINER.lock().clone();
            match container {
                Some(c) => start(&c, id, &spec),
                None => fail(id, Failure(Errno::EINVAL, String::from("exec before create"))),
            }
        }
        Command::Signal { exec, signo, all } => signal(exec, signo, all),
        Command::Resize { exec, rows, cols } => resize(exec, rows, cols),
        Command::OutOfMemory => out_of_memory(),
        Command::Limits { memory, pids } => crate::limits::change(memory, pids),
        Command::Processes => send(&Event::Processes(list())),
        Command::Metrics => send(&Event::Metrics(crate::metrics::all())),
    }
}

fn fail(exec: ExecId, Failure(errno, message): Failure) {
    send(&Event::Failed {
        exec,
        errno: errno.0,
        message: message.into_bytes(),
    });
}

/// The message's handles are indices on machines that pass descriptors along; QVisor's own ids otherwise.
fn resolve(h: HandleId, message: &MessageIn) -> HandleId {
    if message.handles.is_empty() || h == HandleId::NONE {
        return h;
    }
    usize::try_from(h.0)
        .ok()
        .and_then(|i| message.handles.get(i))
        .copied()
        .unwrap_or(HandleId::NONE)
}

fn take_handles(spec: &mut ProcessSpec, message: &MessageIn) {
    for h in &mut spec.stdio {
        *h = resolve(*h, message);
    }
}

fn create(spec: ContainerSpec) -> Result<(), Failure> {
    let first = crate::ns::first();
    first.uts.set(false, &spec.hostname);
    first.uts.set(true, &spec.domainname);
    let root = mount::build(&spec, first).map_err(|e| {
        let path = String::from_utf8_lossy(&e.path).into_owned();
        Failure(e.errno, format!("mounts: {path}: {}", e.errno))
    })?;
    first.mnt.set_top(root.mount.top());
    for s in &spec.sysctls {
        if let Err(e) = crate::fs::set_sysctl(&root, s) {
            let name = String::from_utf8_lossy(s).into_owned();
            return Err(Failure(
                e,
                format!("linux.sysctl: {name} is not supported by the guest kernel"),
            ));
        }
    }
    check_program(&root, &spec.process)?;
    let seccomp = if spec.seccomp.is_empty() {
        Mode::Off
    } else {
        let filter = Filter::from_bytes(&spec.seccomp, spec.seccomp_log)
            .map_err(|e| Failure(e, String::from("linux.seccomp: the filter is malformed")))?;
        Mode::Filter(Arc::new(Chain::with(None, filter)))
    };
    *CONTAINER.lock() = Some(Arc::new(Container {
        root,
        init: spec.process,
        seccomp,
    }));
    Ok(())
}

/// Groups as `setgroups(2)` keeps them.
fn sorted(groups: &[u32]) -> Vec<u32> {
    let mut groups = groups.to_vec();
    groups.sort_unstable();
    groups
}

fn creds_of(spec: &ProcessSpec) -> Creds {
    Creds {
        user: None,
        uid: spec.uid,
        euid: spec.uid,
        suid: spec.uid,
        fsuid: spec.uid,
        gid: spec.gid,
        egid: spec.gid,
        sgid: spec.gid,
        fsgid: spec.gid,
        groups: Arc::new(sorted(&spec.groups)),
        caps: spec.caps,
        securebits: 0,
        no_new_privs: spec.no_new_privs,
    }
}

/// Limits where the spec gives none. Source: Linux's INIT_RLIMITS and what distributions set.
fn rlimits_of(spec: &ProcessSpec) -> [(u64, u64); RLIMITS] {
    const INF: u64 = u64::MAX;
    let mut l = [(INF, INF); RLIMITS];
    l[3] = (8 << 20, INF);
    l[4] = (0, INF);
    l[7] = (1024, 1 << 20);
    l[8] = (8 << 20, 8 << 20);
    l[11] = (63_000, 63_000);
    l[12] = (819_200, 819_200);
    l[13] = (0, 0);
    l[14] = (0, 0);
    for r in &spec.rlimits {
        if let Some(slot) = l.get_mut(r.resource as usize) {
            *slot = (r.soft, r.hard);
        }
    }
    l
}

fn start(container: &Arc<Container>, id: ExecId, spec: &ProcessSpec) {
    if let Err(f) = try_start(container, id, spec) {
        fail(id, f);
    }
}

fn try_start(container: &Arc<Container>, id: ExecId, spec: &ProcessSpec) -> Result<(), Failure> {
    if id == ExecId::INIT && table::process(INIT).is_some() {
        return Err(Failure(
            Errno::EBUSY,
            String::from("the container's process was started already"),
        ));
    }
    // Before init there are the hooks that run inside.
    if id != ExecId::INIT && ENDED.lock().is_some() {
        return Err(Failure(
            Errno::ESRCH,
            String::from("the container is not running"),
        ));
    }
    let creds = Arc::new(creds_of(spec));
    let files = FdTable::new();
    let opened = hostio::open_all(spec, &creds)
        .map_err(|e| Failure(e, format!("process: standard descriptors cannot be used: {e}")))?;
    let tty = if spec.terminal {
        opened
            .first()
            .and_then(|f| f.as_ref())
            .and_then(|f| console::tty_of(f))
    } else {
        None
    };
    for (i, file) in opened.into_iter().enumerate() {
        if let Some(file) = file {
            let _ = files.replace(crate::fs::Fd(i as i32), file, false, u64::MAX);
        }
    }
    let umask = if spec.umask == u32::MAX { 0o022 } else { spec.umask };
    let fs = FsContext::new(container.root.clone(), container.root.clone(), umask);
    let pid = table::allocate(pid::root(), id == ExecId::INIT)
        .map_err(|e| Failure(e, String::from("the container's pids limit is reached")))?;
    let session = Session::new(&pid);
    let parent = None;
    let process = make_process(
        pid.clone(),
        parent,
        pid.clone(),
        Some(session.clone()),
        default_handlers(),
        rlimits_of(spec),
    );
    *process.exec_id.lock() = Some(id);
    process.oom_score_adj.store(spec.oom_score_adj, Ordering::Relaxed);
    let process = Arc::new(process);
    if let Some(tty) = tty {
        job::take(&tty, &process, &session);
        TERMINALS.lock().insert(id.0, Arc::downgrade(&tty));
    }
    let kernel_thread = thread::new_thread("task");
    let task = make_task(
        &kernel_thread,
        Parts {
            tid: pid,
            process: process.clone(),
            creds,
            files,
            fs,
            mm: None,
        },
    );
    task.set_name(b"init");
    // Its first call is the program's own: the start of a program is the runtime's doing, not the app's.
    crate::seccomp::set(&task, container.seccomp.clone());
    kernel_thread.set_data(task.clone());
    process.tasks.lock().push(task.clone());
    table::insert(&task);
    crate::time::cpu::limit_changed(&process);
    let cell = Arc::new(Once::new());
    let spec = spec.clone();
    let started = {
        let cell = cell.clone();
        let kernel_cell = cell.clone();
        thread::start(&kernel_thread, NewSpace::Fresh(&cell), move || {
            first_program(kernel_cell, id, spec)
        })
    };
    if let Err(e) = started {
        process.tasks.lock().clear();
        table::remove_task(&task);
        table::remove_process(process.pid);
        return Err(Failure(
            e,
            format!("no host process can be started for the container: {e}"),
        ));
    }
    task.started();
    Ok(())
}

/// First code of a process that the host starts: loads its program and leaves for it.
fn first_program(cell: Arc<Once<hal::aspace::AddressSpace>>, id: ExecId, spec: ProcessSpec) {
    let loaded = load_first(&cell, id, &spec);
    // `run` does not come back: what it leaves on the stack is never dropped.
    drop((cell, spec));
    if loaded {
        run();
    }
}

fn load_first(cell: &Once<hal::aspace::AddressSpace>, id: ExecId, spec: &ProcessSpec) -> bool {
    let Some(task) = crate::task::current() else {
        return false;
    };
    let space = loop {
        match cell.get() {
            Some(s) => break s.clone(),
            None => thread::yield_now(),
        }
    };
    *task.mm.lock() = Some(crate::mm::Mm::new(space, task.creds()));
    let mut regs = UserContext::default();
    match load(&task, &mut regs, spec) {
        Ok(()) => {
            let start = crate::task::task::Start {
                regs,
                fp: None,
                set_tid: 0,
            };
            *task.start.lock() = Some(alloc::boxed::Box::new(start));
            send(&Event::Started {
                exec: id,
                pid: task.process.pid,
            });
            true
        }
        Err(f) => {
            // The host hears of the failure, not of an exit.
            *task.process.exec_id.lock() = None;
            fail(id, f);
            kill_group(&task.process, 127 << 8);
            crate::task::exit::finish(&task);
            false
        }
    }
}

fn load(task: &Arc<Task>, regs: &mut UserContext, spec: &ProcessSpec) -> Result<(), Failure> {
    let cwd = String::from_utf8_lossy(&spec.cwd).into_owned();
    crate::fs::start_dir(task, &spec.cwd)
        .map_err(|e| Failure(e, format!("process.cwd: cannot change to {cwd:?}: {e}")))?;
    let name = spec.args.first().cloned().unwrap_or_default();
    let wrong = |e| {
        let shown = String::from_utf8_lossy(&name);
        Failure(e, format!("exec: {shown:?}: {}", explain(e)))
    };
    let mut env = spec.env.clone();
    crate::loader::home::complete(&mut env, &task.fs().root(), spec.uid);
    let (path, file) = find_program(&task.fs(), &task.creds(), &name, &env)?;
    let program = exec::prepare(task, file, &path, spec.args.clone(), env).map_err(wrong)?;
    exec::run(task, regs, program).map_err(wrong)
}

/// What an error of a program that is there means, for a person.
fn explain(e: Errno) -> String {
    let text = match e {
        Errno::ENOENT => "no such file or directory: the ELF interpreter it names is not in the container",
        Errno::EACCES => "permission denied",
        Errno::ENOEXEC => "exec format error: it is no program of this architecture",
        Errno::ELOOP => "too many levels of symbolic links or script interpreters",
        other => return format!("{other}"),
    };
    String::from(text)
}

/// Looks for the container's program already when the container is created, where that needs no working directory.
fn check_program(root: &Path, spec: &ProcessSpec) -> Result<(), Failure> {
    let name = spec.args.first().cloned().unwrap_or_default();
    if name.contains(&b'/') && !name.starts_with(b"/") {
        return Ok(());
    }
    let fs = FsContext::new(root.clone(), root.clone(), 0);
    find_program(&fs, &creds_of(spec), &name, &spec.env).map(drop)
}

/// Finds the program as `execvp(3)` does, with PATH of the spec's environment. The words are runc's, which engines look for.
fn find_program(
    fs: &FsContext,
    creds: &Creds,
    name: &[u8],
    env: &[Vec<u8>],
) -> Result<(Vec<u8>, Arc<crate::fs::File>), Failure> {
    let open = |path: &[u8]| {
        let file = crate::fs::open::open_exec(fs, creds, None, path, Flags::FOLLOW)?;
        let st = file.ops().stat(&file)?;
        let fits = st.mode & 0o170000 == 0o100000 && st.mode & 0o111 != 0;
        if fits { Ok(file) } else { Err(Errno::EACCES) }
    };
    let shown = String::from_utf8_lossy(name);
    if name.contains(&b'/') {
        return match open(name) {
            Ok(file) => Ok((name.to_vec(), file)),
            Err(e @ (Errno::ENOENT | Errno::ENOTDIR)) => {
                let why = if e == Errno::ENOENT {
                    "no such file or directory"
                } else {
                    "not a directory"
                };
                Err(Failure(e, format!("exec: {shown:?}: stat {shown}: {why}")))
            }
            Err(e) => Err(Failure(e, format!("exec: {shown:?}: {}", explain(e)))),
        };
    }
    let default: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let path = env
        .iter()
        .rev()
        .find_map(|e| e.strip_prefix(b"PATH=".as_slice()))
        .unwrap_or(default);
    for dir in path.split(|b| *b == b':').filter(|d| !d.is_empty()) {
        let mut full = dir.to_vec();
        full.push(b'/');
        full.extend_from_slice(name);
        if let Ok(file) = open(&full) {
            return Ok((full, file));
        }
    }
    let why = "executable file not found in $PATH";
    Err(Failure(Errno::ENOENT, format!("exec: {shown:?}: {why}")))
}

fn by_exec_id(id: ExecId) -> Option<Arc<Process>> {
    table::processes()
        .into_iter()
        .find(|p| *p.exec_id.lock() == Some(id))
}

/// Sets a terminal's size. Before init is started the size is kept for its terminal.
fn resize(exec: ExecId, rows: u32, cols: u32) {
    let tty = TERMINALS.lock().get(&exec.0).and_then(Weak::upgrade);
    match tty {
        Some(tty) => tty.set_size(WinSize {
            rows: rows as u16,
            cols: cols as u16,
            ..WinSize::default()
        }),
        None if exec == ExecId::INIT => *INIT_SIZE.lock() = (rows, cols),
        None => {}
    }
}

fn signal(exec: ExecId, sig: u32, all: bool) {
    if sig == 0 || sig > signo::MAX {
        return;
    }
    let info = SigInfo::user(sig, code::SI_USER, 0, 0);
    if all {
        for p in table::processes() {
            from_host(&p, info);
        }
    } else if let Some(p) = by_exec_id(exec) {
        from_host(&p, info);
    }
}

static OOM_KILLS: AtomicU64 = AtomicU64::new(0);

/// Processes killed for lack of memory so far.
pub fn oom_kills() -> u64 {
    OOM_KILLS.load(Ordering::Relaxed)
}

/// Kills the process that uses most memory (by the size of its areas, adjusted by oom_score_adj), never init first.
pub fn out_of_memory() {
    let score = |p: &Arc<Process>| {
        // The areas' lock sleeps: the spin lock is let go of before.
        let mm = p.tasks.lock().first().and_then(|t| t.mm());
        let size = mm.map_or(0, |m| m.vmas.lock().total());
        let adj = i64::from(p.oom_score_adj.load(Ordering::Relaxed));
        let limit = crate::limits::memory().min(1 << 40) as i64;
        (size as i64).saturating_add(limit / 1000 * adj)
    };
    let candidates = table::processes()
        .into_iter()
        .filter(|p| !p.zombie.load(Ordering::SeqCst));
    if let Some(victim) = candidates.max_by_key(score) {
        log::warn!("out of memory: killed process {}", victim.pid);
        OOM_KILLS.fetch_add(1, Ordering::Relaxed);
        send(&Event::OomKilled { pid: victim.pid });
        kill_group(&victim, signo::SIGKILL as i32);
    }
}

fn list() -> Vec<ProcessEntry> {
    let booted_ns = hal::clock::realtime_ns().saturating_sub(hal::clock::monotonic_ns());
    table::processes()
        .iter()
        .map(|p| {
            let session = p.family.lock().session.clone();
            let tty = session.and_then(|s| s.tty.lock().as_ref().map(|t| t.rdev() as u32));
            let task = p.tasks.lock().first().cloned();
            let usage = crate::syscall::process::process_usage(p);
            ProcessEntry {
                pid: p.pid,
                ppid: p
                    .family
                    .lock()
                    .parent
                    .as_ref()
                    .and_then(|w| w.upgrade())
                    .map_or(0, |q| q.pid),
                uid: task.as_ref().map_or(0, |t| t.creds().euid),
                state: task.as_ref().map_or(b'Z', |t| t.state_letter()),
                start_s: (booted_ns + p.start_ns) / crate::time::SECOND_NS,
                tty: tty.unwrap_or(0),
                cpu_ms: (usage.user_ns + usage.system_ns) / 1_000_000,
                cmdline: task.map_or(Vec::new(), |t| t.name()),
            }
        })
        .collect()
}
