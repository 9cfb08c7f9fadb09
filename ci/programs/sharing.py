"""Containers that share a pid or ipc namespace; each line is asked of runc too."""
import json
import os
import subprocess
import time

import bundle
import process
from cases import Case
from report import check, equal


def runtimes(ctx):
    return ((ctx.reference, "runc"), (ctx.quark, "quark"))


def started(runtime, b):
    """A container that runs; its id and its process."""
    id = runtime.new_id()
    with open(os.devnull, "r+b") as null:
        done = subprocess.run(runtime.command("create", "--bundle", b, id), stdin=null, stdout=null, stderr=subprocess.DEVNULL, timeout=60, check=False)
    equal(done.returncode, 0, "create")
    equal(runtime.call("start", id).rc, 0, "start")
    return id, runtime.state(id)["pid"]


def ended(runtime, id):
    """Ends a container and deletes it; runc waits for what nobody has reaped."""
    runtime.call("kill", id, "KILL")
    process.wait_until(lambda: process.reap() or runtime.state(id)["status"] == "stopped", 10, f"the end of {id}")
    process.reap()
    equal(runtime.call("delete", "--force", id).rc, 0, "delete")


def sharing(pid, *kinds, change=None):
    """Changes a configuration so that the container shares the namespaces `kinds` of the one whose process is `pid`."""
    def apply(c):
        for kind in kinds:
            ns = next(n for n in c["linux"]["namespaces"] if n["type"] == kind)
            ns["path"] = f"/proc/{pid}/ns/{'net' if kind == 'network' else kind}"
        if change:
            change(c)
    return apply


def compare(ctx, first, second, *kinds, change=None, rc=0, root=None, least=1):
    """Runs `second` in a container that shares `kinds` with one that runs `first`, under both runtimes."""
    root = root or bundle.busybox()
    b = ctx.bundle(first, root)
    outs = []
    for runtime, name in runtimes(ctx):
        id, pid = started(runtime, b)
        done = runtime.run(ctx.bundle(second, root, change=sharing(pid, *kinds, change=change)))
        equal(runtime.state(id)["status"], "running", f"{name}: the first container, after\n{done}")
        ended(runtime, id)
        outs.append(done)
    theirs, ours = outs
    check(theirs.rc == rc and len(theirs.text.splitlines()) >= least, f"the comparison itself failed\n{theirs}")
    equal((ours.rc, ours.text), (theirs.rc, theirs.text), f"outcome\n{ours}")


def processes(ctx):
    """It sees the others' processes, has no parent among them, may signal them and look at them, and keeps its own root and names."""
    script = """
    echo "parent $(grep PPid /proc/self/task/../../$$/status | tr -dc 0-9)"; [ $$ = 1 ] || echo 'not the first'
    ps -o args | grep '^sleep 100' | sort
    kill -0 1 && echo may; kill -USR1 1; sleep 0.3; cat /proc/1/root/tmp/told; ls /tmp; hostname
    readlink /proc/self/ns/pid | grep -q "$(readlink /proc/1/ns/pid)" && echo 'same pids'
    [ "$(readlink /proc/self/ns/ipc)" = "$(readlink /proc/1/ns/ipc)" ] || echo 'other ipc'
    [ "$(readlink /proc/self/ns/mnt)" = "$(readlink /proc/1/ns/mnt)" ] || echo 'other mounts'
    exit 7
    """

    def change(c):
        c["hostname"] = "second"
    first = "trap 'echo told >/tmp/told' USR1; sleep 1000 & sleep 1001 & while :; do sleep 0.1; done"
    compare(ctx, first, script, "pid", change=change, rc=7, least=8)


def its_end(ctx):
    """What a container has started ends with it at the latest when it is deleted; the other container lives on."""
    b = ctx.bundle("sleep 1000", bundle.busybox())
    for runtime, name in runtimes(ctx):
        id, pid = started(runtime, b)
        done = runtime.run(ctx.bundle("sleep 2000 & sleep 2001 & echo up", bundle.busybox(), change=sharing(pid, "pid")), timeout=20)
        equal((done.rc, done.text), (0, "up\n"), f"{name}: {done}")
        inside = lambda: runtime.call("exec", id, "sh", "-c", "ps -o args | grep -c '^sleep 200[01]'").text
        process.wait_until(lambda: inside() == "0\n", 5, f"{name}: what it left")
        equal(runtime.call("exec", id, "echo", "alive").text, "alive\n", name)
        ended(runtime, id)


def first_ends(ctx):
    """The end of the pid namespace's first process is everybody's in it."""
    b = ctx.bundle("sleep 1000", bundle.busybox())
    for runtime, name in runtimes(ctx):
        id, pid = started(runtime, b)
        other, _ = started(runtime, ctx.bundle("sleep 1000", bundle.busybox(), change=sharing(pid, "pid")))
        ended(runtime, id)
        process.wait_until(lambda: process.reap() or runtime.state(other)["status"] == "stopped", 10, f"{name}: the end of {other}")
        equal(runtime.call("delete", other).rc, 0, f"{name}: delete")


def commands(ctx):
    """exec, ps and kill --all are about the one container."""
    b = ctx.bundle("sleep 1000", bundle.busybox())

    def renamed(c):
        c["hostname"] = "second"
    for runtime, name in runtimes(ctx):
        id, pid = started(runtime, b)
        other, _ = started(runtime, ctx.bundle("trap 'exit 9' TERM; sleep 1001 & while :; do sleep 0.1; done", bundle.busybox(),
                                               change=sharing(pid, "pid", change=renamed)))
        done = runtime.call("exec", other, "sh", "-c", "hostname; exit 5")
        equal((done.rc, done.text), (5, "second\n"), f"{name}: {done}")
        rows = runtime.call("ps", other).text
        check("sleep" in rows and len(rows.splitlines()) in (3, 4), f"{name}: {rows}")
        check(len(runtime.call("ps", id).text.splitlines()) == 2, f"{name}: ps of the first one")
        names = []
        for shown in json.loads(runtime.call("ps", "--format", "json", other).text):
            with open(f"/proc/{shown}/cmdline", encoding="utf-8") as f:
                names.append(f.read().split("\0")[0])
        equal([n for n in sorted(set(names)) if n != "sleep"], ["sh"], f"{name}: seen from the host")
        equal(runtime.call("kill", "--all", other, "KILL").rc, 0, f"{name}: kill --all")
        process.wait_until(lambda: runtime.state(other)["status"] == "stopped", 10, name)
        equal(runtime.state(id)["status"], "running", name)
        equal(runtime.call("delete", other).rc, 0, f"{name}: delete")
        equal(runtime.call("exec", id, "sh", "-c", "ps -o args | grep -c '^sleep 1001'").text, "0\n", f"{name}: after it")
        ended(runtime, id)


def by_force(ctx):
    """A container whose host side is killed leaves nothing behind in the other's sandbox."""
    b = ctx.bundle("sleep 1000", bundle.busybox())
    for runtime, name in runtimes(ctx):
        id, pid = started(runtime, b)
        for _ in range(3):
            other, theirs = started(runtime, ctx.bundle("sleep 1001 & sleep 1002", bundle.busybox(), change=sharing(pid, "pid")))
            os.kill(theirs, 9)
            process.wait_until(lambda: process.reap() or runtime.state(other)["status"] == "stopped", 10, f"{name}: killed")
            equal(runtime.call("delete", "--force", other).rc, 0, f"{name}: delete")
        found = lambda: runtime.call("exec", id, "sh", "-c", "ps -o args | grep -c '^sleep 100[12]'").text
        process.wait_until(lambda: found() == "0\n", 5, f"{name}: left")
        ended(runtime, id)


def objects(ctx):
    """System V objects and message queues are the other's; its processes are not, and it is the first of its own."""
    root = bundle.debian()
    make = "import ctypes, time; c = ctypes.CDLL(None); i = c.shmget(4242, 4096, 0o1666); c.shmat.restype = ctypes.c_void_p; p = c.shmat(i, None, 0); " \
           "ctypes.memmove(ctypes.c_void_p(p), b'there', 6); print(i, flush=True); time.sleep(1000)"
    look = "import ctypes, os; c = ctypes.CDLL(None); i = c.shmget(4242, 0, 0); c.shmat.restype = ctypes.c_void_p; p = c.shmat(i, None, 0); " \
           "print(ctypes.string_at(p)); print(os.getpid() > 1, os.getppid()); print(len([d for d in os.listdir('/proc') if d.isdigit()]))"

    script = f"python3 -c \"{look}\"; wc -l </proc/sysvipc/shm; sleep 1000 & kill -0 7 2>&1; kill -9 -1; echo not all are mine"
    first = f"python3 -c \"{make}\" & sleep 1001 & sleep 1002 & sleep 1003 & sleep 1004 & wait"

    def waiting(c):
        line = c["process"]["args"][-1]
        c["process"]["args"][-1] = f"for i in 1 2 3 4 5 6 7 8 9; do grep -q 4242 /proc/sysvipc/shm && break; sleep 0.3; done; {line}"
    compare(ctx, first, script, "ipc", change=waiting, root=root, least=4)


def hidden(ctx):
    """Who shares only IPC objects does not see, count or reach the other's processes, either way."""
    look = "ps -o args | grep -c '^sleep'; ls /proc | grep -c '^[0-9]*$'; for i in 2 3 4 5 6 7 8 9 10 11 12; do [ $i = $$ ] || kill -9 $i 2>/dev/null; done; " \
           "kill -9 -1; kill -0 1 && echo there"
    for runtime, name in runtimes(ctx):
        id, pid = started(runtime, ctx.bundle("sleep 1000", bundle.busybox()))
        other, _ = started(runtime, ctx.bundle("sleep 1001 & sleep 1002", bundle.busybox(), change=sharing(pid, "ipc")))
        for one, count in ((id, "1"), (other, "2")):
            done = runtime.call("exec", one, "sh", "-c", look)
            equal(done.text.splitlines()[::2], [count, "there"], f"{name}: {done}")
        equal([runtime.state(i)["status"] for i in (id, other)], ["running", "running"], name)
        ended(runtime, other)
        ended(runtime, id)


def networks(ctx):
    """Whoever shares processes has a network of its own all the same, unless it shares that too."""
    serve = "echo page >/tmp/index.html; httpd -p 80 -h /tmp; touch /tmp/up; sleep 1000"
    look = "for i in $(seq 50); do [ -f /proc/1/root/tmp/up ] && break; sleep 0.1; done; wget -q -O- http://127.0.0.1/ 2>&1 | grep -o -e page -e refused; ls /sys/class/net; wc -l </proc/net/dev; " \
           "grep -c ':0050 .* 0A ' /proc/net/tcp6; [ \"$(readlink /proc/self/ns/net)\" = \"$(readlink /proc/1/ns/net)\" ] && echo same; grep -c ':0050 .* 0A ' /proc/1/net/tcp6; " \
           "echo mine >/tmp/index.html; httpd -p 81 -h /tmp; wget -q -O- http://127.0.0.1:81/; netstat -ltn | grep -c :81; true"
    compare(ctx, serve, look, "pid", least=6)
    compare(ctx, serve, look, "pid", "network", least=7)


def limits(ctx):
    """Each container's limits are its own."""
    def little(c):
        c["linux"]["resources"] = {"memory": {"limit": 48 << 20}, "pids": {"limit": 12}}
    b = ctx.bundle("sleep 1000", bundle.busybox())
    for runtime, name in runtimes(ctx):
        id, pid = started(runtime, b)
        script = "i=0; while [ $i -lt 30 ]; do sleep 1 & i=$((i+1)); done 2>&1 | grep -c fork"
        done = runtime.run(ctx.bundle(script, bundle.busybox(), change=sharing(pid, "pid", change=little)))
        check(done.text.splitlines()[:1] not in ([], ["0"]), f"{name}: more tasks than allowed\n{done}")
        done = runtime.run(ctx.bundle("tail /dev/zero; echo rc=$?", bundle.busybox(), change=sharing(pid, "pid", change=little)))
        equal((done.rc, done.text), (0, "rc=137\n"), f"{name}: {done}")
        equal(runtime.call("exec", id, "echo", "alive").text, "alive\n", name)
        ended(runtime, id)


def pause(ctx):
    """One that is paused does not keep the others from running."""
    count = "i=0; while :; do i=$((i+1)); echo $i >/tmp/n; sleep 0.05; done"
    b = ctx.bundle(count, bundle.busybox())
    for runtime, name in runtimes(ctx):
        id, pid = started(runtime, b)
        other, _ = started(runtime, ctx.bundle(count, bundle.busybox(), change=sharing(pid, "pid")))

        def number(of):
            found = runtime.call("exec", of, "cat", "/tmp/n").text.strip()
            return int(found) if found else 0
        for stopped, runs in ((other, id), (id, other)):
            equal(runtime.call("pause", stopped).rc, 0, f"{name}: pause")
            equal(runtime.state(stopped)["status"], "paused", name)
            before = number(runs)
            process.wait_until(lambda: number(runs) > before, 10, f"{name}: the one that is not paused runs")
            equal(runtime.call("resume", stopped).rc, 0, f"{name}: resume")
            equal(runtime.state(stopped)["status"], "running", name)
            before = number(stopped)
            process.wait_until(lambda: number(stopped) > before, 10, f"{name}: the one that was paused goes on")
        ended(runtime, other)
        ended(runtime, id)


def frozen(ctx):
    """A paused container stands still though it shares a sandbox, and can be killed."""
    count = "i=0; while :; do i=$((i+1)); echo $i >/tmp/n; sleep 0.05; done"
    for runtime, name in runtimes(ctx):
        id, pid = started(runtime, ctx.bundle("sleep 1000", bundle.busybox()))
        other, _ = started(runtime, ctx.bundle(count, bundle.busybox(), change=sharing(pid, "pid")))
        look = lambda: runtime.call("exec", id, "sh", "-c", "for p in /proc/[0-9]*; do [ -f $p/root/tmp/n ] && cat $p/root/tmp/n && break; done").text
        process.wait_until(look, 10, f"{name}: it counts")
        equal(runtime.call("pause", other).rc, 0, f"{name}: pause")
        time.sleep(0.3)
        before = look()
        time.sleep(0.5)
        equal(look(), before, f"{name}: it stands still")
        runtime.call("resume", other)
        process.wait_until(lambda: look() != before, 10, f"{name}: it goes on")
        runtime.call("pause", other)
        process.reap()
        equal(runtime.call("delete", "--force", other).rc, 0, f"{name}: delete of a paused one")
        equal(runtime.call("exec", id, "echo", "alive").text, "alive\n", name)
        ended(runtime, id)


def many(ctx):
    """A dozen at once; and one that shares with one that shares."""
    b = ctx.bundle("sleep 1000", bundle.busybox())
    for runtime, name in runtimes(ctx):
        id, pid = started(runtime, b)
        joined = [started(runtime, ctx.bundle(f"sleep 10{i:02}", bundle.busybox(), change=sharing(pid, "pid"))) for i in range(10)]
        last, _ = started(runtime, ctx.bundle("sleep 1099", bundle.busybox(), change=sharing(joined[3][1], "pid", "ipc")))
        equal(runtime.call("exec", last, "sh", "-c", "ps -o args | grep -c '^sleep 10'").text, "12\n", name)
        for other, _ in joined:
            ended(runtime, other)
        equal(runtime.call("exec", last, "sh", "-c", "ps -o args | grep -c '^sleep 10'").text, "2\n", name)
        ended(runtime, last)
        ended(runtime, id)


def terminal(ctx):
    """A container with a terminal in another's pid namespace."""
    b = ctx.bundle("sleep 1000", bundle.busybox())
    for runtime, name in runtimes(ctx):
        id, pid = started(runtime, b)
        t = runtime.terminal("run", "--bundle", ctx.bundle("tty; ps -o args | grep -c 1000; read x; echo got $x; exit 4", bundle.busybox(), terminal=True,
                                                           change=sharing(pid, "pid")), runtime.new_id())
        t.expect(b"/dev/", 10)
        t.send(b"word\n")
        t.expect(b"got word", 10)
        equal(t.finish(10), 4, f"{name}: exit code")
        ended(runtime, id)


def refused(ctx):
    """What a container in another's sandbox cannot have is refused by name; so is what is no container's."""
    id, pid = started(ctx.quark, ctx.bundle("sleep 1000", bundle.busybox()))

    def users(c):
        c["linux"]["namespaces"].append({"type": "user"})
        for kind in ("uidMappings", "gidMappings"):
            c["linux"][kind] = [{"containerID": 0, "hostID": 100000, "size": 65536}]

    def setting(c):
        c["linux"]["sysctl"] = {"kernel.msgmax": "8192"}
    for change, says in ((users, "user namespace"), (setting, "kernel.msgmax")):
        done = ctx.quark.run(ctx.bundle("true", bundle.busybox(), change=sharing(pid, "pid", change=change)))
        check(done.rc != 0 and says in done.errors, f"{done}")
    for kind in ("pid", "ipc"):
        done = ctx.quark.run(ctx.bundle("true", bundle.busybox(), change=sharing(os.getpid(), kind)))
        check(done.rc != 0 and "running container" in done.errors, f"{done}")
    equal(ctx.quark.call("exec", id, "echo", "alive").text, "alive\n", "the first one")


def cases():
    return [
        Case("processes", processes),
        Case("its end", its_end),
        Case("the end of the first one", first_ends),
        Case("commands", commands),
        Case("killed from outside", by_force),
        Case("ipc objects", objects),
        Case("hidden processes", hidden),
        Case("networks", networks),
        Case("limits", limits),
        Case("pause", pause),
        Case("standing still", frozen),
        Case("many", many),
        Case("terminal", terminal),
        Case("what is refused", refused),
    ]
