"""Seccomp: a program's own filters, and the container's profile (`linux.seccomp`), as under runc."""
import json
import os
import shutil

import apt
import bundle
from cases import Case, native
from report import check, equal

ALL_ARCHITECTURES = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]


def own_filters(ctx):
    root = f"{ctx.directory}/root"
    bundle.skeleton(root)
    shutil.copy(native(os.path.join(os.path.dirname(__file__), "seccomp.c"), "seccomp"), f"{root}/bin/seccomp")
    # Without no_new_privs from the runtime: the rule about it is tested too.
    b = ctx.bundle(["/bin/seccomp"], root, change=lambda c: c["process"].update(noNewPrivileges=False))
    expected, result = ctx.reference.run(b), ctx.quark.run(b)
    check(expected.rc == 0 and len(expected.text) > 2000, f"the comparison itself failed\n{expected}")
    ours, theirs = result.text.splitlines(), expected.text.splitlines()
    wrong = [f"line {i + 1}: {a!r} instead of {b!r}" for i, (a, b) in enumerate(zip(ours, theirs)) if a != b]
    check(not wrong, "\n".join(wrong[:20]))
    equal((result.rc, len(ours)), (0, len(theirs)), f"outcome\n{result}")


def rule(names, action, errno=None, args=None):
    r = {"names": names.split(), "action": action}
    if errno is not None:
        r["errnoRet"] = errno
    if args:
        r["args"] = args
    return r


def profiled(profile, script, rc=0):
    """The script prints the same under both runtimes with this profile."""
    def body(ctx):
        def change(c):
            c["linux"]["seccomp"] = profile() if callable(profile) else profile
        b = ctx.bundle(script, bundle.busybox(), change=change)
        expected, result = ctx.reference.run(b), ctx.quark.run(b)
        check(expected.rc == rc, f"the comparison itself failed\n{expected}")
        equal((result.rc, result.text, result.errors), (expected.rc, expected.text, expected.errors), "outcome")
    return body


def exec_is_filtered(ctx):
    def change(c):
        c["linux"]["seccomp"] = DENY
    b = ctx.bundle("sleep 60", bundle.busybox(), change=change)
    for runtime in (ctx.reference, ctx.quark):
        name = runtime.new_id()
        check(runtime.call("run", "--detach", "--bundle", b, name).rc == 0, "cannot start the container")
        result = runtime.call("exec", name, "sh", "-c", "mkdir /tmp/x; echo $?; grep Seccomp: /proc/self/status")
        runtime.call("kill", name, "KILL")
        equal((result.rc, result.text), (0, "1\nSeccomp:\t2\n"), f"{runtime.name} exec\n{result}")
        check("Operation not permitted" in result.errors, f"{result}")
        runtime.call("delete", "--force", name)


def refused(ctx):
    def change(c):
        c["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule("read", "SCMP_ACT_NOTIFY")]}
    result = ctx.quark.run(ctx.bundle("true", bundle.busybox(), change=change))
    check(result.rc != 0 and "linux.seccomp" in result.errors, f"{result}")


def default_profile():
    """The default profile of Podman and Docker, from Debian's package, for a container with the tests' capabilities."""
    apt.need("golang-github-containers-common")
    with open("/usr/share/containers/seccomp.json", encoding="utf-8") as f:
        source = json.load(f)
    caps = set(bundle.CAPABILITIES)

    def wanted(r):
        inc, exc = r.get("includes") or {}, r.get("excludes") or {}
        arch = "amd64"
        return (set(inc.get("caps") or ()) <= caps and not set(exc.get("caps") or ()) & caps
                and (not inc.get("arches") or arch in inc["arches"]) and arch not in (exc.get("arches") or ()))
    calls = []
    for r in source["syscalls"]:
        if wanted(r):
            entry = {"names": r["names"], "action": r["action"]}
            if r.get("args"):
                entry["args"] = [{k: a[k] for k in ("index", "value", "valueTwo", "op")} for a in r["args"]]
            if r.get("errnoRet") is not None:
                entry["errnoRet"] = r["errnoRet"]
            calls.append(entry)
    profile = {"defaultAction": source["defaultAction"], "architectures": ALL_ARCHITECTURES, "syscalls": calls}
    if source.get("defaultErrnoRet") is not None:
        profile["defaultErrnoRet"] = source["defaultErrnoRet"]
    return profile


DENY = {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ALL_ARCHITECTURES, "syscalls": [
    rule("mkdir mkdirat no_such_call", "SCMP_ACT_ERRNO"),
    rule("symlink symlinkat", "SCMP_ACT_ERRNO", 28)]}
# kill(pid, SIGUSR1) is refused, and of two conditions on one argument either is enough.
ARGUMENTS = {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ALL_ARCHITECTURES, "syscalls": [
    rule("kill", "SCMP_ACT_ERRNO", 1, [{"index": 1, "value": 10, "op": "SCMP_CMP_EQ"}]),
    rule("kill", "SCMP_ACT_ERRNO", 1, [{"index": 1, "value": 14, "op": "SCMP_CMP_EQ"}, {"index": 1, "value": 40, "op": "SCMP_CMP_GE"}]),
    rule("chmod fchmodat", "SCMP_ACT_ERRNO", 30, [{"index": 1, "value": 0o4000, "valueTwo": 0o4000, "op": "SCMP_CMP_MASKED_EQ"}])]}
KILL = {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ALL_ARCHITECTURES, "syscalls": [
    rule("sync", "SCMP_ACT_KILL_PROCESS"), rule("chroot", "SCMP_ACT_TRAP"), rule("mknod mknodat", "SCMP_ACT_KILL")]}


def cases():
    yield Case("a program's own filters", own_filters)
    yield Case("a profile that denies mkdir", profiled(DENY, "mkdir /tmp/d; echo $?; ln -s a /tmp/l; echo $?; echo x >/tmp/f; cat /tmp/f; "
                                                      "grep -E '^(Seccomp|NoNewPrivs)' /proc/self/status"))
    yield Case("conditions on arguments", profiled(ARGUMENTS, "trap 'echo usr2' USR2; for s in USR1 USR2 ALRM 41; do kill -$s $$; echo $?; done; "
                                                   "touch /tmp/f; chmod 755 /tmp/f; echo $?; chmod 4755 /tmp/f; echo $?"))
    yield Case("killing actions", profiled(KILL, "sync; echo $?; chroot / true; echo $?; mknod /tmp/p p; echo $?; echo still here"))
    yield Case("a profile without a default of allow", profiled(default_profile, "cd /tmp; mkdir a; ls; seq 3 | wc -l; unshare -m true; echo $?; "
                                                                 "mount -t tmpfs x /mnt; echo $?; ps >/tmp/ps; wc -l </tmp/ps; sleep 0.1; date +%Y | grep -c 20; chroot / true; echo $?"))
    yield Case("exec is filtered too", exec_is_filtered)
    yield Case("an agent is refused", refused)
