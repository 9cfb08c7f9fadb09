#!/usr/bin/env python3
"""Cold start, idle memory, micro-benchmarks, and servers under Docker, of quark, runc and gVisor (systrap), side by side in one run.

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
from runtime import Runtime, settle  # noqa: E402

import docker_rows  # noqa: E402

QUARK_FLAGS = ["--platform=process"]
PEERS = [
    ("quark", os.path.join(TOP, "out", platform.machine(), "quark"), QUARK_FLAGS),
    ("runc", "runc", []),
    ("runsc", "runsc", ["--platform=systrap", "--network=none", "--ignore-cgroups"]),
]


class Clock:
    """The time this run may take: what does not fit any more is left out, and said."""

    def __init__(self, seconds):
        self.end = time.monotonic() + seconds

    def left(self):
        return self.end - time.monotonic()

    def limit(self, seconds):
        """Time limit of one step: the last ones get what is left."""
        return max(1, min(seconds, self.left()))


def runtimes(names, before):
    found = {}
    peers = list(PEERS)
    if before:
        peers.insert(1, ("before", before, QUARK_FLAGS))
    for name, binary, flags in peers:
        if names and name not in names and name != "before":
            continue
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


def start_to_end(peers, b, rounds, clock):
    """Returns {name: median milliseconds} from the call of `run` to the end of the bundle's program."""
    times, peers = {n: [] for n in peers}, dict(peers)
    for n in range(rounds + 1):
        for name, r in list(peers.items()):
            if n > 1 and clock.left() < 10:
                break
            try:
                result = r.run(b, timeout=clock.limit(30))
                check(result.rc == 0, str(result))
            except Failure as e:
                print(f"{name} failed: {e}", file=sys.stderr)
                del peers[name]
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


def idle_memory(peers, b, clock):
    """Returns {name: MiB} of everything a sandbox with one sleeping program adds, the runtime's foreground process included."""
    found = {}
    for name, r in peers.items():
        id = r.new_id()
        p = r.start("run", "--bundle", b, id)
        try:
            p.wait_for(b"up\n", clock.limit(30))
            time.sleep(1)
            found[name] = pss_mib(process.descendants())
        except Failure as e:
            print(f"idle memory of {name}: {e}", file=sys.stderr)
        r.call("kill", id, "KILL")
        try:
            p.finish(30)
        except Failure as e:
            print(f"{name} does not end: {e}", file=sys.stderr)
        r.call("delete", "--force", id)
        process.kill_all(settle(2))
    return found


def micro(peers, b, native_command, directory, rounds, clock):
    """Returns {test: {name: median ns}}, the bare host as 'host'."""
    values, took = {}, {}
    for n in range(rounds):
        for name in ["host", *peers]:
            # A round that would not end in time is not begun, but the first one of each is.
            if n and clock.left() < 1.5 * took[name] + 5:
                print(f"no time for round {n + 1} of {name}", file=sys.stderr)
                continue
            limit = clock.limit(150)
            try:
                run = process.run(native_command, cwd=directory, timeout=limit) if name == "host" else peers[name].run(b, timeout=limit)
            except Failure as e:
                print(f"ubench under {name}: {str(e)[:600]}", file=sys.stderr)
                took[name] = limit
                continue
            took[name] = run.seconds
            if run.rc != 0:
                print(f"ubench under {name} ended early: {run.text.splitlines()[-1:]} {run.errors[-300:]}", file=sys.stderr)
            for line in run.text.splitlines():
                test, _, ns = line.partition("\t")
                if ns:
                    values.setdefault(test, {}).setdefault(name, []).append(float(ns))
    return {t: {n: statistics.median(v) for n, v in by.items()} for t, by in values.items()}


def number(value):
    return "–" if value is None else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def row(title, by, columns):
    cells = [number(by.get(c)) for c in columns]
    quark = by.get("quark")
    for peer in columns:
        other = by.get(peer)
        if peer != "quark":
            cells.append("–" if not quark or not other else f"{other / quark:.2f}")
    print("| " + " | ".join([title, *cells]) + " |", flush=True)


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--rounds", type=int, default=3, help="rounds of the micro-benchmark; seven times as many starts")
    p.add_argument("--quick", action="store_true", help="one round of each")
    p.add_argument("--seconds", type=int, default=420, help="time for everything; what does not fit is left out")
    p.add_argument("--only", action="append", default=[], help="measure this row alone (may be given again)")
    p.add_argument("--peers", help="comma-separated: quark,runc,runsc")
    p.add_argument("--before", metavar="QUARK", help="another build of quark (its qkernel beside it), as a column of its own")
    a = p.parse_args()
    if os.geteuid() != 0:
        sys.exit("bench: containers are measured as root: run as root")
    clock = Clock(a.seconds)
    rounds = 1 if a.quick else a.rounds
    process.become_subreaper()
    program = native(os.path.join(HERE, "ubench.c"), "ubench")
    peers = runtimes(a.peers and a.peers.split(","), a.before)
    columns = ["host", *peers]
    rest = [t for t in a.only if t not in ("start", "memory", "python", "docker")]

    def asked(what):
        return not a.only or what in a.only

    try:
        with tempfile.TemporaryDirectory(prefix="bench.", dir="/var/tmp") as d:
            root = f"{d}/root"
            shutil.copytree(bundle.busybox(), root, symlinks=True)
            shutil.copy(program, f"{root}/bin/ubench")
            print(f"\n{platform.machine()}, Linux {platform.release()}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}\n")
            print("| | " + " | ".join(columns) + " | " + " | ".join(f"{c} ÷ quark" for c in columns if c != "quark") + " |")
            print("|---" * (2 * len(columns)) + "|")
            if asked("start"):
                b = make_bundle(f"{d}/true", root, ["ubench", "true"])
                row("cold start of `true`, ms", start_to_end(peers, b, 7 * rounds, clock), columns)
            if asked("memory"):
                b = make_bundle(f"{d}/idle", root, ["sh", "-c", "echo up; exec sleep 1000"])
                row("idle memory (PSS), MiB", idle_memory(peers, b, clock), columns)
            debian = bundle.debian(make=False)
            if asked("python") and debian:
                b = bundle.write(f"{d}/python", bundle.config(["python3", "-c", "import json, ssl, asyncio"], debian))
                row("python3 import json, ssl, asyncio, ms", start_to_end(peers, b, 2 * rounds, clock), columns)
            elif asked("python"):
                print("not measured: python3 (make test makes its root file system)", file=sys.stderr)
            if not a.only or rest:
                b = make_bundle(f"{d}/ubench", root, ["ubench", *rest])
                for test, by in micro(peers, b, [program, *rest], d, rounds, clock).items():
                    row(f"{test}, ns", by, columns)
            if asked("docker"):
                for title, by in docker_rows.rows(peers, 1 if a.quick else 2, clock):
                    row(title, by, columns)
    finally:
        for r in peers.values():
            r.clean()
        process.kill_all(settle(2))
        for r in peers.values():
            r.end()
    print("\nMore than 1 in the last columns: quark is faster (or smaller) by that factor.")


if __name__ == "__main__":
    main()
