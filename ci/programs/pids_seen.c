/* Where the numbers of pid namespaces are seen: procfs, sockets, files, terminals, System V, futexes, clocks, tracing. */
#include "pids.h"

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

void proc_files(void)
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

void sockets(void)
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

void files(void)
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
	static uint32_t lock[4];
	pthread_t t;
	pthread_create(&t, NULL, holds, lock);
	pthread_join(t, NULL);
	printf("robust: %x\n", lock[0]);
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

void executed(void)
{
	T(getpid());
	T(syscall(SYS_gettid));
	T(getppid());
	end(beside(number));
}

void threads(void)
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

void traced(void)
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
