/* Hammers a few system-call sites while everything that may disturb a patched one goes on. Prints "ok NAME" per part.
 * Run by ci/programs/call_sites.py; static or dynamic, with threads. */
#define _GNU_SOURCE
#include <asm/prctl.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

static void need(int ok, const char *what) {
  if (ok) return;
  printf("failed: %s: %s\n", what, strerror(errno));
  exit(1);
}

/* A site of our own, in text of our own: mov $39 (getpid), %eax; syscall; ret. */
long site(void);
__asm__(".text\n.p2align 6\n.globl site\nsite: mov $39, %eax\nsyscall\nret\n");
/* The same across a cache line: the move begins three bytes before its end. */
long split_site(void);
__asm__(".p2align 6\n.skip 61, 0x90\n.globl split_site\nsplit_site: mov $186, %eax\nsyscall\nret\n");
/* gettid with every register checked: returns 0 when all kept their values but rax, rcx and r11. */
long checked_site(void);
__asm__(
    ".p2align 4\n.globl checked_site\nchecked_site:\n"
    "push %rbx\npush %rbp\npush %r12\npush %r13\npush %r14\npush %r15\n"
    "mov $1, %ebx\nmov $2, %ebp\nmov $3, %r12d\nmov $4, %r13d\nmov $5, %r14d\nmov $6, %r15d\n"
    "mov $7, %edi\nmov $8, %esi\nmov $9, %edx\nmov $10, %r10d\nmov $11, %r8d\nmov $12, %r9d\n"
    "movabs $0x1122334455667788, %rax\nmovq %rax, %xmm7\nmov %rax, -8(%rsp)\nmov %rax, -128(%rsp)\n"
    "stc\n"
    "mov $186, %eax\nsyscall\n"
    "mov $1, %eax\njnc 1f\n"
    "inc %eax\ncmp $1, %rbx\njne 1f\ninc %eax\ncmp $2, %rbp\njne 1f\ninc %eax\ncmp $3, %r12\njne 1f\n"
    "inc %eax\ncmp $4, %r13\njne 1f\ninc %eax\ncmp $5, %r14\njne 1f\ninc %eax\ncmp $6, %r15\njne 1f\n"
    "inc %eax\ncmp $7, %rdi\njne 1f\ninc %eax\ncmp $8, %rsi\njne 1f\ninc %eax\ncmp $9, %rdx\njne 1f\n"
    "inc %eax\ncmp $10, %r10\njne 1f\ninc %eax\ncmp $11, %r8\njne 1f\ninc %eax\ncmp $12, %r9\njne 1f\n"
    "inc %eax\nmovabs $0x1122334455667788, %rcx\nmovq %xmm7, %rdx\ncmp %rcx, %rdx\njne 1f\n"
    "inc %eax\ncmp %rcx, -8(%rsp)\njne 1f\ninc %eax\ncmp %rcx, -128(%rsp)\njne 1f\n"
    "xor %eax, %eax\n"
    "1: pop %r15\npop %r14\npop %r13\npop %r12\npop %rbp\npop %rbx\nret\n");

/* Whatever call the caller wants, with its first argument; and room behind that nobody executes. */
long any_site(long nr, long first);
extern uint8_t any_syscall[];
__asm__(".p2align 5\n.globl any_site\nany_site: mov %rdi, %rax\nmov %rsi, %rdi\n.globl any_syscall\nany_syscall: syscall\n"
        "cmp $-4095, %rax\njb 1f\nneg %rax\n1: ret\n.p2align 4, 0xcc\n.skip 16, 0xcc\n");

static int is_patched(void *f) { return *(volatile uint8_t *)f == 0xe9; }

static void one_thread(void) {
  pid_t p = getpid();
  for (int i = 0; i < 2000; i++) need(site() == p, "getpid");
  need(split_site() == syscall(SYS_gettid), "gettid");
  for (int i = 0; i < 2000; i++) {
    long r = checked_site();
    if (r) printf("register check %ld\n", r);
    need(r == 0, "registers");
  }
}

/* The handler's program counter never shows a place that is not in the program or a library. */
static char *stubs, *stubs_end;
static volatile long alarms, inside;
static void on_alarm(int s, siginfo_t *i, void *u) {
  (void)s, (void)i;
  char *pc = (char *)((ucontext_t *)u)->uc_mcontext.gregs[REG_RIP];
  alarms++;
  if (pc >= stubs && pc < stubs_end) inside++;
  /* Spoils the vector registers, which must be restored. */
  __asm__ volatile("pcmpeqd %%xmm7, %%xmm7\npcmpeqd %%xmm0, %%xmm0" ::: "xmm7", "xmm0");
}

static void find_stubs(void) {
  FILE *f = fopen("/proc/self/maps", "r");
  char line[512];
  while (f && fgets(line, sizeof line, f))
    if (strstr(line, "[calls]")) {
      unsigned long a, b;
      if (sscanf(line, "%lx-%lx", &a, &b) == 2) stubs = (char *)a, stubs_end = (char *)b;
    }
  if (f) fclose(f);
}

static void signals(void) {
  find_stubs();
  struct sigaction a = {.sa_sigaction = on_alarm, .sa_flags = SA_SIGINFO | SA_RESTART};
  sigaction(SIGALRM, &a, 0);
  struct itimerval t = {{0, 500}, {0, 500}};
  setitimer(ITIMER_REAL, &t, 0);
  pid_t p = getpid();
  struct timespec now, end;
  clock_gettime(CLOCK_MONOTONIC, &end);
  end.tv_sec += 1;
  do {
    for (int i = 0; i < 200; i++) {
      need(site() == p, "getpid among signals");
      need(checked_site() == 0, "registers among signals");
    }
    clock_gettime(CLOCK_MONOTONIC, &now);
  } while (now.tv_sec < end.tv_sec || (now.tv_sec == end.tv_sec && now.tv_nsec < end.tv_nsec));
  memset(&t, 0, sizeof t);
  setitimer(ITIMER_REAL, &t, 0);
  need(alarms > 20, "alarms came");
  need(inside == 0, "a handler saw a stub");
}

/* A read that waits is interrupted, restarted where asked, and ends with EINTR where not. */
static void restarts(void) {
  int p[2];
  char c;
  need(pipe(p) == 0, "pipe");
  for (int i = 0; i < 50; i++) need(write(p[1], "x", 1) == 1 && read(p[0], &c, 1) == 1, "pipe");
  for (int restart = 0; restart < 2; restart++) {
    struct sigaction a = {.sa_sigaction = on_alarm, .sa_flags = SA_SIGINFO | (restart ? SA_RESTART : 0)};
    sigaction(SIGALRM, &a, 0);
    pid_t child = fork();
    need(child >= 0, "fork");
    if (child == 0) {
      usleep(30000);
      kill(getppid(), SIGALRM);
      usleep(30000);
      if (restart) need(write(p[1], "y", 1) == 1, "write");
      _exit(0);
    }
    long n = read(p[0], &c, 1);
    if (restart)
      need(n == 1 && c == 'y', "the read went on");
    else
      need(n == -1 && errno == EINTR, "the read ended");
    need(waitpid(child, 0, 0) == child, "wait");
  }
}

static void forks(void) {
  for (int i = 0; i < 20; i++) {
    pid_t p = fork();
    need(p >= 0, "fork");
    if (p == 0) {
      long mine = syscall(SYS_getpid);
      for (int k = 0; k < 300; k++)
        if (site() != mine || checked_site()) _exit(1);
      _exit(0);
    }
    int status;
    need(waitpid(p, &status, 0) == p && status == 0, "calls in a child");
  }
}

/* Many threads meet a fresh copy of a site at once, so that it is patched under them. */
enum { THREADS = 8, SITE_BYTES = 4096 };
typedef long (*call)(void);
static volatile int go;
static call fresh;
static void *runner(void *expected) {
  while (!go) sched_yield();
  for (int i = 0; i < 500; i++)
    if (fresh() != (long)expected) return (void *)1;
  return 0;
}

static void threads(void) {
  pid_t p = getpid();
  char name[] = "/tmp/text.XXXXXX";
  int text = mkstemp(name);
  need(text >= 0, "mkstemp");
  unlink(name);
  static uint8_t code[3 * SITE_BYTES];
  memset(code, 0x90, sizeof code);
  /* Every alignment of the site within a cache line, one after another. */
  uint8_t bytes[] = {0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0xc3};
  for (int i = 0; i < 64; i++) memcpy(code + SITE_BYTES + 65 * i - 64 * (i / 64), bytes, sizeof bytes);
  need(write(text, code, sizeof code) == sizeof code, "write of text");
  for (int i = 0; i < 64; i += 7) {
    uint8_t *map = mmap(0, sizeof code, PROT_READ | PROT_EXEC, MAP_PRIVATE, text, 0);
    need(map != MAP_FAILED, "mmap of text");
    fresh = (call)(map + SITE_BYTES + 65 * i);
    pthread_t t[THREADS];
    go = 0;
    for (int k = 0; k < THREADS; k++) need(pthread_create(&t[k], 0, runner, (void *)(long)p) == 0, "thread");
    go = 1;
    for (int k = 0; k < THREADS; k++) {
      void *r;
      need(pthread_join(t[k], &r) == 0 && !r, "calls in threads");
    }
    /* Moved text is what it was, and works where it is now. */
    uint8_t *moved = mremap(map, sizeof code, sizeof code, MREMAP_MAYMOVE | MREMAP_FIXED, (void *)0x600000000000);
    if (moved == MAP_FAILED) moved = mmap(0, sizeof code, PROT_READ | PROT_EXEC, MAP_PRIVATE, text, 0);
    need(memcmp(moved + SITE_BYTES, code + SITE_BYTES, SITE_BYTES) == 0, "moved text is the file's");
    fresh = (call)(moved + SITE_BYTES + 65 * i);
    for (int k = 0; k < 100; k++) need(fresh() == p, "calls of moved text");
    /* Dropped text is read anew. */
    need(madvise(moved, sizeof code, MADV_DONTNEED) == 0, "madvise");
    for (int k = 0; k < 100; k++) need(fresh() == p, "calls of text read anew");
    need(munmap(moved, sizeof code) == 0, "munmap");
  }
}

/* An app that uses GS, or steps by the trap flag, makes its calls all the same. */
static volatile long steps;
static void on_step(int s) {
  (void)s;
  steps++;
}

static void odd(void) {
  pid_t p = getpid();
  static long cell[16] = {77};
  need(syscall(SYS_arch_prctl, ARCH_SET_GS, cell) == 0, "ARCH_SET_GS");
  long v;
  for (int i = 0; i < 100; i++) {
    need(site() == p, "getpid with GS in use");
    __asm__ volatile("mov %%gs:0, %0" : "=r"(v));
    need(v == 77, "GS keeps its base");
  }
  need(syscall(SYS_arch_prctl, ARCH_SET_GS, 0) == 0, "ARCH_SET_GS");
  for (int i = 0; i < 100; i++) need(site() == p, "getpid after GS was in use");
  signal(SIGTRAP, on_step);
  for (int i = 0; i < 5; i++) {
    long r;
    __asm__ volatile(
        "pushfq\norq $0x100, (%%rsp)\npopfq\ncall site\npushfq\nandq $~0x100, (%%rsp)\npopfq"
        : "=a"(r)::"rcx", "r11", "memory", "cc");
    need(r == p, "getpid in steps");
  }
  need(steps >= 15, "steps were told");
}

/* A site that makes every call: those that cannot come by a jump trap as before. */
static void any(int wanted) {
  pid_t p = getpid();
  for (int i = 0; i < 2000; i++) need(any_site(SYS_getpid, 0) == p, "getpid by any site");
  if (wanted) need(any_syscall[0] == 0xeb, "the site for any call is patched");
  for (int i = 0; i < 20; i++) {
    pid_t child = any_site(SYS_fork, 0);
    if (child == 0) any_site(any_site(SYS_getppid, 0) == p ? SYS_exit_group : SYS_exit, any_site(SYS_getpid, 0) != p ? 7 : 8);
    int status;
    need(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 7, "fork by any site");
  }
  need(any_site(SYS_close, 12345) == EBADF, "an error by any site");
}

/* An app's own breakpoints, of both encodings, are its own. */
static volatile long traps;
static void on_trap(int s) {
  (void)s;
  traps++;
}
static void breakpoints(void) {
  signal(SIGTRAP, on_trap);
  __asm__ volatile("int3\n.byte 0xcd, 0x03\nint3");
  need(traps == 3, "breakpoints were told");
  signal(SIGTRAP, SIG_DFL);
}

static void hot(void) {
  for (int i = 0; i < 500; i++) need(site() == getpid() && any_site(SYS_getpid, 0) == getpid(), "getpid");
}

/* Whoever looks from outside sees the text of the file; who changes its text changes that. */
static void text(void) {
  const uint8_t move[] = {0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0xc3};
  uint8_t seen[sizeof move], any_seen[2];
  hot();
  struct iovec to = {seen, sizeof seen}, from = {(void *)site, sizeof seen};
  need(process_vm_readv(getpid(), &to, 1, &from, 1, 0) == sizeof seen && !memcmp(seen, move, sizeof move), "text from outside");
  to = (struct iovec){any_seen, 2}, from = (struct iovec){any_syscall, 2};
  need(process_vm_readv(getpid(), &to, 1, &from, 1, 0) == 2 && any_seen[0] == 0x0f && any_seen[1] == 5, "text from outside");
  uint8_t *page = (uint8_t *)((uintptr_t)site & -4096ul);
  need(mprotect(page, 8192, PROT_READ | PROT_WRITE | PROT_EXEC) == 0, "mprotect");
  need(!memcmp((void *)site, move, sizeof move) && any_syscall[0] == 0x0f, "text that may be written is the file's");
  ((uint8_t *)site)[1] = SYS_getppid;
  for (int i = 0; i < 100; i++) need(site() == getppid(), "self-modified text");
  ((uint8_t *)site)[1] = SYS_getpid;
  need(mprotect(page, 8192, PROT_READ | PROT_EXEC) == 0, "mprotect");
  hot();
}

/* A debugger's breakpoints in and beside patched sites. */
static void debugger(void) {
  hot();
  pid_t child = fork();
  need(child >= 0, "fork");
  if (child == 0) {
    ptrace(PTRACE_TRACEME, 0, 0, 0);
    raise(SIGSTOP);
    hot();
    for (int i = 0; i < 500; i++) need(site() == any_site(SYS_getpid, 0), "getpid under a debugger");
    raise(SIGSTOP);
    for (int i = 0; i < 500; i++) need(site() == getppid(), "text the debugger changed");
    _exit(0);
  }
  int status;
  need(waitpid(child, &status, 0) == child && WIFSTOPPED(status), "stop");
  uint8_t *places[] = {(uint8_t *)site, (uint8_t *)site + 5, any_syscall, (uint8_t *)site + 7};
  const uint8_t expected[] = {0xb8, 0x0f, 0x0f, 0xc3};
  for (int i = 0; i < 12; i++) {
    uint8_t *at = places[i % 4];
    long word = ptrace(PTRACE_PEEKTEXT, child, at, 0);
    need((word & 0xff) == expected[i % 4], "the debugger sees the file's text");
    need(ptrace(PTRACE_POKETEXT, child, at, (word & ~0xffl) | 0xcc) == 0, "POKETEXT");
    need(ptrace(PTRACE_CONT, child, 0, 0) == 0, "CONT");
    need(waitpid(child, &status, 0) == child && WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP, "the breakpoint is met");
    long rip = ptrace(PTRACE_PEEKUSER, child, 16 * 8, 0);
    need(rip == (long)at + 1, "where the breakpoint is");
    need(ptrace(PTRACE_POKETEXT, child, at, word) == 0, "POKETEXT");
    need(ptrace(PTRACE_POKEUSER, child, 16 * 8, at) == 0, "POKEUSER");
    for (int k = 0; k < 4; k++) {
      need(ptrace(PTRACE_SINGLESTEP, child, 0, 0) == 0, "SINGLESTEP");
      need(waitpid(child, &status, 0) == child && WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP, "a step");
    }
  }
  /* A write into the middle of a patched site. */
  need(ptrace(PTRACE_CONT, child, 0, 0) == 0, "CONT");
  need(waitpid(child, &status, 0) == child && WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP, "stop");
  uint8_t *number = (uint8_t *)site + 1;
  long word = ptrace(PTRACE_PEEKTEXT, child, number, 0);
  need(ptrace(PTRACE_POKETEXT, child, number, (word & ~0xffl) | SYS_getppid) == 0, "POKETEXT");
  need(ptrace(PTRACE_DETACH, child, 0, 0) == 0, "DETACH");
  need(waitpid(child, &status, 0) == child && status == 0, "the end of what was debugged");
}

/* Threads that are in calls by the site when their process ends, again and again: the stacks they leave are used anew. */
static void *caller(void *unused) {
  for (;;) {
    site();
    any_site(SYS_sched_yield, 0);
  }
  return unused;
}

static void ends(void) {
  for (int i = 0; i < 60; i++) {
    pid_t child = fork();
    need(child >= 0, "fork");
    if (child == 0) {
      pthread_t t[6];
      for (int k = 0; k < 6; k++) need(pthread_create(&t[k], 0, caller, 0) == 0, "thread");
      usleep(1000 + 100 * i);
      if (i % 2) kill(getpid(), SIGKILL);
      _exit(3);
    }
    hot();
    int status;
    need(waitpid(child, &status, 0) == child, "wait");
    need(i % 2 ? WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL : WIFEXITED(status) && WEXITSTATUS(status) == 3, "the end of callers");
  }
}

/* What must end the program and nothing else; and memory of the stubs taken away. */
static void last(void) {
  pid_t p = fork();
  need(p >= 0, "fork");
  if (p == 0) {
    struct sigaction a = {.sa_handler = (void (*)(int))0xdead000000000000};
    syscall(SYS_rt_sigaction, SIGUSR1, &a, 0, 8);
    signal(SIGUSR1, (void (*)(int))0xdead000000000000);
    signal(SIGUSR2, SIG_IGN);
    for (int i = 0; i < 100; i++) kill(getpid(), SIGUSR2);
    kill(getpid(), SIGUSR1);
    _exit(1);
  }
  int status;
  need(waitpid(p, &status, 0) == p && WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV, "a handler nowhere");
  for (int i = 0; i < 20; i++) {
    long r;
    __asm__ volatile(
        "pushfq\norq $0x44000, (%%rsp)\npopfq\ncall site\npushfq\nandq $~0x44000, (%%rsp)\npopfq"
        : "=a"(r)::"rcx", "r11", "memory", "cc");
    need(r == getpid(), "getpid with NT and AC");
  }
  find_stubs();
  if (stubs) need(munmap(stubs, stubs_end - stubs) == 0, "munmap of the stubs");
  for (int i = 0; i < 100; i++) need(site() == getpid(), "getpid without stubs");
}

int main(int argc, char **argv) {
  setvbuf(stdout, 0, _IONBF, 0);
  int wanted = argc > 1 && strcmp(argv[1], "patched") == 0;
  one_thread();
  if (wanted) need(is_patched((void *)site), "the site is patched");
  puts("ok one thread");
  signals();
  puts("ok signals");
  restarts();
  puts("ok restarts");
  forks();
  puts("ok forks");
  odd();
  puts("ok odd");
  threads();
  puts("ok threads");
  any(wanted);
  puts("ok any");
  breakpoints();
  puts("ok breakpoints");
  text();
  puts("ok text");
  debugger();
  puts("ok debugger");
  ends();
  puts("ok ends");
  last();
  puts("ok last");
  return 0;
}
