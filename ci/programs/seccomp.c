/* Seccomp filters of a program's own: prints what each did, to be compared with Linux. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define LOAD_ARG(n) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args) + 8 * (n))
#ifdef __aarch64__
#define AUDIT_ARCH_HERE AUDIT_ARCH_AARCH64
#else
#define AUDIT_ARCH_HERE AUDIT_ARCH_X86_64
#endif
#define RETURN(v) BPF_STMT(BPF_RET | BPF_K, (v))

static int install(unsigned flags, struct sock_filter *code, unsigned len) {
  struct sock_fprog p = {(unsigned short)len, code};
  errno = 0;
  return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &p);
}
/* Call `number` gets `verdict`, the others are allowed. */
static int on(unsigned flags, int number, unsigned verdict) {
  struct sock_filter code[] = {LOAD(nr), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1), RETURN(verdict), RETURN(SECCOMP_RET_ALLOW)};
  return install(flags, code, 4);
}
static void say(const char *what, long value) {
  printf("  %s: %ld (%s)\n", what, value, value < 0 ? strerror(errno) : "ok");
  fflush(stdout);
}
static void lines(void) {
  char line[200];
  FILE *f = fopen("/proc/self/status", "r");
  while (fgets(line, sizeof line, f))
    if (!strncmp(line, "Seccomp", 7) || !strncmp(line, "NoNewPrivs", 10)) printf("  %s", line);
  fclose(f);
  fflush(stdout);
}
static void nnp(void) { prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); }

static void errno_action(void) {
  nnp();
  say("mode", prctl(PR_GET_SECCOMP));
  say("install", on(0, SYS_getppid, SECCOMP_RET_ERRNO | 71));
  say("getppid", syscall(SYS_getppid));
  say("large", on(0, SYS_getpgid, SECCOMP_RET_ERRNO | 0xffff));
  say("getpgid", syscall(SYS_getpgid, 0) == -1 && errno == 4095 ? 1 : 0);
  say("zero", on(0, SYS_getsid, SECCOMP_RET_ERRNO));
  say("getsid", syscall(SYS_getsid, 0));
  say("mode", prctl(PR_GET_SECCOMP));
  lines();
}
static void arguments(void) {
  nnp();
  struct sock_filter code[] = {LOAD(arch),
                               BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_HERE, 0, 5),
                               LOAD(nr),
                               BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_kill, 0, 3),
                               LOAD_ARG(1),
                               BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 32, 0, 1),
                               RETURN(SECCOMP_RET_ERRNO | 1),
                               RETURN(SECCOMP_RET_ALLOW)};
  say("install", install(0, code, 8));
  say("kill 0", kill(getpid(), 0));
  say("kill 40", kill(getpid(), 40));
}
static void on_sys(int sig, siginfo_t *i, void *c) {
  (void)c;
  printf("  signal %d code %d errno %d call %d arch %x addr %d\n", sig, i->si_code, i->si_errno, i->si_syscall, i->si_arch, i->si_call_addr != 0);
  fflush(stdout);
}
static void trap(void) {
  struct sigaction a = {.sa_sigaction = on_sys, .sa_flags = SA_SIGINFO};
  sigaction(SIGSYS, &a, 0);
  nnp();
  say("install", on(0, SYS_getppid, SECCOMP_RET_TRAP | 99));
  say("getppid", syscall(SYS_getppid));
}
static void trap_unhandled(void) {
  nnp();
  on(0, SYS_getppid, SECCOMP_RET_TRAP);
  syscall(SYS_getppid);
}
static void kill_process(void) {
  nnp();
  on(0, SYS_getppid, SECCOMP_RET_KILL_PROCESS);
  syscall(SYS_getppid);
}
static void kill_only_thread(void) {
  nnp();
  on(0, SYS_getppid, SECCOMP_RET_KILL_THREAD);
  syscall(SYS_getppid);
}
static void *calls_getppid(void *x) {
  syscall(SYS_getppid);
  return x;
}
static void kill_thread(void) {
  nnp();
  on(0, SYS_getppid, SECCOMP_RET_KILL_THREAD);
  pthread_t t;
  pthread_create(&t, 0, calls_getppid, 0);
  say("join", pthread_join(t, 0));
}
static void trace_and_log(void) {
  nnp();
  say("trace", on(0, SYS_getppid, SECCOMP_RET_TRACE | 5));
  say("getppid", syscall(SYS_getppid));
  say("log", on(SECCOMP_FILTER_FLAG_LOG, SYS_getpgid, SECCOMP_RET_LOG));
  say("getpgid", syscall(SYS_getpgid, 0) > 0);
}
static void strict(void) {
  char b[1];
  say("prctl", prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT));
  say("read", read(-1, b, 1));
  syscall(SYS_getpid);
}
static void strict_exit(void) {
  syscall(SYS_seccomp, SECCOMP_SET_MODE_STRICT, 0, 0);
  syscall(SYS_exit, 5);
}
static void inherited(void) {
  nnp();
  on(0, SYS_getppid, SECCOMP_RET_ERRNO | 71);
  if (fork() == 0) {
    say("in the child", syscall(SYS_getppid));
    execl("/proc/self/exe", "seccomp", "after-exec", (char *)0);
  }
  wait(0);
}
static void unprivileged(void) {
  if (setresgid(65534, 65534, 65534) || setresuid(65534, 65534, 65534)) _exit(9);
  say("without no_new_privs", on(0, SYS_getppid, SECCOMP_RET_ERRNO | 1));
  nnp();
  say("with it", on(0, SYS_getppid, SECCOMP_RET_ERRNO | 1));
  say("getppid", syscall(SYS_getppid));
}

static pthread_barrier_t barrier;
static void *own_filter(void *x) {
  if (x) on(0, SYS_getsid, SECCOMP_RET_ERRNO | 2);
  pthread_barrier_wait(&barrier);
  pthread_barrier_wait(&barrier);
  long r = syscall(SYS_getppid);
  return (void *)(r < 0 ? (long)errno : 0);
}
static void together(int diverged) {
  pthread_t t;
  void *r;
  nnp();
  pthread_barrier_init(&barrier, 0, 2);
  pthread_create(&t, 0, own_filter, diverged ? &t : 0);
  pthread_barrier_wait(&barrier);
  long got = on(SECCOMP_FILTER_FLAG_TSYNC, SYS_getppid, SECCOMP_RET_ERRNO | 71);
  say("tsync", diverged ? got > 0 : got);
  if (diverged) say("tsync with ESRCH", on(SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_TSYNC_ESRCH, SYS_getppid, SECCOMP_RET_ERRNO | 71));
  pthread_barrier_wait(&barrier);
  pthread_join(t, &r);
  say("the other thread's error", (long)r);
}
static void tsync(void) { together(0); }
static void tsync_diverged(void) { together(1); }

static void strictest(void) {
  nnp();
  on(0, SYS_getppid, SECCOMP_RET_ERRNO | 1);
  on(0, SYS_getppid, SECCOMP_RET_ERRNO | 2);
  on(0, SYS_getppid, SECCOMP_RET_LOG);
  say("getppid", syscall(SYS_getppid));
  on(0, SYS_getppid, SECCOMP_RET_KILL_PROCESS);
  syscall(SYS_getppid);
}
static void refused(void) {
  nnp();
  struct sock_filter ok[] = {RETURN(SECCOMP_RET_ALLOW)}, open_end[] = {LOAD(nr)}, far[] = {BPF_JUMP(BPF_JMP | BPF_JA, 9, 0, 0), RETURN(0)},
                     half[] = {BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 0), RETURN(0)}, outside[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 64), RETURN(0)},
                     uneven[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 3), RETURN(0)}, unwritten[] = {BPF_STMT(BPF_LD | BPF_MEM, 1), RETURN(0)},
                     zero[] = {BPF_STMT(BPF_ALU | BPF_DIV | BPF_K, 0), RETURN(0)};
  say("empty", install(0, ok, 0));
  say("too long", install(0, ok, 4097));
  say("no return", install(0, open_end, 1));
  say("jump too far", install(0, far, 2));
  say("half word", install(0, half, 2));
  say("outside", install(0, outside, 2));
  say("uneven", install(0, uneven, 2));
  say("unwritten memory", install(0, unwritten, 2));
  say("division by zero", install(0, zero, 2));
  say("unknown flag", install(1 << 20, ok, 1));
  say("bad address", syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, 1L));
  say("bad operation", syscall(SYS_seccomp, 77, 0, 0L));
  say("strict with flags", syscall(SYS_seccomp, SECCOMP_SET_MODE_STRICT, 1, 0L));
  unsigned actions[] = {SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_KILL_THREAD, SECCOMP_RET_TRAP, SECCOMP_RET_ERRNO, SECCOMP_RET_TRACE,
                        SECCOMP_RET_LOG, SECCOMP_RET_ALLOW, 0x12345678};
  for (unsigned i = 0; i < sizeof actions / sizeof *actions; i++) say("action", syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &actions[i]));
  say("fine", prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &(struct sock_fprog){1, ok}));
  say("strict after a filter", prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT));
}
static void many(void) {
  nnp();
  struct sock_filter long_one[4000];
  for (int i = 0; i < 4000; i++) long_one[i] = (struct sock_filter)RETURN(SECCOMP_RET_ALLOW);
  /* How many fit depends on how long the kernel's own form of them is. */
  int n = 0;
  while (n < 100 && install(0, long_one, 4000) == 0) n++;
  printf("  limited %d, then %s\n", n > 2 && n < 10, strerror(errno));
}

/* Makes the call a task is stopped before another one. */
static void redirect(pid_t p, int number) {
#ifdef __aarch64__
  struct iovec v = {&number, sizeof number};
  ptrace(PTRACE_SETREGSET, p, (void *)0x404L, &v);
#else
  ptrace(PTRACE_POKEUSER, p, (void *)offsetof(struct user, regs.orig_rax), (long)number);
#endif
}

/* A tracer makes the call it is told of another one, which the filters see too. */
static void redirected(unsigned verdict) {
  int status;
  pid_t p = fork();
  if (p == 0) {
    ptrace(PTRACE_TRACEME, 0, 0, 0);
    raise(SIGSTOP);
    nnp();
    say("traced", on(0, SYS_getpgid, SECCOMP_RET_TRACE | 5));
    say("refused", on(0, SYS_getsid, verdict));
    say("getpgid", syscall(SYS_getpgid, 0));
    fflush(stdout);
    _exit(0);
  }
  waitpid(p, &status, 0);
  say("options", ptrace(PTRACE_SETOPTIONS, p, 0, PTRACE_O_TRACESECCOMP | PTRACE_O_TRACESYSGOOD));
  unsigned long message = 0;
  for (int stops = 0; ptrace(PTRACE_CONT, p, 0, 0) == 0;) {
    if (waitpid(p, &status, 0) != p || !WIFSTOPPED(status)) break;
    ptrace(PTRACE_GETEVENTMSG, p, 0, &message);
    printf("  stop %x message %lu\n", status >> 8, message);
    fflush(stdout);
    if (stops++ == 0) redirect(p, SYS_getsid);
  }
  printf("  child %x\n", status & ~0x80);
  fflush(stdout);
}
static void redirected_to_errno(void) { redirected(SECCOMP_RET_ERRNO | EPERM); }
static void redirected_to_death(void) { redirected(SECCOMP_RET_KILL_PROCESS); }
static void redirected_to_trace(void) { redirected(SECCOMP_RET_TRACE | 6); }

/* What the stops before and after a call say. */
static void stops(void) {
  int status;
  pid_t p = fork();
  if (p == 0) {
    ptrace(PTRACE_TRACEME, 0, 0, 0);
    raise(SIGSTOP);
    syscall(SYS_getpgid, 0);
    _exit(0);
  }
  waitpid(p, &status, 0);
  for (int i = 0; i < 3; i++) {
    unsigned long message = 99;
    ptrace(PTRACE_SYSCALL, p, 0, 0);
    waitpid(p, &status, 0);
    ptrace(PTRACE_GETEVENTMSG, p, 0, &message);
    printf("  stop %x message %lu\n", status >> 8, message);
  }
  ptrace(PTRACE_CONT, p, 0, 0);
  waitpid(p, &status, 0);
}

#define TEST(f) {#f, f}
static const struct { const char *name; void (*run)(void); } tests[] = {
    TEST(errno_action), TEST(arguments), TEST(trap), TEST(trap_unhandled), TEST(kill_process), TEST(kill_only_thread), TEST(kill_thread),
    TEST(trace_and_log), TEST(strict), TEST(strict_exit), TEST(inherited), TEST(unprivileged), TEST(tsync), TEST(tsync_diverged),
    TEST(strictest), TEST(refused), TEST(many), TEST(redirected_to_errno), TEST(redirected_to_death), TEST(redirected_to_trace), TEST(stops)};

int main(int argc, char **argv) {
  if (argc > 1 && !strcmp(argv[1], "after-exec")) {
    say("after exec", syscall(SYS_getppid));
    lines();
    return 0;
  }
  for (unsigned i = 0; i < sizeof tests / sizeof *tests; i++) {
    printf("%s\n", tests[i].name);
    fflush(stdout);
    pid_t p = fork();
    if (p == 0) {
      tests[i].run();
      exit(0);
    }
    int status;
    waitpid(p, &status, 0);
    printf("  status %x\n", status & ~0x80);
  }
  return 0;
}
