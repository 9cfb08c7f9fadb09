"""File system calls, line by line the same as under runc: on a tmpfs and on a host directory."""
import os
import shutil

import bundle
from cases import Case, native
from report import check, equal


def lines_agree(directory):
    def body(ctx):
        root = f"{ctx.directory}/root"
        shutil.copytree(bundle.busybox(), root, symlinks=True)
        shutil.copy(native(os.path.join(os.path.dirname(__file__), "files.c"), "files", ["-w"]), f"{root}/bin/files")
        # The directory starts empty for both.
        b = ctx.bundle(f"mkdir {directory}; files {directory}; rc=$?; rm -r {directory}; exit $rc", root, readonly=False)
        expected = ctx.reference.run(b)
        check(expected.rc == 0 and len(expected.text) > 10000, f"the comparison itself failed\n{expected}")
        result = ctx.quark.run(b)
        ours, theirs = result.text.splitlines(), expected.text.splitlines()
        wrong = [f"line {i + 1}: {a!r} instead of {b!r}" for i, (a, b) in enumerate(zip(ours, theirs)) if a != b]
        check(not wrong, "\n".join(wrong[:20]))
        equal((result.rc, len(ours)), (0, len(theirs)), f"outcome\n{result}")
    return body


def cases():
    yield Case("file system calls on tmpfs", lines_agree("/tmp/files"))
    yield Case("file system calls on the root file system", lines_agree("/files"))
