// Arguments at the far end of everything, programs that are written to, sockets within sockets: what must neither end the kernel
// nor be answered otherwise than under another one. Prints lines; run under two kernels they must be the same.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void say(const char *what, long result) {
  if (result == -1)
    printf("%s: %s\n", what, strerrorname_np(errno));
  else
    printf("%s: %ld\n", what, result);
}

// What is added to an address of the app's must not overflow.
static void addresses(void) {
  int pair[2];
  socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
  say("sendmmsg at the top", syscall(SYS_sendmmsg, pair[0], -8L, 1, 0));
  say("recvmmsg at the top", syscall(SYS_recvmmsg, pair[0], -64L, 1, MSG_DONTWAIT, 0));
  say("openat2 at the top", syscall(SYS_openat2, AT_FDCWD, "/", -24L, 32L));
  say("msgsnd at the top", syscall(SYS_msgsnd, 0, -8L, 8L, 0));
  say("mq_notify at the top", syscall(SYS_mq_notify, pair[0], -8L));
  say("readv at the top", syscall(SYS_readv, pair[0], -16L, 2));
  say("mincore at the top", syscall(SYS_mincore, -4096L, 4096L, -1L));
  if (fork() == 0) {
    struct rlimit none = {0, 0};
    stack_t s = {.ss_sp = (void *)-4096L, .ss_size = 8192};
    struct sigaction a = {.sa_handler = exit, .sa_flags = SA_ONSTACK};
    setrlimit(RLIMIT_CORE, &none);
    say("sigaltstack at the top", sigaltstack(&s, NULL));
    fflush(stdout);
    sigaction(SIGUSR1, &a, NULL);
    raise(SIGUSR1);
    _exit(9);
  }
  int status;
  wait(&status);
  say("ended by", WTERMSIG(status));
  close(pair[0]), close(pair[1]);
}

// The far end of time.
static void times(void) {
  int fd = timerfd_create(CLOCK_MONOTONIC, 0);
  uint64_t n = 0;
  struct itimerspec rarely = {{LONG_MAX, 999999999}, {0, 1}}, left;
  say("timerfd from the beginning to the end", timerfd_settime(fd, TFD_TIMER_ABSTIME, &rarely, NULL));
  say("read", read(fd, &n, 8));
  say("once", (long)n);
  say("gettime", timerfd_gettime(fd, &left));
  rarely.it_value = (struct timespec){LONG_MAX, 999999999};
  say("timerfd at the end", timerfd_settime(fd, TFD_TIMER_ABSTIME, &rarely, NULL));
  int real = timerfd_create(CLOCK_REALTIME, 0);
  say("timerfd at the real end", timerfd_settime(real, TFD_TIMER_ABSTIME, &rarely, NULL));
  struct itimerval late = {{LONG_MAX, 999999}, {LONG_MAX, 999999}};
  say("setitimer", setitimer(ITIMER_REAL, &late, NULL));
  late = (struct itimerval){{0, 0}, {0, 0}};
  say("setitimer off", setitimer(ITIMER_REAL, &late, NULL));
  timer_t t;
  struct sigevent none = {.sigev_notify = SIGEV_NONE};
  timer_create(CLOCK_MONOTONIC, &none, &t);
  rarely.it_value = (struct timespec){0, 1};
  say("timer_settime", timer_settime(t, TIMER_ABSTIME, &rarely, NULL));
  say("timer_gettime", timer_gettime(t, &left));
  close(fd), close(real);
}

// Each timer has a signal set aside.
static void many_timers(void) {
  struct rlimit few = {50, 50};
  timer_t t;
  int n = 0;
  if (fork() == 0) {
    setrlimit(RLIMIT_SIGPENDING, &few);
    while (n < 1000 && timer_create(CLOCK_MONOTONIC, NULL, &t) == 0) n++;
    say("timers", -1);
    say("at most", n <= 50);
    fflush(stdout);
    _exit(0);
  }
  wait(NULL);
}

static int copy(const char *from, const char *to) {
  char buffer[65536];
  int in = open(from, O_RDONLY), out = open(to, O_CREAT | O_TRUNC | O_WRONLY, 0755);
  for (ssize_t n; (n = read(in, buffer, sizeof buffer)) > 0;)
    if (write(out, buffer, n) != n) return -1;
  close(in);
  return out;
}

static long run(const char *path) {
  pid_t p = fork();
  if (p == 0) {
    execl(path, path, "nothing", NULL);
    _exit(errno);
  }
  int status;
  waitpid(p, &status, 0);
  return WEXITSTATUS(status);
}

// Programs that run cannot be written to, and files that are written to cannot run.
static void text(void) {
  int fd = copy("/proc/self/exe", "/tmp/program");
  say("run while open for writing, errno", run("/tmp/program"));
  int other = open("/tmp/program", O_RDONLY);
  close(fd);
  say("run while open for reading, errno", run("/tmp/program"));
  close(other);
  int ends[2];
  if (pipe(ends)) return;
  pid_t p = fork();
  if (p == 0) {
    close(ends[1]);
    dup2(ends[0], 0);
    execl("/tmp/program", "program", "wait", NULL);
    _exit(1);
  }
  close(ends[0]);
  char name[64];
  snprintf(name, sizeof name, "/proc/%d/exe", p);
  char seen[64] = "";
  for (int i = 0; i < 1000 && strcmp(seen, "/tmp/program"); i++) {
    usleep(1000);
    ssize_t n = readlink(name, seen, sizeof seen - 1);
    seen[n < 0 ? 0 : n] = 0;
  }
  say("write to a program that runs", open("/tmp/program", O_WRONLY));
  say("both", open("/tmp/program", O_RDWR));
  say("cut it off", open("/tmp/program", O_RDONLY | O_TRUNC));
  say("truncate", truncate("/tmp/program", 0));
  say("through /proc", open(name, O_WRONLY));
  fd = open("/tmp/program", O_RDONLY);
  say("read", fd < 0 ? -1 : 0);
  close(fd);
  say("change its mode", chmod("/tmp/program", 0700));
  say("rename", rename("/tmp/program", "/tmp/renamed"));
  say("write to it under another name", open("/tmp/renamed", O_WRONLY));
  close(ends[1]);
  int status;
  waitpid(p, &status, 0);
  say("it was not harmed", status);
  fd = open("/tmp/renamed", O_WRONLY | O_TRUNC);
  say("write afterwards", fd < 0 ? -1 : 0);
  close(fd);
  fd = open("/tmp/script", O_CREAT | O_WRONLY, 0755);
  if (write(fd, "#!/bin/true\n", 12) != 12) return;
  say("a script open for writing, errno", run("/tmp/script"));
  close(fd);
  say("a script, errno", run("/tmp/script"));
}

static int give(int through, int what) {
  char byte = 'x', space[CMSG_SPACE(sizeof(int))] = {0};
  struct iovec v = {&byte, 1};
  struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
  struct cmsghdr *c = CMSG_FIRSTHDR(&m);
  c->cmsg_level = SOL_SOCKET, c->cmsg_type = SCM_RIGHTS, c->cmsg_len = CMSG_LEN(sizeof(int));
  memcpy(CMSG_DATA(c), &what, sizeof what);
  return sendmsg(through, &m, 0) == 1 ? 0 : -1;
}

// Linux closes what is lost a little later: until then there may be too many on their way.
static int give_soon(int through, int what) {
  for (int i = 0; i < 2000; i++) {
    if (give(through, what) == 0) return 0;
    if (errno != ETOOMANYREFS) break;
    usleep(1000);
  }
  return -1;
}

// Sockets in sockets: they close when nobody can reach them any more, however deep they lie.
static void sockets(void) {
  int failed = 0, ends[2], pair[2], chain = -1, next[2], deep = 0;
  if (pipe(ends)) return;
  for (int i = 0; i < 20000; i++) {
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair)) failed++;
    // Each end waits in the other, and with them something whose end can be seen.
    if (give_soon(pair[0], pair[0]) || give_soon(pair[1], pair[1]) || (i == 7 && give_soon(pair[0], ends[1]))) failed++;
    close(pair[0]), close(pair[1]);
  }
  say("many circles were refused", failed > 20);
  close(ends[1]);
  char c;
  say("what was in a circle is closed, reads", read(ends[0], &c, 1));
  while (deep < 5000 && socketpair(AF_UNIX, SOCK_STREAM, 0, next) == 0) {
    if (chain >= 0 && give(next[0], chain)) break;
    close(chain);
    close(next[0]);
    chain = next[1];
    deep++;
  }
  close(chain);
  say("a long chain is let go", 0);
  socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
  say("sockets still work", give_soon(pair[0], pair[1]));
}

int main(int argc, char **argv) {
  if (argc == 2) {
    char c;
    return strcmp(argv[1], "wait") == 0 && read(0, &c, 1) != 0;
  }
  setvbuf(stdout, NULL, _IOLBF, 0);
  addresses();
  times();
  many_timers();
  text();
  sockets();
  return 0;
}
