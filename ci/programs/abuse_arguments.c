/* Arguments of the random system-call test: descriptors of every kind, pointers of every kind, structures half of whose fields
 * mean something. */
#include "abuse.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/netlink.h>
#include <linux/sched.h>
#include <mqueue.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

long noise(void) {
  switch (below(12)) {
  case 0: return 0;
  case 1: return -1;
  case 2: return (long)below(16);
  case 3: return 1l << below(64);
  case 4: return (long)next();
  case 5: return (long)(arena.good + below(PAGE));
  case 6: return (long)(arena.good + AREA - below(16)); /* runs over the end of what is mapped */
  case 7: return (long)(arena.readonly + below(PAGE));
  case 8: return (long)0xffff800000000000ul + (long)below(65536);
  case 9: return (long)0x00007ffffffff000ul - (long)below(4096);
  case 10: return (long)below(4096);
  default: return (long)(next() & 0xffffffff);
  }
}

/* Where `size` bytes may lie, or not. */
static char *somewhere(size_t size) {
  size_t room = size < AREA ? AREA - size : 1;
  switch (below(24)) {
  case 0: return 0;
  case 1: return arena.good + AREA - below(size + 8); /* its end is not mapped */
  case 2: return arena.readonly + below(PAGE);
  case 3: return arena.none + below(PAGE);
  case 4: return (char *)(0xffff800000000000ul + below(1 << 20));
  case 5: return (char *)(0x0000800000000000ul - below(size + 8));
  case 6: return (char *)noise();
  case 7: return arena.good + PAGE - below(size + 1); /* over the edge of a page */
  case 8: case 9: return arena.file + below(room);
  case 10: case 11: case 12: return arena.racing + below(room);
  case 13: case 14: case 15: return arena.shared + below(room);
  case 16: return arena.good + below(room); /* not aligned */
  default: return arena.good + (below(room) & ~15ul);
  }
}

/* Puts a structure somewhere; where that cannot be written it stays what is there. */
static long place(const void *data, size_t size) {
  char *p = somewhere(size);
  sigjmp_buf here, *outer = fault;
  if (sigsetjmp(here, 1) == 0) {
    fault = &here;
    memcpy(p, data, size);
  }
  fault = outer;
  return (long)p;
}

static void scribble(void *p, size_t size) {
  for (size_t i = 0; i < size; i++) ((unsigned char *)p)[i] = (unsigned char)(one_in(2) ? 0 : next());
}

static long length(void) {
  switch (below(16)) {
  case 0: return 0;
  case 1: return -1;
  case 2: return 1l << below(64);
  case 3: return (1l << 31) - (long)below(4);
  case 4: return (long)below(1 << 20);
  case 5: case 6: return (long)(below(16) * PAGE);
  case 7: case 8: return (long)below(3 * PAGE);
  default: return (long)below(260);
  }
}

static long offset(void) {
  switch (below(10)) {
  case 0: return -1;
  case 1: return (long)next();
  case 2: return 1l << below(64);
  case 3: case 4: return (long)(below(32) * PAGE);
  case 5: return 0;
  default: return (long)below(3 * PAGE);
  }
}

static int descriptor(void) {
  switch (below(12)) {
  case 0: return (int)below(FDS);
  case 1: return (int[]){-1, AT_FDCWD, 1 << 20, 2147483647, 127, 128}[below(6)];
  default: return descriptors.list[below((uint64_t)descriptors.count)];
  }
}

static int process(void) {
  switch (below(10)) {
  case 0: return 0;
  case 1: return getpid();
  case 2: return (int)syscall(SYS_gettid);
  case 3: return -common->members[below(MEMBERS)];
  case 4: return (int)below(400);
  case 5: return (int)noise();
  default: return common->members[below(MEMBERS)];
  }
}

static const char *path(void) {
  static const char *const names[] = {
      "/tmp/a", "/tmp/b", "/tmp/d", "/tmp/d/e", "/tmp/d/../a", "/tmp/link", "/tmp/loop", "/tmp/fifo", "/tmp/sock", "a", "d", ".", "..", "/", "",
      "/proc/self/status", "/proc/self/maps", "/proc/self/mem", "/proc/self/fd/5", "/proc/self/exe", "/proc/self/root/tmp/a", "/proc/self/cwd/a",
      "/proc/thread-self/stat", "/proc/1/environ", "/proc/1/mem", "/proc/self/task", "/proc/self/fdinfo/7", "/proc/self/oom_score_adj",
      "/proc/self/comm", "/proc/self/ns/mnt", "/proc/sys/kernel/hostname", "/proc/sysrq-trigger", "/proc/net/tcp", "/proc/meminfo", "/proc",
      "/dev/null", "/dev/zero", "/dev/full", "/dev/urandom", "/dev/tty", "/dev/ptmx", "/dev/pts/0", "/dev/pts", "/dev/fd/6", "/dev/shm/x",
      "/sys/fs/cgroup", "/sys/devices/system/cpu/online", "/bin/abuse", "/bin/abuse/x", "/etc/passwd", "/nosuch/file", "user.a", "security.b",
      "system.posix_acl_access", "trusted.c", "tmpfs", "proc", "/q1", "/q2", "memory"};
  return PICK(names);
}

static long place_path(void) {
  char text[5000];
  switch (below(12)) {
  case 0: /* long, with or without an end */
    memset(text, one_in(2) ? 'x' : '/', sizeof text);
    text[below(sizeof text)] = 0;
    return place(text, sizeof text);
  case 1: { /* no end before the unmapped page */
    size_t n = 1 + below(64);
    memset(arena.good + AREA - n, 'y', n);
    return (long)(arena.good + AREA - n);
  }
  case 2: return place(path(), 4);
  case 3: return (long)somewhere(8);
  default: {
    const char *p = path();
    return one_in(3) ? place(p, strlen(p) + 1) : (long)p;
  }
  }
}

static long place_vector(void) {
  struct iovec v[9];
  for (int i = 0; i < 9; i++) {
    size_t n = one_in(4) ? (size_t)length() : below(600);
    v[i] = (struct iovec){one_in(8) ? (void *)noise() : somewhere(n < AREA ? n : 0), n};
  }
  return place(v, sizeof v);
}

static size_t address(struct sockaddr_storage *a) {
  memset(a, 0, sizeof *a);
  switch (below(6)) {
  case 0: {
    struct sockaddr_in *in = (void *)a;
    in->sin_family = AF_INET, in->sin_port = htons((uint16_t)(20000 + below(8))), in->sin_addr.s_addr = htonl(one_in(3) ? (uint32_t)next() : INADDR_LOOPBACK);
    return sizeof *in;
  }
  case 1: {
    struct sockaddr_in6 *in = (void *)a;
    in->sin6_family = AF_INET6, in->sin6_port = htons((uint16_t)(20000 + below(8))), in->sin6_addr = in6addr_loopback;
    return sizeof *in;
  }
  case 2: case 3: {
    struct sockaddr_un *un = (void *)a;
    un->sun_family = AF_UNIX;
    if (one_in(2)) {
      un->sun_path[1] = (char)('a' + below(4));
      return 4;
    }
    strcpy(un->sun_path, one_in(2) ? "/tmp/sock" : "/tmp/sock2");
    return one_in(4) ? sizeof *un : 2 + strlen(un->sun_path) + below(2);
  }
  case 4: {
    struct sockaddr_nl *nl = (void *)a;
    nl->nl_family = AF_NETLINK, nl->nl_groups = (uint32_t)below(4);
    return sizeof *nl;
  }
  default:
    scribble(a, sizeof *a);
    return below(sizeof *a + 1);
  }
}

/* Control data: rights (of sockets too, so that they come to hold each other), credentials, and broken headers. */
static size_t control(char *to) {
  size_t used = 0;
  for (int i = (int)below(3); i >= 0 && used < 200; i--) {
    struct cmsghdr *c = (void *)(to + used);
    size_t n = one_in(3) ? 12 : 4 * (1 + below(6));
    c->cmsg_len = one_in(8) ? (size_t)length() : CMSG_LEN(n);
    c->cmsg_level = one_in(8) ? (int)below(42) : SOL_SOCKET;
    c->cmsg_type = n == 12 ? SCM_CREDENTIALS : one_in(8) ? (int)below(64) : SCM_RIGHTS;
    for (size_t k = 0; k < n / 4; k++) ((int *)CMSG_DATA(c))[k] = n == 12 ? (k ? (int)getuid() : getpid()) : descriptor();
    used += CMSG_SPACE(n);
  }
  return used;
}

static void message(struct msghdr *m) {
  char data[512] __attribute__((aligned(16))) = {0};
  struct sockaddr_storage a;
  size_t n = address(&a);
  memset(m, 0, sizeof *m);
  if (one_in(3)) m->msg_name = (void *)place(&a, sizeof a), m->msg_namelen = one_in(6) ? (socklen_t)length() : (socklen_t)n;
  m->msg_iov = (void *)place_vector();
  m->msg_iovlen = one_in(8) ? (size_t)length() : below(9);
  if (one_in(2)) {
    n = control(data);
    m->msg_control = (void *)place(data, sizeof data), m->msg_controllen = one_in(6) ? (size_t)length() : n;
  }
  m->msg_flags = (int)noise();
}

static struct timespec span(void) {
  switch (below(8)) {
  case 0: return (struct timespec){0, 0};
  case 1: return (struct timespec){-1, (long)below(2000000000)};
  case 2: return (struct timespec){(long)next(), (long)next()};
  case 3: return (struct timespec){INT64_MAX, 999999999};
  default: return (struct timespec){0, (long)below(2000000)};
  }
}

static long flags(void) {
  static const long known[] = {O_CLOEXEC, O_NONBLOCK, O_CREAT | O_RDWR, O_RDWR, O_WRONLY, O_TRUNC, O_APPEND, O_EXCL, O_DIRECTORY, O_PATH, O_NOFOLLOW,
                               O_DIRECT, O_TMPFILE | O_RDWR, O_ASYNC, AT_EMPTY_PATH, AT_SYMLINK_NOFOLLOW, AT_REMOVEDIR, MSG_DONTWAIT, MSG_PEEK, MSG_TRUNC, MSG_CMSG_CLOEXEC,
                               MSG_OOB, MSG_WAITALL, MSG_NOSIGNAL, MSG_ERRQUEUE, 1, 2, 4, 8, 0x200, 0x1000, 0x800, 0xfff, 0x7ff};
  long f = 0;
  for (uint64_t i = below(4); i; i--) f |= PICK(known);
  return one_in(12) ? noise() : f;
}

static long ioctl_number(void) {
  static const long known[] = {TCGETS, TCSETS, TCSETSW, TIOCGWINSZ, TIOCSWINSZ, TIOCGPGRP, TIOCSPGRP, TIOCSCTTY, TIOCNOTTY, TIOCSTI, TIOCGPTN, TIOCSPTLCK,
                               TIOCPKT, FIONREAD, FIONBIO, FIOASYNC, FIOCLEX, FIONCLEX, TCFLSH, TCXONC, TCSBRK, TIOCOUTQ, TIOCEXCL, TIOCSETD, TIOCGSID,
                               0x8901, 0x8905, 0x8910, 0x8912, 0x8913, 0x8914, 0x8915, 0x891b, 0x8927, 0x8933, 0x40049409, 0x5441};
  return one_in(10) ? noise() : PICK(known);
}

static long place_clone_args(void) {
  struct clone_args a = {0};
  static const unsigned long long known[] = {CLONE_VM, CLONE_FS, CLONE_FILES, CLONE_SIGHAND, CLONE_PIDFD, CLONE_PARENT_SETTID, CLONE_CHILD_SETTID, CLONE_CHILD_CLEARTID,
                                             CLONE_THREAD, CLONE_PARENT, CLONE_NEWPID, CLONE_NEWUSER, CLONE_NEWNS, CLONE_CLEAR_SIGHAND, CLONE_INTO_CGROUP, CLONE_IO, CLONE_PTRACE, CLONE_VFORK};
  for (uint64_t i = below(4); i; i--) a.flags |= PICK(known);
  /* A child on its parent's stack would only spoil that. */
  a.flags &= ~(unsigned long long)(CLONE_VM | CLONE_VFORK);
  a.exit_signal = one_in(4) ? (uint64_t)noise() : SIGCHLD;
  a.pidfd = (uint64_t)somewhere(4), a.parent_tid = (uint64_t)somewhere(4), a.child_tid = (uint64_t)somewhere(4);
  if (one_in(8)) a.set_tid = (uint64_t)somewhere(16), a.set_tid_size = below(40);
  if (one_in(8)) a.cgroup = (uint64_t)descriptor();
  if (one_in(12)) a.stack = (uint64_t)noise(), a.stack_size = (uint64_t)length();
  return place(&a, sizeof a);
}

/* Robust futex lists: circles, ends in nowhere, words of others. */
static long place_robust(void) {
  uint64_t entry[3] = {(uint64_t)(arena.good + 8 * below(512)), one_in(2) ? 8 * below(64) : next(), (uint64_t)somewhere(8)};
  if (one_in(2)) entry[0] = (uint64_t)(arena.shared + 64), *(volatile uint64_t *)(arena.shared + 64) = entry[0];
  return place(entry, sizeof entry);
}

long argument(char letter) {
  char data[512] __attribute__((aligned(16)));
  static const int sizes[] = {8, 8, 8, 8, 8, 8, 0, 4, 16, 24, 88, 64, 56};
  switch (letter) {
  case 'f': return descriptor();
  case 'D': return one_in(2) ? AT_FDCWD : descriptor();
  case 'p': return place_path();
  case 'b':
    scribble(data, sizeof data);
    return one_in(4) ? place(data, 128) : (long)somewhere(512);
  case 'n': return length();
  case 'N': return one_in(4) ? length() : (long)(4 * below(30));
  case 'L': return place(&(int){one_in(6) ? (int)length() : (int)below(129)}, 4);
  case 'v': return place_vector();
  case 'V': return one_in(10) ? length() : (long)below(9);
  case 'h': {
    struct msghdr m;
    message(&m);
    return place(&m, sizeof m);
  }
  case 'H': {
    struct mmsghdr m[4];
    for (int i = 0; i < 4; i++) message(&m[i].msg_hdr);
    return place(m, sizeof m);
  }
  case 's': {
    struct sockaddr_storage a;
    address(&a);
    return place(&a, sizeof a);
  }
  case 't': return one_in(6) ? 0 : place(&(struct timespec[]){span(), span()}, 32);
  case 'T': return place(&(struct timespec[]){span(), span()}, 32);
  case 'g': {
    uint64_t set = one_in(3) ? next() : 1ull << below(64);
    return place(&set, 8);
  }
  case 'z': return one_in(8) ? noise() : PICK(sizes);
  case 'F': return flags();
  case 'm': return one_in(4) ? noise() : (long)(below(16) << 12 | below(512));
  case 'o': return offset();
  case 'O': return one_in(2) ? 0 : place(&(long){offset()}, 8);
  case 'P': return process();
  case 'i': return one_in(10) ? noise() : (long)below(20);
  case 'a': return one_in(6) ? (long)somewhere(64) : (long)(PICK(((char *[]){arena.racing, arena.racing, arena.file, arena.shared, arena.good})) + below(16) * PAGE);
  case 'A': return one_in(2) ? 0 : one_in(2) ? (long)(arena.racing + below(16) * PAGE) : noise();
  case 'q': return one_in(10) ? noise() : (long)below(8);
  case 'M': return one_in(10) ? noise()
                              : (long)(PICK(((int[]){MAP_PRIVATE, MAP_SHARED, MAP_SHARED_VALIDATE, MAP_PRIVATE | MAP_ANONYMOUS, MAP_SHARED | MAP_ANONYMOUS})) |
                                       PICK(((int[]){0, 0, MAP_NORESERVE, MAP_POPULATE, MAP_GROWSDOWN, MAP_LOCKED, MAP_FIXED_NOREPLACE, MAP_HUGETLB, MAP_STACK})));
  case 'k': return one_in(8) ? noise() : one_in(6) ? (long)PICK(((int[]){SIGKILL, SIGSTOP, SIGCONT, SIGTSTP, SIGCHLD, SIGSEGV, SIGPIPE, 0})) : (long)(32 + below(33));
  case 'u': return one_in(3) ? -1 : one_in(2) ? (long)getuid() : noise();
  case 'c': return one_in(8) ? noise() : (long)below(12);
  case 'y': {
    struct sigevent e = {0};
    e.sigev_notify = (int)below(5), e.sigev_signo = (int)(32 + below(33));
    e._sigev_un._tid = process();
    return one_in(4) ? 0 : place(&e, sizeof e);
  }
  case 'w': return (long)(one_in(6) ? somewhere(4) : PICK(((char *[]){arena.shared, arena.good, arena.file, arena.racing})) + 4 * below(16));
  case 'e': return one_in(16) ? noise() : (long)(below(14) | (one_in(2) ? FUTEX_PRIVATE_FLAG : 0) | (one_in(4) ? FUTEX_CLOCK_REALTIME : 0));
  case 'd': return one_in(8) ? noise() : (long)PICK(((int[]){AF_UNIX, AF_UNIX, AF_INET, AF_INET6, AF_NETLINK, AF_PACKET, AF_VSOCK, AF_ALG}));
  case 'j': return one_in(8) ? noise() : one_in(3) ? 1024 + (long)below(15) : (long)below(40);
  case 'J': {
    struct flock l = {.l_type = (short)below(4), .l_whence = (short)below(3), .l_start = offset(), .l_len = offset()};
    return one_in(2) ? place(&l, sizeof l) : one_in(2) ? (long)below(64) : noise();
  }
  case 'I': return ioctl_number();
  case 'E': {
    struct epoll_event e = {.events = one_in(3) ? (uint32_t)next() : (uint32_t)(below(64) | (one_in(2) ? EPOLLET : 0) | (one_in(4) ? EPOLLONESHOT : 0)), .data.u64 = next()};
    return place(&e, sizeof e);
  }
  case 'l': {
    struct { int fd; short events, revents; } p[9];
    for (int i = 0; i < 9; i++) p[i].fd = descriptor(), p[i].events = (short)next();
    return place(p, sizeof p);
  }
  case 'K': {
    /* Kernel's struct: handler, flags, restorer, mask. */
    uint64_t a[4] = {below(3) ? below(2) : (uint64_t)noise(), next() & 0xfc000007, (uint64_t)noise(), one_in(2) ? 0 : next()};
    return place(a, sizeof a);
  }
  case 'R': return one_in(2) ? 0 : place(&(uint64_t[]){below(1 << 20), one_in(2) ? UINT64_MAX : below(1 << 24)}, 16);
  case 'S': {
    siginfo_t s;
    memset(&s, 0, sizeof s);
    s.si_signo = (int)(32 + below(33)), s.si_code = one_in(4) ? (int)noise() : SI_QUEUE, s.si_pid = getpid();
    return one_in(6) ? 0 : place(&s, sizeof s);
  }
  case 'r': return place_robust();
  case 'Q': return one_in(2) ? 0 : (long)(100 + below(4));
  case '2': return place(&(uint64_t[]){(uint64_t)flags(), below(512), one_in(2) ? 0 : 1ull << below(7)}, 24);
  case '3': return place_clone_args();
  case '6': return one_in(4) ? noise() : 1l << below(32);
  case '7': return one_in(10) ? noise() : (long)below(75);
  case '9': return one_in(10) ? noise() : one_in(3) ? 0x4200 + (long)below(18) : (long)below(34);
  default: return noise();
  }
}

static void keep(int fd) {
  if (fd >= 0 && descriptors.count < FDS) descriptors.list[descriptors.count++] = fd;
}

static void keep_open(const char *name, int flags) { keep(open(name, flags | O_NONBLOCK | O_CLOEXEC, 0666)); }

void open_descriptors(void) {
  static const struct { const char *name; int flags; } files[] = {
      {"/tmp/a", O_RDWR | O_CREAT}, {"/tmp/b", O_RDWR | O_CREAT | O_APPEND}, {"/dev/shm/x", O_RDWR | O_CREAT}, {"/tmp", O_RDONLY}, {"/", O_RDONLY}, {"/tmp/a", O_PATH},
      {"/tmp/d", O_PATH}, {"/proc/self/maps", O_RDONLY}, {"/proc/self/status", O_RDONLY}, {"/proc/self/mem", O_RDWR}, {"/proc/self/fd", O_RDONLY}, {"/proc", O_RDONLY},
      {"/proc/self/comm", O_RDWR}, {"/proc/self/oom_score_adj", O_RDWR}, {"/sys", O_RDONLY}, {"/dev/null", O_RDWR}, {"/dev/zero", O_RDWR}, {"/dev/full", O_RDWR},
      {"/dev/urandom", O_RDWR}, {"/dev/tty", O_RDWR}, {"/bin/abuse", O_RDONLY}, {"/tmp/fifo", O_RDWR}, {"/proc/self/ns/uts", O_RDONLY}, {"/tmp", O_TMPFILE | O_RDWR}};
  descriptors.count = 0;
  mkdir("/tmp/d", 0777), mkfifo("/tmp/fifo", 0666);
  if (symlink("a", "/tmp/link") || symlink("loop", "/tmp/loop")) errno = 0;
  for (size_t i = 0; i < sizeof files / sizeof *files; i++) keep_open(files[i].name, files[i].flags);
  int pair[2];
  for (int i = 0; i < 2; i++)
    if (pipe2(pair, i ? O_NONBLOCK : 0) == 0) keep(pair[0]), keep(pair[1]);
  for (int i = 0; i < 3; i++)
    if (socketpair(AF_UNIX, (int[]){SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET}[i] | SOCK_NONBLOCK, 0, pair) == 0) keep(pair[0]), keep(pair[1]);
  struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons((uint16_t)(20000 + below(8)))};
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  if (bind(listener, (void *)&in, sizeof in) == 0 && listen(listener, 5) == 0) {
    int client = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (connect(client, (void *)&in, sizeof in) && errno != EINPROGRESS) close(client);
    else keep(client), keep(accept(listener, 0, 0));
  }
  keep(listener);
  keep(socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0)), keep(socket(AF_INET6, SOCK_STREAM, 0)), keep(socket(AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK, 0));
  keep(socket(AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK, NETLINK_ROUTE)), keep(socket(AF_UNIX, SOCK_STREAM, 0)), keep(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP));
  keep(epoll_create1(0)), keep(epoll_create1(0)), keep(eventfd(1, EFD_NONBLOCK)), keep(eventfd(0, EFD_SEMAPHORE));
  keep(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK)), keep(inotify_init1(IN_NONBLOCK)), keep(memfd_create("m", MFD_ALLOW_SEALING));
  sigset_t set;
  sigemptyset(&set), sigaddset(&set, 40);
  keep(signalfd(-1, &set, SFD_NONBLOCK)), keep((int)syscall(SYS_pidfd_open, getpid(), 0));
  int master = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK);
  keep(master);
  if (master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0) keep(open(ptsname(master), O_RDWR | O_NOCTTY | O_NONBLOCK));
  struct mq_attr attr = {.mq_maxmsg = 4, .mq_msgsize = 64};
  keep((int)mq_open("/q1", O_RDWR | O_CREAT | O_NONBLOCK, 0666, &attr));
  if (descriptors.count == 0) _exit(3);
}
