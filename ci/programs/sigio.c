// Prints what signals tell of open files (O_ASYNC, F_SETOWN, F_SETSIG, SIGURG); under two kernels the lines must be alike.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#ifndef SI_SIGIO
#define SI_SIGIO -5
#endif

static const char *title = "";
static sigset_t set;
enum { RT = 40 };

static void say(const char *what, long result) {
  if (result == -1)
    printf("%s, %s: %s\n", title, what, strerrorname_np(errno));
  else
    printf("%s, %s: %ld\n", title, what, result);
  fflush(stdout);
}

/* The next signal; not a SIGURG that the runtime outside passes on, by which its language stops its threads. */
static int take(siginfo_t *i, struct timespec patience) {
  int sig;
  do sig = sigtimedwait(&set, i, &patience);
  while (sig == SIGURG && i->si_code <= 0);
  return sig;
}

static void tell(const char *what, int fd, struct timespec patience) {
  siginfo_t i;
  int sig = take(&i, patience);
  if (sig < 0) {
    printf("%s, %s: none\n", title, what);
  } else if (i.si_code > 0 && i.si_code < 7) {
    printf("%s, %s: %d code %d band %lx fd %s\n", title, what, sig, i.si_code, (long)i.si_band, i.si_fd == fd ? "right" : "wrong");
  } else {
    printf("%s, %s: %d code %d pid %d\n", title, what, sig, i.si_code, i.si_code == SI_KERNEL ? i.si_pid : -1);
  }
  fflush(stdout);
}

/* The next signal. */
static void next(const char *what, int fd) { tell(what, fd, (struct timespec){5, 0}); }
/* That there is none. */
static void never(const char *what, int fd) { tell(what, fd, (struct timespec){0, 100000000}); }

static void drain(void) {
  struct timespec soon = {0, 50000000};
  while (sigtimedwait(&set, 0, &soon) > 0) {}
}

static int enable(int fd, int sig) {
  fcntl(fd, F_SETOWN, getpid());
  fcntl(fd, F_SETSIG, sig);
  return fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_ASYNC);
}

static int disable(int fd) { return fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_ASYNC); }

static void put(int fd, const char *text) {
  if (write(fd, text, strlen(text)) < 0) say("write", -1);
}

static void get(int fd) {
  char buf[100];
  struct pollfd f = {fd, POLLIN, 0};
  while (poll(&f, 1, 0) > 0)
    if (read(fd, buf, sizeof buf) <= 0) break;
}

/* What is written to `to` can be read from `from`. */
static void both_ways(const char *name, int from, int to) {
  title = name;
  say("enable", enable(from, 0));
  say("flag", (fcntl(from, F_GETFL) & O_ASYNC) != 0);
  never("before", from);
  put(to, "a\n");
  next("written", from);
  get(from);
  never("read", from);
  put(to, "b\n"), get(from);
  next("again", from);
  say("with a number", enable(from, RT));
  never("before", from);
  put(to, "c\n");
  next("written", from);
  put(to, "d\n");
  next("written more", from);
  get(from);
  fcntl(from, F_SETSIG, SIGCHLD);
  put(to, "e\n");
  next("by one with codes of its own", from);
  get(from);
  say("disable", disable(from));
  put(to, "f\n");
  never("disabled", from);
  get(from);
  int on = 1, off = 0;
  fcntl(from, F_SETSIG, 0);
  say("FIOASYNC", ioctl(from, FIOASYNC, &on));
  say("flag", (fcntl(from, F_GETFL) & O_ASYNC) != 0);
  put(to, "g\n");
  next("written", from);
  get(from);
  say("FIOASYNC off", ioctl(from, FIOASYNC, &off));
  fcntl(from, F_SETOWN, 0);
  enable(from, 0), fcntl(from, F_SETOWN, 0);
  put(to, "h\n");
  never("nobody", from);
  get(from);
  disable(from);
  drain();
}

static void owners(void) {
  title = "owners";
  int s[2];
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, s)) exit(1);
  struct f_owner_ex o = {9, 9};
  say("nobody", fcntl(s[0], F_GETOWN));
  say("nobody", fcntl(s[0], F_GETOWN_EX, &o));
  printf("type %d pid %d\n", o.type, o.pid);
  say("me", fcntl(s[0], F_SETOWN, getpid()));
  say("is me", fcntl(s[0], F_GETOWN) == getpid());
  fcntl(s[0], F_GETOWN_EX, &o);
  printf("type %d %d\n", o.type, o.pid == getpid());
  o = (struct f_owner_ex){F_OWNER_TID, (pid_t)syscall(SYS_gettid)};
  say("thread", fcntl(s[0], F_SETOWN_EX, &o));
  o = (struct f_owner_ex){9, 9};
  fcntl(s[0], F_GETOWN_EX, &o);
  printf("type %d %d\n", o.type, o.pid == getpid());
  o = (struct f_owner_ex){F_OWNER_PGRP, getpgrp()};
  say("group", fcntl(s[0], F_SETOWN_EX, &o));
  say("is the group", syscall(SYS_fcntl, s[0], F_GETOWN, 0) == -getpgrp() || errno == (int)getpgrp());
  say("group by number", fcntl(s[0], F_SETOWN, -getpgrp()));
  o = (struct f_owner_ex){7, getpid()};
  say("unknown type", fcntl(s[0], F_SETOWN_EX, &o));
  say("no such process", fcntl(s[0], F_SETOWN, 99999));
  say("no such group", fcntl(s[0], F_SETOWN, -99999));
  say("no signal of that number", fcntl(s[0], F_SETSIG, 65));
  int who = getpid();
  say("FIOSETOWN", ioctl(s[0], FIOSETOWN, &who));
  who = 0;
  say("SIOCGPGRP", ioctl(s[0], SIOCGPGRP, &who));
  printf("%d\n", who == getpid());
  pid_t p = fork();
  if (p == 0) {
    pause();
    _exit(0);
  }
  say("a child", fcntl(s[0], F_SETOWN, p));
  say("is the child", fcntl(s[0], F_GETOWN) == p);
  kill(p, SIGKILL);
  waitpid(p, 0, 0);
  drain();
  say("a child that is gone", fcntl(s[0], F_GETOWN));
  int pipes[2];
  if (pipe(pipes)) exit(1);
  say("FIOSETOWN of a pipe", ioctl(pipes[0], FIOSETOWN, &who));
}

static void *waiter(void *data) {
  siginfo_t i;
  struct timespec soon = {1, 0};
  *(int *)data = (int)syscall(SYS_gettid);
  return (void *)(long)take(&i, soon);
}

static void targets(void) {
  title = "targets";
  int s[2], status;
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, s)) exit(1);
  pthread_t t;
  volatile int tid = 0;
  pthread_create(&t, 0, waiter, (void *)&tid);
  while (!tid) usleep(1000);
  struct f_owner_ex o = {F_OWNER_TID, tid};
  say("thread", fcntl(s[0], F_SETOWN_EX, &o));
  fcntl(s[0], F_SETFL, O_ASYNC);
  usleep(50000);
  put(s[1], "x");
  void *got;
  pthread_join(t, &got);
  say("the thread got", (long)got);
  never("the others", s[0]);
  get(s[0]);
  pid_t p[2];
  for (int i = 0; i < 2; i++) {
    p[i] = fork();
    if (p[i] == 0) {
      if (i) setpgid(0, p[0]);
      else setpgid(0, 0);
      siginfo_t info;
      struct timespec soon = {2, 0};
      _exit(take(&info, soon));
    }
    setpgid(p[i], p[0]);
  }
  usleep(50000);
  say("group", fcntl(s[0], F_SETOWN, -p[0]));
  put(s[1], "x");
  for (int i = 0; i < 2; i++) {
    waitpid(p[i], &status, 0);
    say("one of the group", WEXITSTATUS(status));
  }
  drain();
  get(s[0]);
  fflush(stdout);
  /* A process of another user may not be told by one that is not root. */
  p[0] = fork();
  if (p[0] == 0) {
    siginfo_t info;
    struct timespec soon = {1, 0};
    int sig = take(&info, soon);
    _exit(sig < 0 ? 99 : sig);
  }
  p[1] = fork();
  if (p[1] == 0) {
    if (setuid(1000)) _exit(1);
    fcntl(s[0], F_SETOWN, p[0]);
    fcntl(s[0], F_SETFL, O_ASYNC);
    _exit(0);
  }
  waitpid(p[1], 0, 0);
  put(s[1], "x");
  waitpid(p[0], &status, 0);
  say("one of another user", WEXITSTATUS(status));
  drain();
}

static void ends(void) {
  title = "ends";
  int s[2];
  if (pipe(s)) exit(1);
  enable(s[0], RT);
  close(s[1]);
  next("writer of a pipe is gone", s[0]);
  close(s[0]);
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, s)) exit(1);
  enable(s[0], RT);
  close(s[1]);
  next("other end of a socket is gone", s[0]);
  close(s[0]);
  drain();
  /* A full pipe that is read from can be written to again. */
  if (pipe2(s, O_NONBLOCK)) exit(1);
  char block[4096] = {0};
  while (write(s[1], block, sizeof block) > 0) {}
  enable(s[1], RT);
  never("full", s[1]);
  while (read(s[0], block, sizeof block) > 0) {}
  next("empty", s[1]);
  close(s[0]), close(s[1]);
  drain();
}

static int tcp(int *client) {
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t n = sizeof a;
  int l = socket(AF_INET, SOCK_STREAM, 0);
  if (bind(l, (void *)&a, n) || listen(l, 5) || getsockname(l, (void *)&a, &n)) exit(1);
  title = "listener";
  say("enable", enable(l, RT));
  *client = socket(AF_INET, SOCK_STREAM, 0);
  if (connect(*client, (void *)&a, n)) exit(1);
  next("connection", l);
  int s = accept(l, 0, 0);
  drain();
  close(l);
  return s;
}

static void urgent(int from, int to) {
  title = "urgent";
  fcntl(from, F_SETOWN, getpid());
  if (send(to, "u", 1, MSG_OOB) != 1) say("send", -1);
  next("without O_ASYNC", from);
  char c = 0;
  say("recv", recv(from, &c, 1, MSG_OOB));
  drain();
  fcntl(from, F_SETOWN, 0);
  if (send(to, "v", 1, MSG_OOB) != 1) say("send", -1);
  never("nobody", from);
}

int main(void) {
  sigemptyset(&set);
  for (int i = 0; i < 4; i++) sigaddset(&set, (int[]){SIGIO, SIGURG, SIGCHLD, RT}[i]);
  sigprocmask(SIG_BLOCK, &set, 0);
  /* A runtime's own may have come along. */
  drain();
  int p[2];
  if (pipe(p)) return 1;
  both_ways("pipe", p[0], p[1]);
  mkfifo("/tmp/fifo", 0600);
  int fifo = open("/tmp/fifo", O_RDONLY | O_NONBLOCK), feed = open("/tmp/fifo", O_WRONLY);
  both_ways("fifo", fifo, feed);
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, p)) return 1;
  both_ways("stream", p[0], p[1]);
  if (socketpair(AF_UNIX, SOCK_DGRAM, 0, p)) return 1;
  both_ways("datagram", p[0], p[1]);
  p[0] = tcp(&p[1]);
  both_ways("tcp", p[0], p[1]);
  urgent(p[0], p[1]);
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t n = sizeof a;
  p[0] = socket(AF_INET, SOCK_DGRAM, 0), p[1] = socket(AF_INET, SOCK_DGRAM, 0);
  if (bind(p[0], (void *)&a, n) || getsockname(p[0], (void *)&a, &n) || connect(p[1], (void *)&a, n)) return 1;
  both_ways("udp", p[0], p[1]);
  int master = posix_openpt(O_RDWR | O_NOCTTY);
  grantpt(master), unlockpt(master);
  int slave = open(ptsname(master), O_RDWR | O_NOCTTY);
  struct termios t;
  tcgetattr(slave, &t);
  t.c_lflag &= ~(tcflag_t)ECHO;
  tcsetattr(slave, TCSANOW, &t);
  both_ways("terminal", slave, master);
  int watch = inotify_init1(0);
  inotify_add_watch(watch, "/tmp", IN_CREATE);
  title = "inotify";
  say("enable", enable(watch, 0));
  close(open("/tmp/new", O_CREAT | O_RDWR, 0600));
  next("made", watch);
  drain();
  title = "others";
  int on = 1;
  say("eventfd", ioctl(eventfd(0, 0), FIOASYNC, &on));
  say("regular", ioctl(open("/tmp/new", O_RDWR), FIOASYNC, &on));
  say("regular by F_SETFL", fcntl(open("/tmp/new", O_RDWR), F_SETFL, O_ASYNC));
  owners();
  targets();
  ends();
  return 0;
}
