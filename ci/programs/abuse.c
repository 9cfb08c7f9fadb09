/* A hostile app: random system calls, by rounds, for a number of seconds:
 *   abuse SECONDS SEED user|root
 * A round has several worker processes with several threads each. They share descriptors of every kind and memory that is unmapped,
 * moved, cut off and written to while the kernel copies; they fork, clone, execute and trace each other, and signals rain on them.
 * Most calls have arguments of the right kind (abuse_shapes.h), half valid; the rest are noise in every number up to 600.
 * The first process keeps its wits: it asks, all the time, whether a process that does no harm still gets its due, and sees to it that
 * every worker can be killed. It says so every second (a line that begins with "beat"), which a watchdog outside can wait for. */
#include "abuse.h"
#include "abuse_shapes.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <grp.h>
#include <mqueue.h>
#include <pthread.h>
#include <time.h>
#include <unistd.h>

enum { NOBODY = 65534, LAST = 600, WORKERS = 4, THREADS = 3, ROUND_MS = 1200, PATIENCE_MS = 20000, STACK = 4 * PAGE, STACKS = 64 };

struct arena arena;
struct common *common;
struct descriptors descriptors;
__thread uint64_t random_state = 1;
__thread sigjmp_buf *fault;
/* What the clone below is given, which has no room for more. */
static uint64_t seed_of_clones;

struct shape {
  long number;
  const char *arguments;
  int weight;
};
#define CALL(name, arguments, weight) {SYS_##name, arguments, weight},
static const struct shape shapes[] = {SHAPES};
static int total_weight;

static void on_signal(int sig) {
  if ((sig == SIGSEGV || sig == SIGBUS) && fault) siglongjmp(*fault, 1);
  if (sig == SIGSEGV || sig == SIGBUS || sig == SIGILL) _exit(1);
}

static void *map(void *at, size_t n, int protection, int flags, int fd) {
  void *p = mmap(at, n, protection, flags, fd, 0);
  if (p == MAP_FAILED) _exit(4);
  return p;
}

static void make_arena(void) {
  int anonymous = MAP_PRIVATE | MAP_ANONYMOUS;
  arena.good = map(0, AREA + PAGE, PROT_READ | PROT_WRITE, anonymous, -1);
  munmap(arena.good + AREA, PAGE);
  arena.readonly = map(0, 2 * PAGE, PROT_READ, anonymous, -1);
  arena.none = map(0, 2 * PAGE, PROT_NONE, anonymous, -1);
  arena.racing = map(0, AREA, PROT_READ | PROT_WRITE, anonymous, -1);
  arena.stacks = map(0, STACKS * STACK, PROT_READ | PROT_WRITE, anonymous, -1);
  arena.file = map(0, AREA, PROT_READ | PROT_WRITE, MAP_SHARED, descriptors.file);
}

static long call(const struct shape *s) {
  long a[6] = {0};
  for (int i = 0; s->arguments[i]; i++) a[i] = argument(s->arguments[i]);
  return syscall(s->number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

static const struct shape *any_shape(void) {
  long left = (long)below((uint64_t)total_weight);
  const struct shape *s = shapes;
  while (left >= s->weight) left -= s++->weight;
  return s;
}

static void act(int calls);

static int cloned(void *data) {
  random_state = (uint64_t)data | 1;
  for (int i = 0; i < 20; i++) call(any_shape());
  syscall(SYS_exit, 0);
  return 0;
}

/* A child or thread with its own stack and any mixture of shared things. */
static void clone_something(void) {
  static const int known[] = {CLONE_VM, CLONE_FS, CLONE_FILES, CLONE_SIGHAND, CLONE_THREAD, CLONE_SYSVSEM, CLONE_PARENT, CLONE_VFORK, CLONE_PTRACE, CLONE_UNTRACED,
                              CLONE_IO, CLONE_PARENT_SETTID, CLONE_CHILD_CLEARTID, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWPID, CLONE_NEWUSER};
  int flags = one_in(2) ? CLONE_VM | CLONE_SIGHAND | CLONE_THREAD : 0;
  for (uint64_t i = below(4); i; i--) flags |= PICK(known);
  if (!(flags & CLONE_THREAD)) flags |= SIGCHLD;
  char *top = arena.stacks + STACK * (1 + below(STACKS));
  clone(cloned, top, flags, (void *)(next() ^ seed_of_clones), arena.shared + 8 * below(64), 0, arena.shared + 8 * below(64));
}

/* Makes calls at random, as a child of its own if a call turned out to be a fork. */
static void act(int calls) {
  sigjmp_buf here;
  volatile int left = calls;
  volatile int pid = getpid();
  sigsetjmp(here, 1);
  while (left-- > 0) {
    fault = &here;
    if (one_in(8)) ((volatile uint64_t *)arena.good)[below(AREA / 8)] = next();
    fault = 0;
    __atomic_add_fetch(&common->calls, 1, __ATOMIC_RELAXED);
    switch (below(400)) {
    case 0: case 1: case 2:
      if (fork() == 0) {
        act(40);
        _exit(0);
      }
      break;
    case 3: case 4: case 5: case 6: clone_something(); break;
    case 7:
      if (one_in(20)) execl("/bin/abuse", "abuse", "nap", (char *)0);
      break;
    case 8:
      if (one_in(20)) syscall(SYS_exit, 0);
      break;
    default:
      if (one_in(8)) {
        long a[6];
        for (int i = 0; i < 6; i++) a[i] = noise();
        syscall((long)below(LAST + 1), a[0], a[1], a[2], a[3], a[4], a[5]);
      } else {
        call(any_shape());
      }
      if (getpid() != pid) {
        if (left > 40) left = 40;
        pid = getpid();
      }
    }
  }
}

/* Pulls memory from under the others. */
static void race(void) {
  sigjmp_buf here;
  sigsetjmp(here, 1);
  for (;;) {
    fault = &here;
    char *p = arena.racing + below(16) * PAGE;
    size_t n = (1 + below(4)) * PAGE;
    if (p + n > arena.racing + AREA) n = PAGE;
    switch (below(8)) {
    case 0: munmap(p, n); break;
    case 1: case 2: mmap(p, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0); break;
    case 3: mmap(p, n, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, descriptors.file, 0); break;
    case 4: mprotect(p, n, (int)below(4)); break;
    case 5: mremap(p, n, n, MREMAP_MAYMOVE | MREMAP_FIXED, arena.racing + below(12) * PAGE); break;
    case 6:
      if (ftruncate(descriptors.file, (off_t)(below(17) * PAGE))) errno = 0;
      break;
    default: madvise(p, n, MADV_DONTNEED); break;
    }
    for (int i = 0; i < 16; i++) ((volatile uint64_t *)arena.shared)[below(AREA / 8)] = one_in(2) ? next() : (uint64_t)(arena.good + below(AREA));
    if (one_in(4)) tgkill(common->members[below(MEMBERS)], common->members[below(MEMBERS)], 32 + (int)below(33));
    if (one_in(16)) sched_yield();
  }
}

/* Interrupts the calling thread all the time: what waits for ever goes on. */
static void interrupt_often(void) {
  struct sigevent e = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGALRM};
  e._sigev_un._tid = (pid_t)syscall(SYS_gettid);
  struct itimerspec often = {{0, 3000000}, {0, 3000000}};
  timer_t timer;
  if (timer_create(CLOCK_MONOTONIC, &e, &timer) == 0) timer_settime(timer, 0, &often, 0);
}

static void *thread(void *data) {
  random_state = (uint64_t)data;
  interrupt_often();
  if (random_state % 4 == 1) race();
  for (;;) act(1000);
  return 0;
}

static void worker(uint64_t seed) {
  random_state = seed | 1;
  seed_of_clones = next();
  make_arena();
  for (int sig = 1; sig < 65; sig++) {
    struct sigaction a = {.sa_handler = on_signal, .sa_flags = (one_in(2) && sig != SIGALRM ? SA_RESTART : 0) | (sig == SIGSEGV || sig == SIGBUS ? SA_NODEFER : 0)};
    if (sig != SIGTSTP && sig != SIGTTIN && sig != SIGTTOU) sigaction(sig, &a, 0);
  }
  signal(SIGCHLD, SIG_IGN);
  interrupt_often();
  for (int i = 0; i < THREADS; i++) {
    pthread_t t;
    /* The first of them pulls memory away. */
    if (pthread_create(&t, 0, thread, (void *)((next() & ~3ul) | (i ? 3 : 1)))) break;
  }
  for (;;) act(1000);
}

/* Makes what the workers of a round share, and workers for as long as it is let. */
static void round_of_workers(uint64_t seed, int as_root) {
  random_state = seed | 1;
  for (int i = 0; i < 8; i++) next();
  struct rlimit none = {0, 0}, open_files = {128, 128}, tasks = {120, 120}, file = {4 << 20, 4 << 20}, space = {192 << 20, 192 << 20}, signals = {200, 200};
  setrlimit(RLIMIT_CORE, &none), setrlimit(RLIMIT_NOFILE, &open_files), setrlimit(RLIMIT_NPROC, &tasks);
  setrlimit(RLIMIT_FSIZE, &file), setrlimit(RLIMIT_AS, &space), setrlimit(RLIMIT_SIGPENDING, &signals);
  setsid();
  umask(0);
  if (!as_root && (setgroups(0, 0) || setgid(NOBODY) || setuid(NOBODY))) _exit(3);
  if (chdir("/tmp")) _exit(3);
  prctl(PR_SET_DUMPABLE, 1);
  descriptors.file = memfd_create("file", 0);
  if (descriptors.file < 0 || ftruncate(descriptors.file, AREA)) _exit(3);
  open_descriptors();
  arena.shared = map(0, AREA, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1);
  for (uint64_t n = 0;; n++) {
    pid_t p = fork();
    if (p == 0) worker(seed ^ (n + 1) * 0x9e3779b97f4a7c15ull);
    common->members[n % MEMBERS] = p > 0 ? p : 0;
    if (n + 1 >= WORKERS) waitpid(-1, 0, 0);
  }
}

static long now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* The harmless process: it does a little of everything. */
static void harmless(void) {
  char text[256];
  int pair[2], status;
  if (pipe(pair) || write(pair[1], "x", 1) != 1 || read(pair[0], text, 1) != 1) _exit(10);
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) || write(pair[1], "y", 1) != 1 || read(pair[0], text, 1) != 1) _exit(11);
  int fd = open("/proc/self/stat", O_RDONLY);
  if (fd < 0 || read(fd, text, sizeof text) < 20) _exit(12);
  fd = open("/bin", O_RDONLY | O_DIRECTORY);
  if (fd < 0 || syscall(SYS_getdents64, fd, text, sizeof text) <= 0) _exit(13);
  volatile char *memory = map(0, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
  memory[5 * PAGE] = 1;
  /* The limit of processes may be used up: that is no fault; nor is it that a worker stops what it may. */
  pid_t p = fork(), ended = 0;
  if (p == 0) _exit(7);
  while (p > 0 && (ended = waitpid(p, &status, WUNTRACED)) == p && WIFSTOPPED(status)) kill(p, SIGCONT);
  if (p > 0 && (ended != p || (WIFEXITED(status) && WEXITSTATUS(status) != 7))) _exit(14);
  if (p < 0 && errno != EAGAIN) _exit(15);
  _exit(0);
}

/* How often a worker that runs as root stopped a harmless process: kill(-1, SIGSTOP) is its right. */
static long stopped;

/* Waits for a child of ours; whether it ended in time. */
static int ends(pid_t p, int *status) {
  long limit = now_ms() + PATIENCE_MS;
  while (now_ms() < limit) {
    pid_t ended = waitpid(-1, status, WNOHANG | WUNTRACED);
    if (ended == p && !WIFSTOPPED(*status)) return 1;
    if (ended == p) {
      /* It must go on from there. */
      stopped++;
      kill(p, SIGCONT);
    }
    if (ended <= 0) usleep(1000);
  }
  return 0;
}

/* The first process must not be disturbed: a signal that reaches it says from whom it came, or where the fault was. */
static void disturbed(int sig, siginfo_t *i, void *context) {
  (void)context;
  printf("the first process got signal %d, code %d, from %d, address %p\n", sig, i->si_code, i->si_pid, i->si_addr);
  fflush(stdout);
  _exit(1);
}

static int fail(const char *what, int detail) {
  printf("%s: %d\n", what, detail);
  fflush(stdout);
  return 1;
}

/* Says what a process that should have ended does, and what its children do. */
static void witness(pid_t p) {
  DIR *all = opendir("/proc");
  for (struct dirent *e; all && (e = readdir(all));) {
    char path[300], text[4096];
    int pid = atoi(e->d_name), parent = 0;
    for (int i = 0; pid > 0 && i < 4; i++) {
      snprintf(path, sizeof path, "/proc/%d/%s", pid, ((const char *[]){"stat", "status", "wchan", "syscall"})[i]);
      int fd = open(path, O_RDONLY);
      ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
      if (fd >= 0) close(fd);
      if (n < 0) continue;
      text[n] = 0;
      if (i == 0 && (sscanf(text, "%*d %*[^)]) %*c %d", &parent) != 1 || (pid != p && parent != p))) break;
      fprintf(stderr, "%s:\n%s\n", path, text);
    }
  }
  if (all) closedir(all);
}

/* Ends everybody else and removes what outlives them; whether they did end. */
static int sweep(void) {
  kill(-1, SIGKILL);
  kill(-1, SIGCONT);
  long limit = now_ms() + PATIENCE_MS;
  for (;;) {
    pid_t p = waitpid(-1, 0, WNOHANG);
    if (p < 0 && errno == ECHILD) break;
    if (p == 0) {
      if (now_ms() > limit) return 0;
      kill(-1, SIGKILL);
      usleep(2000);
    }
  }
  for (int i = 0; i < 64; i++) {
    struct shmid_ds d;
    struct msqid_ds m;
    int id = shmctl(i, SHM_STAT, &d);
    if (id >= 0) shmctl(id, IPC_RMID, 0);
    id = semctl(i, 0, SEM_STAT, &d);
    if (id >= 0) semctl(id, 0, IPC_RMID);
    id = msgctl(i, MSG_STAT, &m);
    if (id >= 0) msgctl(id, IPC_RMID, 0);
  }
  mq_unlink("/q1"), mq_unlink("/q2");
  return 1;
}

int main(int argc, char **argv) {
  if (argc == 2 && strcmp(argv[1], "nap") == 0) {
    usleep(20000);
    return 0;
  }
  if (argc != 4) return 2;
  long end = now_ms() + atol(argv[1]) * 1000, beat = 0, calls = 0;
  uint64_t seed = strtoull(argv[2], 0, 0) | 1;
  int as_root = strcmp(argv[3], "root") == 0;
  for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) total_weight += shapes[i].weight;
  /* What runs as root too may trace neither this process nor write to its memory. */
  prctl(PR_SET_DUMPABLE, 0);
  struct sigaction tell = {.sa_sigaction = disturbed, .sa_flags = SA_SIGINFO};
  sigaction(SIGBUS, &tell, 0), sigaction(SIGSEGV, &tell, 0);
  common = map(0, sizeof *common, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1);
  for (uint64_t round = 0; now_ms() < end; round++) {
    memset((void *)common->members, 0, sizeof common->members);
    pid_t leader = fork();
    if (leader == 0) {
      /* Stray writes must not spoil what the first process says. */
      for (int fd = 0; fd < 3; fd++) {
        int null = open("/dev/null", O_RDWR);
        if (null < 0 || dup2(null, fd) < 0) _exit(3);
        if (null != fd) close(null);
      }
      signal(SIGBUS, SIG_DFL), signal(SIGSEGV, SIG_DFL);
      round_of_workers(seed + round * 0x9e3779b97f4a7c15ull, as_root);
    }
    if (leader < 0) return fail("no fork for a round", errno);
    for (long limit = now_ms() + ROUND_MS; now_ms() < limit; usleep(50000)) {
      int status;
      pid_t p = fork();
      if (p == 0) {
        signal(SIGBUS, SIG_DFL), signal(SIGSEGV, SIG_DFL);
        harmless();
      }
      if (p < 0 && errno == EAGAIN) continue;
      if (p < 0) return fail("no fork for a harmless process", errno);
      if (!ends(p, &status)) {
        witness(p);
        fail("a harmless process hangs in round", (int)round);
        /* The one who watches looks at it from the host. */
        sleep(5);
        return 1;
      }
      if (stopped && !as_root) return fail("a harmless process was stopped", (int)stopped);
      /* Signals may come to it from processes of the same user. */
      if (WIFEXITED(status) && WEXITSTATUS(status)) return fail("a harmless process failed", WEXITSTATUS(status));
      if (WIFSIGNALED(status) && !as_root && WTERMSIG(status) != SIGKILL) return fail("a harmless process was ended by a signal", WTERMSIG(status));
    }
    if (!sweep()) return fail("a process cannot be killed, round", (int)round);
    /* Workers may have written here what they liked. */
    if (common->calls > 0 && common->calls < 1 << 20) calls += common->calls;
    common->calls = 0;
    if (now_ms() > beat) fprintf(stderr, "beat %ld %ld\n", (long)round, calls);
    beat = now_ms() + 1000;
  }
  printf("survived: %d\n", calls > 1000);
  fprintf(stderr, "%ld calls, a harmless process stopped %ld times\n", calls, stopped);
  return 0;
}
