//! Memory files (`memfd_create(2)`) and shared anonymous memory.

use crate::fs::file::File;
use crate::fs::tmpfs::{MemoryFile, Options, TmpInode, Tmpfs, seal};
use crate::task::creds::Creds;
use alloc::sync::Arc;
use hal::host::Owner;
use hal::sync::Once;
use hal::uapi::general::O_RDWR;
use qlib::Errno;

/// The file system all memory files live on.
static FS: Once<Arc<Tmpfs>> = Once::new();

/// Makes a memory file. `sealable` = MFD_ALLOW_SEALING; `no_exec` = MFD_NOEXEC_SEAL.
///
/// # Errors
/// ENOSPC.
pub fn create(name: &[u8], sealable: bool, no_exec: bool, creds: &Creds) -> Result<Arc<File>, Errno> {
    let fs = FS.call_once(|| Tmpfs::create(&Options::default()));
    let owner = Owner {
        uid: creds.fsuid,
        gid: creds.fsgid,
    };
    let mode = if no_exec { 0o666 } else { 0o777 };
    let inode = TmpInode::unnamed(fs, mode, owner)?;
    inode.set_seals(match (sealable, no_exec) {
        (_, true) => seal::EXEC,
        (true, false) => 0,
        (false, false) => seal::SEAL,
    });
    Ok(File::new(MemoryFile::memory(inode, name), None, O_RDWR))
}
