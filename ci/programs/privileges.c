// Prints what programs are allowed after setuid, prctl and execve, with file capabilities; under two kernels the lines must be alike.
// Run again as "show" it says what an exec made of it.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/fsuid.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

enum { USER = 1000, RAW = CAP_NET_RAW, CHOWN = CAP_CHOWN, ADMIN = CAP_SYS_ADMIN };
#define BIT(n) (1u << (n))

static const char *title = "";

static void say(const char *what, long result) {
  if (result == -1)
    printf("%s, %s: %s\n", title, what, strerrorname_np(errno));
  else
    printf("%s, %s: %ld\n", title, what, result);
  fflush(stdout);
}

static int option(int what, unsigned long a, unsigned long b) { return prctl(what, a, b, 0, 0); }

static void show(void) {
  char line[200];
  int death = 0;
  prctl(PR_GET_PDEATHSIG, &death);
  printf("%s: uid %d %d gid %d %d secure %lu dumpable %d death signal %d securebits %d keep %d\n", title, getuid(), geteuid(), getgid(), getegid(), getauxval(AT_SECURE),
         option(PR_GET_DUMPABLE, 0, 0), death, option(PR_GET_SECUREBITS, 0, 0), option(PR_GET_KEEPCAPS, 0, 0));
  FILE *f = fopen("/proc/self/status", "r");
  while (f && fgets(line, sizeof line, f))
    if (strncmp(line, "Cap", 3) == 0) printf("%s: %s", title, line);
  struct stat s;
  if (stat("/proc/self/status", &s) == 0) printf("%s: /proc/self is of %d\n", title, s.st_uid);
  fflush(stdout);
}

static int set_caps(uint64_t effective, uint64_t permitted, uint64_t inheritable) {
  struct __user_cap_header_struct h = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct d[2] = {{(uint32_t)effective, (uint32_t)permitted, (uint32_t)inheritable},
                                        {(uint32_t)(effective >> 32), (uint32_t)(permitted >> 32), (uint32_t)(inheritable >> 32)}};
  return (int)syscall(SYS_capset, &h, d);
}

static int file_caps(const char *path, uint32_t magic, uint32_t permitted, uint32_t inheritable, int root, size_t size) {
  struct vfs_ns_cap_data c = {.magic_etc = magic, .data = {{permitted, inheritable}, {0, 0}}, .rootid = (uint32_t)root};
  return setxattr(path, "security.capability", &c, size, 0);
}

enum { V2 = VFS_CAP_REVISION_2, V3 = VFS_CAP_REVISION_3, E = VFS_CAP_FLAGS_EFFECTIVE };

static void copy(const char *to, mode_t mode) {
  char block[65536];
  int in = open("/proc/self/exe", O_RDONLY), out = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0755);
  for (ssize_t n; (n = read(in, block, sizeof block)) > 0;)
    if (write(out, block, (size_t)n) != n) exit(3);
  close(in), close(out);
  chmod(to, mode);
}

/* Runs `before` in a child and then the program at `path`. */
static void run(const char *what, const char *path, void (*before)(void)) {
  title = what;
  fflush(stdout);
  pid_t p = fork();
  if (p == 0) {
    if (before) before();
    execl(path, path, "show", what, (char *)0);
    say("exec", -1);
    _exit(1);
  }
  int status;
  waitpid(p, &status, 0);
  if (status) printf("%s: status %x\n", what, status);
  title = "";
}

static void become_user(void) {
  if (setgroups(0, 0) || setgid(USER) || setuid(USER)) say("setuid", -1);
}
static void user_dies_with(void) {
  become_user();
  prctl(PR_SET_PDEATHSIG, SIGUSR1);
}
static void user_without_new(void) {
  become_user();
  option(PR_SET_NO_NEW_PRIVS, 1, 0);
}
static void user_inherits(void) {
  option(PR_SET_KEEPCAPS, 1, 0);
  become_user();
  say("capset", set_caps(BIT(CHOWN), BIT(CHOWN) | BIT(RAW), BIT(CHOWN) | BIT(RAW)));
  show();
}
static void user_ambient(void) {
  user_inherits();
  say("raise", option(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CHOWN));
  say("raise another", option(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, ADMIN));
}
static void user_bounded(void) {
  option(PR_CAPBSET_DROP, RAW, 0);
  become_user();
}
static void root_without_root(void) { say("securebits", option(PR_SET_SECUREBITS, SECBIT_NOROOT, 0)); }
static void root_keeps(void) {
  say("securebits", option(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0));
  become_user();
  show();
}
static void root_with_few(void) {
  say("capset", set_caps(BIT(CHOWN), BIT(CHOWN), 0));
  prctl(PR_SET_PDEATHSIG, SIGUSR1);
}

static void at(const char *directory) {
  char path[200], value[64];
  snprintf(path, sizeof path, "%s/program", directory);
  copy(path, 0755);
  run("plain", path, NULL);
  run("plain by a user", path, user_dies_with);
  run("plain with inheritable ones", path, user_inherits);
  run("plain with ambient ones", path, user_ambient);
  run("root but no root", path, root_without_root);
  run("no fix-up", path, root_keeps);
  run("root regains", path, root_with_few);
  say("get none", getxattr(path, "security.capability", value, sizeof value));
  say("set ep", file_caps(path, V2 | E, BIT(RAW), 0, 0, 20));
  say("get", getxattr(path, "security.capability", value, sizeof value));
  say("list", listxattr(path, value, sizeof value) > 0);
  run("ep", path, user_dies_with);
  run("ep by root", path, NULL);
  run("ep, nothing new", path, user_without_new);
  run("ep out of bounds", path, user_bounded);
  run("ep with ambient ones", path, user_ambient);
  run("ep, root but no root", path, root_without_root);
  say("set p", file_caps(path, V2, BIT(RAW), 0, 0, 20));
  run("p", path, become_user);
  run("p out of bounds", path, user_bounded);
  say("set ei", file_caps(path, V2 | E, 0, BIT(RAW) | BIT(ADMIN), 0, 20));
  run("ei", path, become_user);
  run("ei with inheritable ones", path, user_inherits);
  say("set ep of what nobody has", file_caps(path, V2 | E, BIT(ADMIN) | BIT(RAW), 0, 0, 20));
  run("ep of what nobody has", path, become_user);
  run("ep of what root has not", path, NULL);
  say("set empty", file_caps(path, V2 | E, 0, 0, 0, 20));
  run("empty", path, user_ambient);
  say("set for root's namespace", file_caps(path, V3 | E, BIT(RAW), 0, 0, 24));
  say("get", getxattr(path, "security.capability", value, sizeof value));
  run("for root's namespace", path, become_user);
  say("set for another", file_caps(path, V3 | E, BIT(RAW), 0, USER, 24));
  say("get", getxattr(path, "security.capability", value, sizeof value));
  run("for another namespace", path, become_user);
  say("set v1", file_caps(path, VFS_CAP_REVISION_1, BIT(RAW), 0, 0, 12));
  say("set v2 too long", file_caps(path, V2, BIT(RAW), 0, 0, 24));
  say("set v3 too short", file_caps(path, V3, BIT(RAW), 0, 0, 20));
  say("set v4", file_caps(path, 0x04000000, BIT(RAW), 0, 0, 24));
  say("set nothing", setxattr(path, "security.capability", "", 0, 0));
  say("remove", removexattr(path, "security.capability"));

  say("set again", file_caps(path, V2 | E, BIT(RAW), 0, 0, 20));
  chmod(path, 06755);
  say("chown", chown(path, 0, 0));
  struct stat s;
  stat(path, &s);
  printf("mode after chown %o\n", s.st_mode);
  say("after chown", getxattr(path, "security.capability", value, sizeof value));
  file_caps(path, V2 | E, BIT(RAW), 0, 0, 20);
  chmod(path, 04755);
  run("set-user-ID with its own", path, user_dies_with);
  int fd = open(path, O_WRONLY | O_APPEND);
  say("write", write(fd, "x", 1));
  close(fd);
  say("after a write", getxattr(path, "security.capability", value, sizeof value));
  chmod(path, 04755);
  run("set-user-ID", path, user_dies_with);
  run("set-user-ID, nothing new", path, user_without_new);
  run("set-user-ID with ambient ones", path, user_ambient);
  chmod(path, 02755);
  run("set-group-ID", path, user_dies_with);
  chmod(path, 0711);
  run("not readable", path, user_dies_with);
  unlink(path);
}

static void in_process(void) {
  title = "in process";
  say("dumpable", option(PR_GET_DUMPABLE, 0, 0));
  prctl(PR_SET_PDEATHSIG, SIGUSR1);
  say("locked bit", option(PR_SET_SECUREBITS, SECBIT_KEEP_CAPS_LOCKED, 0));
  say("keep while locked", option(PR_SET_KEEPCAPS, 1, 0));
  say("change what is locked", option(PR_SET_SECUREBITS, SECBIT_KEEP_CAPS | SECBIT_KEEP_CAPS_LOCKED, 0));
  say("unlock", option(PR_SET_SECUREBITS, 0, 0));
  say("unknown bit", option(PR_SET_SECUREBITS, SECBIT_KEEP_CAPS_LOCKED | 1u << 30, 0));
  say("no ambient", option(PR_SET_SECUREBITS, SECBIT_KEEP_CAPS_LOCKED | SECBIT_NO_CAP_AMBIENT_RAISE, 0));
  say("capset", set_caps(BIT(CHOWN) | BIT(CAP_SETUID) | BIT(CAP_SETGID), BIT(CHOWN) | BIT(CAP_SETUID) | BIT(CAP_SETGID), BIT(CHOWN)));
  say("raise", option(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CHOWN));
  say("raise with more", prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CHOWN, 1, 0));
  say("clear with more", prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 1, 0, 0));
  say("is set", option(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CHOWN));
  say("unknown ambient", option(PR_CAP_AMBIENT, 9, CHOWN));
  say("no capability of that number", option(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, 63));
  say("securebits without the right", option(PR_SET_SECUREBITS, SECBIT_KEEP_CAPS_LOCKED | SECBIT_NO_CAP_AMBIENT_RAISE | SECBIT_NOROOT, 0));
  say("bounding set without the right", option(PR_CAPBSET_DROP, RAW, 0));
  say("inheritable beyond the permitted", set_caps(0, BIT(CAP_SETUID), BIT(RAW)));
  say("no new privileges, asked with more", prctl(PR_GET_NO_NEW_PRIVS, 1, 0, 0, 0));
  say("dumpable", option(PR_GET_DUMPABLE, 0, 0));
  say("setresuid, the same", setresuid(-1, -1, 0));
  say("dumpable", option(PR_GET_DUMPABLE, 0, 0));
  say("setgid", setgid(USER));
  show();
  say("set dumpable", option(PR_SET_DUMPABLE, 1, 0));
  say("setfsuid", setfsuid(USER));
  show();
  say("set dumpable 2", option(PR_SET_DUMPABLE, 2, 0));
  option(PR_SET_DUMPABLE, 1, 0);
  say("setuid", setuid(USER));
  show();
}

int main(int argc, char **argv) {
  if (argc == 3 && strcmp(argv[1], "show") == 0) {
    title = argv[2];
    show();
    return 0;
  }
  pid_t p = fork();
  if (p == 0) {
    in_process();
    return 0;
  }
  waitpid(p, NULL, 0);
  for (int i = 1; i < argc; i++) {
    printf("-- %s\n", argv[i]);
    at(argv[i]);
  }
  return 0;
}
