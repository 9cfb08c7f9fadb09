"""Processor time: shared when there is work, untouched when there is none."""
import os
import time

import bundle
import process
from cases import Case
from report import check, equal


def on_one_processor(ctx, bundle_path, **options):
    """Runs with the whole sandbox on one processor."""
    return process.run(["taskset", "-c", str(min(os.sched_getaffinity(0))), *ctx.quark.command("run", "--bundle", bundle_path, ctx.quark.new_id())],
                       log=ctx.log, **options)


def busy_loop(ctx):
    """A busy loop in one process does not starve another on one processor."""
    script = ("while :; do :; done & spin=$!; i=0; while [ $i -lt 50 ]; do /bin/true; i=$((i+1)); done; echo $i; "
              "usleep 100000; kill $spin; wait $spin; echo $?")
    result = on_one_processor(ctx, ctx.bundle(script, bundle.busybox()), timeout=30)
    equal((result.rc, result.text), (0, "50\n143\n"), f"outcome\n{result}")
    check(result.seconds < 15, f"50 short programs beside a busy loop took {result.seconds:.1f} s")


def fair_shares(ctx):
    """Three busy loops on one processor get about the same."""
    script = ("for n in 1 2 3; do (trap 'echo $i; exit' TERM; i=0; while :; do i=$((i+1)); done) & p=\"$p $!\"; done; sleep 3; kill $p; wait")
    result = on_one_processor(ctx, ctx.bundle(script, bundle.busybox()), timeout=30)
    counts = [int(w) for w in result.text.split()]
    check(len(counts) == 3 and min(counts) * 3 > max(counts), f"loops counted {counts}\n{result}")


def run_time_ns(pids):
    """Returns the processor time of all threads of these processes, to the nanosecond."""
    total = 0
    for pid in pids:
        for thread in _threads(pid):
            try:
                with open(f"/proc/{pid}/task/{thread}/schedstat", encoding="utf-8") as f:
                    total += int(f.read().split()[0])
            except OSError:
                continue
    return total


def _threads(pid):
    try:
        return os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []


def idle(ctx):
    """An idle sandbox, everything it adds to the host counted, takes 0.0 % of a processor over 10 s."""
    b = ctx.bundle("sleep 1000 | cat & sleep 1000 & echo up; wait", bundle.busybox())
    p = ctx.quark.start("run", "--bundle", b, ctx.quark.new_id(), stdin=b"")
    p.wait_for(b"up\n")
    time.sleep(2)
    before = run_time_ns(process.descendants())
    time.sleep(10)
    percent = (run_time_ns(process.descendants()) - before) / 10e9 * 100
    check(percent < 0.05, f"an idle sandbox took {percent:.2f} % of a processor: "
          + ", ".join(f"{pid} {name}" for pid, name in process.descendants().items()))


def sleeps_are_exact(ctx):
    """A sleep ends neither early nor late."""
    result = ctx.quark.run(ctx.bundle(["python3", "-c", "import time\nt=time.monotonic()\nfor i in range(20): time.sleep(0.05)\nprint(time.monotonic()-t)"],
                                      bundle.debian()))
    took = float(result.text or "nan")
    check(1.0 <= took < 2.0, f"20 sleeps of 50 ms took {took:.3f} s\n{result}")


def cases():
    for body in (busy_loop, fair_shares, idle, sleeps_are_exact):
        yield Case(body.__name__.replace("_", " "), body)
