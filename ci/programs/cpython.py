"""CPython's own regression tests: none may fail or be skipped that passes under runc on the same bundle."""
import os
import xml.etree.ElementTree as ET

import bundle
from cases import Case
from report import check, tell

# Seconds a file may take. In the short run only files of a few seconds that found something once; there all must pass.
SHORT = {"test_epoll": 60, "test_select": 60, "test_mmap": 60, "test_fcntl": 60, "test_pty": 60, "test_posix": 60, "test_resource": 60,
         "test_os": 120, "test_tempfile": 60, "test_threading": 120}
LONG = {"test_subprocess": 400, "test_signal": 300, "test_socket": 400, "test_selectors": 120, "test_shutil": 120, "test_asyncio": 900,
        "test_time": 120, "test_io": 300, "test_largefile": 300, "test_multiprocessing_fork": 600}
# Test or file, and why it may differ from runc.
KNOWN = {}


def run(ctx, runtime, name, limit, only=()):
    """Runs one test file; returns what became of each test."""
    results = f"{ctx.directory}/{runtime.name}-{len(only)}"
    os.makedirs(results, exist_ok=True)
    choice = [word for test in only for word in ("-m", test)]
    mount = {"destination": "/results", "type": "bind", "source": results, "options": ["rbind", "rw"]}
    b = ctx.bundle(["python3", "-X", "faulthandler", "-m", "test", "-v", "--timeout", str(limit - 20), "--junit-xml", "/results/x", *choice, name],
                   bundle.languages(), mounts=[mount], cwd="/tmp")
    done = runtime.run(b, timeout=limit)
    check(os.path.exists(f"{results}/x"), f"{name} did not come to its end\n{done}")
    outcome = {}
    for case in ET.parse(f"{results}/x").iter("testcase"):
        kinds = {e.tag: e.text or e.get("message") or "" for e in case}
        bad = kinds.get("failure") or kinds.get("error")
        outcome[case.get("name")] = ("failed", bad) if bad is not None else ("skipped", "") if "skipped" in kinds else ("passed", "")
    return outcome


def compare(name, limit, with_runc):
    def body(ctx):
        ours = run(ctx, ctx.quark, name, limit)
        failed = sorted(t for t, (how, _) in ours.items() if how == "failed")
        again = []
        if failed:
            # As CPython's own robots do: many of its tests measure time. What fails twice failed.
            second = run(ctx, ctx.quark, name, limit, failed)
            again = [t for t in failed if second.get(t, ("failed", ""))[0] != "failed"]
            failed = [t for t in failed if t not in again]
        theirs = run(ctx, ctx.reference, name, limit) if with_runc or failed else {}
        differs = {t: ours[t][1] for t in failed if theirs.get(t, ("failed",))[0] != "failed"}
        differs.update({t: "skipped, but not under runc" for t, (how, _) in ours.items()
                        if how == "skipped" and theirs.get(t, ("skipped",))[0] == "passed"})
        differs.update({t: "not run, but under runc" for t in theirs if t not in ours})
        known = [KNOWN[t] for t in differs if t in KNOWN]
        unknown = {t: why for t, why in differs.items() if t not in KNOWN}
        notes = known + [f"{len(again)} passed at the second run: {', '.join(t.rsplit('.', 1)[1] for t in again)}"] * bool(again)
        tell(f"cpython {name}", sum(how == "passed" for how, _ in ours.values()) + len(again), len(failed), "; ".join(notes))
        check(not unknown, "\n".join(f"{t}: {why[-600:]}" for t, why in unknown.items()))
        check(any(how == "passed" for how, _ in ours.values()), "no test ran")
    return Case(name, body, name in LONG)


def cases():
    for name, limit in SHORT.items():
        yield compare(name, limit, False)
    for name, limit in LONG.items():
        yield compare(name, limit, True)
