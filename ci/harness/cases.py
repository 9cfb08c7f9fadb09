"""What a group of program tests is made of: cases, most of them rows of a table."""
import hashlib
import os
import platform
import re
import shutil
import tempfile
from dataclasses import dataclass
from typing import Callable

import apt
import bundle
import process
from report import Failure, check, equal
from runtime import Runtime, remove_tree, settle

# As expected output: what runc prints for the same command on the same bundle.
SAME = object()


@dataclass
class Case:
    """A named test; `body` gets a Context. `full`: only in the long run (make test-full)."""
    name: str
    body: Callable
    full: bool = False


class Context:
    """What one case works with: the runtime under test, one to compare with, and a directory for bundles."""

    def __init__(self, subject, flags, log):
        self.log = log
        self.directory = tempfile.mkdtemp(prefix="b.", dir="/tmp")
        self.quark = Runtime(subject, log=log, flags=flags)
        self.is_quark = self.quark.name.startswith("quark")
        self._reference = None
        self.bundles = 0

    @property
    def reference(self):
        """runc, by which a result is judged where it is not known beforehand."""
        if self._reference is None:
            apt.need("runc")
            self._reference = Runtime("runc", log=self.log, name="ref")
        return self._reference

    def bundle(self, args, root, **settings):
        """Writes a bundle; `args` may be a line for `sh -c`."""
        if isinstance(args, str):
            args = ["sh", "-c", args]
        self.bundles += 1
        return bundle.write(f"{self.directory}/{self.bundles}", bundle.config(args, root, **settings))

    def finish(self):
        """Removes everything; returns what was left behind."""
        left = []
        if self._reference is not None:
            self._reference.clean()
            self._reference.end()
        left += self.quark.clean()
        remaining = settle(5)
        process.kill_all(remaining)
        left += [f"process {pid} ({name})" for pid, name in remaining.items()]
        left += self.quark.remains()
        self.quark.end()
        process.reap()
        remove_tree(self.directory)
        return left


def compare(result, out, rc, err):
    """Judges a Result by literal expectations; `err` is a pattern, and empty unless told."""
    if rc is not None and result.rc != rc:
        raise Failure(f"exit status {result.rc}, expected {rc}\n{result}")
    if out is not None:
        equal(result.text, out, "stdout")
    if err is None or not re.search(err, result.errors, re.S) or (err == "" and result.err):
        if err is not None:
            raise Failure(f"stderr: expected {err!r}\n{result}")
    check(not result.held_open, "something still holds its stdout or stderr open")


def shell(name, script, out=SAME, rc=0, err="", stdin=b"", root=None, timeout=60, full=False, **settings):
    """A case that runs one script (or argument list) in a fresh container."""
    def body(ctx):
        b = ctx.bundle(script, root(), **settings)
        if out is SAME:
            expected = ctx.reference.run(b, stdin=stdin, timeout=timeout)
            check(expected.rc == rc, f"the comparison itself failed\n{expected}")
            result = ctx.quark.run(b, stdin=stdin, timeout=timeout)
            compare(result, expected.text, rc, err)
        else:
            compare(ctx.quark.run(b, stdin=stdin, timeout=timeout), out, rc, err)
    return Case(name, body, full)


def table(rows, **common):
    """Cases from rows (name, script, expected output[, further settings])."""
    return [shell(name, script, out, **{**common, **(more[0] if more else {})}) for name, script, out, *more in rows]


# By architecture: the cross compiler and the packages it comes in.
CROSS = {"aarch64": ("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"),
         "x86_64": ("x86_64-linux-gnu-gcc", "gcc-x86-64-linux-gnu", "libc6-dev-amd64-cross")}


def native(source, name, flags=(), parts=(), arch=platform.machine()):
    """Builds a static helper from a C file (and its other parts beside it), for the host's architecture unless told; returns its path."""
    compiler, *packages = ("gcc", "gcc", "libc6-dev") if arch == platform.machine() else CROSS[arch]
    apt.need(*packages)
    files = [source] + [os.path.join(os.path.dirname(source), p) for p in parts]
    # By content: several checkouts share a cache.
    key = hashlib.sha256(" ".join((compiler, *flags)).encode())
    for path in files:
        with open(path, "rb") as f:
            key.update(f.read())
    target = os.path.join(bundle.CACHE, "bin", key.hexdigest()[:12], name)
    if not os.path.exists(target):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        done = process.run([compiler, "-O2", "-Wall", "-static", "-pthread", "-o", target, *(f for f in files if f.endswith(".c")), *flags], timeout=120)
        check(done.rc == 0, f"{source} does not compile\n{done}")
    return target


def line_by_line(name, source, least=1000, change=None, timeout=60, args=(), full=False, parts=()):
    """A case that runs a program of ours, named after its C file, and compares each line it says with what it says under runc;
    fewer than `least` bytes there are no comparison."""
    def body(ctx):
        root = f"{ctx.directory}/root"
        program = os.path.splitext(os.path.basename(source))[0]
        shutil.copytree(bundle.busybox(), root, symlinks=True)
        shutil.copy(native(source, program, parts=parts), f"{root}/bin/{program}")
        b = ctx.bundle([program, *args], root, change=change)
        expected = ctx.reference.run(b, timeout=timeout)
        check(expected.rc == 0 and len(expected.text) > least, f"the comparison itself failed\n{expected}")
        result = ctx.quark.run(b, timeout=timeout)
        wrong = [f"{a!r} instead of {b!r}" for a, b in zip(result.text.splitlines(), expected.text.splitlines()) if a != b]
        check(not wrong, "\n".join(wrong))
        equal((result.rc, result.text), (0, expected.text), f"outcome\n{result}")
    return Case(name, body, full)
