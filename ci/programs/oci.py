"""The OCI runtime's commands and fields that engines use: hooks, update, events, features, HOME, the operator's settings."""
import json
import os
import subprocess
import time

import bundle
import process
from cases import Case
from report import check, equal

HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")


def hooks(ctx):
    """All six kinds run in order, each with the state on stdin."""
    note = f"{ctx.directory}/note"
    os.makedirs(note)

    def change(c):
        def hook(kind):
            # startContainer runs inside, and writes where the directory is mounted; createContainer on the host's side still.
            to = "/mnt" if kind == "startContainer" else note
            line = f"s=$(cat); echo \"{kind} $s $A\" | tr -d '\\n' >>{to}/log; echo >>{to}/log"
            return {"path": "/bin/sh", "args": ["sh", "-c", line], "env": ["A=1", "PATH=/bin:/usr/bin"], "timeout": 10}
        c["hooks"] = {kind: [hook(kind)] for kind in HOOKS}
        c["annotations"] = {"org.example.x": "y"}
    mount = {"destination": "/mnt", "type": "bind", "source": note, "options": ["bind"]}
    b = ctx.bundle("echo program >>/mnt/log", bundle.busybox(), mounts=[mount], change=change)
    done = ctx.quark.run(b, id=(id := ctx.quark.new_id()))
    equal(done.rc, 0, f"exit status\n{done}")
    with open(f"{note}/log", encoding="utf-8") as f:
        lines = f.read().splitlines()
    order = [line.split()[0] for line in lines]
    # The program may be quicker than the hook that runs after its start.
    # runc lets the hook that follows the start overtake the one that precedes the program.
    late = () if ctx.is_quark else ("poststart",)
    equal([w for w in order if w not in ("program", *late)], [h for h in HOOKS if h not in late], "order")
    check(order.index("startContainer") < order.index("program"), f"startContainer comes before the program: {order}")
    status = {"prestart": "creating", "createRuntime": "creating", "createContainer": "creating", "startContainer": "created",
              "poststart": "running", "poststop": "stopped"}
    for line in lines:
        kind, _, rest = line.partition(" ")
        if kind == "program":
            continue
        state = json.loads(rest[:rest.rindex("}") + 1])
        equal(rest[rest.rindex("}") + 1:], " 1", "the hook's environment")
        equal((state["id"], state["bundle"], state["annotations"]), (id, b, {"org.example.x": "y"}), kind)
        if ctx.is_quark:
            equal(state["status"], status[kind], f"status in {kind}")


def failing_hook(ctx):
    for kind in ("prestart", "createRuntime", "createContainer", "startContainer"):
        def change(c):
            c["hooks"] = {kind: [{"path": "/bin/sh", "args": ["sh", "-c", "exit 3"]}]}
        done = ctx.quark.run(ctx.bundle("echo ran", bundle.busybox(), change=change))
        check(done.rc != 0 and not done.out, f"{kind}: the container must not start\n{done}")
        if ctx.is_quark:
            check(kind in done.errors and "exit status 3" in done.errors, f"{kind}: not told\n{done}")


def slow_hook(ctx):
    def change(c):
        c["hooks"] = {"startContainer": [{"path": "/bin/sleep", "args": ["sleep", "100"], "timeout": 1}]}
    done = ctx.quark.run(ctx.bundle("echo ran", bundle.busybox(), change=change), timeout=20)
    check(done.rc != 0 and not done.out, f"the container must not start\n{done}")


def running(ctx, script="sleep 1000", **settings):
    """A container in the background; returns its id."""
    id = ctx.quark.new_id()
    b = ctx.bundle(script, bundle.busybox(), **settings)
    with open(os.devnull, "r+b") as null:
        done = subprocess.run(ctx.quark.command("run", "--detach", "--bundle", b, id), stdin=null, stdout=null, stderr=subprocess.DEVNULL,
                              timeout=60, check=False)
    equal(done.returncode, 0, "run --detach")
    return id


def update(ctx):
    # The program reaps what is orphaned to it: what has ended counts until then.
    reaper = "while :; do sleep 0.2; done"
    id = running(ctx, reaper, resources={"memory": {"limit": 100 << 20}, "pids": {"limit": 50}})
    done = ctx.quark.call("update", "--memory", "64m", "--memory-swap", "64m", "--pids-limit", "12", "--cpu-quota", "30000", "--cpu-period", "100000",
                          "--cpu-share", "512", id)
    equal(done.rc, 0, f"update\n{done}")
    forks = "i=0; while [ $i -lt 20 ]; do sleep 1 & i=$((i+1)); done 2>/dev/null; jobs -p | wc -l; wait"
    done = ctx.quark.call("exec", id, "sh", "-c", forks)
    check(done.rc != 0 or int(done.text or 0) < 12, f"the pids limit does not hold\n{done}")
    time.sleep(1.5)
    if ctx.is_quark:
        seen = ctx.quark.call("exec", id, "sh", "-c", "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max 2>/dev/null || grep MemTotal /proc/meminfo")
        check(str(64 << 20) in seen.text or str(64 << 10) in seen.text, f"the guest does not see the new limit\n{seen}")
    over = ctx.quark.call("exec", id, "sh", "-c", "tail /dev/zero", timeout=60)
    equal(over.rc, 137, f"more memory than the new limit\n{over}")
    resources = json.dumps({"memory": {"limit": 200 << 20, "swap": 200 << 20}, "pids": {"limit": -1}})
    done = ctx.quark.call("update", "-r", "-", id, stdin=resources.encode())
    equal(done.rc, 0, f"update -r -\n{done}")
    done = ctx.quark.call("exec", id, "sh", "-c", "head -c 100000000 /dev/zero | tail | wc -c")
    equal(done.text.strip(), "100000000", f"the raised limit\n{done}")
    done = ctx.quark.call("update", "--memory", "lots", id)
    check(done.rc != 0, "a number is no word")


def events(ctx):
    id = running(ctx, resources={"memory": {"limit": 64 << 20}})
    done = ctx.quark.call("events", "--stats", id)
    equal(done.rc, 0, f"events --stats\n{done}")
    event = json.loads(done.text)
    equal((event["type"], event["id"]), ("stats", id), "event")
    data = event["data"]
    check(data["cpu"]["usage"]["total"] > 0 and data["memory"]["usage"]["usage"] > 0 and data["pids"]["current"] > 0, f"figures\n{done}")
    watch = ctx.quark.start("events", "--interval", "200ms", id)
    watch.wait_for(b'"stats"')
    ctx.quark.call("exec", id, "sh", "-c", "tail /dev/zero")
    watch.wait_for(b'"oom"')
    ctx.quark.call("kill", id, "KILL")
    if not ctx.is_quark:
        process.kill_all([watch.p.pid])  # runc's never ends
    watch.finish(20)


def features(ctx):
    """What it says it can do, at least what runc says of hooks and namespaces."""
    ours = json.loads(ctx.quark.call("features").text)
    theirs = json.loads(ctx.reference.call("features").text)
    equal(sorted(ours["hooks"]), sorted(theirs["hooks"]), "hooks")
    equal(sorted(ours["linux"]["namespaces"]), sorted(theirs["linux"]["namespaces"]), "namespaces")
    equal(ours["linux"]["cgroup"]["v1"], True, "cgroup v1")


def home(ctx):
    for uid, expected in ((0, "/root"), (65534, "/"), (77, "/")):
        def change(c):
            c["process"]["user"]["uid"] = uid
            c["process"]["env"] = [e for e in c["process"]["env"] if not e.startswith("HOME=")]
        done = ctx.quark.run(ctx.bundle("echo $HOME", bundle.busybox(), change=change))
        equal(done.text.strip(), expected, f"HOME of user {uid}")


def preserved_descriptors(ctx):
    """What the caller of exec has open from 3 on is the program's, and no more."""
    id = running(ctx)
    said = {}
    for count in (0, 1, 2):
        command = ctx.quark.command("exec", "--preserve-fds", count, id, "sh", "-c", "for n in 3 4; do [ -e /proc/$$/fd/$n ] && cat <&$n; done")
        said[count] = process.run(["bash", "-c", 'exec 3<<<three 4<<<four; "$@"', "bash", *command])
    equal([said[n].text for n in (0, 1, 2)], ["", "three\n", "three\nfour\n"], f"{said[2]}")


def oom_score(ctx):
    def change(c):
        c["process"]["oomScoreAdj"] = 321
    b = ctx.bundle("cat /proc/self/oom_score_adj; sh -c 'cat /proc/self/oom_score_adj'", bundle.busybox(), change=change)
    equal(ctx.quark.run(b).text, "321\n321\n", "oom_score_adj")


def groups(ctx):
    def change(c):
        c["process"]["user"].update(uid=5, gid=50, additionalGids=[60, 50, 7])
    b = ctx.bundle("grep Groups /proc/self/status; id -G", bundle.busybox(), change=change)
    equal(ctx.quark.run(b).text.split(), ctx.reference.run(b).text.split(), "groups")


def with_settings(ctx, text, *words, timeout=60):
    """Runs quark where /etc/quark/config.json holds `text`."""
    file = f"{ctx.directory}/settings.json"
    with open(file, "w", encoding="utf-8") as f:
        f.write(text)
    made = not os.path.isdir("/etc/quark")
    os.makedirs("/etc/quark", exist_ok=True)
    script = f"mount -t tmpfs none /etc/quark && cp {file} /etc/quark/config.json && exec \"$@\""
    try:
        return process.run(["unshare", "--mount", "sh", "-c", script, "sh", *ctx.quark.command(*words)], timeout=timeout, log=ctx.log)
    finally:
        if made:
            os.rmdir("/etc/quark")


def settings(ctx):
    logs = f"{ctx.directory}/logs"
    good = {"DebugLevel": "Debug", "LogDir": logs, "LogKeep": 2, "AllowedAnnotations": ["DebugLevel"]}

    def bundle_with(**annotations):
        def change(c):
            c["annotations"] = {f"dev.quark.{k}": v for k, v in annotations.items()}
        return ctx.bundle("echo hi", bundle.busybox(), change=change)
    plain = bundle_with()
    for text, word in (('{"DebugLevl": "Off"}', "DebugLevl"), ('{"DebugLevel": "Loud"}', "DebugLevel"), ("{", "config.json"),
                       ('{"LogKeep": 0}', "LogKeep")):
        done = with_settings(ctx, text, "run", "--bundle", plain, ctx.quark.new_id())
        check(done.rc == 1 and word in done.errors and not done.out, f"{text}\n{done}")
    ids = [ctx.quark.new_id() for _ in range(3)]
    for id in ids:
        done = with_settings(ctx, json.dumps(good), "run", "--bundle", plain, id)
        equal((done.rc, done.text), (0, "hi\n"), f"run\n{done}")
    kept = sorted(os.listdir(logs))
    equal(kept, sorted(f"{id}.log" for id in ids[1:]), "logs kept")
    check(os.path.getsize(f"{logs}/{kept[0]}") > 0, "the log is empty")
    id = ctx.quark.new_id()
    done = with_settings(ctx, json.dumps(good), "run", "--bundle", bundle_with(DebugLevel="Off"), id)
    equal((done.rc, os.path.exists(f"{logs}/{id}.log")), (0, False), "an annotation that turns the log off")
    done = with_settings(ctx, json.dumps(good), "run", "--bundle", bundle_with(LogDir="/x"), ctx.quark.new_id())
    check(done.rc == 1 and "dev.quark.LogDir" in done.errors, f"an annotation that is not permitted\n{done}")
    done = with_settings(ctx, json.dumps(good), "config")
    equal(json.loads(done.text)["LogKeep"], 2, "quark config")


def debug(ctx):
    def change(c):
        c["process"]["env"].append("TOKEN=hidden-value")
    id = running(ctx, change=change)
    done = ctx.quark.call("debug", id)
    equal(done.rc, 0, f"debug\n{done}")
    for word in ("host kernel", "/etc/quark/config.json", f'"id": "{id}"', '"status": "running"', "sleep", "TOKEN=", "memory"):
        check(word in done.text, f"{word!r} is not in it\n{done}")
    check("hidden-value" not in done.text, "a value of the environment is told")


def copied_up(ctx):
    """A tmpfs with tmpcopyup begins with what lay beneath, and changes stay in it; any tmpfs has the mode of its directory."""
    mounts = [{"destination": "/etc", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup", "size=1m", "nosuid"]},
              {"destination": "/var", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup", "nosuid"]},
              {"destination": "/mnt", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid"]}]
    script = ("ls -ln /etc | awk '{print $1, $3, $4, $5, $9}'; echo more >>/etc/passwd; tail -1 /etc/passwd; touch /etc/new; stat -c %a /etc /var /mnt; "
              "ls /var /mnt; grep -cE ' /(etc|var|mnt) tmpfs rw,nosuid' /proc/mounts")
    b = ctx.bundle(script, bundle.busybox(), mounts=mounts)
    expected = ctx.reference.run(b)
    check("more" in expected.text, f"the comparison failed\n{expected}")
    equal(ctx.quark.run(b).text, expected.text, "what is seen")
    check("more" not in open(f"{bundle.busybox()}/etc/passwd", encoding="utf-8").read(), "the image was changed")


def cases():
    own = os.path.basename(os.environ.get("QUARK", "quark")).startswith("quark")
    return [
        Case("hooks of all kinds, in order", hooks),
        Case("a hook that fails", failing_hook),
        Case("a hook that takes too long", slow_hook),
        Case("update", update),
        Case("events", events),
        Case("features", features),
        Case("HOME from passwd", home),
        Case("exec --preserve-fds", preserved_descriptors),
        Case("oomScoreAdj", oom_score),
        Case("additional groups", groups),
        Case("tmpcopyup", copied_up),
    ] + ([
        Case("settings of the operator", settings),
        Case("debug", debug),
    ] if own else [])
