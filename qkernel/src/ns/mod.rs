//! Namespaces: what a task sees as its host name, its mounts, its IPC objects, its network, its users. Source: `namespaces(7)`.
//! One room per kind; this file holds a task's set of them and the calls that change it.

pub mod file;
pub mod ipc;
pub mod mnt;
pub mod net;
pub mod pid;
pub mod service;
pub mod user;
pub mod uts;

use crate::fs::mount;
use crate::fs::path::{FsContext, Path};
use crate::task::creds::{Creds, cap};
use crate::task::{Process, Task};
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};
use hal::sync::Once;
use ipc::IpcNs;
use mnt::MntNs;
use net::NetNs;
use pid::PidNs;
use qlib::Errno;
use service::ServiceRef;
use user::UserRef;
use uts::UtsNs;

/// Flags of `clone(2)`, `unshare(2)` and `setns(2)`.
#[allow(missing_docs)]
pub mod new {
    pub const TIME: u64 = 0x80;
    pub const NS: u64 = 0x0002_0000;
    pub const CGROUP: u64 = 0x0200_0000;
    pub const UTS: u64 = 0x0400_0000;
    pub const IPC: u64 = 0x0800_0000;
    pub const USER: u64 = 0x1000_0000;
    pub const PID: u64 = 0x2000_0000;
    pub const NET: u64 = 0x4000_0000;
    pub const ALL: u64 = TIME | NS | CGROUP | UTS | IPC | USER | PID | NET;
    /// Kinds that cannot be made: there is one only, or (networks) the host makes them and each container comes with its own.
    pub const ONE: u64 = TIME | NET;
}

/// Numbers of the first namespaces, as in Linux.
const FIRST_IPC: u64 = 4_026_531_839;
const FIRST_UTS: u64 = 4_026_531_838;
/// The first user namespace.
pub const FIRST_USER: u64 = 4_026_531_837;
/// The first pid namespace.
pub const FIRST_PID: u64 = 4_026_531_836;
const FIRST_CGROUP: u64 = 4_026_531_835;
/// The first time namespace.
pub const FIRST_TIME: u64 = 4_026_531_834;
const FIRST_MNT: u64 = 4_026_531_841;
/// The first network namespace.
pub const FIRST_NET: u64 = 4_026_531_840;

/// The number of a namespace: an inode number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Id(pub u64);

impl Id {
    /// A new one.
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(4_026_532_200);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl Default for Id {
    fn default() -> Self {
        Self::new()
    }
}

/// A cgroup namespace: a container has one cgroup, so all of a container look alike.
pub struct CgroupNs {
    /// Its number.
    pub id: Id,
    /// Whose capabilities count.
    pub owner: UserRef,
    /// Who has the cgroup's figures.
    pub service: ServiceRef,
    /// The most CPU time that was shown, ns: user, system.
    pub shown_cpu_ns: [AtomicU64; 2],
}

impl CgroupNs {
    /// A container's own, whose host side is `service`.
    pub fn new(owner: UserRef, service: ServiceRef) -> Arc<Self> {
        Self::with(Id::new(), owner, service)
    }
    fn with(id: Id, owner: UserRef, service: ServiceRef) -> Arc<Self> {
        Arc::new(Self {
            id,
            owner,
            service,
            shown_cpu_ns: Default::default(),
        })
    }
}

/// The namespaces of a task, but for the user namespace, which its credentials hold. Immutable: changes make a new set.
#[derive(Clone)]
pub struct Namespaces {
    /// Host names.
    pub uts: Arc<UtsNs>,
    /// IPC objects.
    pub ipc: Arc<IpcNs>,
    /// Mounts.
    pub mnt: Arc<MntNs>,
    /// The cgroup root.
    pub cgroup: Arc<CgroupNs>,
    /// The network.
    pub net: Arc<NetNs>,
    /// Where its children get their process numbers; its own are from [`Task::pid_ns`].
    pub pid: Arc<PidNs>,
}

/// The set the container starts with.
pub fn first() -> &'static Arc<Namespaces> {
    static FIRST: Once<Arc<Namespaces>> = Once::new();
    FIRST.call_once(|| {
        Arc::new(Namespaces {
            uts: Arc::new(UtsNs::new(Id(FIRST_UTS))),
            ipc: Arc::new(IpcNs::new(Id(FIRST_IPC), None)),
            mnt: Arc::new(MntNs::unbuilt(Id(FIRST_MNT))),
            cgroup: CgroupNs::with(Id(FIRST_CGROUP), None, None),
            net: Arc::new(NetNs::first()),
            pid: pid::root().clone(),
        })
    })
}

/// The calling task's set; the first one on kernel threads.
pub fn current() -> Arc<Namespaces> {
    crate::task::current().map_or_else(|| first().clone(), |t| t.namespaces())
}

/// The numbers the calling app knows the owner of something by.
pub fn shown_owner(uid: u32, gid: u32) -> (u32, u32) {
    match crate::task::current().map(|t| t.creds()) {
        Some(c) if c.user.is_some() => (c.shown_uid(uid), c.shown_gid(gid)),
        _ => (uid, gid),
    }
}

/// Whether the calling process has other threads.
fn alone(p: &Process) -> bool {
    p.tasks.lock().len() == 1
}

/// Whether the root directory is another than the namespace's.
fn chrooted(fs: &FsContext, set: &Namespaces) -> bool {
    set.mnt.root().is_some_and(|r| !r.same(&fs.root()))
}

/// What a new set is made of.
pub struct Fresh {
    /// The set.
    pub set: Arc<Namespaces>,
    /// The credentials, when there is a new user namespace.
    pub creds: Option<Arc<Creds>>,
}

/// Makes the namespaces that `flags` asks for. `fs` is moved to the copy of its tree of mounts.
///
/// # Errors
/// EINVAL for kinds that cannot be made ([`new::ONE`]); EPERM; ENOSPC.
pub fn make(task: &Task, fs: &FsContext, flags: u64) -> Result<Fresh, Errno> {
    let old = task.namespaces();
    let mut creds = task.creds();
    let own_user = flags & new::USER != 0;
    if own_user {
        if chrooted(fs, &old) {
            return Err(Errno::EPERM);
        }
        let ns = user::UserNs::create(&creds)?;
        let mut c = (*creds).clone();
        user::enter(&mut c, Some(ns));
        creds = Arc::new(c);
    }
    let owner = creds.user.clone();
    if flags & new::ALL & !new::USER != 0 && !creds.capable_in(&owner, cap::SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    if flags & new::ONE != 0 {
        return Err(Errno::EINVAL);
    }
    let mut set = (*old).clone();
    if flags & new::UTS != 0 {
        set.uts = old.uts.copy(owner.clone());
    }
    if flags & new::IPC != 0 {
        set.ipc = Arc::new(IpcNs::new(Id::new(), owner.clone()));
    }
    if flags & new::CGROUP != 0 {
        set.cgroup = CgroupNs::new(owner.clone(), old.cgroup.service.clone());
    }
    if flags & new::PID != 0 {
        if !Arc::ptr_eq(task.pid_ns(), &old.pid) {
            return Err(Errno::EINVAL);
        }
        set.pid = PidNs::create(owner.clone(), &old.pid)?;
    }
    if flags & new::NS != 0 {
        set.mnt = copy_mounts(&old, fs, owner)?;
    }
    Ok(Fresh {
        set: Arc::new(set),
        creds: own_user.then_some(creds),
    })
}

fn copy_mounts(old: &Namespaces, fs: &FsContext, owner: UserRef) -> Result<Arc<MntNs>, Errno> {
    let _change = mount::change();
    let top = old.mnt.top().ok_or(Errno::EINVAL)?;
    let translate = mount::copy_tree(&top, user::id_of(&owner))?;
    let copy = translate(&top.root_path()).mount;
    fs.set_root(translate(&fs.root()));
    fs.set_cwd(translate(&fs.cwd()));
    Ok(MntNs::new(owner, copy))
}

/// `unshare(2)` of namespaces.
///
/// # Errors
/// EINVAL with other threads where the kind does not allow them; as [`make`].
pub fn unshare(task: &Arc<Task>, flags: u64) -> Result<(), Errno> {
    if flags & new::USER != 0 && !alone(&task.process) {
        return Err(Errno::EINVAL);
    }
    if flags & (new::NS | new::USER) != 0 {
        task.unshare_fs();
    }
    let fresh = make(task, &task.fs(), flags)?;
    leave_ipc(task, &fresh.set);
    if let Some(c) = fresh.creds {
        *task.creds.lock() = c;
    }
    task.set_namespaces(fresh.set);
    Ok(())
}

/// A namespace that `setns(2)` can enter.
#[derive(Clone)]
#[allow(missing_docs)]
pub enum Any {
    Uts(Arc<UtsNs>),
    Ipc(Arc<IpcNs>),
    Mnt(Arc<MntNs>),
    Cgroup(Arc<CgroupNs>),
    Net(Arc<NetNs>),
    User(UserRef),
    Pid(Arc<PidNs>),
    /// The only one of its kind: name and number.
    Only(&'static str, u64, u64),
}

impl Any {
    /// The kind as `/proc/PID/ns` names it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Uts(_) => "uts",
            Self::Ipc(_) => "ipc",
            Self::Mnt(_) => "mnt",
            Self::Cgroup(_) => "cgroup",
            Self::Net(_) => "net",
            Self::User(_) => "user",
            Self::Pid(_) => "pid",
            Self::Only(name, ..) => name,
        }
    }
    /// Its number.
    pub fn ino(&self) -> u64 {
        match self {
            Self::Uts(n) => n.id.0,
            Self::Ipc(n) => n.id.0,
            Self::Mnt(n) => n.id.0,
            Self::Cgroup(n) => n.id.0,
            Self::Net(n) => n.id.0,
            Self::User(n) => user::id_of(n),
            Self::Pid(n) => n.id.0,
            Self::Only(_, ino, _) => *ino,
        }
    }
    /// The flag of `clone(2)` that makes one.
    pub fn flag(&self) -> u64 {
        match self {
            Self::Uts(_) => new::UTS,
            Self::Ipc(_) => new::IPC,
            Self::Mnt(_) => new::NS,
            Self::Cgroup(_) => new::CGROUP,
            Self::Net(_) => new::NET,
            Self::User(_) => new::USER,
            Self::Pid(_) => new::PID,
            Self::Only(_, _, flag) => *flag,
        }
    }
    /// The user namespace it belongs to.
    pub fn owner(&self) -> UserRef {
        match self {
            Self::Uts(n) => n.owner.clone(),
            Self::Ipc(n) => n.owner.clone(),
            Self::Mnt(n) => n.owner.clone(),
            Self::Cgroup(n) => n.owner.clone(),
            Self::Net(n) => n.owner.clone(),
            Self::User(n) => n.as_ref().and_then(|n| n.parent.clone()),
            Self::Pid(n) => n.owner.clone(),
            Self::Only(..) => None,
        }
    }
    /// The namespaces of a task, those `flags` names.
    pub fn of(task: &Task, flags: u64) -> alloc::vec::Vec<Self> {
        let set = task.namespaces();
        let all = [
            Self::User(task.creds().user.clone()),
            Self::Uts(set.uts.clone()),
            Self::Ipc(set.ipc.clone()),
            Self::Cgroup(set.cgroup.clone()),
            Self::Mnt(set.mnt.clone()),
            Self::Pid(task.pid_ns().clone()),
            Self::Net(set.net.clone()),
            Self::Only("time", FIRST_TIME, new::TIME),
        ];
        all.into_iter().filter(|n| flags & n.flag() != 0).collect()
    }
}

/// `setns(2)`: the calling task enters all of `into`, or none.
///
/// # Errors
/// EPERM; EINVAL for a user namespace it is in, with other threads or a shared file-system context.
pub fn enter(task: &Arc<Task>, into: &[Any]) -> Result<(), Errno> {
    let mut set = (*task.namespaces()).clone();
    let mut creds = task.creds();
    let mut root: Option<Path> = None;
    let mut hidden = false;
    for ns in into {
        // In a user namespace entered along the way its capabilities count already.
        let admin = |c: &Creds, over: &UserRef| c.capable_in(over, cap::SYS_ADMIN);
        if let Any::User(n) = ns {
            if user::same(n, &creds.user) || !alone(&task.process) || task.shares_fs() {
                return Err(Errno::EINVAL);
            }
            if !admin(&creds, n) {
                return Err(Errno::EPERM);
            }
            let mut c = (*creds).clone();
            let maker = n
                .as_ref()
                .is_some_and(|n| n.owner == c.euid && user::same(&n.parent, &c.user));
            user::enter(&mut c, n.clone());
            creds = Arc::new(c);
            // What its memory holds is not for those inside, unless one of them had it anyway.
            if !maker {
                hidden = true;
            }
            continue;
        }
        if !admin(&creds, &ns.owner()) || !admin(&creds, &creds.user) {
            return Err(Errno::EPERM);
        }
        match ns {
            Any::Uts(n) => set.uts = n.clone(),
            Any::Ipc(n) => set.ipc = n.clone(),
            Any::Cgroup(n) => set.cgroup = n.clone(),
            Any::Net(n) => set.net = n.clone(),
            Any::Pid(n) if !n.is_within(task.pid_ns()) => return Err(Errno::EINVAL),
            Any::Pid(n) => set.pid = n.clone(),
            Any::Mnt(n) => {
                if !creds.has(cap::SYS_CHROOT) {
                    return Err(Errno::EPERM);
                }
                if task.shares_fs() {
                    return Err(Errno::EINVAL);
                }
                root = Some(n.root().ok_or(Errno::EINVAL)?);
                set.mnt = n.clone();
            }
            Any::Only(_, _, new::TIME) if !alone(&task.process) => return Err(Errno::EUSERS),
            Any::Only(..) | Any::User(_) => {}
        }
    }
    if let Some(r) = root {
        let fs = task.fs();
        fs.set_root(r.clone());
        fs.set_cwd(r);
    }
    if hidden {
        task.process.dumpable.store(0, Ordering::Relaxed);
    }
    leave_ipc(task, &set);
    *task.creds.lock() = creds;
    task.set_namespaces(Arc::new(set));
    Ok(())
}

/// Undoes what the process did to semaphores it can name no more. Other threads keep what they are to undo.
fn leave_ipc(task: &Task, to: &Namespaces) {
    let from = task.namespaces();
    if !Arc::ptr_eq(&from.ipc, &to.ipc) && alone(&task.process) {
        crate::ipc::semaphore::exit_process(&task.process, &from.ipc);
    }
}
