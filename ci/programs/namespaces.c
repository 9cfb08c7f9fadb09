/* Namespaces made inside the container: every line is the same as under runc with the same capabilities. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/nsfs.h>
#include <mqueue.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/mount.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/fsuid.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#define T(e) say(#e, (long)(e))

static void say(const char *what, long r)
{
	if (r < 0)
		printf("%s: %s\n", what, strerrorname_np(errno));
	else
		printf("%s: %ld\n", what, r);
	fflush(stdout);
}

/* As T, for calls that give a descriptor or a number of no interest. */
#define OK(e) say(#e, (long)(e) < 0 ? -1 : 0)

static int put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);
	if (fd < 0)
		return -1;
	long n = write(fd, text, strlen(text));
	int e = errno;
	close(fd);
	errno = e;
	return n < 0 ? -1 : 0;
}

static void show(const char *path)
{
	char b[4096];
	int fd = open(path, O_RDONLY);
	long n = fd < 0 ? -1 : read(fd, b, sizeof b);
	if (n < 0)
		say(path, -1);
	else
		printf("%s: %.*s", path, (int)n, b);
	if (fd >= 0)
		close(fd);
	fflush(stdout);
}

static int peek(const char *path)
{
	char c;
	int fd = open(path, O_RDONLY);
	if (fd < 0)
		return -1;
	long n = read(fd, &c, 1);
	int e = errno;
	close(fd);
	errno = e;
	return n < 0 ? -1 : 0;
}

static int create(const char *path, mode_t mode)
{
	int fd = open(path, O_CREAT | O_EXCL | O_WRONLY, mode);
	if (fd >= 0)
		close(fd);
	return fd < 0 ? -1 : 0;
}

static const char *kinds[] = { "cgroup", "ipc", "mnt", "net", "pid", "user", "uts" };

/* Which of a process's namespaces are not the caller's. */
static void differ(pid_t pid)
{
	char path[64], mine[64], theirs[64];
	printf("other namespaces:");
	for (int i = 0; i < 7; i++) {
		memset(mine, 0, sizeof mine), memset(theirs, 0, sizeof theirs);
		snprintf(path, sizeof path, "/proc/self/ns/%s", kinds[i]);
		long a = readlink(path, mine, 63);
		snprintf(path, sizeof path, "/proc/%d/ns/%s", pid, kinds[i]);
		long b = readlink(path, theirs, 63);
		if (a < 0 || b < 0)
			printf(" %s(%s)", kinds[i], strerrorname_np(errno));
		else if (strcmp(mine, theirs))
			printf(" %s", kinds[i]);
	}
	printf("\n");
	fflush(stdout);
}

static int up[2], down[2];

static void ready(void)
{
	char c = 0;
	fflush(stdout);
	if (write(up[1], &c, 1) != 1 || read(down[0], &c, 1) != 1)
		_exit(9);
}

static void await(void)
{
	char c;
	if (read(up[0], &c, 1) != 1)
		printf("a child is gone\n");
}

static void go(void)
{
	char c = 0;
	if (write(down[1], &c, 1) != 1)
		printf("a child is gone\n");
}

static void end(pid_t pid)
{
	int s;
	waitpid(pid, &s, 0);
	if (s)
		printf("status %x\n", s);
	fflush(stdout);
}

/* Runs `f` in a child. */
static void in_child(const char *title, void (*f)(void))
{
	printf("-- %s\n", title);
	fflush(stdout);
	pid_t pid = fork();
	if (!pid) {
		f();
		fflush(stdout);
		_exit(0);
	}
	end(pid);
}

static void as_user(void)
{
	if (setgroups(0, NULL) || setresgid(1000, 1000, 1000) || setresuid(1000, 1000, 1000) || prctl(PR_SET_DUMPABLE, 1))
		printf("cannot be a user\n");
}

static void ids(void)
{
	uid_t r, e, s;
	gid_t a, b, c, g[8];
	getresuid(&r, &e, &s), getresgid(&a, &b, &c);
	int n = getgroups(8, g);
	printf("uid %d %d %d gid %d %d %d groups %d\n", r, e, s, a, b, c, n);
	fflush(stdout);
}

static void owner(const char *path)
{
	struct stat s;
	if (stat(path, &s))
		say(path, -1);
	else
		printf("%s: %d:%d %o\n", path, s.st_uid, s.st_gid, s.st_mode);
	fflush(stdout);
}

static long clone3_flags(uint64_t flags)
{
	uint64_t args[8] = { flags, 0, 0, 0, SIGCHLD };
	fflush(stdout);
	long pid = syscall(SYS_clone3, args, sizeof args);
	if (!pid)
		_exit(0);
	if (pid < 0)
		return -1;
	waitpid(pid, NULL, 0);
	return 0;
}

static void flags(void)
{
	T(unshare(0));
	T(unshare(1));
	T(unshare(0x1000));
	T(unshare(CLONE_PARENT));
	T(unshare(CLONE_VM));
	T(unshare(CLONE_THREAD));
	T(unshare(CLONE_FILES | CLONE_FS | CLONE_SYSVSEM));
	T(unshare(CLONE_NEWUTS));
	T(unshare(CLONE_NEWIPC));
	T(unshare(CLONE_NEWCGROUP));
	T(unshare(CLONE_NEWNS));
	differ(getppid());
	T(unshare(CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNS | CLONE_NEWCGROUP));
	T(clone3_flags(CLONE_NEWUTS));
	T(clone3_flags(CLONE_NEWIPC));
	T(clone3_flags(CLONE_NEWIPC | CLONE_SYSVSEM));
	T(clone3_flags(CLONE_NEWNS));
	T(clone3_flags(CLONE_NEWNS | CLONE_FS));
	T(clone3_flags(CLONE_NEWUSER));
	T(clone3_flags(CLONE_NEWUSER | CLONE_FS));
	T(clone3_flags(CLONE_NEWUSER | CLONE_THREAD | CLONE_SIGHAND | CLONE_VM));
	T(clone3_flags(CLONE_NEWCGROUP | CLONE_NEWUTS));
}

static void children(void)
{
	struct { const char *name; int flags; } all[] = {
		{ "uts", CLONE_NEWUTS }, { "ipc", CLONE_NEWIPC }, { "mnt", CLONE_NEWNS }, { "cgroup", CLONE_NEWCGROUP },
		{ "user", CLONE_NEWUSER }, { "all", CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUSER },
	};
	for (int i = 0; i < 6; i++) {
		fflush(stdout);
		pid_t pid = syscall(SYS_clone, all[i].flags | SIGCHLD, 0, 0, 0, 0);
		if (!pid) {
			ready();
			_exit(0);
		}
		printf("clone %s: %d\n", all[i].name, pid > 0);
		if (pid < 0)
			continue;
		await();
		differ(pid);
		go();
		end(pid);
	}
}

static void host_name(void)
{
	struct utsname u;
	T(unshare(CLONE_NEWUTS));
	T(uname(&u));
	printf("%s\n", u.nodename);
	T(sethostname("inner", 5));
	T(setdomainname("domain", 6));
	uname(&u);
	printf("%s\n", u.nodename);
	show("/proc/sys/kernel/hostname");
	show("/proc/sys/kernel/domainname");
	int fd = open("/proc/1/ns/uts", O_RDONLY);
	T(setns(fd, CLONE_NEWIPC));
	T(setns(fd, 0x1));
	T(setns(fd, CLONE_NEWUTS));
	uname(&u);
	printf("%s\n", u.nodename);
	differ(1);
	T(setns(fd, 0));
	T(setns(-1, 0));
	T(setns(0, 0));
	int null = open("/dev/null", O_RDONLY);
	T(setns(null, 0));
	T(setns(null, CLONE_NEWUTS));
}

static void objects(void)
{
	struct sembuf op = { 0, 3, SEM_UNDO };
	struct mq_attr attr = { 0, 4, 16 };
	int sem = semget(77, 1, IPC_CREAT | 0600), shm = shmget(77, 4096, IPC_CREAT | 0600), msg = msgget(77, IPC_CREAT | 0600);
	int mq = syscall(SYS_mq_open, "own", O_CREAT | O_RDWR, 0600, &attr);
	char *at = shmat(shm, NULL, 0);
	at[0] = 'x';
	T(semop(sem, &op, 1));
	T(semctl(sem, 0, GETVAL));
	int fd = open("/proc/self/ns/ipc", O_RDONLY);
	T(unshare(CLONE_NEWIPC));
	T(semget(77, 1, 0));
	T(shmget(77, 4096, 0));
	T(msgget(77, 0));
	T(semctl(sem, 0, GETVAL));
	T(syscall(SYS_mq_open, "own", O_RDWR, 0600, 0));
	OK(syscall(SYS_mq_getsetattr, mq, 0, &attr));
	printf("%c\n", at[0]);
	OK(semget(77, 1, IPC_CREAT | IPC_EXCL | 0600));
	T(setns(fd, 0));
	OK(semget(77, 1, 0));
	T(semctl(sem, 0, GETVAL));
	T(semctl(sem, 0, IPC_RMID));
	T(msgctl(msg, IPC_RMID, NULL));
	T(shmdt(at));
	T(shmctl(shm, IPC_RMID, NULL));
	T(syscall(SYS_mq_unlink, "own"));
}

static void mounts(void)
{
	mkdir("/tmp/m", 0755);
	mkdir("/tmp/n", 0755);
	T(mount("one", "/tmp/m", "tmpfs", 0, NULL));
	int before = open("/tmp", O_RDONLY | O_DIRECTORY), outer = open("/proc/self/ns/mnt", O_RDONLY);
	T(unshare(CLONE_NEWNS));
	T(mount("two", "/tmp/n", "tmpfs", 0, NULL));
	T(create("/tmp/n/inner", 0644));
	T(faccessat(before, "n/inner", F_OK, 0));
	T(umount("/tmp/m"));
	T(mkdirat(before, "m/still", 0755));
	char path[64];
	snprintf(path, sizeof path, "/proc/self/fd/%d/n", before);
	T(mount("three", path, "tmpfs", 0, NULL));
	T(fchdir(before));
	T(chroot("."));
	T(mount("three", "/n", "tmpfs", 0, NULL));
	T(umount("/m"));
	T(setns(outer, CLONE_NEWNS));
	T(access("/tmp/m/still", F_OK));
	T(access("/tmp/n/inner", F_OK));
	T(umount("/tmp/m"));
	/* What is a mount point elsewhere only can be removed and renamed. */
	pid_t pid = fork();
	if (!pid) {
		T(unshare(CLONE_NEWNS));
		T(mount("four", "/tmp/m", "tmpfs", 0, NULL));
		T(mount("four", "/tmp/n", "tmpfs", 0, NULL));
		T(rmdir("/tmp/m"));
		ready();
		_exit(0);
	}
	await();
	T(rename("/tmp/n", "/tmp/renamed"));
	T(rmdir("/tmp/m"));
	T(rmdir("/tmp/renamed"));
	go();
	end(pid);
}

static void bound(void)
{
	struct utsname u;
	T(create("/tmp/uts", 0644));
	T(mount("/proc/self/ns/uts", "/tmp/uts", NULL, MS_BIND, NULL));
	T(mount("/proc/self/ns/mnt", "/tmp/uts", NULL, MS_BIND, NULL));
	T(unshare(CLONE_NEWUTS));
	T(sethostname("bound", 5));
	int fd = open("/tmp/uts", O_RDONLY);
	T(setns(fd, CLONE_NEWUTS));
	uname(&u);
	printf("%s\n", u.nodename);
	close(fd);
	T(umount("/tmp/uts"));
	T(unlink("/tmp/uts"));
}

static void questions(void)
{
	uid_t uid;
	const char *paths[] = { "uts", "ipc", "mnt", "cgroup", "user" };
	for (int i = 0; i < 5; i++) {
		char path[64];
		snprintf(path, sizeof path, "/proc/self/ns/%s", paths[i]);
		int fd = open(path, O_RDONLY);
		printf("%s\n", paths[i]);
		printf("%x\n", ioctl(fd, NS_GET_NSTYPE));
		T(ioctl(fd, NS_GET_OWNER_UID, &uid));
		T(ioctl(fd, 0xb7ff));
		T(read(fd, path, 1));
		T(write(fd, path, 1));
		close(fd);
	}
	T(unshare(CLONE_NEWUSER));
	int fd = open("/proc/self/ns/user", O_RDONLY);
	T(ioctl(fd, NS_GET_OWNER_UID, &uid));
	printf("%d\n", uid);
	T(ioctl(fd, NS_GET_USERNS));
	T(ioctl(fd, NS_GET_PARENT));
	T(setns(fd, 0));
	T(setns(open("/proc/1/ns/user", O_RDONLY), 0));
}

static void maps(void)
{
	ids();
	T(unshare(CLONE_NEWUSER));
	ids();
	show("/proc/self/uid_map");
	show("/proc/self/gid_map");
	show("/proc/self/setgroups");
	T(setuid(0));
	T(setgroups(0, NULL));
	T(put("/proc/self/uid_map", ""));
	T(put("/proc/self/uid_map", "\n"));
	T(put("/proc/self/uid_map", "0 1000"));
	T(put("/proc/self/uid_map", "0 1000 0"));
	T(put("/proc/self/uid_map", "0 1000 1 1"));
	T(put("/proc/self/uid_map", "0 1000 x"));
	T(put("/proc/self/uid_map", "0 4294967295 1"));
	T(put("/proc/self/uid_map", "0 1000 4294967295"));
	T(put("/proc/self/uid_map", "0 1000 1\n0 1001 1"));
	T(put("/proc/self/uid_map", "0 1000 1\n1 1000 1"));
	T(put("/proc/self/uid_map", "0 1000 1\n\n"));
	T(put("/proc/self/uid_map", "0 0 1"));
	T(put("/proc/self/uid_map", "0 1001 1"));
	T(put("/proc/self/uid_map", "0 1000 2"));
	T(put("/proc/self/uid_map", "0 1000 1\n1 1001 1"));
	T(put("/proc/self/gid_map", "0 1000 1"));
	T(put("/proc/self/setgroups", "what"));
	T(put("/proc/self/setgroups", "allow"));
	T(put("/proc/self/setgroups", "deny"));
	T(put("/proc/self/setgroups", "allow"));
	T(put("/proc/self/gid_map", "0 0 1"));
	T(put("/proc/self/gid_map", "0 1000 1\n"));
	T(put("/proc/self/gid_map", "0 1000 1\n"));
	T(put("/proc/self/setgroups", "deny"));
	T(put("/proc/self/uid_map", "0 1000 1\n"));
	T(put("/proc/self/uid_map", "0 1000 1\n"));
	show("/proc/self/uid_map");
	show("/proc/self/gid_map");
	show("/proc/self/setgroups");
	ids();
	T(setgroups(0, NULL));
	T(setuid(1));
	T(setuid(1000));
	T(setresuid(-1, 0, -1));
	T(setgid(5));
	T(setfsuid(7));
	owner("/proc/self/status");
	owner("/");
	owner("/proc/1");
}

/* A user as root of namespaces of their own: what belongs to the container stays out of reach. */
static void powers(void)
{
	struct rlimit limit = { 5000, 5000 };
	T(unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC));
	T(put("/proc/self/setgroups", "deny"));
	T(put("/proc/self/uid_map", "0 1000 1\n"));
	T(put("/proc/self/gid_map", "0 1000 1\n"));
	ids();
	T(sethostname("mine", 4));
	T(mount("proc", "/tmp/u", "proc", 0, NULL));
	T(mount("sysfs", "/tmp/u", "sysfs", 0, NULL));
	T(mount("mq", "/tmp/u", "mqueue", 0, NULL));
	T(umount("/tmp/u"));
	T(umount("/proc/sys"));
	T(umount2("/proc", MNT_DETACH));
	T(umount2("/tmp", MNT_DETACH));
	T(mount(NULL, "/", NULL, MS_REMOUNT, NULL));
	T(mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND, NULL));
	T(mount(NULL, "/tmp", NULL, MS_REMOUNT, "size=1m"));
	T(mount(NULL, "/tmp", NULL, MS_REMOUNT | MS_BIND | MS_NOSUID | MS_NODEV, NULL));
	T(mount(NULL, "/tmp", NULL, MS_REMOUNT | MS_BIND | MS_NOSUID, NULL));
	T(mount(NULL, "/proc/sys", NULL, MS_REMOUNT | MS_BIND, NULL));
	T(mount("/proc/sys", "/tmp/u", NULL, MS_MOVE, NULL));
	T(mount("/proc", "/tmp/u", NULL, MS_BIND, NULL));
	T(mount("/proc", "/tmp/u", NULL, MS_BIND | MS_REC, NULL));
	T(umount("/tmp/u/sys"));
	T(umount2("/tmp/u", MNT_DETACH));
	/* What is covered stays covered. */
	T(umount("/tmp/cover/secret"));
	T(mount("/tmp/cover", "/tmp/u", NULL, MS_BIND, NULL));
	T(mount("/tmp/cover", "/tmp/u", NULL, MS_BIND | MS_REC, NULL));
	int under = open("/tmp/u", O_RDONLY | O_DIRECTORY);
	T(umount("/tmp/u/secret"));
	T(umount2("/tmp/u", MNT_DETACH));
	T(faccessat(under, "secret", F_OK, 0));
	T(faccessat(under, "secret/file", F_OK, 0));
	T(faccessat(under, "secret/empty", F_OK, 0));
	close(under);
	T(mount("own", "/tmp/u", "tmpfs", 0, "mode=755"));
	owner("/tmp/u");
	T(create("/tmp/u/f", 0755));
	owner("/tmp/u/f");
	T(chown("/tmp/u/f", 1, 0));
	T(chown("/tmp/u/f", 0, 0));
	T(chmod("/tmp/u/f", 06755));
	T(mknod("/tmp/u/null", S_IFCHR | 0666, makedev(1, 3)));
	T(mount(NULL, "/tmp/u", NULL, MS_REMOUNT | MS_RDONLY, NULL));
	T(mount(NULL, "/tmp/u", NULL, MS_REMOUNT, "size=2m"));
	T(umount("/tmp/u"));
	T(mount("pts", "/tmp/u", "devpts", 0, "newinstance"));
	T(umount("/tmp/u"));
	/* Files of others. */
	owner("/tmp/roots");
	T(chmod("/tmp/roots", 0777));
	T(chown("/tmp/roots", 0, 0));
	T(open("/tmp/roots", O_RDONLY));
	T(unlink("/tmp/roots"));
	T(rename("/tmp/roots", "/tmp/u/roots"));
	T(setxattr("/tmp/roots", "trusted.x", "", 0, 0));
	owner("/tmp/users");
	OK(open("/tmp/users", O_RDWR));
	T(chmod("/tmp/users", 0640));
	T(setxattr("/tmp/users", "trusted.x", "", 0, 0));
	/* The bits go when somebody without rights over the container writes. */
	T(put("/tmp/suid", "x"));
	owner("/tmp/suid");
	/* Processes of others. */
	T(kill(1, 0));
	T(kill(getppid(), 0));
	T(setpriority(PRIO_PROCESS, 1, 5));
	T(setpriority(PRIO_PROCESS, 0, -5));
	T(prlimit(1, RLIMIT_NOFILE, &limit, NULL));
	T(setrlimit(RLIMIT_NOFILE, &limit));
	T(ptrace(PTRACE_ATTACH, 1, 0, 0));
	OK(open("/proc/1/root/tmp", O_RDONLY));
	T(peek("/proc/1/environ"));
	T(socket(AF_INET, SOCK_RAW, 1));
	T(chroot("/tmp"));
	T(unshare(CLONE_NEWUSER));
}

/* Who made a user namespace rules it; who is in it does not rule its maker, though both are the same user. */
static void relatives(void)
{
	fflush(stdout);
	pid_t outer = getpid();
	pid_t pid = fork();
	if (!pid) {
		T(unshare(CLONE_NEWUSER | CLONE_NEWUTS));
		T(kill(outer, 0));
		char path[64];
		snprintf(path, sizeof path, "/proc/%d/environ", outer);
		T(peek(path));
		snprintf(path, sizeof path, "/proc/%d/ns/uts", outer);
		OK(open(path, O_RDONLY));
		T(ptrace(PTRACE_ATTACH, outer, 0, 0));
		ready();
		ids();
		_exit(0);
	}
	await();
	char path[64];
	differ(pid);
	snprintf(path, sizeof path, "/proc/%d/environ", pid);
	T(peek(path));
	snprintf(path, sizeof path, "/proc/%d/ns/uts", pid);
	int uts = open(path, O_RDONLY);
	snprintf(path, sizeof path, "/proc/%d/ns/user", pid);
	int user = open(path, O_RDONLY);
	snprintf(path, sizeof path, "/proc/%d/uid_map", pid);
	T(put(path, "0 1001 1"));
	T(put(path, "5 1000 1"));
	show("/proc/self/uid_map");
	T(setns(uts, 0));
	T(setns(user, 0));
	T(setns(uts, 0));
	T(sethostname("theirs", 6));
	ids();
	T(setns(user, 0));
	go();
	end(pid);
}

/* Mounts made later come from the container, and have no fewer limits for it. */
static void spread(void)
{
	mkdir("/tmp/s", 0755);
	T(mount("s", "/tmp/s", "tmpfs", 0, "mode=755"));
	T(mount(NULL, "/tmp/s", NULL, MS_SHARED, NULL));
	T(mkdir("/tmp/s/x", 0755));
	fflush(stdout);
	pid_t pid = fork();
	if (!pid) {
		as_user();
		T(unshare(CLONE_NEWUSER | CLONE_NEWNS));
		ready();
		T(access("/tmp/s/x/from", F_OK));
		T(mount(NULL, "/tmp/s/x", NULL, MS_REMOUNT | MS_BIND, NULL));
		T(mount(NULL, "/tmp/s/x", NULL, MS_REMOUNT | MS_BIND | MS_NOSUID | MS_NODEV, NULL));
		T(mount("mine", "/tmp/s/x/y", "tmpfs", 0, NULL));
		ready();
		T(access("/tmp/s/x", F_OK));
		T(umount("/tmp/s/x/y"));
		_exit(0);
	}
	await();
	T(mount("later", "/tmp/s/x", "tmpfs", MS_NOSUID, "mode=755"));
	T(mkdir("/tmp/s/x/y", 0755));
	T(create("/tmp/s/x/from", 0644));
	go();
	await();
	T(umount("/tmp/s/x/y"));
	T(umount("/tmp/s/x"));
	go();
	end(pid);
	T(umount("/tmp/s"));
}

static void over_pidfd(void)
{
	fflush(stdout);
	pid_t pid = fork();
	if (!pid) {
		T(unshare(CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNS));
		ready();
		_exit(0);
	}
	await();
	int fd = syscall(SYS_pidfd_open, pid, 0);
	differ(pid);
	T(setns(fd, 0));
	T(setns(fd, 1));
	T(setns(fd, CLONE_NEWUSER));
	T(setns(fd, CLONE_NEWUTS | CLONE_NEWIPC));
	differ(pid);
	T(setns(fd, CLONE_NEWUTS | CLONE_NEWNS));
	differ(pid);
	go();
	end(pid);
}

static void unprivileged(void)
{
	T(unshare(CLONE_NEWUTS));
	T(unshare(CLONE_NEWIPC));
	T(unshare(CLONE_NEWNS));
	T(unshare(CLONE_NEWCGROUP));
	T(unshare(CLONE_NEWPID));
	T(unshare(CLONE_NEWNET));
	T(clone3_flags(CLONE_NEWUTS));
	T(clone3_flags(CLONE_NEWNS));
	T(setns(open("/proc/self/ns/uts", O_RDONLY), 0));
	T(setns(open("/proc/self/ns/mnt", O_RDONLY), 0));
	T(open("/proc/1/ns/uts", O_RDONLY));
	T(sethostname("x", 1));
	T(unshare(CLONE_NEWUSER));
}

static void credentials(void)
{
	int s[2], on = 1;
	struct ucred cred = { getpid(), 0, 0 }, got;
	char data = 'x', control[CMSG_SPACE(sizeof cred)];
	struct iovec v = { &data, 1 };
	T(unshare(CLONE_NEWUSER));
	T(put("/proc/self/setgroups", "deny"));
	T(put("/proc/self/uid_map", "0 1000 1\n"));
	T(put("/proc/self/gid_map", "0 1000 1\n"));
	socketpair(AF_UNIX, SOCK_DGRAM, 0, s);
	setsockopt(s[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof on);
	for (int uid = 0; uid < 2; uid++) {
		struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
		struct cmsghdr *c = CMSG_FIRSTHDR(&m);
		c->cmsg_level = SOL_SOCKET, c->cmsg_type = SCM_CREDENTIALS, c->cmsg_len = CMSG_LEN(sizeof cred);
		cred.uid = uid;
		memcpy(CMSG_DATA(c), &cred, sizeof cred);
		T(sendmsg(s[0], &m, 0));
	}
	struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
	T(recvmsg(s[1], &m, 0));
	memcpy(&got, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof got);
	printf("%d %d\n", got.uid, got.gid);
	socklen_t n = sizeof got;
	T(getsockopt(s[0], SOL_SOCKET, SO_PEERCRED, &got, &n));
	printf("%d %d\n", got.uid, got.gid);
}

static void deep(void)
{
	int n = 0;
	while (n < 40 && !unshare(CLONE_NEWUSER)) {
		if (put("/proc/self/setgroups", "deny") || put("/proc/self/uid_map", n ? "0 0 1" : "0 1000 1") ||
		    put("/proc/self/gid_map", n ? "0 0 1" : "0 1000 1"))
			break;
		n++;
	}
	printf("%s after more than 20: %d\n", strerrorname_np(errno), n > 20);
}

/* Set-user-ID counts for users of the namespace, from its own mounts. */
static void ran(const char *path)
{
	fflush(stdout);
	pid_t pid = fork();
	if (!pid) {
		execl(path, "namespaces", "ids", NULL);
		say("exec", -1);
		_exit(0);
	}
	end(pid);
}

static void copy(const char *path, mode_t mode)
{
	char b[65536];
	long n;
	int from = open("/proc/self/exe", O_RDONLY), to = open(path, O_CREAT | O_WRONLY, 0755);
	while ((n = read(from, b, sizeof b)) > 0)
		if (write(to, b, n) != n)
			break;
	close(from);
	T(fchmod(to, mode));
	close(to);
}

static void set_user_id(void)
{
	T(mount("suid", "/tmp/x", "tmpfs", 0, "mode=777"));
	copy("/tmp/x/roots", 06755);
	pid_t pid = fork();
	if (!pid) {
		as_user();
		ran("/tmp/x/roots");
		T(unshare(CLONE_NEWUSER | CLONE_NEWNS));
		T(put("/proc/self/setgroups", "deny"));
		T(put("/proc/self/uid_map", "0 1000 1\n"));
		T(put("/proc/self/gid_map", "0 1000 1\n"));
		ran("/tmp/x/roots");
		T(mount("own", "/tmp/u", "tmpfs", 0, "mode=755"));
		copy("/tmp/u/own", 06755);
		ready();
		_exit(0);
	}
	await();
	char path[64];
	snprintf(path, sizeof path, "/proc/%d/root/tmp/u/own", pid);
	pid_t other = fork();
	if (!other) {
		if (setresgid(1001, 1001, 1001) || setresuid(1001, 1001, 1001))
			_exit(1);
		T(access(path, X_OK));
		_exit(0);
	}
	end(other);
	ran(path);
	go();
	end(pid);
	T(umount("/tmp/x"));
}

/* With a range of users: they are all its root's. */
static void ranges(void)
{
	pid_t pid = fork();
	if (!pid) {
		T(unshare(CLONE_NEWUSER | CLONE_NEWNS));
		ready();
		ids();
		T(setgroups(0, NULL));
		T(setresgid(7, 7, 7));
		T(setresuid(7, 7, 7));
		ids();
		T(setuid(0));
		T(mount("own", "/tmp/u", "tmpfs", 0, NULL));
		_exit(0);
	}
	await();
	char path[64];
	snprintf(path, sizeof path, "/proc/%d/uid_map", pid);
	T(put(path, "0 0 5\n5 2000 5\n10 9 3"));
	T(put(path, "0 0 5\n5 2000 5\n10 9 3"));
	show("/proc/self/uid_map");
	snprintf(path, sizeof path, "/proc/%d/gid_map", pid);
	T(put(path, "0 0 10"));
	go();
	end(pid);
}

static void user_maps(void) { as_user(); maps(); }
static void user_powers(void) { as_user(); powers(); }
static void user_relatives(void) { as_user(); relatives(); }
static void user_alone(void) { as_user(); unprivileged(); }
static void user_credentials(void) { as_user(); credentials(); }
static void user_deep(void) { as_user(); deep(); }

int main(int argc, char **argv)
{
	if (argc > 1) {
		ids();
		return 0;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (pipe(up) || pipe(down))
		return 1;
	T(chmod("/tmp", 01777));
	mkdir("/tmp/u", 0777);
	create("/tmp/roots", 0600);
	create("/tmp/users", 0600);
	T(chown("/tmp/users", 1000, 1000));
	create("/tmp/suid", 0777);
	T(chmod("/tmp/suid", 06777));
	mkdir("/tmp/x", 0777);
	mkdir("/tmp/cover", 0755);
	T(mount("cover", "/tmp/cover", "tmpfs", 0, "mode=755"));
	T(mkdir("/tmp/cover/secret", 0755));
	T(create("/tmp/cover/secret/file", 0644));
	T(mount("over", "/tmp/cover/secret", "tmpfs", 0, "mode=755"));
	T(create("/tmp/cover/secret/empty", 0644));
	in_child("flags", flags);
	in_child("clone", children);
	in_child("host name", host_name);
	in_child("IPC objects", objects);
	in_child("mounts", mounts);
	in_child("bound", bound);
	in_child("ioctl", questions);
	in_child("pidfd", over_pidfd);
	in_child("spread", spread);
	in_child("set-user-ID", set_user_id);
	in_child("ranges", ranges);
	in_child("a user's maps", user_maps);
	in_child("a user's powers", user_powers);
	in_child("relatives", user_relatives);
	in_child("a user", user_alone);
	in_child("credentials", user_credentials);
	in_child("nested", user_deep);
	return 0;
}
