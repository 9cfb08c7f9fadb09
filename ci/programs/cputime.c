// Prints what clocks, timers and limits of CPU time do; run under two kernels, the lines must be the same.
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void say(const char *what, long result) {
  if (result == -1)
    printf("%s: %s\n", what, strerrorname_np(errno));
  else
    printf("%s: %ld\n", what, result);
}

static void say_error(const char *what, int error) {
  errno = error;
  say(what, error ? -1 : 0);
}

static double now(clockid_t clock) {
  struct timespec t = {-1, 0};
  clock_gettime(clock, &t);
  return t.tv_sec + t.tv_nsec / 1e9;
}

// Uses that much CPU time of the calling thread, without a call that a timer could be looked at in.
static volatile unsigned long sink;

static void burn(double seconds) {
  double end = now(CLOCK_THREAD_CPUTIME_ID) + seconds;
  while (now(CLOCK_THREAD_CPUTIME_ID) < end)
    for (int i = 0; i < 200000; i++) sink += i;
}

static volatile sig_atomic_t hits, last;

static void on_signal(int sig) {
  hits++;
  last = sig;
}

static volatile int stop_burning;

static void *burner(void *tid) {
  *(volatile pid_t *)tid = syscall(SYS_gettid);
  while (!stop_burning) sink++;
  return NULL;
}

// Whether a clock gets that much further; a busy machine takes its time.
static int gets_on(clockid_t clock, double since) {
  for (int i = 0; i < 500 && now(clock) - since <= 0.03; i++) usleep(10000);
  return now(clock) - since > 0.03;
}

static void clocks(void) {
  pid_t tid = 0, child;
  pthread_t t;
  clockid_t of_thread, of_child;
  stop_burning = 0;
  pthread_create(&t, NULL, burner, (void *)&tid);
  while (!*(volatile pid_t *)&tid) usleep(1000);
  say_error("pthread_getcpuclockid", pthread_getcpuclockid(t, &of_thread));
  double before = now(of_thread), all = now(CLOCK_PROCESS_CPUTIME_ID);
  say("a running thread's clock runs", gets_on(of_thread, before));
  say("its process's too", gets_on(CLOCK_PROCESS_CPUTIME_ID, all));
  // Going to sleep and waking up costs time too, a good deal of it in an emulated machine, and all of it while that is not run.
  int asleep = 0;
  for (int i = 0; i < 5 && !asleep; i++) {
    double mine = now(CLOCK_THREAD_CPUTIME_ID), began = now(CLOCK_MONOTONIC);
    usleep(50000);
    asleep = now(CLOCK_THREAD_CPUTIME_ID) - mine < (now(CLOCK_MONOTONIC) - began) / 2;
  }
  say("a sleeping thread's does not", asleep);
  struct rusage u;
  getrusage(RUSAGE_SELF, &u);
  say("getrusage sees it", u.ru_utime.tv_sec + u.ru_utime.tv_usec / 1e6 + u.ru_stime.tv_sec + u.ru_stime.tv_usec / 1e6 > 0.03);
  double last_seen = 0;
  int back = 0;
  for (int i = 0; i < 2000; i++) {
    double n = now(CLOCK_PROCESS_CPUTIME_ID);
    back += n < last_seen;
    last_seen = n;
  }
  say("never goes back", back);
  stop_burning = 1;
  pthread_join(t, NULL);
  struct timespec spec;
  // It is joined a moment before it is gone.
  for (int i = 0; i < 200 && clock_gettime(of_thread, &spec) == 0; i++) usleep(5000);
  say("clock of a thread that ended", clock_gettime(of_thread, &spec));
  child = fork();
  if (child == 0)
    for (;;) sink++;
  say_error("clock_getcpuclockid", clock_getcpuclockid(child, &of_child));
  before = now(of_child);
  say("a child's clock runs", gets_on(of_child, before));
  clockid_t thread_of_child = ~(clockid_t)child << 3 | 6;
  say("a thread of another process", clock_gettime(thread_of_child, &spec));
  kill(child, SIGKILL);
  waitpid(child, NULL, 0);
  say("clock of nobody", clock_gettime(of_child, &spec));
  say_error("clockid of nobody", clock_getcpuclockid(child, &of_child));
  say("no such measure", clock_gettime(~(clockid_t)getpid() << 3 | 3, &spec));
  say("set a CPU clock", clock_settime(CLOCK_PROCESS_CPUTIME_ID, &(struct timespec){1, 0}));
  clock_getres(CLOCK_PROCESS_CPUTIME_ID, &spec);
  say("resolution, ns", spec.tv_nsec);
}

static long sleep_on(clockid_t clock, int flags, double seconds) {
  struct timespec t = {(time_t)seconds, (long)((seconds - (time_t)seconds) * 1e9)}, left = {-1, -1};
  long r = syscall(SYS_clock_nanosleep, clock, flags, &t, &left);
  if (r == -1 && errno == EINTR && !flags) say("left over", left.tv_sec >= 0 && left.tv_sec + left.tv_nsec / 1e9 < seconds);
  return r;
}

static void sleeps(void) {
  pid_t tid = 0;
  pthread_t t;
  stop_burning = 0;
  pthread_create(&t, NULL, burner, (void *)&tid);
  while (!*(volatile pid_t *)&tid) usleep(1000);
  double before = now(CLOCK_PROCESS_CPUTIME_ID);
  say("sleep on the process's time", sleep_on(CLOCK_PROCESS_CPUTIME_ID, 0, 0.1));
  double slept = now(CLOCK_PROCESS_CPUTIME_ID) - before;
  say("as long as asked", slept >= 0.1 && slept < 0.4);
  say("until a time", sleep_on(CLOCK_PROCESS_CPUTIME_ID, TIMER_ABSTIME, now(CLOCK_PROCESS_CPUTIME_ID) + 0.05));
  say("until the past", sleep_on(CLOCK_PROCESS_CPUTIME_ID, TIMER_ABSTIME, 0.001));
  say("on another thread's", sleep_on(~(clockid_t)tid << 3 | 6, 0, 0.05));
  say("on one's own", sleep_on(~(clockid_t)syscall(SYS_gettid) << 3 | 6, 0, 0.05));
  say("on CLOCK_THREAD_CPUTIME_ID", sleep_on(CLOCK_THREAD_CPUTIME_ID, 0, 0.05));
  say("on CLOCK_MONOTONIC_RAW", sleep_on(CLOCK_MONOTONIC_RAW, 0, 0.05));
  say("on a coarse clock", sleep_on(CLOCK_MONOTONIC_COARSE, 0, 0.05));
  say("on nobody's", sleep_on(~(clockid_t)999999 << 3 | 2, 0, 0.05));
  stop_burning = 1;
  pthread_join(t, NULL);
  struct sigaction act = {.sa_handler = on_signal};
  sigaction(SIGALRM, &act, NULL);
  ualarm(100000, 0);
  say("interrupted", sleep_on(CLOCK_PROCESS_CPUTIME_ID, 0, 5));
}

static void interval(const char *name, int which, int sig) {
  struct itimerval v = {{0, 20000}, {0, 50000}}, got, off = {{0, 0}, {0, 0}};
  struct sigaction act = {.sa_handler = on_signal};
  sigaction(sig, &act, NULL);
  hits = 0;
  printf("%s\n", name);
  say("set", setitimer(which, &v, NULL));
  getitimer(which, &got);
  say("interval", got.it_interval.tv_usec);
  say("left", got.it_value.tv_sec == 0 && got.it_value.tv_usec > 0 && got.it_value.tv_usec <= 61000);
  usleep(150000);
  say("sleeping is not counted", hits);
  double before = now(CLOCK_PROCESS_CPUTIME_ID);
  while (hits < 3 && now(CLOCK_PROCESS_CPUTIME_ID) - before < 2)
    for (int i = 0; i < 10000; i++) sink++;
  double used = now(CLOCK_PROCESS_CPUTIME_ID) - before;
  say("expired thrice", hits >= 3);
  say("the signal", last == sig);
  say("in time", used > 0.05 && used < 0.8);
  say("stop", setitimer(which, &off, &got));
  say("old interval", got.it_interval.tv_usec);
  hits = 0;
  burn(0.05);
  say("stopped", hits);
  setitimer(which, &v, NULL);
  if (fork() == 0) {
    getitimer(which, &got);
    _exit(got.it_value.tv_usec != 0);
  }
  int status;
  wait(&status);
  say("a child has none", status);
  setitimer(which, &off, NULL);
}

static void errors(void) {
  struct itimerval bad = {{0, 0}, {0, 1000000}};
  say("no such timer", setitimer(3, &bad, NULL));
  say("microseconds", setitimer(ITIMER_PROF, &bad, NULL));
  say("no such timer to get", getitimer(3, &bad));
  timer_t t;
  struct sigevent e = {.sigev_notify = SIGEV_NONE};
  say("timer of nobody", syscall(SYS_timer_create, ~(clockid_t)999999 << 3 | 2, &e, &t));
  say("timer of a raw clock", syscall(SYS_timer_create, CLOCK_MONOTONIC_RAW, &e, &t));
  say("timer of a coarse clock", syscall(SYS_timer_create, CLOCK_REALTIME_COARSE, &e, &t));
  say("timer of no clock", syscall(SYS_timer_create, 99, &e, &t));
}

static void timer(const char *name, clockid_t clock) {
  struct sigaction act = {.sa_handler = on_signal};
  struct sigevent e = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 1};
  struct itimerspec v = {{0, 20000000}, {0, 50000000}}, got, off = {{0, 0}, {0, 0}};
  timer_t t;
  sigaction(SIGRTMIN + 1, &act, NULL);
  printf("timer of %s\n", name);
  say("create", timer_create(clock, &e, &t));
  hits = 0;
  say("set", timer_settime(t, 0, &v, NULL));
  timer_gettime(t, &got);
  say("left", got.it_value.tv_sec == 0 && got.it_value.tv_nsec > 0 && got.it_value.tv_nsec <= 61000000);
  usleep(150000);
  say("sleeping is not counted", hits);
  double before = now(CLOCK_THREAD_CPUTIME_ID);
  while (hits < 3 && now(CLOCK_THREAD_CPUTIME_ID) - before < 2)
    for (int i = 0; i < 10000; i++) sink++;
  double used = now(CLOCK_THREAD_CPUTIME_ID) - before;
  say("expired thrice", hits >= 3);
  say("in time", used > 0.05 && used < 0.8);
  timer_settime(t, 0, &off, &got);
  say("old interval", got.it_interval.tv_nsec);
  hits = 0;
  struct timespec when;
  clock_gettime(clock, &when);
  struct itimerspec past = {{0, 0}, when};
  timer_settime(t, TIMER_ABSTIME, &past, NULL);
  burn(0.02);
  say("a time that has come", hits);
  timer_gettime(t, &got);
  say("is over", got.it_value.tv_nsec + got.it_value.tv_sec);
  say("delete", timer_delete(t));
}

static void limits(void) {
  struct sigaction act = {.sa_handler = on_signal};
  pid_t child = fork();
  int status;
  if (child == 0) {
    sigaction(SIGXCPU, &act, NULL);
    hits = 0;
    setrlimit(RLIMIT_CPU, &(struct rlimit){1, 3});
    while (hits < 1) sink++;
    double first = now(CLOCK_PROCESS_CPUTIME_ID);
    struct rlimit r;
    getrlimit(RLIMIT_CPU, &r);
    printf("the soft limit moved to %ld of %ld\n", (long)r.rlim_cur, (long)r.rlim_max);
    while (hits < 2) sink++;
    double second = now(CLOCK_PROCESS_CPUTIME_ID);
    printf("SIGXCPU after a second %d, and each second %d\n", first > 0.9 && first < 2.5, second - first > 0.3 && second - first < 2.5);
    fflush(stdout);
    for (;;) sink++;
  }
  waitpid(child, &status, 0);
  say("killed at the hard limit", WIFSIGNALED(status) ? WTERMSIG(status) : 0);
  child = fork();
  if (child == 0) {
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    setrlimit(RLIMIT_CPU, &(struct rlimit){1, RLIM_INFINITY});
    // The limit goes along, the time does not.
    if (fork() == 0)
      for (;;) sink++;
    wait(&status);
    _exit(WIFSIGNALED(status) ? WTERMSIG(status) : 0);
  }
  waitpid(child, &status, 0);
  say("a child is ended by SIGXCPU", WEXITSTATUS(status) == SIGXCPU);
}

// A parent that ignores its children's end never hears of one, however hard it looks.
static volatile int stop_looking;
static volatile long taken;

static void *looker(void *unused) {
  (void)unused;
  while (!stop_looking)
    if (waitpid(-1, NULL, WNOHANG) > 0) __atomic_fetch_add(&taken, 1, __ATOMIC_SEQ_CST);
  return NULL;
}

static void ignored_children(void) {
  pthread_t t[2];
  signal(SIGCHLD, SIG_IGN);
  for (int i = 0; i < 2; i++) pthread_create(&t[i], NULL, looker, NULL);
  for (int i = 0; i < 300; i++) {
    if (fork() == 0) _exit(0);
  }
  while (waitpid(-1, NULL, 0) != -1) taken++;
  say("no child left", errno == ECHILD);
  stop_looking = 1;
  for (int i = 0; i < 2; i++) pthread_join(t[i], NULL);
  say("ends that were told", taken);
  signal(SIGCHLD, SIG_DFL);
  // Many threads, one child each time: it is told once.
  long told = 0;
  stop_looking = 0;
  taken = 0;
  for (int i = 0; i < 2; i++) pthread_create(&t[i], NULL, looker, NULL);
  for (int i = 0; i < 200; i++) {
    if (fork() == 0) _exit(0);
    if (waitpid(-1, NULL, 0) > 0) told++;
  }
  while (waitpid(-1, NULL, 0) > 0) told++;
  stop_looking = 1;
  for (int i = 0; i < 2; i++) pthread_join(t[i], NULL);
  say("each told once", told + taken);
}

int main(void) {
  setvbuf(stdout, NULL, _IOLBF, 0);
  clocks();
  sleeps();
  interval("ITIMER_VIRTUAL", ITIMER_VIRTUAL, SIGVTALRM);
  interval("ITIMER_PROF", ITIMER_PROF, SIGPROF);
  errors();
  timer("the process", CLOCK_PROCESS_CPUTIME_ID);
  timer("the thread", CLOCK_THREAD_CPUTIME_ID);
  limits();
  ignored_children();
  return 0;
}
