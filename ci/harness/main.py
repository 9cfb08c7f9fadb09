#!/usr/bin/env python3
"""Runs every test of the project and counts cases. Started by ci/test."""
import argparse
import importlib.util
import os
import platform
import re
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [HERE, os.path.join(TOP, "ci", "emulated"), os.path.join(TOP, "ci", "engines")]

import process  # noqa: E402
from cases import Context  # noqa: E402
from report import Failure, Report, Skip, check  # noqa: E402

ARCHES = ("x86_64", "aarch64")


def logged(report, name, command, timeout, env=None):
    """Runs a command with its output in the case's log; returns (exit status, output)."""
    path = report.log_path(name)
    with open(path, "w", encoding="utf-8") as log:
        try:
            rc = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                                timeout=timeout, env=env, check=False).returncode
        except subprocess.TimeoutExpired:
            rc = 124
            log.write(f"\ntimed out after {timeout} s\n")
    with open(path, encoding="utf-8", errors="replace") as log:
        return rc, log.read()


def command_case(report, name, command, timeout):
    def body():
        rc, text = logged(report, name, command, timeout)
        first = re.search(r"^error", text, re.M)
        shown = text[first.start():][:4000] if first else text[-3000:]
        check(rc == 0, f"$ {' '.join(command)}\nexit status {rc}\n{shown}")
    report.case(name, body)


def checks(report, _):
    directory = os.path.join(TOP, "ci", "checks")
    for name in sorted(os.listdir(directory)):
        command_case(report, f"checks/{name}", [os.path.join("ci", "checks", name)], 900)


def build(report, _):
    for arch in ARCHES:
        command_case(report, f"build/{arch}", ["make", "--no-print-directory", "all", f"ARCH={arch}"], 1200)


def parse_cargo(text):
    """Yields (name, outcome) of each test in the output of cargo test."""
    binary, kept = "", None
    for line in text.splitlines():
        m = re.match(r"\s+(?:Running (?:unittests )?(\S+) \(.*?([^/]+?)-[0-9a-f]+\)|Doc-tests (\S+))", line)
        if m:
            binary = (m[2] or "") + ":" + m[1].split("/", 1)[-1].removesuffix(".rs") if m[1] else f"{m[3]}:doc"
        m = re.match(r"test (.+?)(?: - should panic)? \.\.\. ?(\S*)", line)
        if m and m[2].rstrip(",") in ("ok", "FAILED", "ignored"):
            yield f"{binary}:{m[1]}", m[2].rstrip(",")
        elif m:
            kept = m[1]  # the test printed something itself before its outcome
        elif kept and line.strip() in ("ok", "FAILED"):
            yield f"{binary}:{kept}", line.strip()
            kept = None


def cargo_case(report, stage, command, timeout, env=None):
    """Runs cargo test and counts its tests, not itself, unless it does not get as far as tests."""
    if not report.wanted(stage):
        return
    began = time.monotonic()
    rc, text = logged(report, stage, command, timeout, env)
    outcomes = list(parse_cargo(text))
    if any(o == "FAILED" for _, o in outcomes):
        # As with any case: one that fails is run once more.
        again, more = logged(report, f"{stage}-again", command, timeout, env)
        good = {n for n, o in parse_cargo(more) if o == "ok"}
        report.unsteady += [f"{stage}/{n}" for n, o in outcomes if o == "FAILED" and n in good]
        outcomes = [(n, "ok" if n in good else o) for n, o in outcomes]
        rc = rc and again
        text += more
    for name, outcome in outcomes:
        full = f"{stage}/{name}"
        if outcome == "ok":
            report.passed += 1
        elif outcome == "ignored":
            report.skip(full, "marked #[ignore]", installable=False)
        else:
            start = text.find(f"---- {name.split(':', 2)[-1]} stdout ----")
            report.fail(full, text[start:start + 3000] if start >= 0 else "failed")
    if rc != 0 and not any(o == "FAILED" for _, o in outcomes):
        report.fail(stage, f"$ {' '.join(command)}\nexit status {rc}\n{text[-4000:]}")
    good = sum(o == "ok" for _, o in outcomes)
    print(f"{stage}: {good} of {len(outcomes)} tests ok ({time.monotonic() - began:.0f} s)", flush=True)


def cargo(report, _):
    command = ["cargo", "test", "--locked", "--workspace", "--no-fail-fast"]
    cargo_case(report, "cargo", command, 1200)


def loom(report, _):
    """Runs the tests written for loom, which explores interleavings instead of timing them."""
    found = subprocess.run(["git", "grep", "-lE", r"cfg\((all\(|any\()?(test, )?loom"], stdout=subprocess.PIPE, text=True, check=False)
    for package in sorted({p.split("/")[0] for p in found.stdout.split() if p.endswith(".rs")}):
        env = dict(os.environ, RUSTFLAGS="--cfg loom", CARGO_TARGET_DIR=os.path.join("target", "loom"))
        cargo_case(report, f"loom-{package}", ["cargo", "test", "--locked", "--release", "-p", package, "loom"], 900, env)


def load(path):
    """Imports a group by its path: their names would collide with packages."""
    spec = importlib.util.spec_from_file_location("group_" + os.path.basename(path)[:-3], path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def subject():
    """Returns the runtime under test and its flags: what was just built, or $QUARK."""
    binary = os.environ.get("QUARK") or os.path.join(TOP, "out", platform.machine(), "quark")
    flags = os.environ.get("QUARK_FLAGS")
    if flags is None:
        flags = "--platform=process" if os.path.basename(binary) == "quark" else ""
    return binary, flags.split()


def run_program_case(report, name, case):
    binary, flags = subject()

    def body():
        if os.geteuid() != 0:
            raise Skip("containers are tested as root: run as root", installable=False)
        ctx = Context(binary, flags, report.log_path(name))
        left = []
        try:
            case.body(ctx)
        finally:
            left = ctx.finish()
        check(not left, "left behind:\n" + "\n".join(left))
    if os.path.exists(report.log_path(name)):
        os.unlink(report.log_path(name))
    report.case(name, body)


def programs(report, full):
    directory = os.path.join(TOP, "ci", "programs")
    for file in sorted(os.listdir(directory)):
        group = file.removesuffix(".py")
        if not file.endswith(".py") or not report.wanted(f"programs/{group}"):
            continue
        for case in load(os.path.join(directory, file)).cases():
            if case.full and not full:
                continue
            run_program_case(report, f"programs/{group}/{case.name}", case)


def emulated(report, full):
    if not report.wanted("emulated"):
        return
    import emulated_tests
    emulated_tests.run(report, full, TOP)


def engines(report, full):
    """Docker, containerd and Podman as clients; what they print with runc and with Quark is compared."""
    if not report.wanted("engines"):
        return
    import engine_tests
    engine_tests.run(report, full, *subject())


STAGES = (checks, build, cargo, loom, programs, engines, emulated)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--full", action="store_true", help="the long lists too")
    p.add_argument("--only", action="append", default=[], help="stage, stage/group or stage/group/case")
    a = p.parse_args()
    os.chdir(TOP)
    process.become_subreaper()
    report = Report(os.path.join(TOP, "out", "test-logs"), a.only)
    for stage in STAGES:
        if not report.only or any(o.split("/")[0].startswith(stage.__name__) for o in report.only):
            stage(report, a.full)
    sys.exit(report.finish())


if __name__ == "__main__":
    main()
