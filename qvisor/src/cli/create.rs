//! `quark create` and `quark run`.

use super::{Error, Global, delete, foreground, start};
use crate::error::Context;
use crate::runtime::config;
use crate::sandbox::create::{self as sandbox, Created, Request};
use crate::sandbox::stdio;
use crate::settings::Settings;
use oci_spec::runtime::Spec;
use rustix::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};

/// Options of `create`.
#[derive(clap::Args)]
pub struct CreateArgs {
    /// The container's id
    id: String,
    /// Directory with config.json
    #[arg(short, long, default_value = ".")]
    bundle: PathBuf,
    /// Unix socket that gets the terminal's master
    #[arg(long)]
    console_socket: Option<PathBuf>,
    /// File that gets the sandbox's process id
    #[arg(long)]
    pid_file: Option<PathBuf>,
    /// Not needed: the root is always changed in a namespace of our own
    #[arg(long)]
    no_pivot: bool,
    /// Not needed: host keyrings are out of the guest's reach
    #[arg(long)]
    no_new_keyring: bool,
    /// Descriptors from 3 on that are passed to the program
    #[arg(long, default_value_t = 0)]
    preserve_fds: u32,
}

/// Options of `run`.
#[derive(clap::Args)]
pub struct RunArgs {
    #[command(flatten)]
    create: CreateArgs,
    /// Return once the program runs
    #[arg(short, long)]
    detach: bool,
    /// Keep the container when its program has ended
    #[arg(long)]
    keep: bool,
    /// For callers that pass it: what is orphaned is the sandbox's own business
    #[arg(long)]
    no_subreaper: bool,
}

/// Creates the container that `args` and `spec` describe.
fn create_with(
    global: &Global,
    args: &CreateArgs,
    console: Option<OwnedFd>,
) -> Result<(Created, Spec), Error> {
    let (spec, bundle) = config::load_bundle(&args.bundle)?;
    let created = create_spec(
        global,
        &args.id,
        &bundle,
        spec.clone(),
        false,
        console,
        args.preserve_fds,
    )?;
    if let Some(path) = &args.pid_file
        && let Err(e) = sandbox::write_pid_file(path, created.record.pid)
    {
        delete::destroy(&created.dir)?;
        return Err(e.into());
    }
    Ok((created, spec))
}

/// Creates a container from a configuration.
pub fn create_spec(
    global: &Global,
    id: &str,
    bundle: &Path,
    spec: Spec,
    overlay: bool,
    console: Option<OwnedFd>,
    preserve_fds: u32,
) -> Result<Created, Error> {
    for fd in 3..3 + preserve_fds.min(1024) as i32 {
        if !sandbox::is_open(fd) {
            return Err(Error::Value {
                what: "--preserve-fds: not open",
                value: fd.to_string(),
            });
        }
    }
    let settings = Settings::load()?.with_annotations(spec.annotations().iter().flatten())?;
    // The log of the sandbox process goes where ours goes, also without --log when debugging.
    let request = Request {
        root: &global.root,
        id,
        bundle,
        spec,
        overlay,
        systemd_cgroup: global.systemd_cgroup,
        platform: global.platform.unwrap_or(settings.platform),
        engine: global.engine,
        call_sites: global.call_sites,
        console,
        preserve_fds,
        log: global.open_log()?,
        log_json: global.json(),
        log_level: global.log_level(),
        settings,
    };
    Ok(sandbox::create(request)?)
}

fn wants_terminal(spec: &Spec) -> bool {
    spec.process()
        .as_ref()
        .and_then(|p| p.terminal())
        .unwrap_or(false)
}

fn console_of(args: &CreateArgs) -> Result<Option<OwnedFd>, Error> {
    Ok(args
        .console_socket
        .as_deref()
        .map(stdio::connect_console)
        .transpose()?)
}

/// `quark create`.
pub fn create(global: &Global, args: CreateArgs) -> Result<i32, Error> {
    let (spec, _) = config::load_bundle(&args.bundle)?;
    if wants_terminal(&spec) && args.console_socket.is_none() {
        return Err(Error::Usage(
            "process.terminal is true: --console-socket must be given",
        ));
    }
    if !wants_terminal(&spec) && args.console_socket.is_some() {
        return Err(Error::Usage(
            "--console-socket is given, but process.terminal is false",
        ));
    }
    create_with(global, &args, console_of(&args)?)?;
    Ok(0)
}

/// `quark run`.
pub fn run(global: &Global, args: RunArgs) -> Result<i32, Error> {
    let (spec, _) = config::load_bundle(&args.create.bundle)?;
    let terminal = wants_terminal(&spec);
    if args.detach {
        if terminal && args.create.console_socket.is_none() {
            return Err(Error::Usage(
                "process.terminal is true and --detach is given: --console-socket must be too",
            ));
        }
        let (created, spec) = create_with(global, &args.create, console_of(&args.create)?)?;
        if let Err(e) = start::start(&created.dir, &created.record, &spec) {
            delete::destroy(&created.dir)?;
            return Err(e);
        }
        return Ok(0);
    }
    let (ours, theirs) = foreground::console(terminal && args.create.console_socket.is_none())?;
    let console = match theirs {
        Some(theirs) => Some(theirs),
        None => console_of(&args.create)?,
    };
    let (created, spec) = create_with(global, &args.create, console)?;
    finish(created, &spec, ours, args.keep)
}

/// Starts a created container, stays in the foreground until it ends, and removes it.
pub fn finish(mut created: Created, spec: &Spec, console: Option<OwnedFd>, keep: bool) -> Result<i32, Error> {
    let outcome = (|| {
        let terminal = console.map(foreground::Terminal::receive).transpose()?;
        let signals = foreground::catch_signals()?;
        start::start(&created.dir, &created.record, spec)?;
        foreground::attend(&created.dir, &created.record, signals, terminal)
    })();
    if outcome.is_err() {
        let _ = created.child.kill();
    }
    let status = created.child.wait().doing("wait for the sandbox process")?;
    if let Some(reason) = created
        .dir
        .status(&created.record)
        .reason
        .filter(|_| outcome.is_ok())
    {
        eprintln!("quark: {reason}");
    }
    if !keep || outcome.is_err() {
        delete::destroy(&created.dir)?;
    }
    outcome?;
    Ok(status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0)))
}
