//! Starts the programs that the host asks for: a container's first one, and others in it (`exec`).

use super::Failure;
use crate::container::{Container, Setup};
use crate::fs::fdtable::FdTable;
use crate::fs::hostio;
use crate::fs::path::{FsContext, Path};
use crate::fs::tty::{console, job};
use crate::fs::walk::Flags;
use crate::loader::exec;
use crate::signal::send::kill_group;
use crate::task::clone::{Parts, default_handlers, make_process, make_task, run};
use crate::task::creds::Creds;
use crate::task::process::RLIMITS;
use crate::task::task::work;
use crate::task::{Session, Task, table};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use hal::UserContext;
use hal::sync::Once;
use hal::thread::{self, NewSpace};
use qlib::Errno;
use qlib::control::{Event, ExecId, ProcessSpec};

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

/// Starts the container's first process.
pub(super) fn init(container: &Arc<Container>) {
    let Some(setup) = container.setup.get() else {
        let why = String::from("start before create");
        return super::fail(container.id, ExecId::INIT, Failure(Errno::EINVAL, why));
    };
    let mut spec = setup.init.clone();
    if spec.rows == 0 && spec.cols == 0 {
        let size = *container.init_size.lock();
        (spec.rows, spec.cols) = (u32::from(size.rows), u32::from(size.cols));
    }
    further(container, ExecId::INIT, &spec);
}

/// Starts another process in the container. Before its first one there are the hooks that run inside.
pub(super) fn further(container: &Arc<Container>, id: ExecId, spec: &ProcessSpec) {
    let started = match container.setup.get() {
        Some(setup) => start(container, setup, id, spec),
        None => Err(Failure(Errno::EINVAL, String::from("exec before create"))),
    };
    if let Err(f) = started {
        super::fail(container.id, id, f);
    }
}

fn start(container: &Arc<Container>, setup: &Setup, id: ExecId, spec: &ProcessSpec) -> Result<(), Failure> {
    if container.ending.load(Ordering::SeqCst) {
        let why = String::from("the container is not running");
        return Err(Failure(Errno::ESRCH, why));
    }
    if id == ExecId::INIT && container.started.swap(true, Ordering::SeqCst) {
        let why = String::from("the container's process was started already");
        return Err(Failure(Errno::EBUSY, why));
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
    let fs = FsContext::new(setup.root.clone(), setup.root.clone(), umask);
    let init = setup.first_of_pids && id == ExecId::INIT;
    let pid = table::allocate(container, &setup.namespaces.pid, init)
        .map_err(|e| Failure(e, String::from("the container's pids limit is reached")))?;
    let session = Session::new(&pid);
    let parent = None;
    let process = make_process(
        pid.clone(),
        container.clone(),
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
        container.terminals.lock().insert(id.0, Arc::downgrade(&tty));
    }
    let kernel_thread = thread::new_thread("task");
    if let Some(nursery) = &setup.nursery {
        nursery.adopt(&kernel_thread);
    }
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
    crate::seccomp::set(&task, setup.seccomp.clone());
    task.set_namespaces(setup.namespaces.clone());
    if container.frozen.load(Ordering::SeqCst) {
        task.work.fetch_or(work::FREEZE, Ordering::SeqCst);
    }
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
            task.process.container.send(&Event::Started {
                exec: id,
                pid: task.process.pid,
            });
            true
        }
        Err(f) => {
            // The host hears of the failure, not of an exit.
            *task.process.exec_id.lock() = None;
            super::fail(task.process.container.id, id, f);
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
///
/// # Errors
/// Why it cannot be started.
pub fn check_program(root: &Path, spec: &ProcessSpec) -> Result<(), Failure> {
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
