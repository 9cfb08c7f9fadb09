/* What the parts of pids share. */
#define _GNU_SOURCE
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/nsfs.h>
#include <linux/sched.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define T(e) say(#e, (long)(e))
/* For calls that give a descriptor or a number of no interest. */
#define OK(e) say(#e, (long)(e) < 0 ? -1 : 0)
/* For comparisons. */
#define IS(e) printf("%s: %s\n", #e, (e) ? "yes" : "no"), fflush(stdout)

/* What several processes see. */
struct shared {
	volatile int stage;
	volatile pid_t pids[8];
	uint32_t word;
};
extern struct shared *s;

void say(const char *what, long r);
void wait_for(int stage);
pid_t spawn_flags(uint64_t flags, void (*f)(void));
pid_t inside(void (*f)(void));
pid_t beside(void (*f)(void));
void sleeper(void);
void end(pid_t pid);
void line_of(const char *path, const char *label, int skip);
void link_of(const char *path);
void numbers_in(const char *path);
void number(void);

/* pids_seen.c: what others see. */
void proc_files(void);
void sockets(void);
void files(void);
void threads(void);
void executed(void);
void traced(void);
