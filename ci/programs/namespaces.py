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


def cases():
    yield line_by_line("namespaces inside", os.path.join(os.path.dirname(__file__), "namespaces.c"), least=5000, change=administrator)
    yield line_by_line("pid namespaces inside", os.path.join(os.path.dirname(__file__), "pids.c"), least=8000, change=administrator, timeout=200)
    yield Case("unshare of util-linux", by_unshare)
