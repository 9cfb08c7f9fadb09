/* ptrace, step by step: prints what a tracer sees, to be compared with Linux. */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile long word = 0x1122334455667788;
static volatile int handled;
static void on_usr1(int s) { handled = s; }
static void flush(void) { fflush(stdout); }

static int await(const char *what, pid_t p) {
  int status = 0;
  pid_t got = waitpid(p, &status, __WALL);
  printf("  %s: %s %x\n", what, got == p ? "it" : got < 0 ? strerror(errno) : "other", status);
  flush();
  return status;
}
static void say(const char *what, long value) {
  printf("  %s: %ld %s\n", what, value, value < 0 ? strerror(errno) : "");
  flush();
}
/* A child that is traced and has stopped itself. */
static pid_t traced(void (*run)(void)) {
  pid_t p = fork();
  if (p == 0) {
    ptrace(PTRACE_TRACEME, 0, 0, 0);
    raise(SIGSTOP);
    run();
    _exit(7);
  }
  await("stopped", p);
  return p;
}

static void calls(void) {
  syscall(SYS_getppid);
  syscall(SYS_close, -1);
}
static void syscalls(void) {
  pid_t p = traced(calls);
  say("options", ptrace(PTRACE_SETOPTIONS, p, 0, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL));
  for (int i = 0; i < 5; i++) {
    ptrace(PTRACE_SYSCALL, p, 0, 0);
    await("call", p);
    struct __ptrace_syscall_info info = {0};
    long n = ptrace(PTRACE_GET_SYSCALL_INFO, p, sizeof info, &info);
    struct user_regs_struct r;
    ptrace(PTRACE_GETREGS, p, 0, &r);
    if (info.op == PTRACE_SYSCALL_INFO_ENTRY) printf("  entry %ld bytes, call %lu arg %d, rax %lld orig %lld\n", n, info.entry.nr, info.entry.nr == SYS_close ? (int)info.entry.args[0] : 0, (long long)r.rax, (long long)r.orig_rax);
    if (info.op == PTRACE_SYSCALL_INFO_EXIT) printf("  exit %ld bytes, error %d value %d\n", n, info.exit.is_error, info.exit.is_error ? (int)info.exit.rval : info.exit.rval > 0);
  }
  ptrace(PTRACE_CONT, p, 0, 0);
  await("end", p);
}
static void change_call(void) {
  pid_t p = traced(calls);
  ptrace(PTRACE_SYSCALL, p, 0, 0);
  await("entry", p);
  /* getppid becomes nothing with a result of our own. */
  struct user_regs_struct r;
  ptrace(PTRACE_GETREGS, p, 0, &r);
  r.orig_rax = -1;
  r.rax = 1234;
  say("setregs", ptrace(PTRACE_SETREGS, p, 0, &r));
  ptrace(PTRACE_SYSCALL, p, 0, 0);
  await("exit", p);
  ptrace(PTRACE_GETREGS, p, 0, &r);
  printf("  result %lld\n", (long long)r.rax);
  ptrace(PTRACE_KILL, p, 0, 0);
  await("killed", p);
}
static void signals_child(void) {
  signal(SIGUSR1, on_usr1);
  raise(SIGUSR1);
  _exit(handled);
}
static void signals(void) {
  for (int pass = 0; pass < 3; pass++) {
    pid_t p = traced(signals_child);
    ptrace(PTRACE_CONT, p, 0, 0);
    await("signal", p);
    siginfo_t i;
    memset(&i, 0, sizeof i);
    say("siginfo", ptrace(PTRACE_GETSIGINFO, p, 0, &i));
    printf("  signo %d code %d pid %d\n", i.si_signo, i.si_code, i.si_pid == p);
    ptrace(PTRACE_CONT, p, 0, pass == 0 ? SIGUSR1 : pass == 1 ? 0 : SIGTERM);
    await("end", p);
  }
}
static void memory(void) {
  pid_t p = traced(calls);
  errno = 0;
  printf("  peek %lx\n", ptrace(PTRACE_PEEKDATA, p, &word, 0));
  say("poke", ptrace(PTRACE_POKEDATA, p, &word, 42L));
  printf("  peek %ld, own %lx\n", ptrace(PTRACE_PEEKDATA, p, &word, 0), word);
  long text = ptrace(PTRACE_PEEKTEXT, p, (void *)calls, 0);
  say("poke text", ptrace(PTRACE_POKETEXT, p, (void *)calls, (text & ~0xffl) | 0xcc));
  printf("  text %d\n", (ptrace(PTRACE_PEEKTEXT, p, (void *)calls, 0) & 0xff) == 0xcc);
  errno = 0;
  say("peek nowhere", ptrace(PTRACE_PEEKDATA, p, (void *)8, 0));
  say("poke nowhere", ptrace(PTRACE_POKEDATA, p, (void *)8, 0));
  long there = 0;
  struct iovec mine = {&there, 8}, theirs = {(void *)&word, 8};
  say("process_vm_readv", process_vm_readv(p, &mine, 1, &theirs, 1, 0));
  there++;
  say("process_vm_writev", process_vm_writev(p, &mine, 1, &theirs, 1, 0));
  printf("  now %ld\n", ptrace(PTRACE_PEEKDATA, p, &word, 0));
  theirs.iov_base = (void *)8;
  say("from nowhere", process_vm_readv(p, &mine, 1, &theirs, 1, 0));
  theirs.iov_base = (void *)calls;
  say("into code", process_vm_writev(p, &mine, 1, &theirs, 1, 0));
  /* The breakpoint hits. */
  ptrace(PTRACE_CONT, p, 0, 0);
  await("breakpoint", p);
  struct user_regs_struct r;
  ptrace(PTRACE_GETREGS, p, 0, &r);
  printf("  at %ld\n", (long)(r.rip - (uintptr_t)calls));
  ptrace(PTRACE_POKETEXT, p, (void *)calls, text);
  r.rip--;
  ptrace(PTRACE_SETREGS, p, 0, &r);
  for (int i = 0; i < 3; i++) {
    ptrace(PTRACE_SINGLESTEP, p, 0, 0);
    await("step", p);
  }
  siginfo_t i;
  ptrace(PTRACE_GETSIGINFO, p, 0, &i);
  printf("  code %d\n", i.si_code);
  struct iovec fp = {0, 0};
  struct user_fpregs_struct f;
  fp.iov_base = &f;
  fp.iov_len = sizeof f;
  say("fp", ptrace(PTRACE_GETREGSET, p, 2, &fp));
  printf("  %zu bytes, control %x\n", fp.iov_len, f.cwd);
  say("detach", ptrace(PTRACE_DETACH, p, 0, 0));
  await("end", p);
}
static void families_child(void) {
  pid_t p = fork();
  if (p == 0) _exit(3);
  waitpid(p, 0, 0);
  if (vfork() == 0) _exit(4);
  wait(0);
  execl("/proc/self/exe", "tracing", "end", (char *)0);
}
static void families(void) {
  pid_t p = traced(families_child);
  ptrace(PTRACE_SETOPTIONS, p, 0, PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACEVFORKDONE | PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC | PTRACE_O_TRACEEXIT);
  ptrace(PTRACE_CONT, p, 0, 0);
  int events[256] = {0}, stops = 0, ended = 0, status;
  pid_t q;
  while ((q = waitpid(-1, &status, __WALL)) > 0) {
    if (WIFEXITED(status)) {
      printf("  %s ended %d\n", q == p ? "the first" : "a child", WEXITSTATUS(status));
      ended++;
      continue;
    }
    int event = status >> 16 & 0xff;
    events[event]++;
    if (event == 0) stops++;
    if (event == PTRACE_EVENT_EXIT) {
      unsigned long message = 0;
      ptrace(PTRACE_GETEVENTMSG, q, 0, &message);
      printf("  exit event of %s: %lx\n", q == p ? "the first" : "a child", message);
    }
    ptrace(PTRACE_CONT, q, 0, event == 0 && WSTOPSIG(status) == SIGCHLD ? SIGCHLD : 0);
  }
  printf("  fork %d vfork %d clone %d exec %d done %d exit %d ended %d\n", events[1], events[2], events[3], events[4], events[5], events[6], ended);
}
static void waits(void) { for (;;) pause(); }
static void seize(void) {
  pid_t p = fork();
  if (p == 0) waits();
  usleep(100000);
  say("seize", ptrace(PTRACE_SEIZE, p, 0, PTRACE_O_TRACESYSGOOD));
  say("interrupt", ptrace(PTRACE_INTERRUPT, p, 0, 0));
  await("interrupted", p);
  say("again", ptrace(PTRACE_SEIZE, p, 0, 0));
  ptrace(PTRACE_CONT, p, 0, 0);
  say("peek while it runs", ptrace(PTRACE_PEEKDATA, p, &word, 0));
  kill(p, SIGSTOP);
  await("signal", p);
  ptrace(PTRACE_CONT, p, 0, SIGSTOP);
  await("group stop", p);
  say("listen", ptrace(PTRACE_LISTEN, p, 0, 0));
  kill(p, SIGCONT);
  await("continued", p);
  ptrace(PTRACE_CONT, p, 0, 0);
  await("signal", p);
  kill(p, SIGKILL);
  await("killed", p);
}
static void attach(void) {
  pid_t p = fork();
  if (p == 0) waits();
  usleep(100000);
  say("attach", ptrace(PTRACE_ATTACH, p, 0, 0));
  await("attached", p);
  say("bad request", ptrace(99, p, 0, 0));
  say("detach", ptrace(PTRACE_DETACH, p, 0, 0));
  say("not traced", ptrace(PTRACE_CONT, p, 0, 0));
  kill(p, SIGTERM);
  await("end", p);
  say("nobody", ptrace(PTRACE_ATTACH, p, 0, 0));
  say("itself", ptrace(PTRACE_ATTACH, getpid(), 0, 0));
}

int main(int argc, char **argv) {
  if (argc > 1 && !strcmp(argv[1], "end")) return 5;
  static const struct { const char *name; void (*run)(void); } tests[] = {
      {"syscalls", syscalls}, {"change_call", change_call}, {"signals", signals}, {"memory", memory}, {"families", families}, {"seize", seize}, {"attach", attach}};
  for (unsigned i = 0; i < sizeof tests / sizeof *tests; i++) {
    printf("%s\n", tests[i].name);
    flush();
    pid_t p = fork();
    if (p == 0) {
      alarm(20);
      tests[i].run();
      exit(0);
    }
    int status;
    waitpid(p, &status, 0);
    printf("  status %x\n", status);
  }
  return 0;
}
