//! Opening files. Source: `open(2)`, `openat2(2)`, Linux `fs/namei.c` (do_open, path_openat).

use crate::fs::dcache;
use crate::fs::file::{File, FileOps};
use crate::fs::inode::FileType;
use crate::fs::mount::{self, build::kernel_creds};
use crate::fs::names::{may_create, new_mode};
use crate::fs::notify::{self, mask};
use crate::fs::path::{FsContext, Path};
use crate::fs::pipe;
use crate::fs::text::Use;
use crate::fs::walk::{Flags, Last, Walker, check, writable};
use crate::task::creds::{Creds, cap};
use alloc::sync::Arc;
use core::any::Any;
use hal::uapi::general::{
    MS_NODEV, MS_NOEXEC, O_ACCMODE, O_APPEND, O_CLOEXEC, O_CREAT, O_DIRECT, O_DIRECTORY, O_DSYNC, O_EXCL,
    O_LARGEFILE, O_NOATIME, O_NOCTTY, O_NOFOLLOW, O_NONBLOCK, O_PATH, O_RDONLY, O_RDWR, O_SYNC, O_TMPFILE,
    O_TRUNC, O_WRONLY,
};
use qlib::Errno;

/// Bit of O_TMPFILE besides O_DIRECTORY.
const TMPFILE_BIT: u32 = O_TMPFILE & !O_DIRECTORY;
/// Every flag `open` knows.
pub const VALID_FLAGS: u32 = O_ACCMODE
    | O_CREAT
    | O_EXCL
    | O_NOCTTY
    | O_TRUNC
    | O_APPEND
    | O_NONBLOCK
    | O_DSYNC
    | O_SYNC
    | O_DIRECT
    | O_LARGEFILE
    | O_DIRECTORY
    | O_NOFOLLOW
    | O_NOATIME
    | O_CLOEXEC
    | O_PATH
    | O_TMPFILE
    | FASYNC;
/// `O_ASYNC`.
pub const FASYNC: u32 = 0o20000;
/// Flags that mean something only while opening.
const OPEN_ONLY: u32 = O_CREAT | O_EXCL | O_NOCTTY | O_TRUNC | O_CLOEXEC;

/// How to open.
#[derive(Clone, Copy, Debug)]
pub struct How {
    /// O_* flags.
    pub flags: u32,
    /// Permission bits of a new file, before the umask.
    pub mode: u32,
    /// RESOLVE_* restrictions of the walk.
    pub walk: Flags,
}

impl How {
    /// Opens with `flags`, creating with `mode`.
    pub fn new(flags: u32, mode: u32) -> Self {
        Self {
            flags,
            mode,
            walk: Flags::empty(),
        }
    }
}

/// A place without IO (O_PATH).
struct PathOnly;

impl FileOps for PathOnly {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn read(&self, _: &File, _: &mut hal::host::Dest<'_>, _: u64) -> Result<usize, Errno> {
        Err(Errno::EBADF)
    }
    fn write(&self, _: &File, _: &mut hal::host::Src<'_>, _: u64) -> Result<usize, Errno> {
        Err(Errno::EBADF)
    }
}

/// What the access mode asks of the permission bits: 4 read, 2 write.
fn wanted(flags: u32) -> u32 {
    let mut want = match flags & O_ACCMODE {
        O_RDONLY => 4,
        O_WRONLY => 2,
        _ => 6,
    };
    if flags & O_TRUNC != 0 {
        want |= 2;
    }
    want
}

/// Opens a file.
///
/// # Errors
/// As `open(2)` lists them.
pub fn open(
    fs: &FsContext,
    creds: &Creds,
    at: Option<&Path>,
    path: &[u8],
    how: How,
) -> Result<Arc<File>, Errno> {
    let flags = how.flags;
    if flags & O_PATH != 0 {
        return open_path(fs, creds, at, path, how);
    }
    if flags & TMPFILE_BIT != 0 {
        return open_tmpfile(fs, creds, at, path, how);
    }
    let mut w = Walker::new(fs, creds, at, path, how.walk)?;
    loop {
        let last = w.to_parent()?;
        let (name, slash) = match last {
            Last::Name(name, slash) => (name, slash),
            Last::Dot | Last::Root => {
                if let Some(f) = w.magic_file().cloned() {
                    return reopen(&f, creds, flags);
                }
                return open_existing(&w.here.clone(), creds, flags, false);
            }
            Last::DotDot => {
                w.step_up()?;
                return open_existing(&w.here.clone(), creds, flags, false);
            }
        };
        if flags & O_CREAT != 0 && slash {
            return Err(Errno::EISDIR);
        }
        let found = match w.step(&name) {
            Ok(found) => found,
            Err(Errno::ENOENT) if flags & O_CREAT != 0 => {
                match create(fs, creds, &w.here, &name, how)? {
                    Some(file) => return Ok(file),
                    // Somebody else made it meanwhile.
                    None => w.step(&name)?,
                }
            }
            Err(e) => return Err(e),
        };
        if flags & (O_CREAT | O_EXCL) == O_CREAT | O_EXCL {
            return Err(Errno::EEXIST);
        }
        match found.inode().file_type() {
            FileType::Symlink if flags & O_NOFOLLOW == 0 || slash => {
                w.follow(&found)?;
                continue;
            }
            FileType::Directory => {}
            _ if slash => return Err(Errno::ENOTDIR),
            _ => {}
        }
        return open_existing(&found, creds, flags, false);
    }
}

/// Makes and opens a file; `None` when the name appeared meanwhile.
fn create(
    fs: &FsContext,
    creds: &Creds,
    dir: &Path,
    name: &[u8],
    how: How,
) -> Result<Option<Arc<File>>, Errno> {
    let guard = dir.dentry.dir_lock.lock();
    match dcache::child_locked(&dir.dentry, name) {
        Ok(_) => return Ok(None),
        Err(Errno::ENOENT) => {}
        Err(e) => return Err(e),
    }
    let attr = may_create(dir, creds)?;
    let mode = new_mode(&attr, fs.masked(how.mode), false, creds);
    let (inode, ops) = match dir.inode().create(name, mode, how.flags, creds) {
        Err(Errno::EEXIST) if how.flags & O_EXCL == 0 => return Ok(None),
        other => other?,
    };
    let dentry = dcache::insert(&dir.dentry, name, inode);
    drop(guard);
    notify::entry(&dir.dentry, mask::CREATE, 0, name);
    let path = Path {
        mount: dir.mount.clone(),
        dentry,
    };
    let file = File::new(ops, Some(path), how.flags & !OPEN_ONLY);
    hold_text(&file)?;
    notify::file(&file, mask::OPEN);
    Ok(Some(file))
}

/// While a new file is open for writing it cannot be run.
fn hold_text(file: &File) -> Result<(), Errno> {
    if file.writable()
        && let Some(path) = file.path()
    {
        file.set_text_use(Some(Use::writing(&**path.inode())?));
    }
    Ok(())
}

/// Checks and opens what a walk found. `exec`: for execution.
fn open_existing(path: &Path, creds: &Creds, flags: u32, exec: bool) -> Result<Arc<File>, Errno> {
    let inode = path.inode();
    let kind = inode.file_type();
    let want = if exec { 1 } else { wanted(flags) };
    match kind {
        FileType::Symlink => return Err(Errno::ELOOP),
        FileType::Directory if exec => return Err(Errno::EACCES),
        FileType::Directory if want & 2 != 0 || flags & O_CREAT != 0 => return Err(Errno::EISDIR),
        FileType::Directory => {}
        _ if flags & O_DIRECTORY != 0 => return Err(Errno::ENOTDIR),
        FileType::CharDevice | FileType::BlockDevice if path.mount.has(MS_NODEV) => {
            return Err(Errno::EACCES);
        }
        _ => {}
    }
    if exec && (kind != FileType::Regular || path.mount.has(MS_NOEXEC)) {
        return Err(Errno::EACCES);
    }
    let plain = matches!(kind, FileType::Regular | FileType::Directory);
    if want & 2 != 0 && plain {
        writable(&path.mount)?;
    }
    let attr = inode.attr()?;
    check(creds, &attr, want)?;
    if flags & O_NOATIME != 0
        && creds.fsuid != attr.uid
        && !creds.capable_over(attr.uid, attr.gid, cap::FOWNER)
    {
        return Err(Errno::EPERM);
    }
    // Before it is cut off, if it is.
    let text = match kind {
        FileType::Regular if exec => Some(Use::running(&**inode)?),
        FileType::Regular if want & 2 != 0 => Some(Use::writing(&**inode)?),
        _ => None,
    };
    let ops = inode.open(if plain { flags } else { flags & !O_TRUNC }, creds)?;
    let file = File::new(ops, Some(path.clone()), flags & !OPEN_ONLY);
    if exec || file.writable() {
        file.set_text_use(text);
    }
    if flags & O_TRUNC != 0 && kind == FileType::Regular {
        notify::file(&file, mask::MODIFY);
    }
    notify::file(&file, mask::OPEN);
    Ok(file)
}

/// Opens again what a magic link (`/proc/self/fd/N`) leads to: a new description of the same object.
fn reopen(file: &Arc<File>, creds: &Creds, flags: u32) -> Result<Arc<File>, Errno> {
    if let Some(p) = file.path() {
        return open_existing(p, creds, flags, false);
    }
    if flags & O_DIRECTORY != 0 {
        return Err(Errno::ENOTDIR);
    }
    let Some(inode) = file.inode() else {
        return reopen_stream(file, flags);
    };
    check(creds, &inode.attr()?, wanted(flags))?;
    let ops = inode.open(flags, creds)?;
    Ok(File::new(ops, None, flags & !OPEN_ONLY))
}

/// Opens a pipe, or what the container's starter gave as stdin, stdout or stderr, once more.
fn reopen_stream(file: &Arc<File>, flags: u32) -> Result<Arc<File>, Errno> {
    let kept = flags & !OPEN_ONLY;
    if let Some(p) = pipe::of(file) {
        return Ok(File::new(p.open_end(pipe::access(flags)), None, kept));
    }
    // Sockets and anonymous inodes cannot be opened; the others have no state of their own per description.
    match file.ops().stat(file)?.mode & 0o170_000 {
        0o020_000 | 0o010_000 | 0o100_000 => Ok(File::new(file.ops_arc(), None, kept)),
        _ => Err(Errno::ENXIO),
    }
}

fn open_path(
    fs: &FsContext,
    creds: &Creds,
    at: Option<&Path>,
    path: &[u8],
    how: How,
) -> Result<Arc<File>, Errno> {
    let keep = O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    let flags = how.flags & keep;
    let mut walk = how.walk;
    walk.set(Flags::FOLLOW, flags & O_NOFOLLOW == 0);
    walk.set(Flags::DIRECTORY, flags & O_DIRECTORY != 0);
    let found = Walker::new(fs, creds, at, path, walk)?.to_end()?;
    if let Some(f) = found.file
        && f.path().is_none()
    {
        return Ok(File::new(f.ops_arc(), None, flags & !OPEN_ONLY));
    }
    Ok(File::new(
        Arc::new(PathOnly),
        Some(found.path),
        flags & !OPEN_ONLY,
    ))
}

fn open_tmpfile(
    fs: &FsContext,
    creds: &Creds,
    at: Option<&Path>,
    path: &[u8],
    how: How,
) -> Result<Arc<File>, Errno> {
    let flags = how.flags;
    if flags & O_ACCMODE == O_RDONLY || flags & O_CREAT != 0 || flags & O_DIRECTORY == 0 {
        return Err(Errno::EINVAL);
    }
    let walk = how.walk | Flags::FOLLOW | Flags::DIRECTORY;
    let dir = Walker::new(fs, creds, at, path, walk)?.to_end()?.path;
    let attr = may_create(&dir, creds)?;
    let mode = new_mode(&attr, fs.masked(how.mode), false, creds);
    let (inode, ops) = dir.inode().tmpfile(mode, flags, creds)?;
    let dentry = crate::fs::path::Dentry::child(&dir.dentry, b"#tmpfile", inode);
    dentry.deleted.store(true, core::sync::atomic::Ordering::Release);
    let path = Path {
        mount: dir.mount.clone(),
        dentry,
    };
    let file = File::new(ops, Some(path), flags & !OPEN_ONLY);
    hold_text(&file)?;
    Ok(file)
}

/// Opens a program for execution: a regular file with execute permission, not on a `noexec` mount.
///
/// # Errors
/// As `execve(2)`: EACCES, ENOENT, ELOOP.
pub fn open_exec(
    fs: &FsContext,
    creds: &Creds,
    at: Option<&Path>,
    path: &[u8],
    walk: Flags,
) -> Result<Arc<File>, Errno> {
    let found = Walker::new(fs, creds, at, path, walk)?.to_end()?;
    if let Some(f) = found.file
        && f.path().is_none()
    {
        let inode = f.inode().ok_or(Errno::EACCES)?;
        if inode.file_type() != FileType::Regular {
            return Err(Errno::EACCES);
        }
        check(creds, &inode.attr()?, 1)?;
        let ops = inode.open(O_RDONLY, creds)?;
        return Ok(File::new(ops, None, O_RDONLY));
    }
    open_existing(&found.path, creds, O_RDONLY, true)
}

/// Opens a file by absolute path below `root` with the kernel's own rights.
///
/// # Errors
/// As `open(2)`.
pub fn open_kernel(root: &Path, path: &[u8], flags: u32) -> Result<Arc<File>, Errno> {
    let fs = FsContext::new(root.clone(), root.clone(), 0);
    open(&fs, &kernel_creds(), None, path, How::new(flags, 0o600))
}

/// Opens a place found before (not a symlink) with the checks of `open`.
///
/// # Errors
/// As `open(2)`.
pub fn open_at(path: &Path, creds: &Creds, flags: u32) -> Result<Arc<File>, Errno> {
    open_existing(&mount::descend(path.clone()), creds, flags, false)
}

/// Flags of `open(2)` made sane: unknown bits are dropped, O_PATH keeps only its own.
pub fn sanitize(flags: u32) -> u32 {
    let flags = flags & VALID_FLAGS;
    // O_SYNC contains O_DSYNC; the access mode 3 is a relic that allows nothing but ioctl.
    if flags & O_ACCMODE == O_ACCMODE {
        flags & !O_ACCMODE | O_RDWR
    } else {
        flags
    }
}
