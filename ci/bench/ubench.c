/* Micro-benchmarks of what a guest kernel answers. Prints one line per test: name, median nanoseconds per operation.
 *   ubench [TEST...]          all tests when none is named; works in the current directory
 *   ubench true               exits at once: the program of the cold-start measurement
 * Static, so that it runs in an empty root file system: gcc -O2 -static -pthread */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { BATCHES = 5, PAGE = 4096 };
static const double BATCH_S = 0.06;

static char block[1 << 16];
static const char *self;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec * 1e-9;
}

static void need(int ok, const char *what) {
  if (ok) return;
  printf("failed %s: %s\n", what, strerror(errno));
  exit(1);
}

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* Nanoseconds per operation of `body`, which does as many as it is told: the median of some batches. */
static double measure(void (*body)(long)) {
  long n = 1;
  double took, result[BATCHES];
  for (;; n *= 4) {
    double began = now();
    body(n);
    took = now() - began;
    if (took > BATCH_S / 4) break;
  }
  n = n * BATCH_S / took + 1;
  for (int i = 0; i < BATCHES; i++) {
    double began = now();
    body(n);
    result[i] = (now() - began) * 1e9 / n;
  }
  qsort(result, BATCHES, sizeof result[0], by_value);
  return result[BATCHES / 2];
}

static void getpid_loop(long n) {
  while (n--) syscall(SYS_getpid);
}

static void clock_loop(long n) {
  struct timespec t;
  while (n--) clock_gettime(CLOCK_MONOTONIC, &t);
}

static int zero_fd, file_fd;
static void read_zero(long n) {
  while (n--) need(read(zero_fd, block, 1) == 1, "read of /dev/zero");
}

static void pread_4k(long n) {
  while (n--) need(pread(file_fd, block, PAGE, (n & 15) * PAGE) == PAGE, "pread");
}

static void pwrite_4k(long n) {
  while (n--) need(pwrite(file_fd, block, PAGE, (n & 15) * PAGE) == PAGE, "pwrite");
}

static void stat_loop(long n) {
  struct stat s;
  while (n--) need(stat("ubench.file", &s) == 0, "stat");
}

static void open_read_close(long n) {
  while (n--) {
    int fd = open("ubench.file", O_RDONLY);
    need(fd >= 0 && read(fd, block, PAGE) == PAGE, "open and read");
    close(fd);
  }
}

static void create_unlink(long n) {
  while (n--) {
    int fd = open("ubench.new", O_CREAT | O_RDWR, 0600);
    need(fd >= 0, "create");
    close(fd);
    need(unlink("ubench.new") == 0, "unlink");
  }
}

/* A byte to a child and back, over any pair of descriptors. */
static int there, back;
static void round_trip(long n) {
  char c = 'x';
  while (n--) need(write(there, &c, 1) == 1 && read(back, &c, 1) == 1, "round trip");
}

static double with_echo_child(int child_in, int child_out, int ours_out, int ours_in) {
  pid_t p = fork();
  need(p >= 0, "fork");
  if (p == 0) {
    char c;
    while (read(child_in, &c, 1) == 1 && write(child_out, &c, 1) == 1) {}
    _exit(0);
  }
  there = ours_out;
  back = ours_in;
  double result = measure(round_trip);
  kill(p, SIGKILL);
  waitpid(p, 0, 0);
  return result;
}

static double pipe_round_trip(void) {
  int a[2], b[2];
  need(pipe(a) == 0 && pipe(b) == 0, "pipe");
  return with_echo_child(a[0], b[1], a[1], b[0]);
}

static double unix_round_trip(void) {
  int s[2];
  need(socketpair(AF_UNIX, SOCK_STREAM, 0, s) == 0, "socketpair");
  return with_echo_child(s[1], s[1], s[0], s[0]);
}

static double tcp_round_trip(void) {
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t length = sizeof a;
  int one = 1, l = socket(AF_INET, SOCK_STREAM, 0), c = socket(AF_INET, SOCK_STREAM, 0);
  need(l >= 0 && bind(l, (void *)&a, length) == 0 && listen(l, 1) == 0, "listen");
  need(getsockname(l, (void *)&a, &length) == 0 && connect(c, (void *)&a, length) == 0, "connect");
  int s = accept(l, 0, 0);
  need(s >= 0, "accept");
  setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  setsockopt(c, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  return with_echo_child(s, s, c, c);
}

static int event_fd, epoll_fd;
static void epoll_loop(long n) {
  struct epoll_event e;
  unsigned long v = 1;
  while (n--) {
    need(write(event_fd, &v, 8) == 8, "eventfd");
    need(epoll_wait(epoll_fd, &e, 1, -1) == 1, "epoll_wait");
    need(read(event_fd, &v, 8) == 8, "eventfd");
  }
}

static double epoll_and_eventfd(void) {
  struct epoll_event e = {.events = EPOLLIN};
  event_fd = eventfd(0, 0);
  epoll_fd = epoll_create1(0);
  need(event_fd >= 0 && epoll_ctl(epoll_fd, EPOLL_CTL_ADD, event_fd, &e) == 0, "epoll");
  return measure(epoll_loop);
}

static int ball;
static void *futex_partner(void *unused) {
  (void)unused;
  for (;;) {
    int b;
    while ((b = __atomic_load_n(&ball, __ATOMIC_ACQUIRE)) == 0 || b == 2) syscall(SYS_futex, &ball, FUTEX_WAIT_PRIVATE, b, 0, 0, 0);
    if (b == 3) return 0;
    __atomic_store_n(&ball, 2, __ATOMIC_RELEASE);
    syscall(SYS_futex, &ball, FUTEX_WAKE_PRIVATE, 1, 0, 0, 0);
  }
}

static void futex_loop(long n) {
  while (n--) {
    __atomic_store_n(&ball, 1, __ATOMIC_RELEASE);
    syscall(SYS_futex, &ball, FUTEX_WAKE_PRIVATE, 1, 0, 0, 0);
    while (__atomic_load_n(&ball, __ATOMIC_ACQUIRE) != 2) syscall(SYS_futex, &ball, FUTEX_WAIT_PRIVATE, 1, 0, 0, 0);
  }
}

static double futex_round_trip(void) {
  pthread_t t;
  need(pthread_create(&t, 0, futex_partner, 0) == 0, "thread");
  double result = measure(futex_loop);
  __atomic_store_n(&ball, 3, __ATOMIC_RELEASE);
  syscall(SYS_futex, &ball, FUTEX_WAKE_PRIVATE, 1, 0, 0, 0);
  pthread_join(t, 0);
  return result;
}

static volatile int caught;
static void on_signal(int signal) {
  (void)signal;
  caught++;
}

static void signal_loop(long n) {
  pid_t p = getpid();
  while (n--) syscall(SYS_tgkill, p, (int)syscall(SYS_gettid), SIGUSR1);
}

static void *nothing(void *v) { return v; }
static void thread_loop(long n) {
  while (n--) {
    pthread_t t;
    need(pthread_create(&t, 0, nothing, 0) == 0, "thread");
    pthread_join(t, 0);
  }
}

static void fork_loop(long n) {
  while (n--) {
    pid_t p = fork();
    need(p >= 0, "fork");
    if (p == 0) _exit(0);
    need(waitpid(p, 0, 0) == p, "wait");
  }
}

static void fork_exec_loop(long n) {
  while (n--) {
    int status;
    pid_t p = fork();
    need(p >= 0, "fork");
    if (p == 0) {
      execl(self, self, "true", (char *)0);
      _exit(127);
    }
    need(waitpid(p, &status, 0) == p && status == 0, "exec");
  }
}

static void mmap_loop(long n) {
  while (n--) {
    void *p = mmap(0, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    need(p != MAP_FAILED, "mmap");
    munmap(p, PAGE);
  }
}

static void fault_loop(long n) {
  while (n > 0) {
    long pages = n < PAGE ? n : PAGE;
    char *p = mmap(0, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    need(p != MAP_FAILED, "mmap");
    madvise(p, pages * PAGE, MADV_NOHUGEPAGE);
    for (long i = 0; i < pages; i++) p[i * PAGE] = 1;
    munmap(p, pages * PAGE);
    n -= pages;
  }
}

/* Sequential input and output in blocks of 4 KiB; an operation is a block. */
static void write_file(long n) {
  lseek(file_fd, 0, SEEK_SET);
  for (long i = 0; i < n; i++) {
    if (i % 8192 == 0) lseek(file_fd, 0, SEEK_SET);
    need(write(file_fd, block, PAGE) == PAGE, "write");
  }
}

static void read_file(long n) {
  for (long i = 0; i < n; i++) {
    if (i % 16 == 0) lseek(file_fd, 0, SEEK_SET);
    need(read(file_fd, block, PAGE) == PAGE, "read");
  }
}

static const struct test {
  const char *name;
  void (*body)(long);
  double (*whole)(void);
} tests[] = {
    {"getpid", getpid_loop, 0},
    {"clock_gettime", clock_loop, 0},
    {"read 1 B of /dev/zero", read_zero, 0},
    {"stat", stat_loop, 0},
    {"open read close", open_read_close, 0},
    {"create unlink", create_unlink, 0},
    {"pread 4 KiB", pread_4k, 0},
    {"pwrite 4 KiB", pwrite_4k, 0},
    {"sequential read 4 KiB", read_file, 0},
    {"sequential write 4 KiB", write_file, 0},
    {"pipe round trip", 0, pipe_round_trip},
    {"unix socket round trip", 0, unix_round_trip},
    {"tcp round trip", 0, tcp_round_trip},
    {"eventfd and epoll", 0, epoll_and_eventfd},
    {"futex round trip", 0, futex_round_trip},
    {"signal to self", signal_loop, 0},
    {"thread create join", thread_loop, 0},
    {"fork wait", fork_loop, 0},
    {"fork exec wait", fork_exec_loop, 0},
    {"mmap munmap", mmap_loop, 0},
    {"page fault", fault_loop, 0},
};

int main(int argc, char **argv) {
  if (argc == 2 && strcmp(argv[1], "true") == 0) return 0;
  static char path[4096];
  ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
  self = length > 0 ? path : argv[0];
  signal(SIGUSR1, on_signal);
  signal(SIGPIPE, SIG_IGN);
  zero_fd = open("/dev/zero", O_RDONLY);
  file_fd = open("ubench.file", O_CREAT | O_RDWR, 0600);
  need(zero_fd >= 0 && file_fd >= 0 && write(file_fd, block, sizeof block) == sizeof block, "work file");
  for (size_t i = 0; i < sizeof tests / sizeof tests[0]; i++) {
    int wanted = argc == 1;
    for (int k = 1; k < argc; k++) wanted |= strcmp(argv[k], tests[i].name) == 0;
    if (!wanted) continue;
    printf("%s\t%.1f\n", tests[i].name, tests[i].body ? measure(tests[i].body) : tests[i].whole());
    fflush(stdout);
  }
  unlink("ubench.file");
  return 0;
}
