// Prints what system calls answer in corners that programs rely on; run under two kernels, the lines must be the same.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/futex.h>
#include <linux/kcmp.h>
#include <mqueue.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

static void say(const char *what, long result) {
  if (result == -1)
    printf("%s: %s\n", what, strerrorname_np(errno));
  else
    printf("%s: %ld\n", what, result);
}

static long futex(uint32_t *at, int op, uint32_t value, const void *timeout, uint32_t *other, uint32_t third) {
  return syscall(SYS_futex, at, op, value, timeout, other, third);
}

static uint32_t cond, lock_word, order;

static void *waiter(void *unused) {
  (void)unused;
  long r = futex(&cond, FUTEX_WAIT_REQUEUE_PI, 0, NULL, &lock_word, 0);
  int own = (lock_word & FUTEX_TID_MASK) == (uint32_t)syscall(SYS_gettid);
  __atomic_fetch_add(&order, 1, __ATOMIC_SEQ_CST);
  futex(&lock_word, FUTEX_UNLOCK_PI, 0, NULL, NULL, 0);
  return (void *)(r == 0 && own ? 1L : 0L);
}

static void requeue_pi(void) {
  pthread_t t[3];
  for (int i = 0; i < 3; i++) pthread_create(&t[i], NULL, waiter, NULL);
  usleep(100000);
  say("wait_requeue to itself", futex(&cond, FUTEX_WAIT_REQUEUE_PI, 0, NULL, &cond, 0));
  say("cmp_requeue, wakes 2", futex(&cond, FUTEX_CMP_REQUEUE_PI, 2, (void *)1L, &lock_word, 0));
  say("cmp_requeue, differs", futex(&cond, FUTEX_CMP_REQUEUE_PI, 1, (void *)1L, &lock_word, 7));
  say("cmp_requeue, other lock", futex(&cond, FUTEX_CMP_REQUEUE_PI, 1, (void *)1L, &order, 0));
  say("lock", futex(&lock_word, FUTEX_LOCK_PI, 0, NULL, NULL, 0));
  say("cmp_requeue", futex(&cond, FUTEX_CMP_REQUEUE_PI, 1, (void *)10L, &lock_word, 0));
  usleep(50000);
  say("gone on while held", order);
  say("unlock", futex(&lock_word, FUTEX_UNLOCK_PI, 0, NULL, NULL, 0));
  long good = 0;
  for (int i = 0; i < 3; i++) {
    void *r;
    pthread_join(t[i], &r);
    good += (long)r;
  }
  say("waiters that owned the lock", good);
  say("lock word after", lock_word);
  struct timespec past = {1, 0};
  say("wait_requeue, past", futex(&cond, FUTEX_WAIT_REQUEUE_PI, 0, &past, &lock_word, 0));
}

static void *plain(void *unused) {
  (void)unused;
  return (void *)futex(&cond, FUTEX_WAIT, 0, NULL, NULL, 0);
}

static void mismatch(void) {
  pthread_t t;
  void *r;
  pthread_create(&t, NULL, plain, NULL);
  usleep(100000);
  say("cmp_requeue of a plain waiter", futex(&cond, FUTEX_CMP_REQUEUE_PI, 1, 0, &lock_word, 0));
  say("wake", futex(&cond, FUTEX_WAKE, 1, NULL, NULL, 0));
  pthread_join(t, &r);
}

static void seals(void) {
  int fd = memfd_create("m", MFD_ALLOW_SEALING);
  say("truncate", ftruncate(fd, 8192));
  void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  say("seal while mapped", fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE));
  munmap(p, 4096);
  p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
  say("seal while mapped privately", fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE));
  munmap(p, 4096);
  p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  say("map to write", p == MAP_FAILED ? -1 : 0);
  p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
  say("map privately", p == MAP_FAILED ? -1 : 0);
  say("write", write(fd, "x", 1));
  say("seals", fcntl(fd, F_GET_SEALS));
  char name[64];
  snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
  int again = open(name, O_RDWR);
  say("seals of the same, opened again", fcntl(again, F_GET_SEALS));
  p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, again, 0);
  say("map that to write", p == MAP_FAILED ? -1 : 0);
  int other = open("/tmp/seals", O_CREAT | O_RDWR, 0600);
  say("seals of a file", fcntl(other, F_GET_SEALS));
  say("seal a file", fcntl(other, F_ADD_SEALS, F_SEAL_GROW));
  close(other);
  unlink("/tmp/seals");
}

static void locks(void) {
  struct rlimit few = {65536, 65536};
  setrlimit(RLIMIT_MEMLOCK, &few);
  char *p = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  say("mlock within the limit", mlock(p, 32768));
  say("mlock of the same", mlock(p, 32768));
  say("mlock beyond", mlock(p, 131072));
  say("mmap locked beyond", mmap(NULL, 1 << 20, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_LOCKED, -1, 0) == MAP_FAILED ? -1 : 0);
  say("mlockall", mlockall(MCL_CURRENT));
  say("mlockall of nothing", mlockall(0));
  say("msync of locked pages", msync(p, 4096, MS_SYNC | MS_INVALIDATE));
  say("munlockall", munlockall());
  say("msync", msync(p, 4096, MS_SYNC | MS_INVALIDATE));
  struct rlimit none = {0, 0};
  setrlimit(RLIMIT_MEMLOCK, &none);
  say("mlock without a limit's room", mlock(p, 4096));
}

static void times(void) {
  int fd = open("/tmp/times", O_CREAT | O_RDWR, 0600);
  struct stat before, after;
  say("write", write(fd, "0123456789", 10));
  struct timespec old[2] = {{1000000000, 5}, {1000000000, 7}};
  futimens(fd, old);
  usleep(20000);
  char *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  fstat(fd, &before);
  say("mapping is no change", before.st_mtim.tv_sec == 1000000000 && before.st_mtim.tv_nsec == 7);
  say("but an access", before.st_atim.tv_sec > 1000000000);
  p[0] = 'x';
  msync(p, 4096, MS_SYNC);
  fstat(fd, &after);
  say("a store is a change", after.st_mtim.tv_sec > 1000000000);
  munmap(p, 4096);
  say("old times again", futimens(fd, old));
  fstat(fd, &after);
  say("they stay", after.st_mtim.tv_sec);
  close(fd);
  unlink("/tmp/times");
}

static void queues(void) {
  struct sigevent e = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
  mqd_t a = mq_open("/calls", O_CREAT | O_RDWR, 0600, NULL), b = mq_open("/calls", O_RDWR);
  say("notify", mq_notify(a, &e));
  say("notify again", mq_notify(b, &e));
  mq_close(b);
  b = mq_open("/calls", O_RDWR);
  say("notify after any close", mq_notify(b, &e));
  mq_close(a);
  mq_close(b);
  mq_unlink("/calls");
}

/* The queues as files: a container has the file system mounted. */
static void queue_files(void) {
  struct sigevent e = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
  struct mq_attr odd = {.mq_maxmsg = -1, .mq_msgsize = 1};
  struct stat st = {0};
  char text[200] = "";
  mqd_t q = mq_open("/files", O_CREAT | O_RDWR, 0640, NULL);
  say("one that is there, whatever the size", mq_open("/files", O_CREAT | O_RDWR, 0640, &odd) != -1);
  say("stat", stat("/dev/mqueue/files", &st));
  printf("mode %o size %ld type %d\n", st.st_mode & 07777, (long)st.st_size, S_ISREG(st.st_mode));
  fstat(q, &st);
  say("the same file", st.st_size);
  mq_send(q, "12345", 5, 3);
  mq_send(q, "678", 3, 1);
  mq_notify(q, &e);
  int fd = open("/dev/mqueue/files", O_RDONLY);
  long n = pread(fd, text, sizeof text - 1, 0);
  char *pid = strstr(text, "NOTIFY_PID:");
  say("our notification", pid && atoi(pid + 11) == getpid());
  if (pid) *pid = 0;
  printf("read %ld %s\n", n, text);
  say("read at the end", pread(fd, text, sizeof text, 80));
  say("read by the queue's descriptor", read(q, text, 10));
  say("write", write(q, "x", 1));
  close(fd);
  say("chmod", chmod("/dev/mqueue/files", 0600));
  fstat(q, &st);
  printf("mode %o\n", st.st_mode & 07777);
  fd = open("/dev/mqueue/made", O_CREAT | O_EXCL | O_RDWR, 0600);
  say("made as a file", fd >= 0);
  say("and opened as a queue", mq_open("/made", O_RDWR) != -1);
  say("mkdir", mkdir("/dev/mqueue/dir", 0700));
  say("link", link("/dev/mqueue/made", "/dev/mqueue/other"));
  say("rename", rename("/dev/mqueue/made", "/dev/mqueue/other"));
  say("unlink", unlink("/dev/mqueue/made"));
  say("gone", mq_open("/made", O_RDWR));
  say("unlink of none", unlink("/dev/mqueue/none"));
  mq_unlink("/files");
  say("gone with the queue", access("/dev/mqueue/files", F_OK));
}

/* Other pages of a file in a mapping's place. */
static void other_pages(void) {
  long page = 4096;
  char *p = mmap(NULL, 4 * page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  for (int i = 0; i < 4; i++) p[i * page] = (char)('a' + i);
  say("remap_file_pages", remap_file_pages(p, page, 0, 3, 0));
  say("past the end of the mapping", remap_file_pages(p + 3 * page, 2 * page, 0, 0, 0));
  say("with a protection", remap_file_pages(p, page, PROT_READ, 0, 0));
  say("of nothing", remap_file_pages(p, 0, 0, 0, 0));
  p[0]++;
  printf("%c%c%c%c\n", p[0], p[page], p[2 * page], p[3 * page]);
  say("two pages", remap_file_pages(p + page, 2 * page + 1, 0, 0, 0));
  printf("%c%c%c%c\n", p[0], p[page], p[2 * page], p[3 * page]);
  munmap(p, 4 * page);
  p = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  say("private", remap_file_pages(p, page, 0, 0, 0));
  munmap(p, page);
  for (int writable = 0; writable < 2; writable++) {
    int fd = open("/tmp/pages", (writable ? O_RDWR : O_RDONLY) | O_CREAT, 0600);
    if (ftruncate(fd, 2 * page) == 0) pwrite(fd, "A", 1, 0), pwrite(fd, "B", 1, page);
    char *q = mmap(NULL, 2 * page, PROT_READ, MAP_SHARED, fd, 0);
    say("of a file", remap_file_pages(q, page, 0, 1, 0));
    if (writable) printf("%c%c\n", q[0], q[page]);
    munmap(q, 2 * page);
    close(fd);
  }
  unlink("/tmp/pages");
}

/* The elder form of a terminal's settings. */
static void old_terminals(void) {
  struct { unsigned short i, o, c, l; unsigned char line, cc[8]; } t, u;
  int master = posix_openpt(O_RDWR | O_NOCTTY);
  grantpt(master), unlockpt(master);
  int slave = open(ptsname(master), O_RDWR | O_NOCTTY);
  say("TCGETA", ioctl(slave, TCGETA, &t));
  printf("%x %x %x %x %d %d %d\n", t.i, t.o, t.c, t.l, t.line, t.cc[0], t.cc[4]);
  t.l &= ~(unsigned short)ECHO;
  t.cc[0] = 9;
  say("TCSETA", ioctl(slave, TCSETA, &t));
  say("TCSETAW", ioctl(slave, TCSETAW, &t));
  say("TCSETAF", ioctl(slave, TCSETAF, &t));
  ioctl(slave, TCGETA, &u);
  say("the same", memcmp(&t, &u, 17) == 0);
  struct termios whole;
  tcgetattr(slave, &whole);
  printf("%x %x %x %x %d %d\n", whole.c_iflag, whole.c_oflag, whole.c_cflag, whole.c_lflag, whole.c_cc[VINTR], whole.c_cc[VSUSP]);
  close(slave), close(master);
}

/* A file that is watched, compared with another. */
static void watched_files(void) {
  int e = epoll_create1(0), p[2], n[2] = {eventfd(0, 0), 0};
  if (pipe(p)) return;
  struct epoll_event event = {.events = EPOLLIN};
  epoll_ctl(e, EPOLL_CTL_ADD, p[0], &event);
  n[1] = dup(p[0]);
  struct kcmp_epoll_slot slot = {.efd = (unsigned)e, .tfd = (unsigned)p[0], .toff = 0};
  long me = getpid();
  say("kcmp, watched", syscall(SYS_kcmp, me, me, KCMP_EPOLL_TFD, p[0], &slot));
  say("kcmp, by another descriptor", syscall(SYS_kcmp, me, me, KCMP_EPOLL_TFD, n[1], &slot));
  say("kcmp, another file", syscall(SYS_kcmp, me, me, KCMP_EPOLL_TFD, n[0], &slot) > 0);
  slot.toff = 1;
  say("kcmp, no second", syscall(SYS_kcmp, me, me, KCMP_EPOLL_TFD, p[0], &slot));
  slot.toff = 0, slot.tfd = (unsigned)p[1];
  say("kcmp, not watched", syscall(SYS_kcmp, me, me, KCMP_EPOLL_TFD, p[0], &slot));
  slot.efd = (unsigned)p[0];
  say("kcmp, no instance", syscall(SYS_kcmp, me, me, KCMP_EPOLL_TFD, p[0], &slot));
  say("kcmp, no slot", syscall(SYS_kcmp, me, me, KCMP_EPOLL_TFD, p[0], NULL));
  for (int i = 0; i < 2; i++) close(p[i]), close(n[i]);
  close(e);
}

static void clocks(void) {
  struct timespec good = {1, 0}, bad = {1, 1000000000};
  say("settime, bad time", clock_settime(CLOCK_REALTIME, &bad));
  say("settime", clock_settime(CLOCK_REALTIME, &good));
  say("settime, monotonic", clock_settime(CLOCK_MONOTONIC, &good));
  say("settime, no clock", clock_settime(77, &good));
}

static void compare(void) {
  int a = open("/dev/null", O_RDONLY), b = dup(a), c = open("/dev/null", O_RDONLY);
  pid_t me = getpid();
  say("kcmp of a duplicate", syscall(SYS_kcmp, me, me, KCMP_FILE, a, b));
  say("kcmp of another", syscall(SYS_kcmp, me, me, KCMP_FILE, a, c) > 0);
  say("kcmp of memory", syscall(SYS_kcmp, me, me, KCMP_VM, 0, 0));
  say("kcmp of no file", syscall(SYS_kcmp, me, me, KCMP_FILE, a, 777));
  say("kcmp of no kind", syscall(SYS_kcmp, me, me, 99, 0, 0));
}

static void names(void) {
  struct stat st;
  say("/proc/self/fd/0", lstat("/proc/self/fd/0", &st));
  say("/proc/self/fd/+0", lstat("/proc/self/fd/+0", &st));
  say("/proc/self/fd/00", lstat("/proc/self/fd/00", &st));
  say("/proc/+1", lstat("/proc/+1", &st));
  char *p = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, open("/proc/self/exe", O_RDONLY), 0), name[64], target[256], self[256];
  snprintf(name, sizeof name, "/proc/self/map_files/%lx-%lx", (long)p, (long)p + 4096);
  long n = readlink(name, target, sizeof target), m = readlink("/proc/self/exe", self, sizeof self);
  say("map_files", n > 0 && n == m && !memcmp(target, self, n));
}

static void pidfds(void) {
  int dir = open("/proc/self", O_DIRECTORY | O_CLOEXEC), fd = syscall(SYS_pidfd_open, getpid(), 0);
  say("signal by a directory of /proc", syscall(SYS_pidfd_send_signal, dir, 0, NULL, 0));
  say("signal by a file", syscall(SYS_pidfd_send_signal, open("/dev/null", O_RDONLY), 0, NULL, 0));
  say("getfd with flags", syscall(SYS_pidfd_getfd, -1, 0, 1));
  say("getfd", syscall(SYS_pidfd_getfd, fd, 0, 0) > 2);
}

/* A child that has just stopped is killed before it does anything more. */
static void killed_while_stopped(void) {
  int survived = 0, continued = 0, status;
  for (int i = 0; i < 500; i++) {
    pid_t p = fork();
    if (p == 0) {
      kill(getpid(), SIGSTOP);
      _exit(1);
    }
    siginfo_t info;
    waitid(P_PID, p, &info, WSTOPPED);
    kill(p, SIGKILL);
    info.si_pid = 0;
    if (waitid(P_PID, p, &info, WCONTINUED | WNOHANG) == 0 && info.si_pid) continued++;
    waitpid(p, &status, 0);
    survived += WIFEXITED(status);
  }
  say("went on after a kill", survived);
  say("told of a continuation", continued);
}

static void gone(void) {
  char path[40];
  int status;
  pid_t p = fork();
  if (p == 0) pause(), _exit(0);
  snprintf(path, sizeof path, "/proc/%d", p);
  int dir = open(path, O_DIRECTORY), fd = (int)syscall(SYS_pidfd_open, p, 0);
  say("kill by a directory", syscall(SYS_pidfd_send_signal, dir, SIGKILL, NULL, 0));
  waitpid(p, &status, 0);
  say("signal by the directory of one that is gone", syscall(SYS_pidfd_send_signal, dir, 0, NULL, 0));
  say("signal to one that is gone", syscall(SYS_pidfd_send_signal, fd, 0, NULL, 0));
  close(dir), close(fd);
}

static void flags_and_filters(void) {
  int fd = open("/tmp", O_TMPFILE | O_RDWR | O_EXCL, 0600);
  printf("flags of a file without a name %x\n", (unsigned)fcntl(fd, F_GETFL) & ~0x8000u);
  close(fd);
  struct { unsigned short len; void *code; } program = {0, NULL};
  pid_t p = fork();
  if (p == 0) {
    /* As a user without rights and without the promise not to get any. */
    if (setresuid(1000, 1000, 1000)) _exit(1);
    say("seccomp, no program", syscall(SYS_seccomp, 1, 0, NULL));
    say("seccomp, no program, every thread", syscall(SYS_seccomp, 1, 1, NULL));
    say("seccomp, unknown flag", syscall(SYS_seccomp, 1, 1 << 20, NULL));
    say("seccomp, empty program", syscall(SYS_seccomp, 1, 0, &program));
    program.len = 1;
    say("seccomp, not allowed", syscall(SYS_seccomp, 1, 0, &program));
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    say("seccomp, no code", syscall(SYS_seccomp, 1, 0, &program));
    program.code = (void *)8;
    say("seccomp, bad code", syscall(SYS_seccomp, 1, 0, &program));
    _exit(0);
  }
  waitpid(p, NULL, 0);
}

static void nothing(int sig) { (void)sig; }

static char *alternate;
enum { ALTERNATE = 64 << 10 };

/* Runs on the alternate stack, uses it up but for less than a frame, and is interrupted. */
static void use_up(int sig) {
  char here;
  volatile char *rest = __builtin_alloca((size_t)(&here - alternate) - 900);
  *rest = (char)sig;
  syscall(SYS_tgkill, getpid(), (int)syscall(SYS_gettid), SIGUSR2);
  _exit(1);
}

/* A frame that does not fit on the alternate stack. */
static void small_stack(void) {
  int status;
  pid_t p = fork();
  if (p == 0) {
    char *base = mmap(NULL, 2 * ALTERNATE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    alternate = base + ALTERNATE;
    stack_t s = {.ss_sp = alternate, .ss_size = ALTERNATE};
    struct sigaction first = {.sa_handler = use_up, .sa_flags = SA_ONSTACK}, second = {.sa_handler = nothing, .sa_flags = SA_ONSTACK};
    if (sigaltstack(&s, NULL) || sigaction(SIGUSR1, &first, NULL) || sigaction(SIGUSR2, &second, NULL)) _exit(77);
    raise(SIGUSR1);
    _exit(2);
  }
  waitpid(p, &status, 0);
  printf("no room on the alternate stack: status %x\n", status & ~0x80);
}

static volatile int overrun = -1;

static void on_timer(int sig, siginfo_t *info, void *unused) {
  (void)sig, (void)unused;
  if (overrun < 0) overrun = info->si_overrun;
}

static void timers(void) {
  struct sigaction act = {.sa_sigaction = on_timer, .sa_flags = SA_SIGINFO};
  struct sigevent e = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN};
  struct itimerspec often = {{0, 200000000}, {0, 200000000}}, left, fast = {{0, 100000}, {0, 100000}}, stop = {{0, 0}, {0, 0}};
  sigset_t set;
  timer_t t;
  sigaction(SIGRTMIN, &act, NULL);
  sigemptyset(&set);
  sigaddset(&set, SIGRTMIN);
  sigaddset(&set, SIGCONT);
  sigprocmask(SIG_BLOCK, &set, NULL);
  timer_create(CLOCK_MONOTONIC, &e, &t);
  timer_settime(t, 0, &often, NULL);
  usleep(700000);
  sigprocmask(SIG_UNBLOCK, &set, NULL);
  say("overruns while blocked", overrun >= 2);
  say("as asked", timer_getoverrun(t) >= overrun);
  timer_gettime(t, &left);
  say("runs again", left.it_value.tv_nsec > 0 && left.it_value.tv_nsec < 200000000);
  timer_delete(t);
  sigprocmask(SIG_BLOCK, &set, NULL);
  e.sigev_signo = SIGCONT;
  timer_create(CLOCK_MONOTONIC, &e, &t);
  timer_settime(t, 0, &often, NULL);
  usleep(700000);
  sigprocmask(SIG_UNBLOCK, &set, NULL);
  say("overruns of an ignored signal", timer_getoverrun(t) >= 2);
  timer_delete(t);
  sigprocmask(SIG_BLOCK, &set, NULL);
  e.sigev_signo = SIGRTMIN;
  timer_create(CLOCK_MONOTONIC, &e, &t);
  overrun = -1;
  timer_settime(t, 0, &fast, NULL);
  usleep(100000);
  sigprocmask(SIG_UNBLOCK, &set, NULL);
  timer_settime(t, 0, &stop, NULL);
  say("overruns of a fast timer", overrun > 700);
  timer_delete(t);
}



static void children(void) {
  struct sigaction act = {.sa_handler = nothing, .sa_flags = SA_NOCLDWAIT};
  int status;
  sigaction(SIGCHLD, &act, NULL);
  for (int i = 0; i < 20; i++) {
    if (fork() == 0) _exit(3);
    if (wait(&status) != -1 || errno != ECHILD) say("SA_NOCLDWAIT", i);
  }
  signal(SIGCHLD, SIG_DFL);
  siginfo_t info;
  if (fork() == 0) _exit(setuid(77) ? 1 : 3);
  waitid(P_ALL, 0, &info, WEXITED);
  say("user of a child that ended", info.si_uid);
}

// Which signal a parent gets at an end, and whether wait() finds the child without being told to look for such.
static void told_of(const char *what, const sigset_t *set) {
  siginfo_t info;
  struct timespec patience = {5, 0};
  int signal = sigtimedwait(set, &info, &patience);
  printf("%s: %s, code %d\n", what, signal == SIGCHLD ? "SIGCHLD" : signal == SIGBUS ? "SIGBUS" : "none", info.si_code);
  say("waited for", waitpid(-1, NULL, 0) > 0);
}

// A clone that tells of its end by SIGBUS.
static pid_t odd_child(void) { return syscall(SYS_clone, SIGBUS, 0, 0, 0, 0); }

static void exit_signals(void) {
  int gate[2], status;
  pid_t child;
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGCHLD);
  sigaddset(&set, SIGBUS);
  sigprocmask(SIG_BLOCK, &set, NULL);
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  if ((child = odd_child()) == 0) _exit(0);
  told_of("a clone", &set);
  say("with __WALL", waitpid(child, NULL, __WALL) == child);
  pipe(gate);
  if ((child = fork()) == 0) {
    if (odd_child() == 0) {
      char c;
      close(gate[1]);
      read(gate[0], &c, 1);
    }
    _exit(0);
  }
  waitpid(child, &status, 0);
  sigtimedwait(&set, NULL, &(struct timespec){0, 0});
  close(gate[1]);
  told_of("an orphan that was a clone", &set);
  if ((child = odd_child()) == 0) {
    execl("/bin/true", "true", NULL);
    _exit(1);
  }
  told_of("a clone that ran another program", &set);
  prctl(PR_SET_CHILD_SUBREAPER, 0);
  sigprocmask(SIG_UNBLOCK, &set, NULL);
}

static void queue_limit(void) {
  struct rlimit ten = {10, 10};
  sigset_t set;
  union sigval v = {7};
  int n = 0;
  sigemptyset(&set);
  sigaddset(&set, SIGRTMIN + 3);
  sigprocmask(SIG_BLOCK, &set, NULL);
  setrlimit(RLIMIT_SIGPENDING, &ten);
  while (n < 1000 && sigqueue(getpid(), SIGRTMIN + 3, v) == 0) n++;
  say("queued at most", n < 1000);
  say("then", sigqueue(getpid(), SIGRTMIN + 3, v));
  struct timespec none = {0, 0};
  while (sigtimedwait(&set, NULL, &none) > 0) n--;
  say("taken as many", n);
}

static void areas(void) {
  int n = 0;
  while (n < 100000 && mmap(NULL, 4096, n & 1 ? PROT_READ : PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED) n++;
  say("map areas run out", n > 60000 && n < 66000);
  say("with", n < 100000 ? -1 : 0);
}

static void barriers(void) {
  say("membarrier unregistered", syscall(SYS_membarrier, 8, 0, 0));
  say("membarrier flags", syscall(SYS_membarrier, 0, 1, 0));
  say("membarrier offers", syscall(SYS_membarrier, 0, 0, 0) & 31);
  say("membarrier register", syscall(SYS_membarrier, 16, 0, 0));
  say("membarrier", syscall(SYS_membarrier, 8, 0, 0));
  say("membarrier global", syscall(SYS_membarrier, 1, 0, 0));
  if (fork() == 0) {
    say("membarrier of a child", syscall(SYS_membarrier, 8, 0, 0));
    _exit(0);
  }
  wait(NULL);
}

static long aio_submit(aio_context_t ctx, struct iocb *one) { return syscall(SYS_io_submit, ctx, 1L, &one); }

static void aio(void) {
  aio_context_t ctx = 0, wrong = 1;
  struct io_event got[8];
  struct timespec none = {0, 0};
  char out[16] = "asynchronous", in[16] = "";
  int told = eventfd(0, EFD_NONBLOCK), fd = open("/tmp/aio", O_CREAT | O_RDWR, 0600), only = open("/tmp/aio", O_RDONLY);
  say("io_setup, no events", syscall(SYS_io_setup, 0, &ctx));
  say("io_setup, in use", syscall(SYS_io_setup, 8, &wrong));
  say("io_setup, too many", syscall(SYS_io_setup, 0x20000000, &ctx));
  say("io_setup, nowhere", syscall(SYS_io_setup, 8, NULL));
  say("io_setup", syscall(SYS_io_setup, 8, &ctx));
  say("a number", ctx != 0);
  struct iocb w = {.aio_data = 7, .aio_lio_opcode = IOCB_CMD_PWRITE, .aio_fildes = fd, .aio_buf = (uintptr_t)out, .aio_nbytes = 12, .aio_offset = 3,
                   .aio_flags = IOCB_FLAG_RESFD, .aio_resfd = told};
  say("write", aio_submit(ctx, &w));
  uint64_t n = 0;
  // Linux may tell a little later.
  struct pollfd p = {told, POLLIN, 0};
  say("told", poll(&p, 1, 1000));
  say("read the eventfd", read(told, &n, 8) == 8 ? (long)n : -1);
  say("one event", syscall(SYS_io_getevents, ctx, 1L, 8L, got, NULL));
  say("its data", got[0].data);
  say("its operation", got[0].obj == (uintptr_t)&w);
  say("its result", got[0].res);
  struct iovec v[2] = {{in, 5}, {in + 5, 11}};
  struct iocb r = {.aio_lio_opcode = IOCB_CMD_PREADV, .aio_fildes = fd, .aio_buf = (uintptr_t)v, .aio_nbytes = 2, .aio_offset = 3};
  struct iocb s = {.aio_lio_opcode = IOCB_CMD_FSYNC, .aio_fildes = fd};
  struct iocb *both[] = {&r, &s};
  say("two", syscall(SYS_io_submit, ctx, 2L, both));
  say("two events", syscall(SYS_io_getevents, ctx, 2L, 8L, got, NULL));
  say("results", got[0].res + got[1].res);
  printf("read back: %s\n", in);
  say("no events", syscall(SYS_io_getevents, ctx, 0L, 8L, got, NULL));
  say("none in no time", syscall(SYS_io_getevents, ctx, 1L, 8L, got, &none));
  say("more than room", syscall(SYS_io_getevents, ctx, 9L, 8L, got, &none));
  struct iocb bad = w;
  bad.aio_flags = 0;
  bad.aio_fildes = 99;
  say("no file", aio_submit(ctx, &bad));
  bad.aio_fildes = only;
  say("not for writing", aio_submit(ctx, &bad));
  bad.aio_fildes = fd;
  bad.aio_lio_opcode = 99;
  say("no operation", aio_submit(ctx, &bad));
  bad.aio_lio_opcode = IOCB_CMD_PWRITE;
  bad.aio_flags = IOCB_FLAG_RESFD;
  bad.aio_resfd = fd;
  say("no eventfd", aio_submit(ctx, &bad));
  bad.aio_flags = 0;
  bad.aio_nbytes = -1;
  say("length below zero", aio_submit(ctx, &bad));
  bad.aio_nbytes = 1;
  bad.aio_offset = -1;
  aio_submit(ctx, &bad);
  say("offset below zero", syscall(SYS_io_getevents, ctx, 0L, 8L, got, &none) == 0 || (int)got[0].res == -EINVAL);
  say("nothing", syscall(SYS_io_submit, ctx, 0L, both));
  say("fewer than nothing", syscall(SYS_io_submit, ctx, -1L, both));
  say("cancel", syscall(SYS_io_cancel, ctx, &w, got));
  say("destroy", syscall(SYS_io_destroy, ctx));
  say("destroy again", syscall(SYS_io_destroy, ctx));
  say("submit to nothing", aio_submit(ctx, &w));
  unlink("/tmp/aio");
}

/* What getrusage counts beside times: more than so much, as numbers differ. */
static void usage(void) {
  struct rusage u, c;
  enum { MIB = 1 << 20 };
  char *m = mmap(0, 30 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  // Large pages would make few faults of many.
  madvise(m, 30 * MIB, MADV_NOHUGEPAGE);
  memset(m, 1, 30 * MIB);
  for (int i = 0; i < 5; i++) usleep(1000);
  getrusage(RUSAGE_SELF, &u);
  munmap(m, 30 * MIB);
  printf("usage: resident %d faults %d waits %d\n", u.ru_maxrss > 30 << 10, u.ru_minflt > 100, u.ru_nvcsw >= 5);
  getrusage(RUSAGE_SELF, &c);
  printf("usage: the largest stays %d\n", c.ru_maxrss >= u.ru_maxrss);
  getrusage(RUSAGE_THREAD, &u);
  printf("usage of a thread: resident %d faults %d\n", u.ru_maxrss > 30 << 10, u.ru_minflt > 100);
  pid_t p = fork();
  if (p == 0) {
    m = mmap(0, 60 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    madvise(m, 60 * MIB, MADV_NOHUGEPAGE);
    memset(m, 1, 60 * MIB);
    usleep(1000);
    _exit(0);
  }
  say("wait4", wait4(p, NULL, 0, &u) == p);
  printf("usage of a child: resident %d faults %d waits %d\n", u.ru_maxrss > 60 << 10, u.ru_minflt > 100, u.ru_nvcsw >= 1);
  getrusage(RUSAGE_CHILDREN, &c);
  printf("usage of children: resident %d faults %d waits %d\n", c.ru_maxrss >= u.ru_maxrss, c.ru_minflt >= u.ru_minflt, c.ru_nvcsw >= u.ru_nvcsw);
}

static void show_scheduling(const char *when) {
  long a[7] = {0}, field = 0;
  char stat[1000], *at;
  FILE *f = fopen("/proc/self/stat", "r");
  stat[fread(stat, 1, sizeof stat - 1, f)] = 0;
  fclose(f);
  printf("%s:", when);
  for (at = strrchr(stat, ')') + 2, field = 3; at; at = strchr(at, ' '), field++) {
    at += *at == ' ';
    if (field == 18 || field == 19 || field == 40 || field == 41) printf(" %ld", atol(at));
  }
  say(", attr", syscall(SYS_sched_getattr, 0, a, 48, 0));
  // Size and policy, flags, nice and priority.
  printf("%lx %lx %lx; %lx\n", a[0], a[1], a[2], syscall(SYS_sched_getscheduler, 0));
}

static void scheduling(void) {
  static const int policies[] = {0, 1, 2, 3, 6, 4, 99, -1, 0x40000003, 3, 0x40000000 | 1};
  struct { unsigned size, policy; unsigned long flags; int nice; unsigned priority; unsigned long deadline[3], more[4]; } a;
  show_scheduling("at first");
  for (unsigned i = 0; i < sizeof policies / sizeof *policies; i++)
    for (int priority = 0; priority < 2; priority++) {
      printf("policy %d priority %d", policies[i], priority);
      say("", syscall(SYS_sched_setscheduler, 0, policies[i], &priority));
    }
  show_scheduling("reset on fork");
  say("nice", setpriority(PRIO_PROCESS, 0, 7));
  if (fork() == 0) {
    show_scheduling("child");
    _exit(0);
  }
  wait(NULL);
  int zero = 0, one = 1, read_back = -1;
  say("setparam", syscall(SYS_sched_setparam, 0, &zero));
  say("setparam 1", syscall(SYS_sched_setparam, 0, &one));
  say("setparam of nobody", syscall(SYS_sched_setparam, 999999, &zero));
  say("setparam -1", syscall(SYS_sched_setparam, -1, &zero));
  say("setparam NULL", syscall(SYS_sched_setparam, 0, NULL));
  say("setparam nowhere", syscall(SYS_sched_setparam, 0, 8));
  say("getparam", syscall(SYS_sched_getparam, 0, &read_back) + read_back);
  say("getscheduler -1", syscall(SYS_sched_getscheduler, -1));
  for (int i = 0; i < 7; i++) say("highest", sched_get_priority_max(i)), say("lowest", sched_get_priority_min(i));
  static const struct { unsigned size, policy; unsigned long flags; int nice; unsigned priority; } tries[] = {
    {48, 0, 1, 9, 0},  {48, 0, 1, 5, 0},   {48, 0, 0, 9, 0},   {0, 3, 1, 10, 0}, {47, 0, 1, 10, 0},  {5000, 0, 1, 10, 0}, {48, 0, 9, 11, 0},
    {48, 3, 17, 0, 0}, {48, 0, 1, 99, 0},  {48, 1, 1, 0, 1},   {48, 1, 1, 0, 0}, {48, 0, 1, 19, 1},  {48, 1, 1, 0, 100},  {48, 6, 1, 0, 0},
    {48, 77, 1, 0, 0}, {48, -1u, 1, 0, 0}, {48, 0, 128, 0, 0}, {64, 0, 1, 19, 0}, {48, 5, 1, 19, 0}, {48, 0, 1, 19, 0},
  };
  for (unsigned i = 0; i < sizeof tries / sizeof *tries; i++) {
    memset(&a, 0, sizeof a);
    memcpy(&a, &tries[i], sizeof tries[i]);
    printf("attr %u", i);
    say("", syscall(SYS_sched_setattr, 0, &a, 0));
    show_scheduling("then");
  }
  a.more[2] = 1;
  a.size = sizeof a;
  say("what nobody knows", syscall(SYS_sched_setattr, 0, &a, 0));
  say("flags", syscall(SYS_sched_setattr, 0, &a, 1));
  say("no attr", syscall(SYS_sched_setattr, 0, NULL, 0));
  say("get little", syscall(SYS_sched_getattr, 0, &a, 47, 0));
  say("get much", syscall(SYS_sched_getattr, 0, &a, 5000, 0));
  say("get flags", syscall(SYS_sched_getattr, 0, &a, 48, 1));
  say("get nobody's", syscall(SYS_sched_getattr, 999999, &a, 48, 0));
  struct timespec turn;
  say("turn", sched_rr_get_interval(0, &turn));
  say("turn of -1", sched_rr_get_interval(-1, &turn));
}

int main(void) {
  setvbuf(stdout, NULL, _IOLBF, 0);
  requeue_pi();
  mismatch();
  seals();
  locks();
  times();
  queues();
  queue_files();
  other_pages();
  old_terminals();
  watched_files();
  clocks();
  compare();
  names();
  pidfds();
  gone();
  killed_while_stopped();
  flags_and_filters();
  small_stack();
  timers();
  children();
  exit_signals();
  queue_limit();
  barriers();
  aio();
  usage();
  areas();
  scheduling();
  return 0;
}
