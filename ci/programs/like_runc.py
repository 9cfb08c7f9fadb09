"""What callers of runc rely on beside the specification; each line is asked of runc too."""
import json
import os
import subprocess
import time

import bundle
import process
from cases import Case
from report import check, equal


def both(ctx):
    return ((ctx.reference, "runc"), (ctx.quark, "quark"))


def writable_root(ctx, name):
    """A root file system of the case's own."""
    root = f"{ctx.directory}/{name}"
    subprocess.run(["cp", "-a", bundle.busybox(), root], check=True)
    return root


def created(runtime, b, *flags):
    id = runtime.new_id()
    with open(os.devnull, "r+b") as null:
        done = subprocess.run(runtime.command(*flags, "create", "--bundle", b, id), stdin=null, stdout=null, stderr=subprocess.DEVNULL, timeout=60,
                              check=False)
    equal(done.returncode, 0, "create")
    return id


def exec_before_start(ctx):
    b = ctx.bundle("sleep 1000", bundle.busybox())
    for runtime, name in both(ctx):
        id = created(runtime, b)
        done = runtime.call("exec", id, "echo", "hi")
        equal((done.rc, done.text, runtime.state(id)["status"]), (0, "hi\n", "created"), f"{name}: {done}")
        equal(runtime.call("start", id).rc, 0, f"{name}: start")
        equal(runtime.state(id)["status"], "running", name)


def delete_before_start(ctx):
    b = ctx.bundle("sleep 1000", bundle.busybox())
    for runtime, name in both(ctx):
        id = created(runtime, b)
        done = runtime.call("delete", id)
        equal(done.rc, 0, f"{name}: {done}")
        check(id not in [c["id"] for c in runtime.containers()], f"{name}: it is still there")


def signal_nothing(ctx):
    b = ctx.bundle("sleep 1000", bundle.busybox())
    for runtime, name in both(ctx):
        id = created(runtime, b)
        equal(runtime.call("kill", id, "0").rc, 0, f"{name}: signal 0 to a created container")
        runtime.call("start", id)
        equal(runtime.call("kill", id, "0").rc, 0, f"{name}: signal 0")
        equal(runtime.state(id)["status"], "running", name)


def working_directory(ctx):
    """It is made where it is missing, and gone to before the program gives up what root may."""
    for runtime, name in both(ctx):
        root = writable_root(ctx, name)
        done = runtime.run(ctx.bundle("pwd", root, cwd="/made/on the way"))
        equal((done.rc, done.text), (0, "/made/on the way\n"), f"{name}: {done}")
        os.mkdir(f"{root}/closed", 0o700)
        os.chown(f"{root}/closed", 4242, 4242)

        def change(c):
            c["process"]["capabilities"] = {}
        done = runtime.run(ctx.bundle("pwd; ls 2>/dev/null; echo $?", root, cwd="/closed", change=change))
        equal((done.rc, done.text), (0, "/closed\n1\n"), f"{name}: {done}")


def unknown_capability(ctx):
    def change(c):
        for names in c["process"]["capabilities"].values():
            names.append("CAP_OF_TOMORROW")
    b = ctx.bundle("grep CapEff /proc/self/status", bundle.busybox(), change=change)
    outs = [runtime.run(b) for runtime, _ in both(ctx)]
    equal((outs[1].rc, outs[1].text), (outs[0].rc, outs[0].text), f"{outs[0]}\n{outs[1]}")
    check("CapEff" in outs[1].text, f"{outs[1]}")


def no_user(ctx):
    def change(c):
        del c["process"]["user"]
    b = ctx.bundle("id -u; id -g", bundle.busybox(), change=change)
    for runtime, name in both(ctx):
        equal(runtime.run(b).text, "0\n0\n", name)


def linked_proc(ctx):
    """A root file system with a link for /proc or /sys gets none there: what protects them goes by their paths."""
    for runtime, name in both(ctx):
        for place in ("proc", "sys"):
            root = writable_root(ctx, f"{name}-{place}")
            os.rmdir(f"{root}/{place}")
            os.symlink("/tmp", f"{root}/{place}")
            done = runtime.run(ctx.bundle("echo ran", root))
            check(done.rc != 0 and not done.out and "must be mounted on ordinary directory" in done.errors, f"{name}: {done}")


def hook_directory(ctx):
    """createContainer begins in the root file system, and what it mounts there is seen; without `env` a hook has the caller's."""
    for runtime, name in both(ctx):
        root = writable_root(ctx, name)

        def change(c):
            line = 'touch ./mnt/file && mount --bind ./etc/passwd ./mnt/file && test -n "$PATH$CALLER"'
            c["hooks"] = {"createContainer": [{"path": "/bin/sh", "args": ["sh", "-c", line]}]}
        b = ctx.bundle("head -1 /mnt/file", root, readonly=False, change=change)
        done = runtime.run(b)
        equal((done.rc, done.text), (0, "root:x:0:0:root:/root:/bin/sh\n"), f"{name}: {done}")


def closed_source(ctx):
    """The root of a user namespace may not reach a bind's source on the host; the mount is made all the same."""
    closed = f"{ctx.directory}/closed"
    os.makedirs(f"{closed}/dir")
    with open(f"{closed}/dir/file", "w", encoding="utf-8") as f:
        f.write("seen\n")
    os.chmod(f"{closed}/dir", 0o755)
    os.chmod(closed, 0o700)
    root = writable_root(ctx, "root")
    os.chmod(ctx.directory, 0o755)

    def change(c):
        c["linux"]["namespaces"].append({"type": "user"})
        for kind in ("uidMappings", "gidMappings"):
            c["linux"][kind] = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    mounts = [{"destination": "/mnt", "type": "bind", "source": f"{closed}/dir", "options": ["rbind"]}]
    b = ctx.bundle("cat /mnt/file", root, mounts=mounts, change=change)
    subprocess.run(["chown", "-R", "100000:100000", root], check=True)
    for runtime, name in both(ctx):
        done = runtime.run(b)
        equal((done.rc, done.text), (0, "seen\n"), f"{name}: {done}")


def sysctl_without_namespace(ctx):
    for key, kind in (("kernel.msgmax", "ipc"), ("net.ipv4.ping_group_range", "network")):
        def change(c):
            c["linux"]["sysctl"] = {key: "8192" if kind == "ipc" else "0 0"}
            c["linux"]["namespaces"] = [n for n in c["linux"]["namespaces"] if n["type"] != kind]
        b = ctx.bundle("echo ran", bundle.busybox(), change=change)
        for runtime, name in both(ctx):
            done = runtime.run(b)
            check(done.rc != 0 and not done.out, f"{name}, {key}: {done}")


def shared_cgroup(ctx):
    """The end of one container is not that of another in the same cgroup."""
    def change(c):
        c["linux"]["cgroupsPath"] = f"/quark-shared-{os.getpid()}"
    b = ctx.bundle("sleep 1000", bundle.busybox(), change=change)
    for runtime, name in both(ctx):
        one, two = created(runtime, b), created(runtime, b)
        equal((runtime.call("start", one).rc, runtime.call("start", two).rc), (0, 0), name)
        runtime.call("delete", "--force", one)
        done = runtime.call("exec", two, "echo", "alive")
        equal((done.rc, done.text, runtime.state(two)["status"]), (0, "alive\n", "running"), f"{name}: {done}")
        done = runtime.call("delete", "--force", two)
        equal(done.rc, 0, f"{name}: {done}")
    left = [d for d, names, _ in os.walk("/sys/fs/cgroup") if f"quark-shared-{os.getpid()}" in names]
    check(not left, f"the cgroup is left in {left}")


def documents(ctx):
    """Scripts match lines: the keys come in runc's order."""
    b = ctx.bundle("sleep 1000", bundle.busybox())
    orders = []
    for runtime, name in both(ctx):
        id = created(runtime, b)
        runtime.call("start", id)
        state = list(json.loads(runtime.call("state", id).text))
        listed = json.loads(runtime.call("list", "--format", "json").text)
        stats = runtime.call("events", "--stats", id).text
        check(stats.startswith('{"type":"stats","id":"' + id + '","data":{'), f"{name}: {stats[:200]}")
        table = runtime.call("list").text.splitlines()
        equal((table[0].split(), table[1].split()[-1]), (["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"], "root"), f"{name}: list")
        ps = runtime.call("ps", id).text.splitlines()
        equal(ps[0].split(), ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"], f"{name}: ps")
        equal(ps[1].split()[0], "root", f"{name}: ps")
        equal(runtime.call("ps", id, "-x").text.split()[:5], ["PID", "TTY", "STAT", "TIME", "COMMAND"], f"{name}: ps -x")
        runtime.call("kill", id, "KILL")
        orders.append((state, list(listed[0])))
    for theirs, ours in zip(*orders):
        equal([k for k in ours if k in theirs], [k for k in theirs if k in ours], "order of the keys")


def seen_from_the_host(ctx):
    """What the host's tools show of a container is its processes, by their own names and command lines (`docker top`)."""
    inner = "printf renamed >/proc/self/comm; sleep 102; :"
    script = f"sleep 100 & time sleep 101 & sh -c '{inner}' & wait"
    b = ctx.bundle(["sh", "-c", script], bundle.busybox())

    def shown(runtime, id):
        found = []
        for pid in json.loads(runtime.call("ps", "--format", "json", id).text):
            try:
                with open(f"/proc/{pid}/comm", encoding="utf-8") as name, open(f"/proc/{pid}/cmdline", encoding="utf-8") as line:
                    found.append((name.read(), line.read()))
            except OSError:
                found.append(("ended", ""))
        return sorted(found)

    expected = sorted([("sh\n", f"sh\0-c\0{script}\0"), ("sleep\n", "sleep\000100\0"), ("time\n", "time\0sleep\000101\0"),
                       ("sleep\n", "sleep\000101\0"), ("renamed\n", f"sh\0-c\0{inner}\0"), ("sleep\n", "sleep\000102\0")])
    for runtime, name in both(ctx):
        id = created(runtime, b)
        runtime.call("start", id)
        try:
            process.wait_until(lambda: shown(runtime, id) == expected, 10, name)
        finally:
            equal(shown(runtime, id), expected, name)
        runtime.call("kill", id, "KILL")


def exec_ends_first(ctx):
    """Engines know no program of a container that has ended: its end waits until what stands for the program is reaped."""
    b = ctx.bundle("sleep 1000", bundle.busybox())
    for runtime, name in both(ctx):
        id = created(runtime, b)
        runtime.call("start", id)
        pid_file = f"{ctx.directory}/{name}.pid"
        with open(os.devnull, "r+b") as null:
            command = runtime.command("exec", "--detach", "--pid-file", pid_file, id, "sleep", "1000")
            equal(subprocess.run(command, stdin=null, stdout=null, stderr=subprocess.DEVNULL, timeout=60, check=False).returncode, 0, f"{name}: exec")
        init = runtime.state(id)["pid"]
        with open(pid_file, encoding="utf-8") as f:
            program = int(f.read())
        runtime.call("kill", id, "KILL")
        os.waitid(os.P_PID, program, os.WEXITED | os.WNOWAIT)
        time.sleep(0.3)
        equal(os.waitid(os.P_PID, init, os.WEXITED | os.WNOWAIT | os.WNOHANG), None, f"{name}: the container has ended before the program")
        equal(os.waitstatus_to_exitcode(os.waitpid(program, 0)[1]) in (-9, 137), True, f"{name}: the program's exit status")
        process.wait_until(lambda: os.waitid(os.P_PID, init, os.WEXITED | os.WNOWAIT | os.WNOHANG), 10, f"{name}: the container's end")


def stderr_let_go(ctx):
    """Whoever reads what `create --debug` says sees its end, though the container with a terminal lives on."""
    b = ctx.bundle("sleep 1000", bundle.busybox(), terminal=True)
    console = f"{ctx.directory}/console"
    master = subprocess.Popen(["python3", "-c", "import socket, sys\ns = socket.socket(socket.AF_UNIX)\ns.bind(sys.argv[1])\ns.listen()\nprint(flush=True)\n"
                               "c, _ = s.accept()\nfds = socket.recv_fds(c, 99, 1)\nsys.stdin.read()", console], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        master.stdout.readline()
        id = ctx.quark.new_id()
        done = ctx.quark.call("--debug", "create", "--console-socket", console, "--bundle", b, id, timeout=30)
        check(done.rc == 0 and "debug" in done.errors, f"{done}")
        equal(ctx.quark.state(id)["status"], "created", "state")
    finally:
        master.communicate()


def cases():
    return [
        Case("exec before start", exec_before_start),
        Case("delete before start", delete_before_start),
        Case("signal 0", signal_nothing),
        Case("working directory", working_directory),
        Case("unknown capability", unknown_capability),
        Case("process without a user", no_user),
        Case("link in place of /proc", linked_proc),
        Case("hooks' directory and environment", hook_directory),
        Case("user namespace and a closed source", closed_source),
        Case("sysctl without its namespace", sysctl_without_namespace),
        Case("a shared cgroup", shared_cgroup),
        Case("documents and tables", documents),
        Case("seen from the host", seen_from_the_host),
        Case("an exec ends before its container", exec_ends_first),
        Case("stderr is let go", stderr_let_go),
    ]
