//! Control messages: QVisor's commands to QKernel (answers of [`crate::qcall::Op::ControlRecv`]) and QKernel's events
//! ([`crate::qcall::Op::ControlSend`]). Encoded with [`crate::wire`]; the first `u32` is the container's number, the second
//! the kind.

use crate::qcall::HandleId;
use crate::wire::{Reader, WireError, Writer};
use alloc::vec::Vec;

/// Which container of a sandbox a message is about. The first is the one that the sandbox was made for; others joined it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContainerId(pub u32);

impl Default for ContainerId {
    fn default() -> Self {
        Self::FIRST
    }
}

impl ContainerId {
    /// The container the sandbox was made for.
    pub const FIRST: ContainerId = ContainerId(0);
    /// Where in a message its number lies, bytes.
    pub const BYTES: core::ops::Range<usize> = 0..4;
}

/// Identifies a process the host started: 0 is the container's init, others are `exec`s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExecId(pub u32);

impl ExecId {
    /// The container's own process.
    pub const INIT: ExecId = ExecId(0);
}

/// One resource limit: `resource` is RLIMIT_*, `u64::MAX` is infinity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rlimit {
    /// RLIMIT_* number.
    pub resource: u32,
    /// Soft limit.
    pub soft: u64,
    /// Hard limit.
    pub hard: u64,
}

/// Capability sets as bit masks by capability number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Capabilities {
    pub bounding: u64,
    pub effective: u64,
    pub inheritable: u64,
    pub permitted: u64,
    pub ambient: u64,
}

/// A process to start: the OCI `process` object in plain data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessSpec {
    /// argv, at least one.
    pub args: Vec<Vec<u8>>,
    /// `NAME=value`.
    pub env: Vec<Vec<u8>>,
    /// Working directory, absolute.
    pub cwd: Vec<u8>,
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// umask; `u32::MAX` = 0o022.
    pub umask: u32,
    /// Capability sets.
    pub caps: Capabilities,
    /// Resource limits.
    pub rlimits: Vec<Rlimit>,
    /// no_new_privs.
    pub no_new_privs: bool,
    /// Readiness to be killed when memory runs out, -1000 … 1000.
    pub oom_score_adj: i32,
    /// The process gets a terminal: the first handle is it, and it becomes the controlling one.
    pub terminal: bool,
    /// Terminal rows and columns; 0 = unknown.
    pub rows: u32,
    /// Terminal columns.
    pub cols: u32,
    /// stdin, stdout, stderr, and further descriptors from 3 on; [`HandleId::NONE`] = closed.
    pub stdio: Vec<HandleId>,
}

/// Where a mount's content comes from; [`Mount::kind`] holds the integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum MountKind {
    /// A host directory, `handle` (or entry `name` of it: a single file).
    Host = 1,
    /// The guest's tmpfs.
    Tmpfs = 2,
    /// The guest's procfs.
    Proc = 3,
    /// The guest's sysfs.
    Sysfs = 4,
    /// The guest's `/dev` (a tmpfs with device nodes).
    Dev = 5,
    /// The guest's devpts.
    DevPts = 6,
    /// The guest's message queues.
    Mqueue = 7,
    /// The guest's view of its cgroup.
    Cgroup = 8,
}

impl TryFrom<u32> for MountKind {
    type Error = WireError;
    fn try_from(v: u32) -> Result<Self, WireError> {
        Ok(match v {
            1 => Self::Host,
            2 => Self::Tmpfs,
            3 => Self::Proc,
            4 => Self::Sysfs,
            5 => Self::Dev,
            6 => Self::DevPts,
            7 => Self::Mqueue,
            8 => Self::Cgroup,
            _ => return Err(WireError::Range),
        })
    }
}

/// One mount of the container, in mounting order. The first is the root (`destination` "/").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// What it is.
    pub kind: MountKind,
    /// Absolute path in the container.
    pub destination: Vec<u8>,
    /// Source as `/proc/mounts` shows it.
    pub source: Vec<u8>,
    /// File-system type as `/proc/mounts` shows it.
    pub fstype: Vec<u8>,
    /// MS_* flags (MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC…).
    pub flags: u64,
    /// Data options (`mode=755,size=64k`).
    pub options: Vec<u8>,
    /// Host mounts: the directory.
    pub handle: HandleId,
    /// Host mounts of a single file: its name under `handle`; else empty.
    pub name: Vec<u8>,
}

/// A device node of the container's `/dev`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Absolute path.
    pub path: Vec<u8>,
    /// S_IFCHR / S_IFBLK with permission bits.
    pub mode: u32,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// A container to set up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerSpec {
    /// Container id, for messages.
    pub id: Vec<u8>,
    /// UTS host name; empty = the host's.
    pub hostname: Vec<u8>,
    /// UTS domain name.
    pub domainname: Vec<u8>,
    /// Mounts in order, the root first.
    pub mounts: Vec<Mount>,
    /// Paths that read as empty.
    pub masked_paths: Vec<Vec<u8>>,
    /// Paths that are read-only.
    pub readonly_paths: Vec<Vec<u8>>,
    /// `name=value` (dots in the name).
    pub sysctls: Vec<Vec<u8>>,
    /// Extra device nodes.
    pub devices: Vec<Device>,
    /// Seccomp filter of every process (`struct sock_filter`s); empty = none.
    pub seccomp: Vec<u8>,
    /// Log the calls that the filter does not allow.
    pub seccomp_log: bool,
    /// The container whose pid namespace it shares; its own number: a new one. The first container's is the first one.
    pub pid_of: ContainerId,
    /// The container whose ipc namespace it shares; likewise.
    pub ipc_of: ContainerId,
    /// It has the sandbox's network. Else [`Self::service`] makes its sockets.
    pub share_network: bool,
    /// Its own host side, where that is not the sandbox's: it opens the texts of its cgroup and of its network.
    pub service: HandleId,
    /// Bytes of memory it may use; `u64::MAX`: no limit. Of the first container BootInfo tells.
    pub memory_limit: u64,
    /// Tasks it may have; likewise.
    pub pids_limit: u64,
    /// The container's process.
    pub process: ProcessSpec,
}

/// QVisor's commands.
// Decoded one at a time and used at once: a box for the large one would save nothing.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Set the container up, do not start it. Answer: [`Event::Created`] or [`Event::Failed`].
    Create(ContainerSpec),
    /// Start the container's process. Answer: [`Event::Started`] or [`Event::Failed`].
    Start,
    /// Start a further process. Answer: [`Event::Started`] or [`Event::Failed`], later [`Event::Exited`].
    Exec(ExecId, ProcessSpec),
    /// Send a signal. `all`: to every process of the container.
    Signal {
        /// To the process started as this.
        exec: ExecId,
        /// Signal number.
        signo: u32,
        /// To every process.
        all: bool,
    },
    /// The terminal's size changed.
    Resize {
        /// Whose terminal.
        exec: ExecId,
        /// Rows.
        rows: u32,
        /// Columns.
        cols: u32,
    },
    /// Memory runs out: kill the largest process.
    OutOfMemory,
    /// List processes. Answer: [`Event::Processes`].
    Processes,
    /// Tell the kernel's own figures. Answer: [`Event::Metrics`].
    Metrics,
    /// The container's limits are others from now on; 0 leaves one as it is, `u64::MAX` lifts it.
    Limits {
        /// Bytes of memory.
        memory: u64,
        /// Tasks.
        pids: u64,
    },
    /// The host side of a container that joined the sandbox is gone: end what is left of it. Answer: [`Event::Ended`].
    End,
    /// The container's processes stop where they are, or go on. Answer: [`Event::Frozen`].
    Freeze(bool),
}

/// A process as `quark ps` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessEntry {
    /// Guest pid.
    pub pid: u32,
    /// Parent.
    pub ppid: u32,
    /// Effective user.
    pub uid: u32,
    /// State letter as in `/proc/PID/stat`.
    pub state: u8,
    /// Start time, seconds since the Epoch.
    pub start_s: u64,
    /// Device number of its controlling terminal; 0 = none.
    pub tty: u32,
    /// CPU time, ms.
    pub cpu_ms: u64,
    /// Command line, NUL-separated (or the name in brackets).
    pub cmdline: Vec<u8>,
}

/// QKernel's events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// QKernel is up and waits for commands.
    Ready,
    /// The container is set up.
    Created,
    /// A process runs.
    Started {
        /// Which.
        exec: ExecId,
        /// Its guest pid.
        pid: u32,
    },
    /// A command failed.
    Failed {
        /// Which process it was about.
        exec: ExecId,
        /// Error number.
        errno: i32,
        /// What went wrong, for a person.
        message: Vec<u8>,
    },
    /// A process ended.
    Exited {
        /// Which.
        exec: ExecId,
        /// Wait status as `wait4(2)` gives it.
        status: u32,
    },
    /// Answer of [`Command::Processes`].
    Processes(Vec<ProcessEntry>),
    /// Answer of [`Command::Metrics`]: names and values.
    Metrics(Vec<(Vec<u8>, u64)>),
    /// The guest killed a process for lack of memory.
    OomKilled {
        /// Its guest pid.
        pid: u32,
    },
    /// The host process that sent this starts the processes of a container that joined the sandbox: it belongs into the
    /// container's cgroup.
    Nursery {
        /// Its pid on the host; the guest, which does not know it, says 0.
        pid: u32,
    },
    /// Nothing is left of a container that joined the sandbox.
    Ended,
    /// Answer of [`Command::Freeze`].
    Frozen(bool),
}

fn put_process(w: &mut Writer, p: &ProcessSpec) {
    w.list(&p.args, |w, a| {
        w.bytes(a);
    });
    w.list(&p.env, |w, a| {
        w.bytes(a);
    });
    w.bytes(&p.cwd).u32(p.uid).u32(p.gid);
    w.list(&p.groups, |w, g| {
        w.u32(*g);
    });
    w.u32(p.umask);
    for set in [
        p.caps.bounding,
        p.caps.effective,
        p.caps.inheritable,
        p.caps.permitted,
        p.caps.ambient,
    ] {
        w.u64(set);
    }
    w.list(&p.rlimits, |w, r| {
        w.u32(r.resource).u64(r.soft).u64(r.hard);
    });
    w.u8(p.no_new_privs as u8)
        .u32(p.oom_score_adj as u32)
        .u8(p.terminal as u8)
        .u32(p.rows)
        .u32(p.cols);
    w.list(&p.stdio, |w, h| {
        w.u64(h.0);
    });
}

fn get_bool(r: &mut Reader<'_>) -> Result<bool, WireError> {
    match r.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(WireError::Range),
    }
}

fn get_process(r: &mut Reader<'_>) -> Result<ProcessSpec, WireError> {
    Ok(ProcessSpec {
        args: r.list(|r| r.bytes())?,
        env: r.list(|r| r.bytes())?,
        cwd: r.bytes()?,
        uid: r.u32()?,
        gid: r.u32()?,
        groups: r.list(|r| r.u32())?,
        umask: r.u32()?,
        caps: Capabilities {
            bounding: r.u64()?,
            effective: r.u64()?,
            inheritable: r.u64()?,
            permitted: r.u64()?,
            ambient: r.u64()?,
        },
        rlimits: r.list(|r| {
            Ok(Rlimit {
                resource: r.u32()?,
                soft: r.u64()?,
                hard: r.u64()?,
            })
        })?,
        no_new_privs: get_bool(r)?,
        oom_score_adj: r.u32()? as i32,
        terminal: get_bool(r)?,
        rows: r.u32()?,
        cols: r.u32()?,
        stdio: r.list(|r| Ok(HandleId(r.u64()?)))?,
    })
}

impl Command {
    /// Encodes the command for a container.
    pub fn encode(&self, to: ContainerId) -> Vec<u8> {
        let mut w = Writer::new();
        w.u32(to.0);
        match self {
            Command::Create(c) => {
                w.u32(1).bytes(&c.id).bytes(&c.hostname).bytes(&c.domainname);
                w.list(&c.mounts, |w, m| {
                    w.u32(m.kind as u32)
                        .bytes(&m.destination)
                        .bytes(&m.source)
                        .bytes(&m.fstype);
                    w.u64(m.flags).bytes(&m.options).u64(m.handle.0).bytes(&m.name);
                });
                for paths in [&c.masked_paths, &c.readonly_paths, &c.sysctls] {
                    w.list(paths, |w, p| {
                        w.bytes(p);
                    });
                }
                w.list(&c.devices, |w, d| {
                    w.bytes(&d.path)
                        .u32(d.mode)
                        .u32(d.major)
                        .u32(d.minor)
                        .u32(d.uid)
                        .u32(d.gid);
                });
                w.bytes(&c.seccomp).u8(c.seccomp_log as u8);
                w.u32(c.pid_of.0)
                    .u32(c.ipc_of.0)
                    .u8(c.share_network as u8)
                    .u64(c.service.0);
                w.u64(c.memory_limit).u64(c.pids_limit);
                put_process(&mut w, &c.process);
            }
            Command::Start => {
                w.u32(2);
            }
            Command::Exec(id, p) => {
                w.u32(3).u32(id.0);
                put_process(&mut w, p);
            }
            Command::Signal { exec, signo, all } => {
                w.u32(4).u32(exec.0).u32(*signo).u8(*all as u8);
            }
            Command::Resize { exec, rows, cols } => {
                w.u32(5).u32(exec.0).u32(*rows).u32(*cols);
            }
            Command::OutOfMemory => {
                w.u32(6);
            }
            Command::Processes => {
                w.u32(7);
            }
            Command::Metrics => {
                w.u32(8);
            }
            Command::Limits { memory, pids } => {
                w.u32(9).u64(*memory).u64(*pids);
            }
            Command::End => {
                w.u32(10);
            }
            Command::Freeze(stop) => {
                w.u32(11).u8(*stop as u8);
            }
        }
        w.finish()
    }

    /// Decodes a command, and which container it is for.
    pub fn decode(bytes: &[u8]) -> Result<(ContainerId, Self), WireError> {
        let mut r = Reader::new(bytes);
        let to = ContainerId(r.u32()?);
        let command = match r.u32()? {
            1 => Command::Create(ContainerSpec {
                id: r.bytes()?,
                hostname: r.bytes()?,
                domainname: r.bytes()?,
                mounts: r.list(|r| {
                    Ok(Mount {
                        kind: MountKind::try_from(r.u32()?)?,
                        destination: r.bytes()?,
                        source: r.bytes()?,
                        fstype: r.bytes()?,
                        flags: r.u64()?,
                        options: r.bytes()?,
                        handle: HandleId(r.u64()?),
                        name: r.bytes()?,
                    })
                })?,
                masked_paths: r.list(|r| r.bytes())?,
                readonly_paths: r.list(|r| r.bytes())?,
                sysctls: r.list(|r| r.bytes())?,
                devices: r.list(|r| {
                    Ok(Device {
                        path: r.bytes()?,
                        mode: r.u32()?,
                        major: r.u32()?,
                        minor: r.u32()?,
                        uid: r.u32()?,
                        gid: r.u32()?,
                    })
                })?,
                seccomp: r.bytes()?,
                seccomp_log: get_bool(&mut r)?,
                pid_of: ContainerId(r.u32()?),
                ipc_of: ContainerId(r.u32()?),
                share_network: get_bool(&mut r)?,
                service: HandleId(r.u64()?),
                memory_limit: r.u64()?,
                pids_limit: r.u64()?,
                process: get_process(&mut r)?,
            }),
            2 => Command::Start,
            3 => Command::Exec(ExecId(r.u32()?), get_process(&mut r)?),
            4 => Command::Signal {
                exec: ExecId(r.u32()?),
                signo: r.u32()?,
                all: get_bool(&mut r)?,
            },
            5 => Command::Resize {
                exec: ExecId(r.u32()?),
                rows: r.u32()?,
                cols: r.u32()?,
            },
            6 => Command::OutOfMemory,
            7 => Command::Processes,
            8 => Command::Metrics,
            9 => Command::Limits {
                memory: r.u64()?,
                pids: r.u64()?,
            },
            10 => Command::End,
            11 => Command::Freeze(get_bool(&mut r)?),
            _ => return Err(WireError::Range),
        };
        r.end()?;
        Ok((to, command))
    }
}

impl Event {
    /// Encodes the event of a container.
    pub fn encode(&self, of: ContainerId) -> Vec<u8> {
        let mut w = Writer::new();
        w.u32(of.0);
        match self {
            Event::Ready => {
                w.u32(1);
            }
            Event::Created => {
                w.u32(2);
            }
            Event::Started { exec, pid } => {
                w.u32(3).u32(exec.0).u32(*pid);
            }
            Event::Failed { exec, errno, message } => {
                w.u32(4).u32(exec.0).u32(*errno as u32).bytes(message);
            }
            Event::Exited { exec, status } => {
                w.u32(5).u32(exec.0).u32(*status);
            }
            Event::Processes(list) => {
                w.u32(6).list(list, |w, p| {
                    w.u32(p.pid)
                        .u32(p.ppid)
                        .u32(p.uid)
                        .u8(p.state)
                        .u64(p.start_s)
                        .u32(p.tty)
                        .u64(p.cpu_ms)
                        .bytes(&p.cmdline);
                });
            }
            Event::OomKilled { pid } => {
                w.u32(7).u32(*pid);
            }
            Event::Metrics(list) => {
                w.u32(8).list(list, |w, (name, value)| {
                    w.bytes(name).u64(*value);
                });
            }
            Event::Nursery { pid } => {
                w.u32(9).u32(*pid);
            }
            Event::Ended => {
                w.u32(10);
            }
            Event::Frozen(stopped) => {
                w.u32(11).u8(*stopped as u8);
            }
        }
        w.finish()
    }

    /// Decodes an event, and which container it is of.
    pub fn decode(bytes: &[u8]) -> Result<(ContainerId, Self), WireError> {
        let mut r = Reader::new(bytes);
        let of = ContainerId(r.u32()?);
        let event = match r.u32()? {
            1 => Event::Ready,
            2 => Event::Created,
            3 => Event::Started {
                exec: ExecId(r.u32()?),
                pid: r.u32()?,
            },
            4 => Event::Failed {
                exec: ExecId(r.u32()?),
                errno: r.u32()? as i32,
                message: r.bytes()?,
            },
            5 => Event::Exited {
                exec: ExecId(r.u32()?),
                status: r.u32()?,
            },
            6 => Event::Processes(r.list(|r| {
                Ok(ProcessEntry {
                    pid: r.u32()?,
                    ppid: r.u32()?,
                    uid: r.u32()?,
                    state: r.u8()?,
                    start_s: r.u64()?,
                    tty: r.u32()?,
                    cpu_ms: r.u64()?,
                    cmdline: r.bytes()?,
                })
            })?),
            7 => Event::OomKilled { pid: r.u32()? },
            8 => Event::Metrics(r.list(|r| Ok((r.bytes()?, r.u64()?)))?),
            9 => Event::Nursery { pid: r.u32()? },
            10 => Event::Ended,
            11 => Event::Frozen(get_bool(&mut r)?),
            _ => return Err(WireError::Range),
        };
        r.end()?;
        Ok((of, event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_bear_their_container() {
        let other = ContainerId(7);
        let spec = ContainerSpec {
            pid_of: ContainerId(2),
            ipc_of: other,
            share_network: true,
            service: HandleId(5),
            memory_limit: 1 << 20,
            pids_limit: u64::MAX,
            ..ContainerSpec::default()
        };
        for command in [Command::Create(spec), Command::End, Command::Freeze(true)] {
            let mut bytes = command.encode(ContainerId::FIRST);
            // Who passes a command on names the container by itself.
            bytes[ContainerId::BYTES].copy_from_slice(&other.0.to_le_bytes());
            assert_eq!(Command::decode(&bytes), Ok((other, command)));
        }
        for event in [Event::Nursery { pid: 9 }, Event::Ended, Event::Frozen(false)] {
            assert_eq!(Event::decode(&event.encode(other)), Ok((other, event)));
        }
    }
}
