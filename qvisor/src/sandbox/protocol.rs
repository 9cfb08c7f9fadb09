//! What is said on a container's control socket: JSON, one message each way at a time, descriptors beside it.
//!
//! A connection carries one request. That of [`Request::Exec`] stays open until the program has ended, and may carry
//! signals and sizes for it.

use oci_spec::runtime::Process;
use serde::{Deserialize, Serialize};

/// Largest message, bytes: argument lists may be long.
pub const MAX_MESSAGE: usize = 4 << 20;

/// A request.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Request {
    /// Start the container's program.
    Start,
    /// Start another program; the message's descriptors become its 0, 1, 2, ….
    Exec {
        /// The program.
        process: Box<Process>,
        /// Kill it when the connection breaks.
        kill_on_close: bool,
    },
    /// Send a signal: on an exec's connection to that program, else to the container's.
    Signal {
        /// Number.
        signo: u32,
        /// To every process of the container.
        all: bool,
    },
    /// The terminal of this connection's program has a new size.
    Resize {
        /// Rows.
        rows: u32,
        /// Columns.
        cols: u32,
    },
    /// A container joins this one's sandbox. The connection becomes its link: from the answer on it carries
    /// [`qlib::control`] messages.
    Join {
        /// Its id.
        id: String,
        /// The container whose pid namespace it shares.
        pid_of: Option<String>,
        /// The container whose ipc namespace it shares.
        ipc_of: Option<String>,
    },
    /// Stop the container's processes, or let them go on, without those that share the sandbox.
    Freeze {
        /// Stop them.
        stop: bool,
    },
    /// List the container's processes.
    Processes,
    /// Tell the guest kernel's own figures.
    Metrics,
    /// Tell of every process that the guest kernel kills for lack of memory, until the connection is closed.
    WatchMemory,
    /// The container's limits are others from now on; with memory's comes the directory of its memory cgroup, if any.
    Limits {
        /// Bytes of memory; `u64::MAX`: none; 0: as it was.
        memory: u64,
        /// Tasks, likewise.
        pids: u64,
    },
}

impl Request {
    /// What is asked for, in a word for the log.
    pub fn name(&self) -> &'static str {
        match self {
            Request::Start => "start",
            Request::Exec { .. } => "exec",
            Request::Signal { .. } => "signal",
            Request::Resize { .. } => "resize",
            Request::Join { .. } => "join",
            Request::Freeze { .. } => "freeze",
            Request::Processes => "processes",
            Request::Metrics => "metrics",
            Request::WatchMemory => "watch memory",
            Request::Limits { .. } => "limits",
        }
    }
}

/// A process of the container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProcessInfo {
    /// Guest pid.
    pub pid: u32,
    /// Guest parent.
    pub ppid: u32,
    /// User.
    pub uid: u32,
    /// State letter.
    pub state: char,
    /// Start, seconds since the Epoch.
    pub start_s: u64,
    /// Device number of its controlling terminal; 0 = none.
    pub tty: u32,
    /// CPU time, ms.
    pub cpu_ms: u64,
    /// Command line.
    pub command: String,
}

/// An answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Response {
    /// Done.
    Done,
    /// Not done.
    Error {
        /// Why, for a person.
        message: String,
        /// Error number, 0 when there is none.
        errno: i32,
    },
    /// The program runs.
    Started {
        /// Its guest pid.
        pid: u32,
    },
    /// The program has ended.
    Exited {
        /// Its exit code; 128 + the signal that ended it.
        code: i32,
    },
    /// The container has joined: the numbers, in the guest kernel, of the containers that it shares namespaces with (its own
    /// where with none).
    Joined {
        /// Whose pid namespace.
        pid_of: u32,
        /// Whose ipc namespace.
        ipc_of: u32,
    },
    /// No other container shares the sandbox.
    Alone,
    /// The guest kernel killed a process for lack of memory.
    OutOfMemory,
    /// The processes.
    Processes {
        /// All of them.
        list: Vec<ProcessInfo>,
    },
    /// The figures: names and values.
    Metrics {
        /// All of them.
        list: Vec<(String, u64)>,
    },
}
