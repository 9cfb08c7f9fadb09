/* Pid namespaces made inside the container: every line is the same as under runc with the same capabilities. Numbers of the
 * container's own namespace are only compared, never printed: the runtime's threads have had some of them. */
#include "pids.h"

void say(const char *what, long r)
{
	if (r < 0)
		printf("%s: %s\n", what, strerrorname_np(errno));
	else
		printf("%s: %ld\n", what, r);
	fflush(stdout);
}

struct shared *s;

void wait_for(int stage)
{
	for (int i = 0; i < 20000 && s->stage < stage; i++)
		usleep(500);
	if (s->stage < stage)
		printf("stage %d did not come\n", stage);
}

pid_t spawn_flags(uint64_t flags, void (*f)(void))
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

pid_t inside(void (*f)(void)) { return spawn_flags(CLONE_NEWPID, f); }
pid_t beside(void (*f)(void)) { return spawn_flags(0, f); }

void sleeper(void)
{
	for (;;)
		pause();
}

void end(pid_t pid)
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
void line_of(const char *path, const char *label, int skip)
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

void link_of(const char *path)
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

void numbers_in(const char *path)
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

void leaf(void)
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

int children_of(pid_t pid, pid_t *out, int room)
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
	raise(SIGSEGV);
	__builtin_trap();
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

void number(void)
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
