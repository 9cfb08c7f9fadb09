/* Mounting from inside the container: every line is the same as under runc with the same capability. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
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

static int put(const char *path)
{
	int fd = open(path, O_CREAT | O_WRONLY, 0644);
	if (fd >= 0)
		close(fd);
	return fd < 0 ? -1 : 0;
}

static int seen[64], count;

/* Numbers of peer groups differ: they are told in the order they turn up. */
static int renumber(int n)
{
	for (int i = 0; i < count; i++)
		if (seen[i] == n)
			return i + 1;
	seen[count++] = n;
	return count;
}

static void info(const char *title)
{
	char line[4096];
	FILE *f = fopen("/proc/self/mountinfo", "r");
	printf("-- %s\n", title);
	count = 0;
	while (fgets(line, sizeof line, f)) {
		char *field = strtok(line, " \n"), *root, *point, *flags, *type;
		for (int i = 0; i < 3; i++)
			field = strtok(NULL, " \n");
		root = field, point = strtok(NULL, " \n"), flags = strtok(NULL, " \n");
		if (strncmp(point, "/tmp/", 5))
			continue;
		printf("%s %s %s", root, point, flags);
		while ((field = strtok(NULL, " \n")) && strcmp(field, "-")) {
			char *colon = strchr(field, ':');
			if (!colon)
				printf(" %s", field);
			else
				printf(" %.*s:%d", (int)(colon - field), field, renumber(atoi(colon + 1)));
		}
		type = strtok(NULL, " \n"), strtok(NULL, " \n");
		printf(" %s %.2s\n", type, strtok(NULL, " \n"));
	}
	fclose(f);
	fflush(stdout);
}

static void arguments(void)
{
	T(mount("none", "/tmp/missing", "tmpfs", 0, ""));
	T(mount("none", "/tmp/a", "nosuchfs", 0, ""));
	T(mount("none", "/tmp/a", NULL, 0, ""));
	T(mount("none", "/tmp/a", "tmpfs", 0, "nosuchoption=1"));
	T(mount("none", "/tmp/a", "tmpfs", 0, "size=nonsense"));
	T(mount("none", "/tmp/file", "tmpfs", 0, ""));
	T(mount((void *)8, "/tmp/a", "tmpfs", 0, ""));
	T(mount("none", (void *)8, "tmpfs", 0, ""));
	T(mount("none", "/tmp/a", (void *)8, 0, ""));
	T(mount("none", "/tmp/a", "tmpfs", 0, (void *)8));
	T(mount(NULL, "/tmp/a", NULL, MS_BIND, NULL));
	T(mount("", "/tmp/a", NULL, MS_BIND, NULL));
	T(mount("/tmp/missing", "/tmp/a", NULL, MS_BIND, NULL));
	T(mount("/tmp/file", "/tmp/a", NULL, MS_BIND, NULL));
	T(mount("/tmp/a", "/tmp/file", NULL, MS_BIND, NULL));
	T(mount("/tmp/a", "/tmp/b", NULL, MS_MOVE, NULL));
	T(mount(NULL, "/tmp/a", NULL, MS_REMOUNT, NULL));
	T(mount(NULL, "/tmp/a", NULL, MS_REMOUNT | MS_BIND, NULL));
	T(mount(NULL, "/tmp/a", NULL, MS_SHARED, NULL));
	T(mount(NULL, "/tmp", NULL, MS_SHARED | MS_PRIVATE, NULL));
	T(mount(NULL, "/tmp", NULL, MS_SLAVE | MS_NOSUID, NULL));
	T(umount2("/tmp/a", 0));
	T(umount2("/tmp/missing", 0));
	T(umount2("/tmp/a", 0x40));
	T(umount2("/tmp", MNT_EXPIRE | MNT_FORCE));
	T(umount2("/tmp", MNT_EXPIRE | MNT_DETACH));
	T(umount2((void *)8, 0));
	T(umount2("", 0));
}

static void life(void)
{
	struct statfs s;
	T(mount("mine", "/tmp/a", "tmpfs", MS_NOSUID | MS_NODEV, "size=64k,mode=700"));
	T(put("/tmp/a/f"));
	T(statfs("/tmp/a", &s));
	printf("blocks %ld\n", (long)s.f_blocks);
	info("tmpfs");
	T(mount("mine", "/tmp/a", "tmpfs", 0, "mode=711"));
	T(access("/tmp/a/f", F_OK));
	T(umount2("/tmp/a", 0));
	T(access("/tmp/a/f", F_OK));
	T(mount(NULL, "/tmp/a", NULL, MS_REMOUNT, "size=128k"));
	T(statfs("/tmp/a", &s));
	printf("blocks %ld\n", (long)s.f_blocks);
	T(mount(NULL, "/tmp/a", NULL, MS_REMOUNT, "size=nonsense"));
	info("remounted without flags");
	T(mount(NULL, "/tmp/a", NULL, MS_REMOUNT | MS_RDONLY, NULL));
	info("remounted read-only");
	T(put("/tmp/a/g"));
	T(mount("/tmp/a", "/tmp/b", NULL, MS_BIND, NULL));
	T(mount(NULL, "/tmp/a", NULL, MS_REMOUNT | MS_BIND, NULL));
	info("only the super block is read-only");
	T(put("/tmp/a/g"));
	T(mount(NULL, "/tmp/a", NULL, MS_REMOUNT, NULL));
	T(put("/tmp/a/g"));
	T(put("/tmp/b/g"));
	T(mount(NULL, "/tmp/a", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOEXEC | MS_NOATIME, NULL));
	T(put("/tmp/a/h"));
	T(umount2("/tmp/b", 0));
	info("bind remounted");
	T(mount(NULL, "/tmp/a", NULL, MS_REMOUNT | MS_BIND | MS_NOSYMFOLLOW, NULL));
	T(symlink("f", "/tmp/a/link"));
	T(open("/tmp/a/link", O_RDONLY));
	info("the times' flags stay");

	int fd = open("/tmp/a/f", O_RDONLY);
	T(umount2("/tmp/a", 0));
	T(umount2("/tmp/a", MNT_EXPIRE));
	close(fd);
	T(umount2("/tmp/a", MNT_EXPIRE));
	T(umount2("/tmp/a", MNT_EXPIRE));
	T(umount2("/tmp/a", MNT_EXPIRE));

	T(mount("mine", "/tmp/a", "tmpfs", 0, ""));
	T(mkdir("/tmp/a/deep", 0755));
	T(mount("mine", "/tmp/a/deep", "tmpfs", 0, ""));
	T(put("/tmp/a/deep/f"));
	T(umount2("/tmp/a", 0));
	T(chdir("/tmp/a/deep"));
	T(umount2("/tmp/a", MNT_DETACH));
	T(access("/tmp/a/deep", F_OK));
	T(access("f", F_OK));
	T(umount2(".", MNT_DETACH));
	T(chdir("/tmp"));
	T(symlink("/tmp/a", "/tmp/link"));
	T(mount("mine", "/tmp/link", "tmpfs", 0, ""));
	info("through a link");
	T(umount2("/tmp/link", UMOUNT_NOFOLLOW));
	T(umount2("/tmp/link", 0));
	T(unlink("/tmp/link"));
	T(rmdir("/tmp/a/missing"));
	T(mount("mine", "/tmp/a", "tmpfs", 0, ""));
	T(rmdir("/tmp/a"));
	T(rename("/tmp/a", "/tmp/other"));
	T(umount2("/tmp/a", 0));
}

static void binds(void)
{
	T(mkdir("/tmp/a/one", 0755));
	T(put("/tmp/a/one/f"));
	T(mkdir("/tmp/a/two", 0755));
	T(mount("inner", "/tmp/a/two", "tmpfs", MS_NOEXEC, "mode=755"));
	T(put("/tmp/a/two/g"));
	T(mount("/tmp/a", "/tmp/b", NULL, MS_BIND | MS_NOSUID | MS_RDONLY, NULL));
	T(access("/tmp/b/one/f", F_OK));
	T(access("/tmp/b/two/g", F_OK));
	info("bind");
	T(umount2("/tmp/b", 0));
	T(mount("/tmp/a", "/tmp/b", NULL, MS_BIND | MS_REC, NULL));
	T(access("/tmp/b/two/g", F_OK));
	info("rbind");
	T(umount2("/tmp/b", 0));
	T(umount2("/tmp/b/two", 0));
	T(umount2("/tmp/b", 0));
	T(mount("/tmp/a/one", "/tmp/b", NULL, MS_BIND | MS_REC, NULL));
	info("a subdirectory");
	T(umount2("/tmp/b", 0));
	T(mount("/tmp/a", "/tmp/a/two", NULL, MS_BIND | MS_REC, NULL));
	info("into itself");
	T(umount2("/tmp/a/two", MNT_DETACH));
	T(mount("/tmp/a/one/f", "/tmp/file", NULL, MS_BIND, NULL));
	info("a file");
	T(unlink("/tmp/file"));
	T(umount2("/tmp/file", 0));

	T(mount("/tmp/a/two", "/tmp/b", NULL, MS_MOVE, NULL));
	info("moved");
	T(access("/tmp/b/g", F_OK));
	T(access("/tmp/a/two/g", F_OK));
	T(mkdir("/tmp/b/in", 0755));
	T(mount("/tmp/b", "/tmp/b/in", NULL, MS_MOVE, NULL));
	T(mount("/tmp/b", "/tmp/file", NULL, MS_MOVE, NULL));
	T(mount("/", "/tmp/b/in", NULL, MS_MOVE, NULL));
	T(umount2("/tmp/b", 0));
}

static void propagation(void)
{
	T(mount("base", "/tmp/a", "tmpfs", 0, "mode=755"));
	T(mkdir("/tmp/a/m", 0755));
	T(mount(NULL, "/tmp/a", NULL, MS_SHARED, NULL));
	T(mount("/tmp/a", "/tmp/b", NULL, MS_BIND, NULL));
	T(mount("/tmp/a", "/tmp/c", NULL, MS_BIND, NULL));
	T(mount(NULL, "/tmp/c", NULL, MS_SLAVE, NULL));
	T(mount("/tmp/a", "/tmp/d", NULL, MS_BIND, NULL));
	T(mount(NULL, "/tmp/d", NULL, MS_PRIVATE, NULL));
	info("shared, peer, slave, private");
	T(mount("new", "/tmp/a/m", "tmpfs", 0, ""));
	T(put("/tmp/a/m/f"));
	T(access("/tmp/b/m/f", F_OK));
	T(access("/tmp/c/m/f", F_OK));
	T(access("/tmp/d/m/f", F_OK));
	info("a mount spread");
	T(mount("/tmp/a/m", "/tmp/e", NULL, MS_MOVE, NULL));
	T(umount2("/tmp/b/m", 0));
	info("and went");
	T(mount("new", "/tmp/c/m", "tmpfs", 0, ""));
	T(access("/tmp/a/m/f", F_OK));
	info("a slave keeps its own");
	T(umount2("/tmp/c/m", 0));
	T(mount(NULL, "/tmp/c", NULL, MS_SHARED, NULL));
	info("slave and shared");
	T(mount("/tmp/c", "/tmp/e", NULL, MS_BIND, NULL));
	T(mount("new", "/tmp/a/m", "tmpfs", 0, ""));
	info("to a slave's peers");
	T(umount2("/tmp/a/m", 0));
	T(umount2("/tmp/e", 0));
	T(mount(NULL, "/tmp/b", NULL, MS_UNBINDABLE, NULL));
	T(mount("/tmp/b", "/tmp/e", NULL, MS_BIND, NULL));
	info("unbindable");
	T(mount(NULL, "/tmp/a", NULL, MS_PRIVATE, NULL));
	info("the last peer left");
	T(mount("new", "/tmp/a/m", "tmpfs", 0, ""));
	T(access("/tmp/c/m/f", F_OK));
	T(umount2("/tmp/a/m", 0));
	T(umount2("/tmp/d", 0));
	T(umount2("/tmp/c", 0));
	T(umount2("/tmp/b", 0));
	T(umount2("/tmp/a", 0));
}

static void others(void)
{
	T(mount("proc", "/tmp/a", "proc", MS_NOSUID | MS_NOEXEC | MS_NODEV, NULL));
	T(access("/tmp/a/self/status", R_OK));
	T(umount2("/tmp/a", 0));
	T(mount("sysfs", "/tmp/a", "sysfs", MS_RDONLY, NULL));
	T(access("/tmp/a/devices/system/cpu", R_OK));
	T(umount2("/tmp/a", 0));
	T(mount("devpts", "/tmp/a", "devpts", 0, "newinstance,ptmxmode=0666"));
	T(access("/tmp/a/ptmx", R_OK));
	T(umount2("/tmp/a", 0));
	T(mount("mqueue", "/tmp/a", "mqueue", 0, NULL));
	T(umount2("/tmp/a", 0));
}

static void roots(void)
{
	char cwd[256];
	T(syscall(SYS_pivot_root, "/tmp/a", "/tmp/a"));
	T(syscall(SYS_pivot_root, "/tmp/missing", "/tmp/a"));
	T(syscall(SYS_pivot_root, "/tmp/file", "/tmp/a"));
	T(mount("new", "/tmp/a", "tmpfs", 0, "mode=755"));
	T(mkdir("/tmp/a/old", 0755));
	T(mkdir("/tmp/a/sub", 0755));
	T(syscall(SYS_pivot_root, "/tmp/a", "/tmp/b"));
	T(syscall(SYS_pivot_root, "/tmp/a/sub", "/tmp/a/old"));
	T(syscall(SYS_pivot_root, "/", "/tmp/a/old"));
	T(syscall(SYS_pivot_root, "/tmp/a", "/tmp/a/old"));
	T(access("/old/tmp/file", F_OK));
	T(access("/sub", F_OK));
	printf("%s\n", getcwd(cwd, sizeof cwd));
	T(chdir("/old"));
	T(mount("new", "/sub", "tmpfs", 0, "mode=755"));
	T(chdir("/sub"));
	T(syscall(SYS_pivot_root, ".", "."));
	printf("%s\n", getcwd(cwd, sizeof cwd));
	T(umount2(".", MNT_DETACH));
	T(access("/sub", F_OK));
	printf("%s\n", getcwd(cwd, sizeof cwd));
}

static void unprivileged(void)
{
	fflush(stdout);
	if (!fork()) {
		T(setuid(1000));
		T(mount("new", "/tmp/a", "tmpfs", 0, ""));
		T(mount("new", "/tmp/missing", "tmpfs", 0, ""));
		T(mount("/tmp", "/tmp/a", NULL, MS_BIND, NULL));
		T(mount(NULL, "/tmp", NULL, MS_PRIVATE, NULL));
		T(umount2("/tmp", 0));
		T(umount2("/tmp/a", 0));
		T(umount2("/tmp/missing", 0));
		T(umount2("/tmp", 0x40));
		T(syscall(SYS_pivot_root, "/tmp/a", "/tmp/a"));
		T(chroot("/tmp"));
		_exit(0);
	}
	wait(NULL);
}

int main(void)
{
	const char *dirs[] = { "/tmp/a", "/tmp/b", "/tmp/c", "/tmp/d", "/tmp/e" };
	for (int i = 0; i < 5; i++)
		mkdir(dirs[i], 0755);
	put("/tmp/file");
	arguments();
	life();
	binds();
	propagation();
	others();
	unprivileged();
	roots();
	return 0;
}
