"""What goes wrong is told in one clear line, and leaves nothing behind."""
import json
import os
import random
import subprocess
import time

import bundle
import process
from cases import Case
from report import check, equal


def one_line(ctx, result, *words):
    """Checks a told failure: exit status not zero, nothing on stdout, one line that names what is wrong."""
    check(result.rc > 0, f"it must fail\n{result}")
    equal(result.out, b"", "stdout")
    lines = [line for line in result.errors.splitlines() if line.strip()]
    if ctx.is_quark:
        check(len(lines) == 1, f"one line expected\n{result}")
    check(lines, f"nothing was said\n{result}")
    for w in words:
        check(w in result.errors, f"{w!r} is not mentioned\n{result}")
    check("panicked" not in result.errors, f"a panic is no message\n{result}")


def run_of(configuration, *words, text=None):
    """A case that runs a bundle with a broken configuration."""
    def body(ctx):
        c = bundle.config(["true"], bundle.busybox())
        configuration(c)
        b = bundle.write(f"{ctx.directory}/b", text(json.dumps(c, indent=1)) if text else c)
        one_line(ctx, ctx.quark.run(b), *(words if ctx.is_quark else ()))
    return body


def missing_bundle(ctx):
    one_line(ctx, ctx.quark.run(f"{ctx.directory}/nosuch"), "nosuch")


def missing_config(ctx):
    os.makedirs(f"{ctx.directory}/empty")
    one_line(ctx, ctx.quark.run(f"{ctx.directory}/empty"), "config.json")


def args_wrong(c):
    c["process"]["args"] = "sh"


def uid_wrong(c):
    c["process"]["user"]["uid"] = "root"


def mount_wrong(c):
    del c["mounts"][2]["destination"]


def namespace_wrong(c):
    c["linux"]["namespaces"][1]["type"] = "nets"


def no_args(c):
    c["process"]["args"] = []


def no_rootfs(c):
    c["root"]["path"] = "/nosuch/rootfs"


def unknown_program(c):
    c["process"]["args"] = ["/bin/nosuch"]


def not_in_path(c):
    c["process"]["args"] = ["nosuch"]


def not_executable(c):
    c["process"]["args"] = ["/etc/passwd"]


def no_cwd_source(c):
    c["mounts"].append({"destination": "/mnt", "type": "bind", "source": "/nosuch/source", "options": ["bind"]})


def wrong_architecture(ctx):
    """The ELF header names the other processor."""
    root = f"{ctx.directory}/root"
    bundle.skeleton(root)
    with open("/bin/busybox", "rb") as f:
        image = bytearray(f.read())
    image[18:20] = (183 if image[18] == 62 else 62).to_bytes(2, "little")
    with open(f"{root}/bin/sh", "wb") as f:
        f.write(image)
    os.chmod(f"{root}/bin/sh", 0o755)
    words = ("/bin/sh", "architecture") if ctx.is_quark else ()
    one_line(ctx, ctx.quark.run(ctx.bundle(["/bin/sh"], root)), *words)


def second_create(ctx):
    id = create(ctx)
    b = ctx.bundle("true", bundle.busybox())
    one_line(ctx, ctx.quark.call("create", "--bundle", b, id), id if ctx.is_quark else "exist")
    equal(ctx.quark.state(id)["status"], "created", "state of the first")


def create(ctx, script="sleep 1000", start=False):
    id = ctx.quark.new_id()
    with open(os.devnull, "r+b") as null:
        done = subprocess.run(ctx.quark.command("create", "--bundle", ctx.bundle(script, bundle.busybox()), id), stdin=null, stdout=null,
                              stderr=subprocess.DEVNULL, timeout=60, check=False)
    equal(done.returncode, 0, "create")
    if start:
        equal(ctx.quark.call("start", id).rc, 0, "start")
    return id


def start_of_stopped(ctx):
    id = create(ctx, "true", start=True)
    process.wait_until(lambda: ctx.quark.state(id)["status"] == "stopped", 10, "stopped")
    one_line(ctx, ctx.quark.call("start", id), *(["stopped"] if ctx.is_quark else []))
    one_line(ctx, ctx.quark.call("exec", id, "true"))


def unknown_container(ctx):
    for words in (("state",), ("start",), ("kill",), ("delete",), ("ps",)):
        one_line(ctx, ctx.quark.call(*words, "nosuch"), "nosuch" if ctx.is_quark else "exist")
    one_line(ctx, ctx.quark.call("exec", "nosuch", "true"))


def bad_id(ctx):
    for id in ("../escape", "a/b", ""):
        one_line(ctx, ctx.quark.call("run", "--bundle", ctx.bundle("true", bundle.busybox()), id))


def wrong_usage(ctx):
    check(ctx.quark.call("frobnicate").rc != 0, "an unknown command must fail")
    if ctx.is_quark:
        check(ctx.quark.call("run", "--no-such-flag", "x").rc != 0, "an unknown flag must fail")


def log_as_json(ctx):
    log = f"{ctx.directory}/log.json"
    q = ctx.quark
    result = process.run([q.binary, "--root", q.root, *q.flags, "--log", log, "--log-format", "json", "run", "--bundle", "/nosuch", q.new_id()])
    check(result.rc != 0, "it must fail")
    with open(log, encoding="utf-8") as f:
        entries = [json.loads(line) for line in f if line.strip()]
    errors = [e for e in entries if e.get("level") == "error"]
    check(errors and "/nosuch" in errors[-1]["msg"] and "time" in errors[-1], f"no error entry with msg and time in {entries}")


def delete_force_removes(ctx, id):
    """After a violent end: the container reads as stopped, and delete --force leaves nothing."""
    q = ctx.quark
    result = q.call("delete", "--force", id, timeout=30)
    equal(result.rc, 0, f"delete --force\n{result}")


def kill_each_process(ctx):
    """SIGKILL of any one process of a running sandbox: it reads as stopped and can be deleted."""
    victims = 1
    n = 0
    while n < victims:
        id = create(ctx, "sleep 1000 & sleep 1000", start=True)
        time.sleep(0.3)
        pids = sorted(process.descendants())
        victims = len(pids)
        name = process.descendants().get(pids[n])
        process.kill_all([pids[n]])
        stopped_or_well(ctx, id, f"after SIGKILL of {name} ({n + 1} of {victims})")
        delete_force_removes(ctx, id)
        process.wait_until(lambda: (process.reap(), not process.descendants())[1], 10, f"all processes gone after SIGKILL of {name}")
        n += 1


def stopped_or_well(ctx, id, when):
    """The container reads as stopped; or it lives on because only a child in it was hit, and then it must work."""
    end = time.monotonic() + 3
    while ctx.quark.state(id)["status"] != "stopped":
        if time.monotonic() > end:
            result = ctx.quark.call("exec", id, "true", timeout=20)
            check(result.rc == 0, f"reads as running {when}, but does not work\n{result}")
            return
        time.sleep(0.1)


def kill_while_starting(ctx):
    """SIGKILL of the runtime at any moment of its start: delete --force removes whatever there is."""
    b = ctx.bundle("sleep 1000", bundle.busybox())
    choose = random.Random(5)
    for _ in range(15):
        id = ctx.quark.new_id()
        p = ctx.quark.start("run", "--bundle", b, id)
        time.sleep(choose.random() * 0.25)
        process.kill_all([p.p.pid])
        p.p.wait()
        delete_force_removes(ctx, id)
        process.wait_until(lambda: (process.reap(), not process.descendants())[1], 10, "all processes gone")
        left = ctx.quark.remains()
        check(not left, "\n".join(left))
        process.running.discard(p.p)


def closed_stdout(ctx):
    """A reader that goes away is the program's business, not the runtime's."""
    b = ctx.bundle("trap '' PIPE; yes >/dev/stdout; echo status $? >&2", bundle.busybox())
    line = " ".join(ctx.quark.command("run", "--bundle", b, ctx.quark.new_id())) + " | head -n 1"
    result = process.run(["sh", "-c", line], timeout=30)
    equal(result.text, "y\n", "the first line")
    check("panicked" not in result.errors, result.errors)


def cases():
    broken = [
        ("args is no list", args_wrong, "process.args"),
        ("uid is no number", uid_wrong, "process.user.uid"),
        ("mount without destination", mount_wrong, "mounts[2]"),
        ("unknown namespace", namespace_wrong, "linux.namespaces[1].type"),
        ("empty args", no_args, "process.args"),
        ("missing rootfs", no_rootfs, "/nosuch/rootfs"),
        ("unknown program", unknown_program, "/bin/nosuch"),
        ("program not in PATH", not_in_path, "nosuch"),
        ("program not executable", not_executable, "/etc/passwd"),
        ("missing bind source", no_cwd_source, "/nosuch/source"),
    ]
    for name, change, *words in broken:
        yield Case(name, run_of(change, *words))
    yield Case("config.json is no JSON", run_of(lambda c: None, "config.json", "line 2", text=lambda t: t.replace(",\n", ";\n", 2)))
    for body in (missing_bundle, missing_config, wrong_architecture, second_create, start_of_stopped, unknown_container, bad_id, wrong_usage,
                 log_as_json, closed_stdout, kill_each_process, kill_while_starting):
        yield Case(body.__name__.replace("_", " "), body)
