// Prints what /proc/PID/mem answers; under two kernels the lines must be alike.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE = 4096, BIG = 300000, ANSWERS = 20 };

static char text[] = "what is in memory";
static const char constant[PAGE] __attribute__((aligned(4096))) = "constant";
static char *big;

static void say(const char *what, long result) {
  if (result == -1)
    printf("%s: %s\n", what, strerrorname_np(errno));
  else
    printf("%s: %ld\n", what, result);
  fflush(stdout);
}

static int file(pid_t p, int flags) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/mem", p);
  return open(path, flags);
}

/* A child that does as it is told by single letters and answers each. */
static int orders[2], answers[2];
static char *edge, *shared;

static void child(void) {
  char c;
  while (read(orders[0], &c, 1) == 1) {
    char answer = 0;
    if (c == 't') answer = text[0];
    if (c == 'c') answer = *(volatile const char *)constant;
    if (c == 'b') answer = big[BIG - 1];
    if (c == 'x') execl("/proc/self/exe", "memfile", "wait", (char *)0);
    if (write(answers[1], &answer, 1) != 1) _exit(1);
  }
  _exit(0);
}

static int ask(char c) {
  char answer = -1;
  if (write(orders[1], &c, 1) != 1 || (c != 'x' && read(answers[0], &answer, 1) != 1)) return -1;
  return answer;
}

int main(int argc, char **argv) {
  if (argc == 2 && strcmp(argv[1], "wait") == 0) {
    char done = 'd';
    if (write(ANSWERS, &done, 1) != 1) return 1;
    pause();
    return 0;
  }
  char buf[BIG];
  big = malloc(BIG);
  memset(big, 'b', BIG);
  if (pipe(orders) || pipe(answers)) return 1;
  if (dup2(answers[1], ANSWERS) != ANSWERS) return 1;
  shared = mmap(0, PAGE, PROT_READ, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  edge = mmap(0, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  munmap(edge + PAGE, PAGE);
  memset(edge, 'e', PAGE);
  pid_t p = fork();
  if (p == 0) child();
  say("answers", ask('t'));
  int fd = file(p, O_RDWR);
  say("open", fd < 0 ? -1 : 0);
  struct stat s;
  say("fstat", fstat(fd, &s));
  printf("mode %o size %ld\n", s.st_mode, (long)s.st_size);
  memset(buf, 0, sizeof buf);
  say("read", pread(fd, buf, sizeof text, (off_t)(uintptr_t)text));
  printf("[%s]\n", buf);
  say("write", pwrite(fd, "W", 1, (off_t)(uintptr_t)text));
  printf("it has %c, I have %c\n", ask('t'), text[0]);
  say("write a constant", pwrite(fd, "C", 1, (off_t)(uintptr_t)constant));
  printf("it has %c, I have %c\n", ask('c'), constant[0]);
  say("write what is shared and read-only", pwrite(fd, "S", 1, (off_t)(uintptr_t)shared));
  say("read much", pread(fd, buf, BIG, (off_t)(uintptr_t)big));
  printf("%d\n", memcmp(buf, big, BIG));
  memset(buf, 'n', sizeof buf);
  say("write much", pwrite(fd, buf, BIG, (off_t)(uintptr_t)big));
  printf("it has %c\n", ask('b'));
  say("read over the edge", pread(fd, buf, 100, (off_t)(uintptr_t)(edge + PAGE - 10)));
  say("write over the edge", pwrite(fd, buf, 100, (off_t)(uintptr_t)(edge + PAGE - 10)));
  say("read past the edge", pread(fd, buf, 100, (off_t)(uintptr_t)(edge + PAGE)));
  say("write past the edge", pwrite(fd, buf, 100, (off_t)(uintptr_t)(edge + PAGE)));
  say("read at 0", pread(fd, buf, 100, 0));
  say("read nothing", pread(fd, buf, 0, 0));
  say("seek", lseek(fd, (off_t)(uintptr_t)edge, SEEK_SET) == (off_t)(uintptr_t)edge);
  say("read there", read(fd, buf, 5));
  printf("%.5s\n", buf);
  say("seek on", lseek(fd, 10, SEEK_CUR) == (off_t)(uintptr_t)edge + 15);
  say("seek from the end", lseek(fd, 0, SEEK_END));
  say("map", mmap(0, PAGE, PROT_READ, MAP_SHARED, fd, 0) == MAP_FAILED ? -1 : 0);
  char *volatile nowhere = (char *)8;
  say("read to nowhere", pread(fd, nowhere, 100, (off_t)(uintptr_t)edge));
  int reader = file(p, O_RDONLY);
  say("write to what is open for reading", pwrite(reader, "x", 1, (off_t)(uintptr_t)edge));
  int cut = file(p, O_RDWR | O_TRUNC);
  say("open to cut off", cut < 0 ? -1 : 0);

  int self = open("/proc/self/mem", O_RDWR);
  say("own", pread(self, buf, 4, (off_t)(uintptr_t)text));
  say("write own", pwrite(self, "o", 1, (off_t)(uintptr_t)constant));
  printf("%c\n", *(volatile const char *)constant);
  int thread = open("/proc/thread-self/mem", O_RDONLY);
  say("of the thread", pread(thread, buf, 4, (off_t)(uintptr_t)text));

  pid_t other = fork();
  if (other == 0) {
    if (setgid(1000) || setuid(1000)) _exit(9);
    say("by another user", file(p, O_RDONLY));
    say("own, not dumpable", open("/proc/self/mem", O_RDONLY) < 0 ? -1 : 0);
    say("with a descriptor from before", pread(fd, buf, 4, (off_t)(uintptr_t)text));
    _exit(0);
  }
  waitpid(other, 0, 0);

  say("attach", ptrace(PTRACE_ATTACH, p, 0, 0));
  waitpid(p, 0, 0);
  say("read of what is stopped", pread(fd, buf, 4, (off_t)(uintptr_t)text));
  say("write to what is stopped", pwrite(fd, "V", 1, (off_t)(uintptr_t)text));
  say("detach", ptrace(PTRACE_DETACH, p, 0, 0));
  printf("it has %c\n", ask('t'));

  ask('x');
  char c;
  say("another program", read(answers[0], &c, 1) == 1 && c == 'd');
  say("read the old one", pread(fd, buf, 4, (off_t)(uintptr_t)edge));
  say("write the old one", pwrite(fd, buf, 4, (off_t)(uintptr_t)edge));
  kill(p, SIGKILL);
  siginfo_t i;
  waitid(P_PID, (id_t)p, &i, WEXITED | WNOWAIT);
  say("read of a zombie", pread(fd, buf, 4, (off_t)(uintptr_t)edge));
  waitpid(p, 0, 0);
  say("read of the dead", pread(fd, buf, 4, (off_t)(uintptr_t)edge));
  say("open of the dead", file(p, O_RDONLY));
  return 0;
}
