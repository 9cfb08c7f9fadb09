/* Calls every system-call number 0..600 with random arguments from unprivileged children, for a number of seconds:
 *   abuse SECONDS SEED
 * The first process keeps its wits and its user id; it prints how many calls were made when all is over. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { NOBODY = 65534, LAST = 600, CALLS_PER_CHILD = 120, CHILD_MS = 400 };

static uint64_t state;
static uint64_t next(void) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return state * 2685821657736338717ull;
}
static char *valid, *readonly;
static volatile long *counter;

/* Values that reach further than plain noise: small numbers, edges, good and bad pointers. */
static long argument(void) {
  switch (next() % 12) {
  case 0: return 0;
  case 1: return -1;
  case 2: return (long)(next() % 16);
  case 3: return 1l << (next() % 64);
  case 4: return (long)next();
  case 5: return (long)(valid + next() % 4096);
  case 6: return (long)(valid + 65536 - next() % 16); /* runs over the end of what is mapped */
  case 7: return (long)(readonly + next() % 4096);
  case 8: return (long)0xffff800000000000ul + (long)(next() % 65536);
  case 9: return (long)0x00007ffffffff000ul - (long)(next() % 4096);
  case 10: return (long)(next() & 0xfff);
  default: return (long)(next() & 0xffffffff);
  }
}

static void child(int only) {
  struct rlimit none = {0, 0}, some = {64, 64};
  setrlimit(RLIMIT_CORE, &none);
  setrlimit(RLIMIT_NPROC, &some);
  setsid();
  /* Stray writes must not spoil what the first process says. */
  for (int fd = 0; fd < 3; fd++) {
    int null = open("/dev/null", O_RDWR);
    if (null < 0 || dup2(null, fd) < 0) _exit(3);
    if (null != fd) close(null);
  }
  if (setgid(NOBODY) || setuid(NOBODY)) _exit(3);
  for (int i = 0; i < CALLS_PER_CHILD; i++) {
    long n = only >= 0 && i % 2 ? only : (long)(next() % (LAST + 1));
    for (int k = 0; k < 8; k++) ((uint64_t *)valid)[next() % 512] = next();
    __atomic_add_fetch(counter, 1, __ATOMIC_RELAXED);
    syscall(n, argument(), argument(), argument(), argument(), argument(), argument());
  }
  _exit(0);
}

/* Ends everything that runs as nobody, however it was made. */
static void sweep(void) {
  pid_t p = fork();
  if (p == 0) {
    if (setgid(NOBODY) == 0 && setuid(NOBODY) == 0) kill(-1, SIGKILL);
    _exit(0);
  }
  while (waitpid(-1, 0, WNOHANG) > 0) {}
}

static long now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  long end = now_ms() + atol(argv[1]) * 1000;
  uint64_t seed = strtoull(argv[2], 0, 0) | 1;
  valid = mmap(0, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  readonly = mmap(0, 8192, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  counter = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (valid == MAP_FAILED || readonly == MAP_FAILED || counter == MAP_FAILED) return 4;
  for (long round = 0; now_ms() < end; round++) {
    state = seed + (uint64_t)round * 0x9e3779b97f4a7c15ull;
    next();
    pid_t p = fork();
    if (p == 0) child((int)(round % (LAST + 1)));
    if (p < 0) {
      if (errno != EAGAIN) return 5;
      sweep();
      usleep(10000);
      continue;
    }
    long limit = now_ms() + CHILD_MS;
    while (waitpid(p, 0, WNOHANG) == 0 && now_ms() < limit) usleep(500);
    kill(p, SIGKILL);
    sweep();
  }
  sweep();
  printf("survived: %d\n", *counter > 1000);
  fprintf(stderr, "%ld calls\n", *counter);
  return 0;
}
