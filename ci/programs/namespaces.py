"""Namespaces made inside the container, line by line the same as under runc with the same capabilities."""
import os

import bundle
from cases import Case, line_by_line
from report import check, equal


def administrator(c):
    for kind in ("bounding", "effective", "permitted"):
        c["process"]["capabilities"][kind] = bundle.CAPABILITIES + ["CAP_SYS_ADMIN", "CAP_SYS_PTRACE"]
    c["process"]["noNewPrivileges"] = False
    c["linux"]["namespaces"].append({"type": "cgroup"})


SCRIPT = """
id -u; cat /proc/self/uid_map
mount -t tmpfs mine /mnt && echo hello > /mnt/file && cat /mnt/file && stat -c '%u:%g %a' /mnt/file
mkdir /mnt/a /mnt/b && mount --bind /mnt/a /mnt/b && touch /mnt/a/f && ls /mnt/b
grep -c ' /mnt' /proc/self/mountinfo
hostname inner; hostname
umount /mnt/b && umount /mnt && ls /mnt
umount /proc 2>/dev/null || echo stays
mount -t proc proc /proc 2>/dev/null || echo refused
su -c true 2>/dev/null || echo no su
unshare -Ur sh -c 'id -u'
unshare --user --map-root-user --ipc ipcs -q | wc -l
"""


PIDS_PARTS = ["pids.h", "pids_seen.c"]
PIDS = """
unshare --fork --pid --mount-proc ps -e -o pid,ppid,comm
unshare --fork --pid --mount-proc sh -c 'echo $$ $PPID; sleep 0 & wait $!; echo $?; cut -d" " -f1,4-8 /proc/self/stat'
unshare -fp --mount-proc sh -c 'unshare -fp --mount-proc sh -c "grep ^NSpid /proc/self/status; ps -e -o pid,ppid,comm"; ls -d /proc/[0-9]*'
unshare --fork --pid --kill-child --mount-proc sleep 1000 &
outer=$!
while ! inner=$(pgrep -P $outer); do sleep 0.1; done
test $(readlink /proc/$inner/ns/pid) = $(readlink /proc/$outer/ns/pid_for_children) && echo same
while test "$(cat /proc/$inner/comm)" != sleep; do sleep 0.1; done
grep ^NSpid /proc/$inner/status | cut -f3
nsenter -t $inner -p -m sh -c 'echo $$; kill -9 1; kill -TERM 1; ps -e -o pid,ppid,comm'
nsenter -a -t $inner sh -c 'pgrep sleep; pkill -9 sleep; pgrep sleep'
kill -9 $outer; wait $outer; echo $?
while test -d /proc/$inner; do sleep 0.1; done; echo gone
unshare -fp sh -c '(sleep 1000 & setsid sleep 1000 & (sleep 0.1; kill -STOP $!) & sleep 0.3); exit 3'; echo $?; pgrep sleep
unshare -p sh -c 'true; true'; echo $?
unshare -Urfp --mount-proc ps 2>&1 || echo refused
unshare -Urfp sh -c 'echo $$; kill -9 $$; echo still'
cat /proc/self/status | grep -c ^NS
"""


def by_tools(ctx):
    """util-linux and procps make pid namespaces, go into them and look at them."""
    b = ctx.bundle(["bash", "-c", PIDS], bundle.servers(), change=administrator)
    expected = ctx.reference.run(b)
    check(expected.rc == 0 and "gone" in expected.text, f"the comparison itself failed\n{expected}")
    result = ctx.quark.run(b)
    equal((result.rc, result.text), (0, expected.text), f"outcome\n{result}")


def user(c):
    c["process"]["user"] = {"uid": 1000, "gid": 1000}
    c["process"]["capabilities"] = {}
    c["process"]["noNewPrivileges"] = False


def by_unshare(ctx):
    """A user without any capability becomes root of namespaces of their own with util-linux's unshare."""
    b = ctx.bundle(["unshare", "-Urmu", "sh", "-c", SCRIPT], bundle.servers(), change=user)
    expected = ctx.reference.run(b)
    check(expected.rc == 0 and "hello" in expected.text and "stays" in expected.text, f"the comparison itself failed\n{expected}")
    result = ctx.quark.run(b)
    equal((result.rc, result.text), (0, expected.text), f"outcome\n{result}")


# Objects of each kind, made and changed by util-linux; keys and times are as they come.
OBJECTS = r"""
ipcmk -M 8192 -p 640 >/dev/null; ipcmk -M 100 >/dev/null; ipcmk -S 3 >/dev/null; ipcmk -Q -p 622 >/dev/null; ipcmk -Q >/dev/null
show() {
    for i in msg sem; do sed -E '2,$s/^ *-?[0-9]+ /KEY /; s/[0-9]{10}/TIME/g' /proc/sysvipc/$i; done
    sed -E '2,$s/^ *-?[0-9]+ (.{39}) .{5} /KEY \1 MAKER /; s/[0-9]{10}/TIME/g' /proc/sysvipc/shm
}
show; ipcs | sed -E 's/0x[0-9a-f]{8}/KEY/'; ipcs -u; ipcrm -m 0 -q 0; show; ipcs -m -i 1 2>&1 | grep -c uid; ipcs -l; ipcmk -M 1 | tr -dc 0-9; ipcrm -m 1; for i in $(seq 70); do ipcmk -Q >/dev/null; ipcrm -q $(tail -1 /proc/sysvipc/msg | awk '{print $2}'); done; ipcmk -Q | tr -dc 0-9; ipcrm -a; ipcs -m | wc -l
unshare -i sh -c 'wc -l </proc/sysvipc/shm'
"""


def objects(ctx):
    """`/proc/sysvipc`, which ipcs(1) reads."""
    b = ctx.bundle(OBJECTS, bundle.servers(), change=administrator)
    expected = ctx.reference.run(b)
    check(expected.rc == 0 and "KEY" in expected.text and len(expected.text.splitlines()) > 40, f"the comparison itself failed\n{expected}")
    result = ctx.quark.run(b)
    equal((result.rc, result.text), (0, expected.text), f"outcome\n{result}")


def cases():
    yield line_by_line("namespaces inside", os.path.join(os.path.dirname(__file__), "namespaces.c"), least=5000, change=administrator)
    yield line_by_line("pid namespaces inside", os.path.join(os.path.dirname(__file__), "pids.c"), least=8000, change=administrator, timeout=200,
                       parts=PIDS_PARTS)
    yield Case("unshare of util-linux", by_unshare)
    yield Case("System V objects in /proc", objects)
    yield Case("pid namespaces by util-linux", by_tools)
