// File system calls, one line per result: the same lines are expected from every kernel.
// Usage: files DIRECTORY (empty, writable)
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>
#include <utime.h>

static int line_no;

static long show(const char *what, long r) {
  int e = errno;
  if (r < 0)
    printf("%s = -1 %s\n", what, strerrorname_np(e));
  else
    printf("%s = %ld\n", what, r);
  fflush(stdout);
  return r;
}
#define T(x) show(#x, (long)(x))
#define OK(x) show(#x, (x) < 0 ? -1 : 0)

static int make(const char *name, const char *text) {
  int fd = open(name, O_RDWR | O_CREAT | O_TRUNC, 0644);
  if (write(fd, text, strlen(text)) != (ssize_t)strlen(text)) abort();
  return fd;
}

static void content(const char *name) {
  char buf[4096];
  int fd = open(name, O_RDONLY);
  ssize_t n = fd < 0 ? -1 : read(fd, buf, sizeof buf - 1);
  if (n >= 0) {
    buf[n] = 0;
    printf("%s: \"%s\"\n", name, buf);
  } else
    printf("%s: %s\n", name, strerrorname_np(errno));
  if (fd >= 0) close(fd);
}

static void mode_of(const char *name) {
  struct stat s;
  if (lstat(name, &s) < 0)
    printf("%s: %s\n", name, strerrorname_np(errno));
  else
    printf("%s: mode %o nlink %ld size %ld uid %d gid %d\n", name, s.st_mode, S_ISDIR(s.st_mode) ? -1L : (long)s.st_nlink,
           S_ISDIR(s.st_mode) ? -1L : (long)s.st_size, s.st_uid, s.st_gid);
}

static void paths(void) {
  puts("# paths");
  OK(mkdir("d", 0755));
  T(mkdir("d", 0755));
  T(mkdir("none/d", 0755));
  OK(mkdir("d/slash/", 0755));
  T(mkdir("d/.", 0755));
  T(mkdir("d/..", 0755));
  T(mkdir("", 0755));
  close(make("f", "file"));
  T(mkdir("f", 0755));
  T(mkdir("f/x", 0755));
  T(open("f/", O_RDONLY));
  T(open("f/.", O_RDONLY));
  T(open("new/", O_RDWR | O_CREAT, 0644));
  T(open("d", O_RDWR));
  T(open("d", O_RDONLY | O_CREAT, 0644));
  T(open("d", O_RDONLY | O_TRUNC));
  T(open("f", O_RDONLY | O_DIRECTORY));
  T(open("none", O_RDONLY));
  T(open("", O_RDONLY));
  T(open((char *)1, O_RDONLY));
  char longname[300];
  memset(longname, 'n', 299);
  longname[299] = 0;
  T(open(longname, O_RDONLY));
  char *longpath = malloc(5000);
  for (int i = 0; i < 4999; i++) longpath[i] = i % 2 ? '/' : '.';
  longpath[4999] = 0;
  T(open(longpath, O_RDONLY));
  free(longpath);
  OK(symlink("f", "l"));
  T(symlink("x", "l"));
  T(symlink("", "e"));
  OK(symlink("loop", "loop"));
  T(open("loop", O_RDONLY));
  T(open("l", O_RDONLY | O_NOFOLLOW));
  T(open("l/", O_RDONLY));
  T(open("l", O_RDWR | O_CREAT | O_EXCL, 0644));
  OK(symlink("dangling-target", "dangling"));
  T(open("dangling", O_RDONLY));
  int fd = open("dangling", O_RDWR | O_CREAT, 0600);
  OK(fd);
  close(fd);
  mode_of("dangling-target");
  T(unlink("dangling-target"));
  char buf[64];
  T(readlink("l", buf, sizeof buf));
  T(readlink("l", buf, 0));
  T(readlink("f", buf, sizeof buf));
  T(readlink("none", buf, sizeof buf));
  T(unlink("d"));
  T(unlink("d/"));
  T(unlink("f/"));
  T(unlink("none"));
  T(unlink("."));
  T(rmdir("."));
  T(rmdir("d/.."));
  T(rmdir("d"));
  T(rmdir("f"));
  T(rmdir("/"));
  T(unlinkat(AT_FDCWD, "d/slash", AT_REMOVEDIR));
  T(unlinkat(AT_FDCWD, "d", 1));
  T(rmdir("d"));
  T(access("f", R_OK | W_OK));
  T(access("f", X_OK));
  T(access("f", 8));
  T(access("none", F_OK));
  T(faccessat(AT_FDCWD, "dangling", F_OK, AT_SYMLINK_NOFOLLOW));
  T(chdir("f"));
  T(chdir("none"));
  T(fchdir(1000));
  OK(mkdir("gone", 0755));
  OK(chdir("gone"));
  OK(rmdir("../gone"));
  T(getcwd(buf, sizeof buf) ? 0 : -1);
  T(open("x", O_RDWR | O_CREAT, 0644));
  T(mkdir("x", 0755));
  T(open(".", O_RDONLY) < 0 ? -1 : 0);
  OK(chdir(".."));
}

static void renames(void) {
  puts("# renames");
  close(make("a", "a"));
  close(make("b", "b"));
  OK(mkdir("d1", 0755));
  OK(mkdir("d2", 0755));
  close(make("d2/x", "x"));
  T(rename("a", "d1"));
  T(rename("d1", "a"));
  T(rename("d1", "d2"));
  T(rename("d1", "d1/sub"));
  T(rename("d2/x", "d2"));
  T(rename("none", "a"));
  T(rename("a/", "c"));
  T(rename("a", "c/"));
  T(rename("d1", "d3/"));
  T(rename("d3/", "d1"));
  T(rename(".", "d4"));
  T(rename("a", ".."));
  T(renameat2(AT_FDCWD, "a", AT_FDCWD, "b", RENAME_NOREPLACE));
  T(renameat2(AT_FDCWD, "a", AT_FDCWD, "b", RENAME_EXCHANGE));
  content("a");
  content("b");
  T(renameat2(AT_FDCWD, "a", AT_FDCWD, "none", RENAME_EXCHANGE));
  T(renameat2(AT_FDCWD, "d2", AT_FDCWD, "b", RENAME_EXCHANGE));
  content("b/x");
  content("d2");
  T(renameat2(AT_FDCWD, "a", AT_FDCWD, "c", 99));
  OK(link("a", "hard"));
  T(rename("a", "hard"));
  mode_of("a");
  T(link("a", "hard"));
  T(link("b", "dirlink"));
  T(link("none", "x"));
  OK(symlink("a", "sl"));
  T(linkat(AT_FDCWD, "sl", AT_FDCWD, "sl2", 0));
  T(linkat(AT_FDCWD, "sl", AT_FDCWD, "sl3", AT_SYMLINK_FOLLOW));
  mode_of("sl2");
  mode_of("sl3");
  T(rename("a", "replaced"));
  T(rename("hard", "replaced"));
  content("replaced");
}

static sigjmp_buf gone;
static siginfo_t gone_info;

static void no_memory(int signal, siginfo_t *info, void *context) {
  (void)signal, (void)context;
  gone_info = *info;
  siglongjmp(gone, 1);
}

// Touches a byte that may have no memory any more.
static void touch(const char *what, char *base, long at, int store) {
  volatile char *map = base;
  if (sigsetjmp(gone, 1)) {
    printf("%s: signal %d code %d at %ld\n", what, gone_info.si_signo, gone_info.si_code, (long)((char *)gone_info.si_addr - base));
    return;
  }
  if (store)
    map[at] = 's';
  else
    store = map[at];
  printf("%s: %d\n", what, store);
}

static void cut_short(void) {
  puts("# a mapped file is cut short");
  struct sigaction a = {.sa_sigaction = no_memory, .sa_flags = SA_SIGINFO};
  sigaction(SIGBUS, &a, NULL);
  int fd = make("short", "");
  OK(ftruncate(fd, 3 * 4096));
  char *shared = mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  char *private = mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
  for (int i = 0; i < 3; i++) {
    touch("store", shared, i * 4096L, 1);
    touch("load of a private page", private, i * 4096L, 0);
  }
  OK(truncate("short", 4096));
  touch("load", shared, 4096 + 5, 0);
  touch("store", shared, 2 * 4096 + 6, 1);
  touch("load of a private page", private, 4096 + 7, 0);
  touch("store into a private page", private, 2 * 4096 + 8, 1);
  touch("before the end", shared, 4095, 0);
  int p[2];
  OK(pipe(p));
  T(write(p[1], shared + 4096, 4));
  T(write(p[1], "four", 4));
  T(read(p[0], shared + 2 * 4096, 4));
  OK(ftruncate(fd, 3 * 4096));
  touch("it grows again", shared, 4096 + 5, 0);
  touch("it grows again, store", shared, 2 * 4096, 1);
  signal(SIGBUS, SIG_DFL);
  munmap(shared, 3 * 4096);
  munmap(private, 3 * 4096);
  close(p[0]);
  close(p[1]);
  close(fd);
}

static void io(void) {
  puts("# io");
  char buf[64] = {0};
  int fd = make("io", "0123456789");
  T(lseek(fd, 0, SEEK_CUR));
  T(lseek(fd, -20, SEEK_CUR));
  T(lseek(fd, 3, SEEK_SET));
  T(read(fd, buf, 4));
  printf("%.4s\n", buf);
  T(pread(fd, buf, 3, 8));
  T(pread(fd, buf, 3, -1));
  T(pread(fd, buf, 3, 100));
  T(pwrite(fd, "AB", 2, 1));
  T(lseek(fd, 0, SEEK_CUR));
  struct iovec v[3] = {{buf, 2}, {NULL, 0}, {buf + 2, 3}};
  T(readv(fd, v, 3));
  T(readv(fd, v, -1));
  T(readv(fd, v, 2000));
  T(read(fd, (void *)1, 4));
  T(write(fd, (void *)1, 4));
  T(read(fd, buf, 0));
  T(preadv(fd, v, 3, 0));
  printf("%.5s\n", buf);
  T(syscall(SYS_preadv2, fd, v, 3L, -1L, 0L, 0));
  T(syscall(SYS_preadv2, fd, v, 3L, 0L, 0L, 0x1000));
  T(lseek(fd, 5, SEEK_END));
  T(write(fd, "Z", 1));
  T(lseek(fd, 0, SEEK_DATA));
  T(lseek(fd, 1000, SEEK_DATA));
  T(lseek(fd, 0, 77));
  T(ftruncate(fd, 4));
  T(ftruncate(fd, -1));
  T(truncate("io", 6));
  T(truncate("none", 6));
  T(truncate(".", 6));
  T(read(fd, buf, 10));
  int ro = open("io", O_RDONLY), wo = open("io", O_WRONLY), ap = open("io", O_RDWR | O_APPEND);
  T(write(ro, "x", 1));
  T(read(wo, buf, 1));
  T(ftruncate(ro, 1));
  T(write(ap, "app", 3));
  T(lseek(ap, 0, SEEK_CUR));
  T(pwrite(ap, "end", 3, 0));
  T(lseek(ap, 1, SEEK_CUR));
  content("io");
  T(fcntl(ap, F_GETFL) & (O_ACCMODE | O_APPEND | O_NONBLOCK));
  T(fcntl(ap, F_SETFL, O_NONBLOCK));
  T(fcntl(ap, F_GETFL) & (O_ACCMODE | O_APPEND | O_NONBLOCK));
  int pathfd = open("io", O_PATH);
  T(read(pathfd, buf, 1));
  T(fchmod(pathfd, 0600));
  T(ftruncate(pathfd, 0));
  T(fcntl(pathfd, F_GETFL) & O_PATH ? 1 : 0);
  struct stat s;
  T(fstat(pathfd, &s));
  T(fstatat(pathfd, "", &s, AT_EMPTY_PATH));
  T(fsync(ro));
  T(fdatasync(wo));
  T(fsync(pathfd));
  T(fsync(99));
  int avail;
  lseek(ro, 2, SEEK_SET);
  T(ioctl(ro, FIONREAD, &avail));
  printf("%d\n", avail);
  T(ioctl(ro, 0x1234, 0));
  T(posix_fadvise(ro, 0, 0, POSIX_FADV_WILLNEED));
  T(readahead(ro, 0, 10));
  T(fallocate(fd, 0, 0, 8192));
  fstat(fd, &s);
  printf("size %ld\n", (long)s.st_size);
  T(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 100000));
  T(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096));
  T(fallocate(fd, 0, -1, 10));
  T(fallocate(fd, 0, 0, 0));
  T(fallocate(ro, 0, 0, 10));
  T(fallocate(fd, FALLOC_FL_PUNCH_HOLE, 0, 10));
  pread(fd, buf, 4, 0);
  printf("%d%d%d%d\n", buf[0], buf[1], buf[2], buf[3]);
  ftruncate(fd, 0);
  pwrite(fd, "copy me please", 14, 0);
  int out = make("out", "");
  off_t off = 5;
  T(sendfile(out, fd, &off, 100));
  printf("off %ld pos %ld\n", (long)off, (long)lseek(out, 0, SEEK_CUR));
  loff_t from = 0, to = 20;
  T(copy_file_range(fd, &from, out, &to, 100, 0));
  printf("%ld %ld\n", (long)from, (long)to);
  T(copy_file_range(fd, NULL, ap, NULL, 1, 0));
  T(copy_file_range(fd, NULL, fd, NULL, 10, 0));
  T(copy_file_range(fd, NULL, out, NULL, 10, 1));
  int p[2];
  if (pipe(p)) abort();
  T(lseek(p[0], 0, SEEK_SET));
  T(pread(p[0], buf, 1, 0));
  T(ftruncate(p[1], 0));
  T(fallocate(p[1], 0, 0, 1));
  off = 0;
  T(sendfile(p[1], fd, &off, 4));
  T(read(p[0], buf, 10));
  T(sendfile(out, p[0], NULL, 4));
  int dfd = open(".", O_RDONLY | O_DIRECTORY);
  T(read(dfd, buf, 1));
  T(write(dfd, buf, 1));
  T(ftruncate(dfd, 0));
  T(fsync(dfd));
  T(fallocate(dfd, 0, 0, 1));
  struct rlimit rl = {1000, 1000};
  setrlimit(RLIMIT_FSIZE, &rl);
  signal(SIGXFSZ, SIG_IGN);
  T(pwrite(out, "xxxxxxxxxx", 10, 995));
  T(pwrite(out, "x", 1, 1000));
  T(ftruncate(out, 1001));
  T(ftruncate(out, 1000));
  T(close(fd));
  T(close(fd));
}

static void descriptors(void) {
  puts("# descriptors");
  int fd = make("fds", "x");
  T(dup2(fd, 200));
  T(dup2(fd, fd) == fd);
  T(dup2(999, 5));
  T(dup3(fd, fd, 0));
  T(dup3(fd, 201, O_CLOEXEC));
  T(fcntl(201, F_GETFD));
  T(fcntl(200, F_GETFD));
  T(fcntl(200, F_SETFD, FD_CLOEXEC));
  T(fcntl(200, F_GETFD));
  T(fcntl(fd, F_DUPFD, 210));
  T(fcntl(fd, F_DUPFD_CLOEXEC, 210));
  T(fcntl(fd, F_DUPFD, -1));
  T(fcntl(fd, F_DUPFD, 1 << 30));
  T(syscall(SYS_close_range, 200, 300, 0));
  T(fcntl(200, F_GETFD));
  T(syscall(SYS_close_range, 300, 200, 0));
  T(fcntl(fd, 9999));
  T(ioctl(fd, FIOCLEX));
  T(fcntl(fd, F_GETFD));
  struct rlimit rl;
  getrlimit(RLIMIT_NOFILE, &rl);
  rl.rlim_cur = 20;
  setrlimit(RLIMIT_NOFILE, &rl);
  T(dup2(fd, 20));
  int n = 0, d;
  while ((d = dup(fd)) >= 0) n = d;
  T(d);
  printf("last %d\n", n);
  T(fcntl(fd, F_DUPFD, 20));
}

static void meta(void) {
  puts("# meta");
  umask(022);
  int fd = open("m", O_RDWR | O_CREAT, 04777);
  mode_of("m");
  T(fchmod(fd, 01777));
  mode_of("m");
  T(chmod("none", 0));
  OK(symlink("m", "ml"));
  T(fchmodat(AT_FDCWD, "ml", 0600, 0));
  mode_of("m");
  mode_of("ml");
  T(chmod("m", 06755));
  T(chown("m", 5, 6));
  mode_of("m");
  T(lchown("ml", 7, 8));
  mode_of("ml");
  T(fchownat(fd, "", 9, 10, AT_EMPTY_PATH));
  mode_of("m");
  T(chown("m", -1, 11));
  mode_of("m");
  struct timespec ts[2] = {{1000, 5}, {2000, 6}};
  T(utimensat(AT_FDCWD, "m", ts, 0));
  struct stat s;
  stat("m", &s);
  printf("%ld.%ld %ld.%ld\n", (long)s.st_atim.tv_sec, s.st_atim.tv_nsec, (long)s.st_mtim.tv_sec, s.st_mtim.tv_nsec);
  ts[0].tv_nsec = UTIME_OMIT;
  ts[1].tv_nsec = UTIME_NOW;
  T(futimens(fd, ts));
  stat("m", &s);
  printf("%ld %d\n", (long)s.st_atim.tv_sec, s.st_mtim.tv_sec > 1600000000);
  ts[0].tv_nsec = 2000000000;
  T(futimens(fd, ts));
  struct utimbuf ub = {11, 22};
  T(utime("m", &ub));
  stat("m", &s);
  printf("%ld %ld\n", (long)s.st_atime, (long)s.st_mtime);
  struct timeval tv[2] = {{33, 0}, {44, 1000000}};
  T(utimes("m", tv));
  struct statx sx;
  T(statx(AT_FDCWD, "m", 0, STATX_BASIC_STATS, &sx));
  printf("mode %o mask %x\n", sx.stx_mode, sx.stx_mask & STATX_BASIC_STATS);
  T(statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &sx));
  T(statx(AT_FDCWD, "m", 0x8000, STATX_BASIC_STATS, &sx));
  struct statfs sf;
  T(statfs(".", &sf));
  printf("namelen %ld\n", (long)sf.f_namelen);
  T(fstatfs(fd, &sf));
  T(mknod("fifo", S_IFIFO | 0644, 0));
  T(mknod("sock", S_IFSOCK | 0644, 0));
  T(mknod("reg", 0644, 0));
  T(mknod("dir", S_IFDIR | 0755, 0));
  mode_of("fifo");
  mode_of("sock");
  mode_of("reg");
  T(open("sock", O_RDONLY));
  T(open("fifo", O_WRONLY | O_NONBLOCK));
  int r = open("fifo", O_RDONLY | O_NONBLOCK);
  int w = open("fifo", O_WRONLY | O_NONBLOCK);
  char buf[8] = {0};
  T(write(w, "pipe", 4));
  T(read(r, buf, 8));
  puts(buf);
  OK(mkdir("sg", 0755));
  T(chown("sg", 0, 77));
  T(chmod("sg", 02775));
  OK(mkdir("sg/sub", 0755));
  close(make("sg/file", ""));
  mode_of("sg/sub");
  mode_of("sg/file");
}

static void unprivileged(void) {
  puts("# unprivileged");
  chmod(".", 0755);
  OK(mkdir("sticky", 0777));
  chmod("sticky", 01777);
  close(make("sticky/roots", "r"));
  close(make("private", "p"));
  chmod("private", 0600);
  OK(mkdir("closed", 0700));
  close(make("closed/f", ""));
  close(make("suid", "s"));
  chmod("suid", 06777);
  fflush(stdout);
  if (fork() == 0) {
    if (setgid(1000) || setuid(1000)) abort();
    T(open("private", O_RDONLY));
    T(access("private", R_OK));
    T(open("closed/f", O_RDONLY));
    T(chdir("closed"));
    T(open("newfile", O_RDWR | O_CREAT, 0644));
    T(unlink("private"));
    T(unlink("sticky/roots"));
    T(rename("sticky/roots", "sticky/mine"));
    int fd = make("sticky/users", "u");
    mode_of("sticky/users");
    T(chmod("private", 0666));
    T(fchmod(fd, 02777));
    T(fchown(fd, 0, 0));
    T(fchown(fd, 1000, 1000));
    T(chown("private", 1000, 1000));
    T(utimes("private", NULL));
    struct timespec ts[2] = {{1, 0}, {2, 0}};
    T(futimens(fd, ts));
    T(utimensat(AT_FDCWD, "private", ts, 0));
    T(truncate("private", 0));
    T(truncate("suid", 0));
    mode_of("suid");
    T(mknod("sticky/dev", S_IFCHR | 0666, 0x103));
    T(mknod("sticky/fifo", S_IFIFO | 0666, 0));
    T(chroot("."));
    T(mount("none", ".", "tmpfs", 0, ""));
    T(open("private", O_RDONLY | O_NOATIME));
    T(open("suid", O_RDONLY | O_NOATIME));
    T(unlink("sticky/users"));
    T(setxattr("private", "user.x", "1", 1, 0));
    char buf[100];
    T(getxattr("private", "user.x", buf, 100));
    exit(0);
  }
  wait(NULL);
}

static void xattrs(void) {
  puts("# xattrs");
  char buf[256];
  int fd = make("xa", "");
  T(setxattr("xa", "user.one", "value", 5, 0));
  T(setxattr("xa", "user.one", "v", 1, XATTR_CREATE));
  T(setxattr("xa", "user.two", "v", 1, XATTR_REPLACE));
  T(getxattr("xa", "user.one", buf, sizeof buf));
  T(getxattr("xa", "user.one", NULL, 0));
  T(getxattr("xa", "user.one", buf, 2));
  T(getxattr("xa", "user.none", buf, 2));
  T(fsetxattr(fd, "user.two", "", 0, 0));
  T(flistxattr(fd, buf, sizeof buf));
  T(removexattr("xa", "user.one"));
  T(removexattr("xa", "user.one"));
  T(setxattr("xa", "nonsense", "v", 1, 0));
  T(setxattr("xa", "", "v", 1, 0));
  T(setxattr("none", "user.x", "v", 1, 0));
  OK(symlink("xa", "xl"));
  T(lsetxattr("xl", "user.x", "v", 1, 0));
  T(lgetxattr("xl", "user.x", buf, 10));
}

static int compare(const void *a, const void *b) { return strcmp(*(char **)a, *(char **)b); }

static void listing(void) {
  puts("# listing");
  OK(mkdir("many", 0755));
  char name[64];
  for (int i = 0; i < 500; i++) {
    sprintf(name, "many/entry-number-%03d", i);
    close(make(name, ""));
  }
  DIR *d = opendir("many");
  struct dirent *e;
  int n = 0, removed = 0;
  char *names[600];
  while ((e = readdir(d))) {
    names[n++] = strdup(e->d_name);
    if (e->d_name[0] != '.' && unlinkat(dirfd(d), e->d_name, 0) == 0) removed++;
  }
  closedir(d);
  qsort(names, n, sizeof *names, compare);
  printf("%d entries, %d removed, first %s %s, last %s\n", n, removed, names[0], names[1], names[n - 1]);
  T(rmdir("many"));
  OK(mkdir("types", 0755));
  close(make("types/reg", ""));
  mkdir("types/dir", 0755);
  if (symlink("x", "types/lnk")) abort();
  mkfifo("types/fifo", 0644);
  d = opendir("types");
  long at = telldir(d);
  n = 0;
  while ((e = readdir(d))) {
    struct stat s;
    char out[300];
    fstatat(dirfd(d), e->d_name, &s, AT_SYMLINK_NOFOLLOW);
    sprintf(out, "%s type %d%s", e->d_name, e->d_type, e->d_name[0] == '.' || s.st_ino == e->d_ino ? "" : " WRONG INODE");
    names[n++] = strdup(out);
  }
  qsort(names, n, sizeof *names, compare);
  for (int i = 0; i < n; i++) puts(names[i]);
  seekdir(d, at);
  n = 0;
  while (readdir(d)) n++;
  printf("again %d\n", n);
  rewinddir(d);
  printf("first %d\n", readdir(d) != NULL);
  char small[10];
  lseek(dirfd(d), 0, SEEK_SET);
  T(syscall(SYS_getdents64, dirfd(d), small, 10));
  int f = open("types/reg", O_RDONLY);
  T(syscall(SYS_getdents64, f, small, 10));
}

static void show_lock(int fd, struct flock l, int cmd) {
  if (fcntl(fd, cmd, &l) < 0)
    printf("getlk %s\n", strerrorname_np(errno));
  else if (l.l_type == F_UNLCK)
    puts("free");
  else
    printf("held type %d start %ld len %ld pid %d\n", l.l_type, (long)l.l_start, (long)l.l_len, l.l_pid == -1 ? -1 : l.l_pid > 0);
}

static void locks(void) {
  puts("# locks");
  int fd = make("lock", "0123456789");
  struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 2, .l_len = 3};
  T(fcntl(fd, F_SETLK, &l));
  fflush(stdout);
  if (fork() == 0) {
    struct flock m = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 0};
    show_lock(fd, m, F_GETLK);
    T(fcntl(fd, F_SETLK, &m));
    m.l_len = 2;
    T(fcntl(fd, F_SETLK, &m));
    m.l_whence = SEEK_END;
    m.l_start = 0;
    m.l_len = -3;
    T(fcntl(fd, F_SETLK, &m));
    m.l_whence = 9;
    T(fcntl(fd, F_SETLK, &m));
    exit(0);
  }
  wait(NULL);
  // A close of any descriptor of the file gives the lock up.
  close(open("lock", O_RDONLY));
  fflush(stdout);
  if (fork() == 0) {
    struct flock m = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 0};
    show_lock(fd, m, F_GETLK);
    exit(0);
  }
  wait(NULL);
  int ro = open("lock", O_RDONLY);
  T(fcntl(ro, F_SETLK, &l));
  int other = open("lock", O_RDWR);
  struct flock o = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
  T(fcntl(other, F_OFD_SETLK, &o));
  T(fcntl(fd, F_OFD_SETLK, &o));
  show_lock(fd, o, F_OFD_GETLK);
  show_lock(fd, o, F_GETLK);
  close(other);
  T(fcntl(fd, F_OFD_SETLK, &o));
  T(flock(fd, LOCK_EX));
  int f2 = open("lock", O_RDWR);
  T(flock(f2, LOCK_SH | LOCK_NB));
  T(flock(fd, LOCK_SH));
  T(flock(f2, LOCK_SH | LOCK_NB));
  T(flock(fd, 99));
  int p[2], q[2];
  if (pipe(p) || pipe(q)) abort();
  close(make("lock2", ""));
  int a = open("lock2", O_RDWR);
  struct flock w1 = {.l_type = F_WRLCK, .l_start = 0, .l_len = 1}, w2 = {.l_type = F_WRLCK, .l_start = 1, .l_len = 1};
  T(fcntl(a, F_SETLK, &w1));
  fflush(stdout);
  pid_t child = fork();
  char c;
  if (child == 0) {
    fcntl(a, F_SETLK, &w2);
    if (write(p[1], "x", 1) != 1) abort();
    fcntl(a, F_SETLKW, &w1);
    exit(0);
  }
  if (read(p[0], &c, 1) != 1) abort();
  usleep(200000);
  T(fcntl(a, F_SETLKW, &w2));
  w1.l_type = F_UNLCK;
  fcntl(a, F_SETLK, &w1);
  int status;
  waitpid(child, &status, 0);
  printf("child %x\n", status);
}

static void watch(void) {
  puts("# inotify");
  OK(mkdir("w", 0755));
  int in = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
  T(inotify_add_watch(in, "w", IN_ALL_EVENTS));
  T(inotify_add_watch(in, "none", IN_ALL_EVENTS));
  T(inotify_add_watch(in, "w", 0));
  T(inotify_add_watch(in, "io", IN_ALL_EVENTS | IN_ONLYDIR));
  int fd = make("w/f", "x");
  fchmod(fd, 0600);
  close(fd);
  rename("w/f", "w/g");
  mkdir("w/sub", 0755);
  fd = open("w/g", O_RDONLY);
  char c;
  if (read(fd, &c, 1) != 1) abort();
  close(fd);
  truncate("w/g", 0);
  link("w/g", "w/h");
  unlink("w/g");
  rename("w/h", "outside");
  rmdir("w/sub");
  rmdir("w");
  char buf[8192];
  ssize_t n = read(in, buf, sizeof buf);
  for (ssize_t i = 0; i < n;) {
    struct inotify_event *e = (void *)(buf + i);
    printf("wd %d mask %x cookie %d name %s\n", e->wd, e->mask, e->cookie != 0, e->len ? e->name : "-");
    i += sizeof *e + e->len;
  }
  T(read(in, buf, sizeof buf));
  T(inotify_rm_watch(in, 1));
  T(read(in, buf, 4));
}

static void memory(void) {
  puts("# memfd");
  int fd = memfd_create("name", MFD_ALLOW_SEALING | MFD_CLOEXEC);
  T(write(fd, "12345", 5));
  T(fcntl(fd, F_GET_SEALS));
  T(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW));
  T(ftruncate(fd, 1));
  T(ftruncate(fd, 100));
  T(pwrite(fd, "x", 1, 4));
  T(pwrite(fd, "xx", 2, 4));
  T(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SEAL));
  T(pwrite(fd, "x", 1, 0));
  T(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE));
  T(fcntl(fd, F_GET_SEALS));
  char path[64], buf[64];
  sprintf(path, "/proc/self/fd/%d", fd);
  ssize_t n = readlink(path, buf, 63);
  printf("%.*s\n", (int)n, buf);
  int again = open(path, O_RDONLY);
  T(read(again, buf, 10));
  char *p = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
  printf("%.4s\n", p);
  T(memfd_create("x", 0x100));
  int plain = memfd_create("plain", 0);
  T(fcntl(plain, F_GET_SEALS));
  T(fcntl(plain, F_ADD_SEALS, F_SEAL_WRITE));
  T(fchmod(plain, 0600));
  struct stat s;
  T(fstat(plain, &s));
  printf("%o %ld\n", s.st_mode, (long)s.st_nlink);
}

static void deleted(void) {
  puts("# deleted");
  int fd = make("gone", "kept");
  unlink("gone");
  struct stat s;
  T(fstat(fd, &s));
  printf("nlink %ld size %ld\n", (long)s.st_nlink, (long)s.st_size);
  char path[64], buf[PATH_MAX];
  sprintf(path, "/proc/self/fd/%d", fd);
  ssize_t n = readlink(path, buf, sizeof buf);
  printf("%s\n", n > 15 ? strstr(buf, "gone") ? "gone (deleted)" : buf : "?");
  int again = open(path, O_RDWR);
  T(read(again, buf, 10));
  T(fchmod(fd, 0600));
  T(ftruncate(fd, 2));
  fstat(again, &s);
  printf("mode %o size %ld\n", s.st_mode, (long)s.st_size);
  char *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  p[0] = 'K';
  T(pread(again, buf, 10, 0));
  printf("%.2s\n", buf);
  int t = open(".", O_TMPFILE | O_RDWR, 0600);
  if (t >= 0) {
    T(write(t, "tmp", 3));
    sprintf(path, "/proc/self/fd/%d", t);
    T(linkat(AT_FDCWD, path, AT_FDCWD, "linked", AT_SYMLINK_FOLLOW));
    content("linked");
  } else
    T(t);
}

static void scoped(void) {
  puts("# openat2");
  OK(mkdir("root", 0755));
  OK(mkdir("root/sub", 0755));
  close(make("root/f", "in"));
  close(make("outside", "out"));
  if (symlink("../outside", "root/up") || symlink("/f", "root/abs") || symlink("f", "root/ok")) abort();
  int d = open("root", O_PATH);
  struct { uint64_t flags, mode, resolve; } how = {O_RDONLY, 0, 8};
  const char *names[] = {"f", "ok", "up", "abs", "..", "sub/../f", "sub/../../outside", "/f"};
  for (unsigned r = 0; r < 4; r++) {
    how.resolve = (uint64_t[]){8, 16, 4, 0}[r];
    for (unsigned i = 0; i < 8; i++) {
      int fd = syscall(SYS_openat2, d, names[i], &how, sizeof how);
      printf("%s with %d: %s\n", names[i], (int)how.resolve, fd < 0 ? strerrorname_np(errno) : "open");
    }
  }
  how.resolve = 0;
  how.flags = 1ull << 40;
  T(syscall(SYS_openat2, d, "f", &how, sizeof how));
  how.flags = 0;
  T(syscall(SYS_openat2, d, "f", &how, 8));
  how.mode = 0644;
  T(syscall(SYS_openat2, d, "f", &how, sizeof how));
}

int main(int argc, char **argv) {
  if (argc != 2 || chdir(argv[1])) return 2;
  umask(022);
  (void)line_no;
  void (*parts[])(void) = {paths, renames, io, descriptors, meta, unprivileged, xattrs, listing, locks, watch, memory, deleted, scoped, cut_short};
  for (unsigned i = 0; i < sizeof parts / sizeof *parts; i++) {
    char dir[16];
    sprintf(dir, "part%u", i);
    if (mkdir(dir, 0755)) abort();
    fflush(stdout);
    // Each part in a process of its own: it may spoil limits and descriptors.
    if (fork() == 0) {
      if (chdir(dir)) abort();
      parts[i]();
      exit(0);
    }
    int status;
    wait(&status);
    if (status) printf("part %u ended with %x\n", i, status);
  }
  return 0;
}
