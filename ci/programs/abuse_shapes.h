/* The shapes of system calls: a letter an argument, see argument() in abuse_arguments.c. Read by abuse.c.
 * CALL(name, shape, weight): the weight of an ordinary call is 4; calls that mostly end the caller have less. */
#define SHAPES                                                                                                                          \
  CALL(read, "fbn", 8) CALL(write, "fbn", 8) CALL(pread64, "fbno", 4) CALL(pwrite64, "fbno", 4) CALL(readv, "fvV", 8)                   \
  CALL(writev, "fvV", 8) CALL(preadv, "fvVoo", 4) CALL(pwritev, "fvVoo", 4) CALL(preadv2, "fvVooF", 4) CALL(pwritev2, "fvVooF", 4)      \
  CALL(close, "f", 3) CALL(close_range, "iiF", 1) CALL(dup, "f", 4) CALL(dup3, "ffF", 4) CALL(fcntl, "fjJ", 12) CALL(ioctl, "fIb", 12)  \
  CALL(openat, "DpFm", 12) CALL(openat2, "Dp2n", 4) CALL(lseek, "foi", 4) CALL(ftruncate, "fo", 4) CALL(truncate, "po", 4)              \
  CALL(fallocate, "fioo", 4) CALL(fsync, "f", 2) CALL(fdatasync, "f", 2) CALL(sync_file_range, "fooi", 2) CALL(fadvise64, "fooi", 2)    \
  CALL(readahead, "fon", 2) CALL(sendfile, "ffOn", 8) CALL(splice, "fOfOnF", 8) CALL(tee, "ffnF", 4) CALL(vmsplice, "fvVF", 4)          \
  CALL(copy_file_range, "fOfOnF", 4) CALL(fstat, "fb", 4) CALL(newfstatat, "DpbF", 4) CALL(statx, "DpFFb", 4) CALL(statfs, "pb", 2)     \
  CALL(fstatfs, "fb", 2) CALL(faccessat, "Dpi", 2) CALL(faccessat2, "DpiF", 2) CALL(mkdirat, "Dpm", 3) CALL(unlinkat, "DpF", 4)         \
  CALL(renameat2, "DpDpi", 4) CALL(linkat, "DpDpF", 4) CALL(symlinkat, "pDp", 4) CALL(readlinkat, "Dpbn", 4) CALL(mknodat, "Dpmx", 4)   \
  CALL(fchmod, "fm", 2) CALL(fchmodat, "Dpm", 2) CALL(fchownat, "DpuuF", 2) CALL(fchown, "fuu", 2) CALL(utimensat, "DptF", 2)           \
  CALL(chdir, "p", 2) CALL(fchdir, "f", 2) CALL(getcwd, "bn", 2) CALL(getdents64, "fbn", 6) CALL(umask, "m", 1) CALL(chroot, "p", 1)    \
  CALL(setxattr, "ppbni", 2) CALL(fsetxattr, "fpbni", 4) CALL(getxattr, "ppbn", 2) CALL(fgetxattr, "fpbn", 4) CALL(listxattr, "pbn", 2) \
  CALL(flistxattr, "fbn", 2) CALL(fremovexattr, "fp", 2) CALL(flock, "fi", 4) CALL(mount, "ppppb", 2) CALL(umount2, "pF", 2)            \
  CALL(inotify_init1, "F", 2) CALL(inotify_add_watch, "fpF", 6) CALL(inotify_rm_watch, "fi", 4) CALL(memfd_create, "pi", 4)             \
  CALL(pipe2, "bF", 4) CALL(eventfd2, "iF", 3) CALL(epoll_create1, "F", 3) CALL(epoll_ctl, "fifE", 12) CALL(epoll_pwait, "fbitgz", 6)   \
  CALL(epoll_pwait2, "fbitgz", 6) CALL(ppoll, "lVtgz", 6) CALL(pselect6, "ibbbtb", 6) CALL(signalfd4, "fgzF", 4)                        \
  CALL(timerfd_create, "cF", 3) CALL(timerfd_settime, "fiTb", 4) CALL(timerfd_gettime, "fb", 2) CALL(pidfd_open, "PF", 4)               \
  CALL(pidfd_send_signal, "fkSi", 4) CALL(pidfd_getfd, "ffi", 2)                                                                        \
  CALL(socket, "dei", 8) CALL(socketpair, "deib", 4) CALL(bind, "fsN", 8) CALL(connect, "fsN", 8) CALL(listen, "fi", 4)                 \
  CALL(accept4, "fbLF", 4) CALL(getsockname, "fbL", 3) CALL(getpeername, "fbL", 3) CALL(sendto, "fbnFsN", 8)                            \
  CALL(recvfrom, "fbnFbL", 8) CALL(sendmsg, "fhF", 12) CALL(recvmsg, "fhF", 12) CALL(sendmmsg, "fHVF", 6)                               \
  CALL(recvmmsg, "fHVFt", 6) CALL(shutdown, "fi", 3) CALL(setsockopt, "fiibN", 8) CALL(getsockopt, "fiibL", 8)                          \
  CALL(mmap, "AnqMfo", 12) CALL(munmap, "an", 6) CALL(mremap, "annia", 8) CALL(mprotect, "anq", 8) CALL(madvise, "ani", 8)              \
  CALL(msync, "ani", 4) CALL(mincore, "anb", 4) CALL(mlock, "an", 2) CALL(munlock, "an", 2) CALL(mlock2, "ani", 2) CALL(brk, "A", 1)    \
  CALL(mlockall, "i", 1) CALL(remap_file_pages, "anqiM", 2) CALL(process_vm_readv, "PvVvVi", 6) CALL(process_vm_writev, "PvVvVi", 6)    \
  CALL(process_madvise, "fvVii", 2) CALL(get_mempolicy, "bbiai", 2) CALL(membarrier, "iii", 2)                    \
  CALL(futex, "wetwwi", 24) CALL(set_robust_list, "rn", 3) CALL(get_robust_list, "Pbb", 2) CALL(futex_waitv, "bVFtc", 2)                \
  CALL(kill, "Pk", 3) CALL(tkill, "Pk", 4) CALL(tgkill, "PPk", 4) CALL(rt_sigqueueinfo, "PkS", 3) CALL(rt_tgsigqueueinfo, "PPkS", 3)    \
  CALL(rt_sigaction, "kKbz", 4) CALL(rt_sigprocmask, "igbz", 6) CALL(rt_sigpending, "bz", 2) CALL(rt_sigtimedwait, "gbtz", 4)           \
  CALL(rt_sigsuspend, "gz", 2) CALL(sigaltstack, "bb", 2) CALL(rt_sigreturn, "", 1) CALL(restart_syscall, "", 2)                        \
  CALL(nanosleep, "tb", 3) CALL(clock_nanosleep, "citb", 4) CALL(clock_gettime, "cb", 2) CALL(clock_settime, "ct", 1)                   \
  CALL(timer_create, "cyb", 4) CALL(timer_settime, "iiTb", 4) CALL(timer_gettime, "ib", 2) CALL(timer_delete, "i", 2)                   \
  CALL(timer_getoverrun, "i", 1) CALL(setitimer, "iTb", 3) CALL(getitimer, "ib", 1)                                                     \
  CALL(wait4, "PbFb", 6) CALL(waitid, "iPbFb", 6) CALL(ptrace, "9Pab", 16) CALL(setpgid, "PP", 2) CALL(setsid, "", 2)                   \
  CALL(getpgid, "P", 1) CALL(getsid, "P", 1) CALL(prlimit64, "PiRb", 4) CALL(getrusage, "ib", 1) CALL(getpriority, "iP", 1)             \
  CALL(setpriority, "iPi", 1) CALL(sched_setscheduler, "Pib", 2) CALL(sched_setaffinity, "Pnb", 2) CALL(sched_getaffinity, "Pnb", 2)    \
  CALL(sched_setattr, "Pbi", 2) CALL(sched_getattr, "Pbni", 2) CALL(sched_yield, "", 1) CALL(capget, "bb", 2) CALL(capset, "bb", 2)     \
  CALL(setresuid, "uuu", 2) CALL(setresgid, "uuu", 2) CALL(setreuid, "uu", 1) CALL(setfsuid, "u", 2) CALL(setgroups, "nb", 2)           \
  CALL(getgroups, "nb", 1) CALL(prctl, "7xbxx", 8) CALL(seccomp, "iib", 1) CALL(personality, "x", 1) CALL(sysinfo, "b", 1)              \
  CALL(uname, "b", 1) CALL(getrandom, "bnF", 2) CALL(syslog, "ibn", 2) CALL(sethostname, "bn", 1) CALL(getcpu, "bbb", 1)                \
  CALL(unshare, "6", 2) CALL(setns, "f6", 2) CALL(clone3, "3z", 6) CALL(execve, "pAA", 1) CALL(execveat, "DpAAF", 1)                    \
  CALL(kcmp, "PPiff", 2) CALL(rseq, "biii", 2) CALL(set_tid_address, "b", 1) CALL(name_to_handle_at, "DpbbF", 1)                        \
  CALL(shmget, "QnF", 3) CALL(shmat, "iAF", 4) CALL(shmdt, "A", 3) CALL(shmctl, "iib", 4) CALL(semget, "QiF", 3) CALL(semop, "ibi", 6)  \
  CALL(semtimedop, "ibit", 6) CALL(semctl, "iiib", 6) CALL(msgget, "QF", 3) CALL(msgsnd, "ibnF", 6) CALL(msgrcv, "ibniF", 6)            \
  CALL(msgctl, "iib", 4) CALL(mq_open, "pFmb", 4) CALL(mq_timedsend, "fbnit", 4) CALL(mq_timedreceive, "fbnbt", 4)                      \
  CALL(mq_notify, "fy", 3) CALL(mq_getsetattr, "fbb", 2) CALL(mq_unlink, "p", 2) CALL(acct, "p", 1) CALL(quotactl, "ipib", 1)           \
  CALL(add_key, "ppbni", 1) CALL(keyctl, "iibbn", 1) CALL(bpf, "ibn", 1) CALL(io_uring_setup, "ib", 1) CALL(landlock_create_ruleset, "bni", 1)
