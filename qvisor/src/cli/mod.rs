//! The command line: runc's commands with runc's flags, and a few of our own.

mod check;
mod config;
mod create;
mod debug;
mod delete;
mod do_;
mod events;
mod exec;
mod features;
mod foreground;
mod kill;
mod list;
mod metrics;
mod pause;
mod ps;
mod spec;
mod start;
mod state;
mod syscalls;
mod update;

use crate::error::{Context, OsError};
use crate::runtime::{config as bundle, hooks, state as record};
use crate::{logging, sandbox, settings, vm};
use clap::{Parser, Subcommand};
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use std::path::PathBuf;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bundle's configuration.
    #[error(transparent)]
    Config(#[from] bundle::Error),
    /// The operator's settings.
    #[error(transparent)]
    Settings(#[from] settings::Error),
    /// The container's record.
    #[error(transparent)]
    State(#[from] record::Error),
    /// The sandbox.
    #[error(transparent)]
    Sandbox(#[from] sandbox::Error),
    /// A hook.
    #[error(transparent)]
    Hook(#[from] hooks::Error),
    /// The cgroup.
    #[error(transparent)]
    Cgroup(#[from] crate::cgroup::Error),
    /// A host call.
    #[error(transparent)]
    Os(#[from] OsError),
    /// What was asked for cannot be.
    #[error("{0}")]
    Usage(&'static str),
    /// A value that cannot be.
    #[error("{what}: {value:?}")]
    Value {
        /// What is wrong.
        what: &'static str,
        /// The value.
        value: String,
    },
}

/// As runc tells it: its callers read the lines after the first.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\nspec: 1.2.0");

/// Quark runs OCI containers, each in a sandbox with a guest kernel of its own.
#[derive(Parser)]
#[command(name = "quark", version = VERSION, disable_version_flag = true, disable_help_subcommand = true)]
struct Arguments {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options of every command.
#[derive(clap::Args)]
pub struct Global {
    /// Directory of the containers' state
    #[arg(long, global = true, default_value_os_t = default_root())]
    root: PathBuf,
    /// File that gets the log (and why a command failed)
    #[arg(long, global = true)]
    log: Option<PathBuf>,
    /// Form of the log's lines
    #[arg(long, global = true, default_value = "text", value_parser = ["text", "json"])]
    log_format: String,
    /// Log more
    #[arg(long, global = true)]
    debug: bool,
    /// Have systemd make the cgroups; linux.cgroupsPath is SLICE:PREFIX:NAME
    #[arg(long, global = true)]
    systemd_cgroup: bool,
    /// For callers that pass it; what it would change is decided by who calls
    #[arg(long, num_args = 0..=1, default_missing_value = "true", hide = true)]
    rootless: Option<String>,
    /// For callers that pass it; checkpoints are not supported
    #[arg(long, global = true, hide = true)]
    criu: Option<String>,
    /// The machine the guest kernel runs on; by default what /etc/quark/config.json says, or auto
    #[arg(long, global = true, value_enum)]
    platform: Option<vm::Request>,
    /// Who does a virtual machine's file operations
    #[arg(long, global = true, value_enum, default_value = "auto")]
    engine: vm::Engine,
    /// Print the version
    #[arg(short = 'v', visible_short_alias = 'V', long, action = clap::ArgAction::Version)]
    version: Option<bool>,
    /// How system calls of programs enter the guest kernel on the process machine
    #[arg(long, global = true, value_enum, default_value = "trap")]
    call_sites: vm::CallSites,
}

fn default_root() -> PathBuf {
    let user = rustix::process::geteuid();
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(dir) if !user.is_root() => PathBuf::from(dir).join("quark"),
        _ if user.is_root() => PathBuf::from("/run/quark"),
        _ => PathBuf::from(format!("/tmp/quark-{}", user.as_raw())),
    }
}

impl Global {
    /// The log level as the guest counts: 0 off … 5 trace.
    fn log_level(&self) -> u32 {
        if self.debug { 4 } else { 2 }
    }

    fn json(&self) -> bool {
        self.log_format == "json"
    }

    /// Opens the log file.
    fn open_log(&self) -> Result<Option<OwnedFd>, OsError> {
        let Some(path) = &self.log else { return Ok(None) };
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::from_raw_mode(0o644))
            .at("open the log", path)
            .map(Some)
    }
}

#[derive(Subcommand)]
enum Command {
    /// Create and start a container
    Run(create::RunArgs),
    /// Create a container, not starting its program
    Create(create::CreateArgs),
    /// Start a created container's program
    Start(start::Args),
    /// Print a container's state as JSON
    State(state::Args),
    /// Send a signal to a container's program
    Kill(kill::Args),
    /// Remove a container
    Delete(delete::Args),
    /// List containers
    List(list::Args),
    /// Run another program in a container
    Exec(exec::Args),
    /// List a container's processes
    Ps(ps::Args),
    /// Tell figures of a container's guest kernel
    Metrics(metrics::Args),
    /// Tell what a container uses, and when its memory runs out
    Events(events::Args),
    /// Freeze a container
    Pause(pause::Args),
    /// Let a frozen container go on
    Resume(pause::Args),
    /// Change a container's limits
    Update(update::Args),
    /// Write a configuration to start from
    Spec(spec::Args),
    /// Print the operator's settings
    Config(config::Args),
    /// Collect what a report of a defect needs
    Debug(debug::Args),
    /// Explain which machine is used here, and why
    Check,
    /// Run a command in a throw-away sandbox over this host's files, which stay untouched
    Do(do_::Args),
    /// Print what this runtime can do as JSON
    Features,
    /// List the system calls and how far the guest kernel answers each
    Syscalls(syscalls::Args),
    #[command(hide = true)]
    Sandbox { order: i32 },
    #[command(hide = true)]
    ExecProxy { order: i32 },
}

/// Runs the command line; gives the exit code.
pub fn main() -> u8 {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(e) => {
            let _ = e.print();
            return if e.use_stderr() { 1 } else { 0 };
        }
    };
    match arguments.command {
        Command::Sandbox { order } => return sandbox::init::main(order) as u8,
        Command::ExecProxy { order } => return exec::proxy_main(order) as u8,
        _ => {}
    }
    let global = &arguments.global;
    let log = match global.open_log() {
        Ok(log) => log,
        Err(e) => {
            eprintln!("quark: {e}");
            return 1;
        }
    };
    logging::init(log, global.json(), global.log_level(), None);
    let failure_code = if matches!(arguments.command, Command::Exec(_)) {
        255
    } else {
        1
    };
    match dispatch(global, arguments.command) {
        Ok(code) => code as u8,
        Err(e) => fail(global, &e.to_string(), failure_code),
    }
}

/// Tells why the command failed: one line on stderr, and in the log.
fn fail(global: &Global, message: &str, code: u8) -> u8 {
    eprintln!("quark: {message}");
    if global.log.is_some() {
        log::error!("{message}");
    }
    code
}

fn dispatch(global: &Global, command: Command) -> Result<i32, Error> {
    match command {
        Command::Run(args) => create::run(global, args),
        Command::Create(args) => create::create(global, args),
        Command::Start(args) => start::main(global, args),
        Command::State(args) => state::main(global, args),
        Command::Kill(args) => kill::main(global, args),
        Command::Delete(args) => delete::main(global, args),
        Command::List(args) => list::main(global, args),
        Command::Exec(args) => exec::main(global, args),
        Command::Events(args) => events::main(global, args),
        Command::Ps(args) => ps::main(global, args),
        Command::Metrics(args) => metrics::main(global, args),
        Command::Pause(args) => pause::main(global, args, true),
        Command::Resume(args) => pause::main(global, args, false),
        Command::Update(args) => update::main(global, args),
        Command::Spec(args) => spec::main(args),
        Command::Config(args) => config::main(&args),
        Command::Debug(args) => debug::main(global, &args),
        Command::Check => check::main(global),
        Command::Do(args) => do_::main(global, args),
        Command::Features => features::main(),
        Command::Syscalls(args) => syscalls::main(&args),
        Command::Sandbox { .. } | Command::ExecProxy { .. } => Err(Error::Usage("internal command")),
    }
}
