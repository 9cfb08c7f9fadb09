#!/usr/bin/env python3
"""Cold start, idle memory and micro-benchmarks of quark, runc and gVisor (systrap), side by side in one run.

Started by ci/bench/run. The machines this runs on are shared and noisy: rounds are interleaved, medians are shown, and
differences below a factor of 1.5 are noise.
"""
import argparse
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(TOP, "ci", "harness"))

import bundle  # noqa: E402
import process  # noqa: E402
from cases import native  # noqa: E402
from report import Failure, Skip, check  # noqa: E402
from runtime import Runtime  # noqa: E402

PEERS = [
    ("quark", os.path.join(TOP, "out", platform.machine(), "quark"), ["--platform=process"]),
    ("runc", "runc", []),
    ("runsc", "runsc", ["--platform=systrap", "--network=none", "--ignore-cgroups"]),
]


def runtimes():
    found = {}
    for name, binary, flags in PEERS:
        try:
            r = Runtime(binary, flags=flags, name=name)
            check(process.run([r.binary, "--version"]).rc == 0, "no version")
            found[name] = r
        except (Skip, Failure) as e:
            print(f"not measured: {name}: {e}", file=sys.stderr)
    return found


def make_bundle(directory, root, args):
    """A bundle all three accept; its work directory is on the host's file system, not in memory."""
    work = f"{directory}/work"
    os.makedirs(work, exist_ok=True)
    mounts = [{"destination": "/mnt", "type": "bind", "source": work, "options": ["rbind", "rw"]}]
    return bundle.write(directory, bundle.config(args, root, mounts=mounts, cwd="/mnt"))


def cold_start(peers, b, rounds):
    """Returns {name: median milliseconds} from the call to the end of a program that does nothing."""
    times = {n: [] for n in peers}
    for n in range(rounds + 1):
        for name, r in list(peers.items()):
            id = r.new_id()
            result = r.run(b, id=id)
            if result.rc != 0:
                print(f"cold start of {name} failed: {result}", file=sys.stderr)
                times.pop(name, None)
                peers = {k: v for k, v in peers.items() if k != name}
                continue
            if n:  # the first round warms caches
                times[name].append(result.seconds * 1000)
    return {n: statistics.median(t) for n, t in times.items() if t}


def pss_mib(pids):
    total = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/smaps_rollup", encoding="utf-8") as f:
                total += sum(int(line.split()[1]) for line in f if line.startswith("Pss:"))
        except OSError:
            continue
    return total / 1024


def idle_memory(peers, b):
    """Returns {name: MiB} of everything a sandbox with one sleeping program adds, the runtime's foreground process included."""
    found = {}
    for name, r in peers.items():
        id = r.new_id()
        p = r.start("run", "--bundle", b, id)
        try:
            p.wait_for(b"up\n", 30)
            time.sleep(2)
            found[name] = pss_mib(process.descendants())
        except Failure as e:
            print(f"idle memory of {name}: {e}", file=sys.stderr)
        r.call("kill", id, "KILL")
        p.finish(60)
        r.call("delete", "--force", id)
        process.kill_all(process.descendants())
    return found


def micro(peers, b, native_binary, directory, rounds):
    """Returns {test: {name: median ns}}, the bare host as 'host'."""
    values = {}
    for _ in range(rounds):
        outputs = {"host": process.run([native_binary], cwd=directory, timeout=300)}
        for name, r in peers.items():
            try:
                outputs[name] = r.run(b, timeout=300)
            except Failure as e:
                print(f"ubench under {name}: {e}", file=sys.stderr)
        for name, result in outputs.items():
            if result.rc != 0:
                print(f"ubench under {name} ended early: {result.text.splitlines()[-1:]} {result.errors[-300:]}", file=sys.stderr)
            for line in result.text.splitlines():
                test, _, ns = line.partition("\t")
                if ns:
                    values.setdefault(test, {}).setdefault(name, []).append(float(ns))
    return {t: {n: statistics.median(v) for n, v in by.items()} for t, by in values.items()}


def number(value):
    return "–" if value is None else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def row(title, by, columns):
    cells = [number(by.get(c)) for c in columns]
    quark = by.get("quark")
    for peer in ("runc", "runsc"):
        other = by.get(peer)
        cells.append("–" if not quark or not other else f"{other / quark:.2f}")
    print("| " + " | ".join([title, *cells]) + " |", flush=True)


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--rounds", type=int, default=3, help="rounds of the micro-benchmark; ten times as many cold starts")
    p.add_argument("--quick", action="store_true", help="one round of each")
    a = p.parse_args()
    if os.geteuid() != 0:
        sys.exit("bench: containers are measured as root: run as root")
    rounds = 1 if a.quick else a.rounds
    process.become_subreaper()
    program = native(os.path.join(HERE, "ubench.c"), "ubench")
    peers = runtimes()
    columns = ["host", "quark", "runc", "runsc"]
    with tempfile.TemporaryDirectory(prefix="bench.", dir="/var/tmp") as d:
        root = f"{d}/root"
        shutil.copytree(bundle.busybox(), root, symlinks=True)
        shutil.copy(program, f"{root}/bin/ubench")
        print(f"\n{platform.machine()}, Linux {platform.release()}, {os.cpu_count()} processors\n")
        print("| | " + " | ".join(columns) + " | runc ÷ quark | runsc ÷ quark |")
        print("|---" * (len(columns) + 3) + "|")
        row("cold start of `true`, ms", cold_start(dict(peers), make_bundle(f"{d}/true", root, ["ubench", "true"]), 10 * rounds), columns)
        row("idle memory (PSS), MiB", idle_memory(peers, make_bundle(f"{d}/idle", root, ["sh", "-c", "echo up; exec sleep 1000"])), columns)
        for test, by in micro(peers, make_bundle(f"{d}/ubench", root, ["ubench"]), program, f"{d}", rounds).items():
            row(f"{test}, ns", by, columns)
    for r in peers.values():
        r.clean()
        r.end()
    print("\nMore than 1 in the last two columns: quark is faster (or smaller) by that factor.")


if __name__ == "__main__":
    main()
