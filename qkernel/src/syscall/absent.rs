//! Calls that Linux itself lacks by now, or that have nothing to act on in a guest.

use super::Support::Refused;
use crate::rows;
use qlib::Errno;

rows! {
    sysctl_: Refused(Errno::ENOSYS, "removed from Linux; use /proc/sys");
    create_module: Refused(Errno::ENOSYS, "removed from Linux");
    get_kernel_syms: Refused(Errno::ENOSYS, "removed from Linux");
    query_module: Refused(Errno::ENOSYS, "removed from Linux");
    getpmsg: Refused(Errno::ENOSYS, "never in Linux");
    putpmsg: Refused(Errno::ENOSYS, "never in Linux");
    afs_syscall: Refused(Errno::ENOSYS, "never in Linux");
    tuxcall: Refused(Errno::ENOSYS, "never in Linux");
    security: Refused(Errno::ENOSYS, "never in Linux");
    vserver: Refused(Errno::ENOSYS, "never in Linux");
    uretprobe: Refused(Errno::ENOSYS, "no probes");
    lsm_get_self_attr: Refused(Errno::ENOSYS, "no security modules in the guest");
    lsm_set_self_attr: Refused(Errno::ENOSYS, "no security modules in the guest");
    lsm_list_modules: Refused(Errno::ENOSYS, "no security modules in the guest");
    setxattrat: Refused(Errno::ENOSYS, "libc falls back to setxattr");
    getxattrat: Refused(Errno::ENOSYS, "libc falls back to getxattr");
    listxattrat: Refused(Errno::ENOSYS, "libc falls back to listxattr");
    removexattrat: Refused(Errno::ENOSYS, "libc falls back to removexattr");
    open_tree_attr: Refused(Errno::ENOSYS, "the new mount interface; libraries fall back to mount(2)");
    file_getattr: Refused(Errno::ENOSYS, "no inode attributes");
    file_setattr: Refused(Errno::ENOSYS, "no inode attributes");
}
