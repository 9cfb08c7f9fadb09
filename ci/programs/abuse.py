"""A hostile app: random system calls, most of them half valid, must end neither the sandbox nor the host."""
import os
import shutil
import time

import bundle
from cases import Case, native
from report import Failure, check, equal

# Each of the two cases; ABUSE_SECONDS for longer hunts.
SECONDS = int(os.environ.get("ABUSE_SECONDS") or 30)
LONG_SECONDS = int(os.environ.get("ABUSE_SECONDS") or 300)
# The first process says every second that all is well.
SILENCE = 40
PARTS = ["abuse_arguments.c", "abuse.h", "abuse_shapes.h"]


def tool():
    return native(os.path.join(os.path.dirname(__file__), "abuse.c"), "abuse", parts=PARTS)


def prepare(ctx):
    """Makes a root file system of its own, which the app may spoil; returns it and a file beside it that must stay as it is."""
    root = f"{ctx.directory}/root"
    bundle.skeleton(root)
    shutil.copy(tool(), f"{root}/bin/abuse")
    beside = f"{ctx.directory}/beside"
    with open(beside, "w", encoding="utf-8") as f:
        f.write("untouched")
    return root, beside


def host():
    """What an app may not change of the host's."""
    with open("/proc/sys/kernel/hostname", encoding="utf-8") as name:
        return name.read(), round((time.time() - time.monotonic()) / 20)


def bounded(as_root):
    """A change of the configuration: file systems of a bounded size, and, for root, new privileges."""
    def change(c):
        for m in c["mounts"]:
            if m["destination"] in ("/tmp", "/root"):
                m["options"].append("size=32m")
        c["process"]["noNewPrivileges"] = not as_root
    return change


def random_system_calls(user, seconds):
    def body(ctx):
        root, beside = prepare(ctx)
        seed = os.environ.get("SEED") or str(time.time_ns())
        b = ctx.bundle(["/bin/abuse", str(seconds), seed, user], root, resources={"pids": {"limit": 300}, "memory": {"limit": 1 << 30}},
                       change=bounded(user == "root"))
        before = host()
        again = f"(again with SEED={seed})"
        id = ctx.quark.new_id()
        p = ctx.quark.start("run", "--bundle", b, id)
        heard, size, seen_from_outside = time.monotonic(), 0, ""
        while p.p.poll() is None:
            if not seen_from_outside and b"hangs" in p.out:
                seen_from_outside = ctx.quark.call("debug", id).text if ctx.is_quark else "-"
            if len(p.err) + len(p.out) != size:
                heard, size = time.monotonic(), len(p.err) + len(p.out)
            if time.monotonic() - heard > SILENCE:
                seen = ctx.quark.call("debug", id).text
                try:
                    p.finish(0.1)
                except Failure as e:
                    raise Failure(f"the sandbox hangs {again}\n{e}\n{seen}") from None
            time.sleep(0.1)
        result = p.finish(seconds + 200)
        equal((result.rc, result.text), (0, "survived: 1\n"), f"outcome {again}\n{result}\n{result.errors}\n{seen_from_outside}")
        check(not any(word in result.errors for word in ("quark:", "panic")), f"a complaint of the sandbox's {again}\n{result}")
        equal(host(), before, f"the host {again}")
        with open(beside, encoding="utf-8") as f:
            equal(f.read(), "untouched", f"a file beside the root {again}")
        print(f"       {result.errors.strip().splitlines()[-1]}", flush=True)
    return body


def cases():
    for user in ("user", "root"):
        yield Case(f"random system calls as {user}", random_system_calls(user, SECONDS))
        yield Case(f"random system calls as {user}, for long", random_system_calls(user, LONG_SECONDS), True)
