/* Pid namespaces made inside the container: every line is the same as under runc with the same capabilities. Numbers of the
 * container's own namespace are only compared, never printed: the runtime's threads have had some of them. */
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

static void say(const char *what, long r)
{
	if (r < 0)
		printf("%s: %s\n", what, strerrorname_np(errno));
	else
		printf("%s: %ld\n", what, r);
	fflush(stdout);
}

/* What several processes see. */
struct shared {
	volatile int stage;
	volatile pid_t pids[8];
	uint32_t word;
};
static struct shared *s;

static void wait_for(int stage)
{
	for (int i = 0; i < 20000 && s->stage < stage; i++)
		usleep(500);
	if (s->stage < stage)
		printf("stage %d did not come\n", stage);
}

static pid_t spawn_flags(uint64_t flags, void (*f)(void))
{
	struct clone_args args = { .flags = flags, .exit_signal = SIGCHLD };
	fflush(stdout);
	pid_t pid = syscall(SYS_clone3, &args, sizeof args);
	if (!pid) {
		f();
		fflush(stdout);
		_exit(7);
	}
	return pid;
}

static pid_t inside(void (*f)(void)) { return spawn_flags(CLONE_NEWPID, f); }
static pid_t beside(void (*f)(void)) { return spawn_flags(0, f); }

static void sleeper(void)
{
	for (;;)
		pause();
}

static void end(pid_t pid)
{
	int status = 0;
	pid_t got;
	do
		got = waitpid(pid, &status, 0);
	while (got < 0 && errno == EINTR);
	if (got != pid)
		printf("waitpid: %s\n", strerrorname_np(errno));
	else if (WIFSIGNALED(status))
		printf("killed by %d\n", WTERMSIG(status));
	else
		printf("exited with %d\n", WEXITSTATUS(status));
	fflush(stdout);
}

/* A line of a file; numbers of the container's namespace are cut off by `skip` words. */
static void line_of(const char *path, const char *label, int skip)
{
	char b[256];
	FILE *f = fopen(path, "r");
	if (!f) {
		say(path, -1);
		return;
	}
	while (fgets(b, sizeof b, f)) {
		if (strncmp(b, label, strlen(label)))
			continue;
		char *p = b + strlen(label);
		for (int i = 0; i < skip && *p; i++) {
			p += strspn(p, "\t ");
			p += strcspn(p, "\t \n");
		}
		printf("%s%s", label, p);
	}
	fclose(f);
	fflush(stdout);
}

static void link_of(const char *path)
{
	char b[64];
	long n = readlink(path, b, sizeof b - 1);
	if (n < 0) {
		say(path, -1);
		return;
	}
	b[n] = 0;
	printf("%s -> %s\n", path, b);
	fflush(stdout);
}

static void numbers_in(const char *path)
{
	DIR *d = opendir(path);
	if (!d) {
		say(path, -1);
		return;
	}
	printf("%s:", path);
	for (struct dirent *e; (e = readdir(d));)
		if (isdigit(e->d_name[0]))
			printf(" %s", e->d_name);
	printf("\n");
	fflush(stdout);
	closedir(d);
}

static ino_t ns_of(pid_t pid, const char *name)
{
	char path[64];
	struct stat st;
	snprintf(path, sizeof path, "/proc/%d/ns/%s", pid, name);
	return stat(path, &st) ? 0 : st.st_ino;
}

/* Who one is. */

static void *other_thread(void *arg)
{
	T(getpid());
	T(syscall(SYS_gettid));
	return arg;
}

static void leaf(void)
{
	T(getpid());
	T(getppid());
	T(getpgrp());
	T(getsid(0));
	T(setpgid(0, 1));
	T(getpgid(1));
	T(kill(1, 0));
	_exit(3);
}

static void identity(void)
{
	T(getpid());
	T(getppid());
	T(syscall(SYS_gettid));
	T(getpgid(0));
	T(getsid(0));
	T(syscall(SYS_set_tid_address, &s->word));
	T(setpgid(0, 0));
	T(getpgrp());
	T(setsid());
	T(kill(s->pids[0], 0));
	T(getpgid(s->pids[0]));
	T(getpriority(PRIO_PROCESS, s->pids[0]));
	T(sched_getscheduler(s->pids[0]));
	T(syscall(SYS_pidfd_open, s->pids[0], 0));
	T(ptrace(PTRACE_ATTACH, s->pids[0], 0, 0));
	T(kill(-1, 0));
	IS(syscall(SYS_kcmp, 1, 1, 1, 0, 0) == 0);
	pthread_t t;
	pthread_create(&t, NULL, other_thread, NULL);
	pthread_join(t, NULL);
	pid_t child = beside(leaf);
	end(child);
	T(child);
	T(wait(NULL));
	T(spawn_flags(CLONE_PARENT, leaf));
	T(spawn_flags(CLONE_NEWPID | CLONE_THREAD | CLONE_SIGHAND | CLONE_VM, leaf));
}

static void who(void)
{
	/* More numbers than there are inside. */
	while ((s->pids[0] = beside(sleeper)) < 40)
		;
	pid_t pid = inside(identity);
	end(pid);
	IS(pid > 40);
	kill(-1, SIGKILL);
	while (wait(NULL) > 0)
		;
}

/* Orphans, and the end of the namespace. */

static void orphan(void)
{
	while (getppid() == s->pids[6])
		usleep(1000);
	_exit(getppid());
}

static void short_lived(void)
{
	s->pids[6] = getpid();
	beside(orphan);
	_exit(0);
}

static void reaper_inside(void)
{
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	end(beside(short_lived));
	int status = 0;
	T(wait(&status));
	T(WEXITSTATUS(status));
	_exit(0);
}

static void init_of_orphans(void)
{
	pid_t child = beside(short_lived);
	end(child);
	int status = 0;
	T(wait(&status));
	T(WEXITSTATUS(status));
	end(beside(reaper_inside));
	T(wait(NULL));
}

static void crowd(void)
{
	for (int i = 0; i < 5; i++)
		beside(sleeper);
	inside(sleeper);
	s->stage = 1;
	sleeper();
}

static int children_of(pid_t pid, pid_t *out, int room)
{
	int n = 0;
	DIR *d = opendir("/proc");
	for (struct dirent *e; (e = readdir(d));) {
		char path[300], b[512];
		if (!isdigit(e->d_name[0]))
			continue;
		snprintf(path, sizeof path, "/proc/%s/stat", e->d_name);
		FILE *f = fopen(path, "r");
		int ppid = 0;
		if (f && fgets(b, sizeof b, f))
			sscanf(strrchr(b, ')') + 4, "%d", &ppid);
		if (f)
			fclose(f);
		if (ppid == pid && n < room)
			out[n++] = atoi(e->d_name);
	}
	closedir(d);
	return n;
}

static void ends(void)
{
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	end(inside(init_of_orphans));
	T(wait(NULL));
	prctl(PR_SET_CHILD_SUBREAPER, 0);

	s->stage = 0;
	pid_t pid = inside(crowd), below[16];
	wait_for(1);
	int n = children_of(pid, below, 16);
	T(n);
	kill(below[0], SIGSTOP);
	T(kill(pid, SIGKILL));
	end(pid);
	for (int i = 0; i < n; i++)
		T(kill(below[i], 0));
}

/* Signals. */

static volatile sig_atomic_t caught, from, code;

static void on_signal(int sig, siginfo_t *info, void *context)
{
	(void)context;
	caught = sig;
	from = info->si_pid;
	code = info->si_code;
}

static void catch(int sig)
{
	struct sigaction a = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO };
	sigaction(sig, &a, NULL);
}

static void got(const char *what)
{
	for (int i = 0; i < 4000 && !caught; i++)
		usleep(500);
	printf("%s: signal %d from %d, code %d\n", what, caught, from, code);
	fflush(stdout);
	caught = from = code = 0;
}

static void to_init(void)
{
	T(kill(1, SIGTERM));
	T(kill(1, SIGKILL));
	T(kill(1, SIGSTOP));
	T(kill(1, SIGTSTP));
	T(kill(1, SIGSEGV));
	T(syscall(SYS_tgkill, 1, 1, SIGABRT));
	T(kill(1, SIGUSR1));
	_exit(0);
}

static void queue_to_init(void)
{
	sigqueue(1, SIGUSR1, (union sigval){ .sival_int = 9 });
	_exit(0);
}

static void made_up(void)
{
	siginfo_t info = { .si_signo = SIGUSR1, .si_code = SI_QUEUE };
	info.si_pid = 77;
	T(syscall(SYS_rt_sigqueueinfo, 1, SIGUSR1, &info));
	_exit(0);
}

static void signals_inside(void)
{
	catch(SIGUSR1);
	end(beside(to_init));
	got("from a child");
	end(beside(queue_to_init));
	got("queued");
	end(beside(made_up));
	got("made up");
	T(kill(1, SIGKILL));
	T(raise(SIGTERM));
	catch(SIGCHLD);
	pid_t child = beside(leaf);
	got("of a child");
	end(child);
	s->stage = 1;
	got("from above");
	s->stage = 2;
	got("queued from above");
	s->stage = 3;
	sleeper();
}

static void signals(void)
{
	s->stage = 0;
	pid_t pid = inside(signals_inside);
	wait_for(1);
	long first = kill(pid, SIGTERM), second = kill(pid, SIGUSR1);
	wait_for(2);
	siginfo_t info = { .si_signo = SIGUSR1, .si_code = SI_QUEUE };
	info.si_pid = 77;
	long third = syscall(SYS_rt_sigqueueinfo, pid, SIGUSR1, &info);
	wait_for(3);
	IS(first == 0 && second == 0 && third == 0);
	T(kill(pid, SIGTERM));
	T(kill(pid, SIGSTOP));
	int status = 0;
	IS(waitpid(pid, &status, WUNTRACED) == pid);
	IS(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
	T(kill(pid, SIGCONT));
	IS(waitpid(pid, &status, WCONTINUED) == pid);
	catch(SIGCHLD);
	T(kill(pid, SIGKILL));
	for (int i = 0; i < 4000 && !caught; i++)
		usleep(500);
	IS(from == pid && code == CLD_KILLED);
	caught = 0;
	signal(SIGCHLD, SIG_DFL);
	siginfo_t ended = { 0 };
	T(waitid(P_ALL, 0, &ended, WEXITED));
	IS(ended.si_pid == pid);
	T(kill(pid, 0));
}

static void crashes(void)
{
	*(volatile int *)8 = 1;
}

static void dies_with_parent(void)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	s->stage = 1;
	sleeper();
}

static void middle(void)
{
	s->pids[1] = inside(dies_with_parent);
	wait_for(1);
	_exit(0);
}

static void deaths(void)
{
	end(inside(crashes));
	s->stage = 0;
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	end(beside(middle));
	end(s->pids[1]);
	prctl(PR_SET_CHILD_SUBREAPER, 0);
}

/* unshare and setns. */

static void number(void)
{
	printf("%d of %d\n", getpid(), getppid());
	fflush(stdout);
	_exit(0);
}

static void number_and_wait(void)
{
	printf("%d of %d\n", getpid(), getppid());
	fflush(stdout);
	s->word = 1;
	sleeper();
}

/* Waits until it has said its number. */
static pid_t started(pid_t pid)
{
	for (int i = 0; i < 20000 && !*(volatile uint32_t *)&s->word; i++)
		usleep(500);
	s->word = 0;
	return pid;
}

static void unshared(void)
{
	pid_t before = getpid();
	ino_t own = ns_of(before, "pid");
	IS(ns_of(before, "pid_for_children") == own);
	T(unshare(CLONE_NEWPID));
	IS(getpid() == before && ns_of(before, "pid") == own);
	link_of("/proc/self/ns/pid_for_children");
	T(unshare(CLONE_NEWPID));
	T(spawn_flags(CLONE_NEWPID, number));
	T(syscall(SYS_clone, CLONE_THREAD | CLONE_SIGHAND | CLONE_VM, 0, 0, 0, 0));
	s->word = 0;
	pid_t first = started(beside(number_and_wait));
	IS(first > before);
	IS(ns_of(before, "pid_for_children") != own && ns_of(before, "pid_for_children") == ns_of(first, "pid"));
	end(beside(number));
	pid_t third = vfork();
	if (!third)
		_exit(0);
	end(third);
	end(beside(number));
	pid_t last = started(beside(number_and_wait));
	T(kill(first, SIGKILL));
	/* Linux waits for somebody to wait for it. */
	end(last);
	end(first);
	OK(beside(number));
	_exit(0);
}

static void leave(void)
{
	int fd = open("/proc/self/ns/pid", O_RDONLY);
	T(setns(fd, CLONE_NEWPID));
	T(setns(s->pids[2], 0));
	T(setns(s->pids[3], CLONE_NEWPID));
	T(syscall(SYS_pidfd_send_signal, s->pids[3], 0, NULL, 0));
	T(ioctl(fd, NS_GET_PARENT));
	T(ioctl(fd, NS_GET_NSTYPE));
	_exit(0);
}

static void visitor(void)
{
	s->word = 0;
	s->pids[1] = started(inside(number_and_wait));
	char path[64];
	snprintf(path, sizeof path, "/proc/%d/ns/pid", s->pids[1]);
	int fd = open(path, O_RDONLY);
	T(setns(fd, CLONE_NEWNS));
	T(setns(fd, CLONE_NEWPID));
	end(beside(number));
	int own = open("/proc/self/ns/pid", O_RDONLY);
	T(setns(own, 0));
	pid_t plain = beside(sleeper);
	IS(ns_of(plain, "pid") == ns_of(getpid(), "pid"));
	kill(plain, SIGKILL);
	end(plain);
	int pidfd = syscall(SYS_pidfd_open, s->pids[1], 0);
	T(setns(pidfd, CLONE_NEWPID));
	pid_t guest = started(beside(number_and_wait));
	IS(ns_of(guest, "pid") == ns_of(s->pids[1], "pid"));
	/* Relations. */
	struct stat a, b;
	int up = ioctl(fd, NS_GET_PARENT);
	OK(up);
	IS(!fstat(up, &a) && !fstat(own, &b) && a.st_ino == b.st_ino && a.st_dev == b.st_dev);
	T(ioctl(up, NS_GET_PARENT));
	T(ioctl(fd, NS_GET_NSTYPE));
	T(ioctl(fd, NS_GET_OWNER_UID));
	OK(ioctl(fd, NS_GET_USERNS));
	/* Out again there is no way. */
	T(setns(own, 0));
	s->pids[2] = own;
	s->pids[3] = syscall(SYS_pidfd_open, getpid(), 0);
	end(inside(leave));
	kill(s->pids[1], SIGKILL);
	end(guest);
	end(s->pids[1]);
	T(setns(fd, CLONE_NEWPID));
	OK(beside(number));
	_exit(0);
}

/* procfs. */

static void proc_here(void)
{
	numbers_in("/proc");
	numbers_in("/proc/self/task");
	link_of("/proc/self");
	link_of("/proc/thread-self");
	const char *labels[] = { "Tgid:", "Pid:", "PPid:", "TracerPid:", "NStgid:", "NSpid:", "NSpgid:", "NSsid:" };
	for (unsigned i = 0; i < sizeof labels / sizeof *labels; i++)
		line_of("/proc/self/status", labels[i], 0);
	char b[512];
	FILE *f = fopen("/proc/self/stat", "r");
	int pid, ppid, pgrp, session, tty, tpgid;
	if (f && fgets(b, sizeof b, f)) {
		sscanf(b, "%d", &pid);
		sscanf(strrchr(b, ')') + 4, "%d %d %d %d %d", &ppid, &pgrp, &session, &tty, &tpgid);
		printf("stat: %d %d %d %d %d\n", pid, ppid, pgrp, session, tpgid);
	}
	if (f)
		fclose(f);
	f = fopen("/proc/loadavg", "r");
	if (f && fgets(b, sizeof b, f))
		printf("last:%s", strrchr(b, ' '));
	if (f)
		fclose(f);
	fflush(stdout);
	line_of("/proc/sys/kernel/ns_last_pid", "", 0);
	OK(access("/proc/1/status", R_OK));
	OK(access("/proc/3/status", R_OK));
	char path[64];
	snprintf(path, sizeof path, "/proc/self/fdinfo/%d", s->pids[2]);
	line_of(path, "Pid:", 0);
	line_of(path, "NSpid:", 0);
	int own = syscall(SYS_pidfd_open, getpid(), 0);
	snprintf(path, sizeof path, "/proc/self/fdinfo/%d", own);
	line_of(path, "Pid:", 0);
	line_of(path, "NSpid:", 0);
	close(own);
}

static void child_with_proc(void)
{
	setsid();
	proc_here();
	_exit(0);
}

static void proc_inside(void)
{
	/* The outer procfs knows the outer numbers. */
	char b[32] = "", number[64];
	if (readlink("/proc/self", b, sizeof b - 1) < 0)
		say("/proc/self", -1);
	IS(atoi(b) > 1);
	snprintf(number, sizeof number, "/proc/%s/status", b);
	line_of(number, "NSpid:", 1);
	line_of("/proc/self/status", "PPid:", 1);
	T(unshare(CLONE_NEWNS));
	T(mount("proc", "/mnt", "proc", 0, NULL));
	struct stat a, c;
	IS(!stat("/proc", &a) && !stat("/mnt", &c) && a.st_dev != c.st_dev);
	numbers_in("/mnt");
	T(mount("proc", "/proc", "proc", 0, NULL));
	proc_here();
	end(beside(child_with_proc));
	setsid();
	proc_here();
	s->stage = 1;
	wait_for(2);
	_exit(0);
}

static void proc_files(void)
{
	s->stage = 0;
	s->pids[2] = syscall(SYS_pidfd_open, getpid(), 0);
	pid_t pid = inside(proc_inside);
	wait_for(1);
	char path[64];
	snprintf(path, sizeof path, "/proc/%d/status", pid);
	line_of(path, "NSpid:", 1);
	line_of(path, "NStgid:", 1);
	line_of(path, "NSpgid:", 1);
	line_of(path, "NSsid:", 1);
	int fd = syscall(SYS_pidfd_open, pid, 0);
	snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
	line_of(path, "NSpid:", 1);
	/* The procfs of the namespace, from outside: there is nobody that one is. */
	snprintf(path, sizeof path, "/proc/%d/root/proc/self", pid);
	char b[32];
	T(readlink(path, b, sizeof b));
	s->stage = 2;
	end(pid);
	snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
	line_of(path, "Pid:", 0);
	line_of(path, "NSpid:", 0);
}

/* Nested. */

static void third(void)
{
	printf("third: %d of %d\n", getpid(), getppid());
	fflush(stdout);
	s->pids[4] = beside(sleeper);
	s->stage = 1;
	sleeper();
}

static void second(void)
{
	printf("second: %d of %d\n", getpid(), getppid());
	fflush(stdout);
	end(beside(leaf));
	pid_t pid = inside(third);
	wait_for(1);
	T(pid);
	T(s->pids[4]);
	T(kill(4, 0));
	T(kill(5, 0));
	s->stage = 2;
	wait_for(3);
	T(kill(4, SIGKILL));
	T(kill(3, SIGKILL));
	end(pid);
	T(wait(NULL));
	_exit(0);
}

static void first_level(void)
{
	printf("first: %d of %d\n", getpid(), getppid());
	fflush(stdout);
	pid_t pid = inside(second);
	end(pid);
	T(pid);
	_exit(0);
}

static void deeper(void)
{
	pid_t pid = inside(deeper);
	if (pid < 0)
		printf("the end: %s\n", strerrorname_np(errno));
	else
		waitpid(pid, NULL, 0);
	fflush(stdout);
	_exit(0);
}

static void nested(void)
{
	s->stage = 0;
	pid_t pid = inside(first_level), found[16];
	wait_for(2);
	int n = children_of(pid, found, 16);
	n = children_of(found[0], found, 16);
	n = children_of(found[0], found, 16);
	T(n);
	char path[64];
	snprintf(path, sizeof path, "/proc/%d/status", found[0]);
	line_of(path, "NSpid:", 1);
	line_of(path, "NStgid:", 1);
	s->stage = 3;
	end(pid);
	deeper();
}

/* Sockets. */

static void peer(int fd)
{
	struct ucred c = { 0 };
	socklen_t len = sizeof c;
	OK(getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &c, &len));
	printf("peer: %s\n", c.pid == 0 ? "nobody" : c.pid == getpid() ? "self" : c.pid == s->pids[1] ? "child" : c.pid == 1 ? "init" : "other");
	fflush(stdout);
}

static long send_cred(int fd, pid_t pid)
{
	char byte = 'x';
	struct iovec v = { &byte, 1 };
	union { struct cmsghdr h; char b[CMSG_SPACE(sizeof(struct ucred))]; } u = { 0 };
	struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1 };
	if (pid >= 0) {
		m.msg_control = &u;
		m.msg_controllen = sizeof u;
		struct cmsghdr *h = CMSG_FIRSTHDR(&m);
		h->cmsg_level = SOL_SOCKET;
		h->cmsg_type = SCM_CREDENTIALS;
		h->cmsg_len = CMSG_LEN(sizeof(struct ucred));
		struct ucred c = { pid, getuid(), getgid() };
		memcpy(CMSG_DATA(h), &c, sizeof c);
	}
	return sendmsg(fd, &m, 0);
}

static pid_t receive_cred(int fd)
{
	char byte;
	struct iovec v = { &byte, 1 };
	union { struct cmsghdr h; char b[CMSG_SPACE(sizeof(struct ucred))]; } u = { 0 };
	struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = &u, .msg_controllen = sizeof u };
	if (recvmsg(fd, &m, 0) < 0)
		return -1;
	struct cmsghdr *h = CMSG_FIRSTHDR(&m);
	struct ucred c = { -2, 0, 0 };
	if (h)
		memcpy(&c, CMSG_DATA(h), sizeof c);
	return c.pid;
}

static int pair[2], listener;

static void sender_inside(void)
{
	send_cred(pair[1], -1);
	_exit(0);
}

static void connects(int *fd)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX, .sun_path = "\0pids" };
	*fd = socket(AF_UNIX, SOCK_STREAM, 0);
	OK(connect(*fd, (void *)&a, sizeof a));
}

static void sockets_inside(void)
{
	int own[2], fd;
	peer(pair[1]);
	socketpair(AF_UNIX, SOCK_DGRAM, 0, own);
	peer(own[0]);
	connects(&fd);
	peer(fd);
	T(receive_cred(pair[1]));
	T(send_cred(pair[1], -1));
	T(send_cred(pair[1], 1));
	T(send_cred(pair[1], 99));
	T(send_cred(pair[1], s->pids[0]));
	pid_t child = beside(sender_inside);
	end(child);
	s->stage = 1;
	sleeper();
}

static void sockets(void)
{
	int on = 1;
	struct sockaddr_un a = { .sun_family = AF_UNIX, .sun_path = "\0pids" };
	s->stage = 0;
	s->pids[0] = getpid();
	socketpair(AF_UNIX, SOCK_DGRAM, 0, pair);
	setsockopt(pair[0], SOL_SOCKET, SO_PASSCRED, &on, sizeof on);
	setsockopt(pair[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof on);
	listener = socket(AF_UNIX, SOCK_STREAM, 0);
	OK(bind(listener, (void *)&a, sizeof a));
	OK(listen(listener, 4));
	send_cred(pair[0], -1);
	pid_t pid = s->pids[1] = inside(sockets_inside);
	wait_for(1);
	int fd = accept(listener, NULL, NULL);
	peer(fd);
	IS(receive_cred(pair[0]) == pid);
	IS(receive_cred(pair[0]) == pid);
	/* The sender has ended. */
	pid_t gone = receive_cred(pair[0]);
	IS(gone > 1 && gone != pid);
	kill(pid, SIGKILL);
	end(pid);
	peer(fd);
	close(fd);
	close(listener);
	close(pair[0]);
	close(pair[1]);
}

/* Files, terminals, System V. */

static void files_inside(void)
{
	int fd = open("/tmp/locked", O_RDWR);
	struct flock l = { .l_type = F_WRLCK, .l_len = 10 };
	T(fcntl(fd, F_GETLK, &l));
	T(l.l_pid);
	l = (struct flock){ .l_type = F_WRLCK, .l_start = 20, .l_len = 10 };
	T(fcntl(fd, F_SETLK, &l));
	int p[2];
	(void)!pipe(p);
	T(fcntl(p[0], F_SETOWN, s->pids[0]));
	T(fcntl(p[0], F_SETOWN, 1));
	T(fcntl(p[0], F_GETOWN));
	struct f_owner_ex o = { F_OWNER_TID, 1 };
	T(fcntl(p[0], F_SETOWN_EX, &o));
	T(fcntl(s->pids[3], F_GETOWN));
	T(setsid());
	int slave = open((char *)"/dev/tty", O_RDWR);
	T(slave);
	slave = ioctl(s->pids[4], TIOCGPTPEER, O_RDWR);
	OK(slave);
	pid_t n = -1;
	T(ioctl(slave, TIOCGPGRP, &n));
	T(n);
	T(ioctl(slave, TIOCGSID, &n));
	T(n);
	n = s->pids[0];
	T(ioctl(slave, TIOCSPGRP, &n));
	n = 1;
	T(ioctl(slave, TIOCSPGRP, &n));
	T(ioctl(s->pids[4], TIOCGPGRP, &n));
	T(n);
	struct sembuf up = { 0, 1, 0 };
	T(semctl(s->pids[5], 0, GETPID));
	T(semop(s->pids[5], &up, 1));
	T(semctl(s->pids[5], 0, GETPID));
	struct shmid_ds ds;
	T(shmctl(s->pids[6], IPC_STAT, &ds));
	T(ds.shm_cpid);
	T(ds.shm_lpid);
	shmat(s->pids[6], NULL, 0);
	T(shmctl(s->pids[6], IPC_STAT, &ds));
	T(ds.shm_lpid);
	struct { long type; char text[4]; } m = { 1, "abc" };
	T(msgsnd(s->pids[7], &m, 4, 0));
	struct msqid_ds q;
	T(msgctl(s->pids[7], IPC_STAT, &q));
	T(q.msg_lspid);
	s->stage = 1;
	wait_for(2);
	_exit(0);
}

static void files(void)
{
	s->stage = 0;
	s->pids[0] = getpid();
	int fd = open("/tmp/locked", O_RDWR | O_CREAT, 0644);
	struct flock l = { .l_type = F_WRLCK, .l_len = 10 };
	T(fcntl(fd, F_SETLK, &l));
	int p[2];
	(void)!pipe(p);
	T(fcntl(p[0], F_SETOWN, getpid()));
	s->pids[3] = p[0];
	s->pids[4] = open("/dev/ptmx", O_RDWR | O_NOCTTY);
	int unlock = 0;
	ioctl(s->pids[4], TIOCSPTLCK, &unlock);
	s->pids[5] = semget(IPC_PRIVATE, 1, 0600);
	struct sembuf up = { 0, 1, 0 };
	T(semop(s->pids[5], &up, 1));
	s->pids[6] = shmget(IPC_PRIVATE, 4096, 0600);
	s->pids[7] = msgget(IPC_PRIVATE, 0600);
	pid_t pid = inside(files_inside), n = 0;
	wait_for(1);
	l = (struct flock){ .l_type = F_WRLCK, .l_start = 20, .l_len = 10 };
	T(fcntl(fd, F_GETLK, &l));
	IS(l.l_pid == pid);
	T(ioctl(s->pids[4], TIOCGPGRP, &n));
	IS(n == pid);
	IS(semctl(s->pids[5], 0, GETPID) == pid);
	s->stage = 2;
	end(pid);
	IS(semctl(s->pids[5], 0, GETPID) == pid);
	struct shmid_ds ds;
	T(shmctl(s->pids[6], IPC_STAT, &ds));
	IS(ds.shm_cpid == getpid() && ds.shm_lpid == pid);
	struct msqid_ds q;
	T(msgctl(s->pids[7], IPC_STAT, &q));
	IS(q.msg_lspid == pid && q.msg_lrpid == 0);
	semctl(s->pids[5], 0, IPC_RMID);
	shmctl(s->pids[6], IPC_RMID, NULL);
	msgctl(s->pids[7], IPC_RMID, NULL);
}

/* Threads, futexes, clocks. */

static void *exec_thread(void *arg)
{
	(void)arg;
	T(syscall(SYS_gettid));
	execl("/proc/self/exe", "pids", "executed", NULL);
	return NULL;
}

static void *holds(void *arg)
{
	struct robust_list_head head = { .list = { &head.list }, .list_op_pending = arg };
	head.futex_offset = 0;
	syscall(SYS_set_robust_list, &head, sizeof head);
	*(volatile uint32_t *)arg = syscall(SYS_gettid);
	syscall(SYS_exit, 0);
	return NULL;
}

static void threads_inside(void)
{
	T(syscall(SYS_futex, &s->word, FUTEX_LOCK_PI, 0, NULL));
	T(s->word);
	T(syscall(SYS_futex, &s->word, FUTEX_UNLOCK_PI, 0));
	T(s->word);
	s->word = 55;
	T(syscall(SYS_futex, &s->word, FUTEX_LOCK_PI, 0, NULL));
	s->word = 0;
	static uint64_t lock[2];
	pthread_t t;
	pthread_create(&t, NULL, holds, lock);
	pthread_join(t, NULL);
	printf("robust: %x\n", *(uint32_t *)lock);
	clockid_t c;
	struct timespec at;
	T(clock_getcpuclockid(1, &c));
	T(clock_gettime(c, &at));
	T(clock_getcpuclockid(s->pids[0], &c));
	struct sigevent e = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGUSR1 };
	e._sigev_un._tid = 1;
	timer_t timer;
	T(timer_create(CLOCK_MONOTONIC, &e, &timer));
	e._sigev_un._tid = s->pids[0];
	T(timer_create(CLOCK_MONOTONIC, &e, &timer));
	T(syscall(SYS_tgkill, 1, 1, 0));
	T(syscall(SYS_tgkill, 1, 9, 0));
	T(getpriority(PRIO_PGRP, 0));
	T(getpriority(PRIO_USER, 0));
	T(wait4(-s->pids[0], NULL, 0, NULL));
	T(wait4(s->pids[0], NULL, 0, NULL));
	pid_t tid = -1;
	struct clone_args args = { .flags = CLONE_PARENT_SETTID | CLONE_CHILD_SETTID, .exit_signal = SIGCHLD, .parent_tid = (uint64_t)&tid, .child_tid = (uint64_t)&s->pids[5] };
	pid_t child = syscall(SYS_clone3, &args, sizeof args);
	if (!child)
		_exit(0);
	IS(child == tid);
	end(child);
	pthread_create(&t, NULL, exec_thread, NULL);
	pthread_join(t, NULL);
}

static void executed(void)
{
	T(getpid());
	T(syscall(SYS_gettid));
	T(getppid());
	end(beside(number));
}

static void threads(void)
{
	s->pids[0] = getpid();
	end(inside(threads_inside));
}

/* Tracing from outside. */

static void traced_inside(void)
{
	ptrace(PTRACE_TRACEME, 0, 0, 0);
	raise(SIGSTOP);
	pid_t child = beside(number);
	waitpid(child, NULL, 0);
	_exit(5);
}

static void traced(void)
{
	int status = 0;
	pid_t pid = inside(traced_inside);
	IS(waitpid(pid, &status, 0) == pid);
	printf("stopped: %d by %d\n", WIFSTOPPED(status), WSTOPSIG(status));
	T(ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACEFORK));
	siginfo_t info;
	T(ptrace(PTRACE_GETSIGINFO, pid, 0, &info));
	T(info.si_pid);
	T(ptrace(PTRACE_CONT, pid, 0, 0));
	IS(waitpid(pid, &status, 0) == pid);
	printf("event: %x\n", status >> 8);
	unsigned long child = 0;
	T(ptrace(PTRACE_GETEVENTMSG, pid, 0, &child));
	IS((pid_t)child > pid);
	IS(waitpid(child, &status, __WALL) == (pid_t)child);
	long on = ptrace(PTRACE_CONT, child, 0, 0);
	IS(waitpid(child, &status, __WALL) == (pid_t)child && on == 0);
	T(ptrace(PTRACE_CONT, pid, 0, 0));
	while (waitpid(pid, &status, 0) == pid && WIFSTOPPED(status))
		ptrace(PTRACE_CONT, pid, 0, 0);
	T(WEXITSTATUS(status));
}

static void in_child(const char *title, void (*f)(void))
{
	printf("== %s\n", title);
	fflush(stdout);
	pid_t pid = fork();
	if (!pid) {
		alarm(40);
		f();
		fflush(stdout);
		_exit(0);
	}
	end(pid);
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
}

int main(int argc, char **argv)
{
	(void)argv;
	s = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (argc > 1) {
		executed();
		return 6;
	}
	in_child("who one is", who);
	in_child("orphans and ends", ends);
	in_child("signals", signals);
	in_child("deaths", deaths);
	in_child("unshare", unshared);
	in_child("setns", visitor);
	in_child("procfs", proc_files);
	in_child("nested", nested);
	in_child("sockets", sockets);
	in_child("files", files);
	in_child("threads", threads);
	in_child("traced", traced);
	return 0;
}
