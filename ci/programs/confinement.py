"""QVisor's own wall: its threads have no capability they do not need, and die of a host call they never make."""
import os
import platform
import signal
import subprocess

import bundle
import process
from cases import Case, native
from report import Skip, check, equal

UNSHARE = {"x86_64": 272, "aarch64": 97}[platform.machine()]

# CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID
SERVING = sum(1 << n for n in range(5))
# Kept where the container's bounding set has them.
BOUNDED = {"CAP_NET_BIND_SERVICE": 10, "CAP_NET_RAW": 13, "CAP_MKNOD": 27, "CAP_SETFCAP": 31}


def only_quark(ctx):
    if not ctx.is_quark:
        raise Skip("about Quark's own processes", installable=False)


def start(ctx, capabilities=()):
    """A container in the foreground that has these capabilities only; returns the program and its sandbox process."""
    def change(config):
        config["process"]["capabilities"] = {s: list(capabilities) for s in ("bounding", "effective", "permitted")}
    id = ctx.quark.new_id()
    p = ctx.quark.start("run", "--bundle", ctx.bundle("echo up; exec sleep 1000", bundle.busybox(), change=change), id)
    p.wait_for(b"up\n")
    return id, p, ctx.quark.state(id)["pid"]


def threads(pid):
    """Returns {name: [(tid, status)]} of a process's threads; a status is its file in /proc as a dictionary."""
    found = {}
    for tid in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{tid}/status", encoding="utf-8") as f:
            status = dict(line.rstrip("\n").split(":\t", 1) for line in f)
        found.setdefault(status["Name"].rstrip("0123456789"), []).append((int(tid), status))
    return found


def machine(pid):
    """Returns the processes of the sandbox's machine."""
    return sorted(process.descendants(pid))


def threads_are_confined(ctx, capabilities=()):
    only_quark(ctx)
    id, p, pid = start(ctx, capabilities)
    found = threads(pid)
    equal(sorted(found), ["quark-broker", "quark-sandbox"], "threads of the sandbox process")
    for name, list in found.items():
        for tid, status in list:
            equal((status["Seccomp"], status["NoNewPrivs"]), ("2", "1"), f"filter and no_new_privs of {name} ({tid})")
            kept = int(status["CapEff"], 16) | int(status["CapPrm"], 16)
            expected = SERVING | sum(1 << BOUNDED[c] for c in capabilities) if name == "quark-broker" else 0
            check(kept == expected, f"capabilities of {name}: {kept:#x}, not {expected:#x}")
    for child in machine(pid):
        for name, list in threads(child).items():
            for _, status in list:
                equal((status["Seccomp"], status["NoNewPrivs"], int(status["CapPrm"], 16)), ("2", "1", 0), f"{name} ({child})")
    ctx.quark.call("kill", id, "KILL")
    equal(p.finish(20).rc, 137, "exit status")


def forbidden_call(pick):
    """A thread makes a call that its list does not have: the sandbox ends, and says why."""
    def body(ctx):
        only_quark(ctx)
        tool = native(os.path.join(os.path.dirname(__file__), "inject.c"), "inject")
        id, p, pid = start(ctx)
        done = process.run([tool, str(pick(pid)), str(UNSHARE), "0x20000"], timeout=20)
        equal(done.rc, 0, f"inject\n{done}")
        result = p.finish(20)
        check(result.rc not in (0, None), f"the sandbox goes on\n{result}")
        check("its filter forbids" in result.errors, f"no reason is told\n{result}")
        check("panicked" not in result.errors, result.errors)
        check(id not in [c["id"] for c in ctx.quark.containers()], "the container is left behind")
    return body


def told_afterwards(ctx):
    """Nobody waits for the process of a detached sandbox: what its filter ended it for is in its state."""
    only_quark(ctx)
    tool = native(os.path.join(os.path.dirname(__file__), "inject.c"), "inject")
    id = ctx.quark.new_id()
    with open(os.devnull, "r+b") as null:
        command = ctx.quark.command("run", "--detach", "--bundle", ctx.bundle("sleep 1000", bundle.busybox()), id)
        equal(subprocess.run(command, stdin=null, stdout=null, stderr=null, timeout=60, check=False).returncode, 0, "run --detach")
    first = threads(ctx.quark.state(id)["pid"])["quark-sandbox"][0][0]
    equal(process.run([tool, str(first), str(UNSHARE), "0x20000"], timeout=20).rc, 0, "inject")
    process.wait_until(lambda: ctx.quark.state(id)["status"] == "stopped", 10, "stopped")
    state = ctx.quark.state(id)
    check(f"its filter forbids, {UNSHARE}: " in state["reason"], state["reason"])
    equal(state["exitCode"], 128 + signal.SIGSYS, "exit status")


def cases():
    yield Case("threads are confined", threads_are_confined)
    yield Case("a container's capabilities bound its broker's", lambda ctx: threads_are_confined(ctx, BOUNDED))
    yield Case("forbidden call of a detached sandbox", told_afterwards)
    for name in ("quark-sandbox", "quark-broker"):
        yield Case(f"forbidden call of {name}", forbidden_call(lambda pid, name=name: threads(pid)[name][0][0]))
    yield Case("forbidden call of the machine", forbidden_call(lambda pid: machine(pid)[0]))
