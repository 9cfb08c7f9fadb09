"""Mounting inside the container, line by line the same as under runc with the same capabilities."""
import os
import shutil

import bundle
from cases import Case, native
from report import check, equal


def administrator(c):
    for kind in ("bounding", "effective", "permitted"):
        c["process"]["capabilities"][kind] = bundle.CAPABILITIES + ["CAP_SYS_ADMIN"]


def agrees(ctx):
    root = f"{ctx.directory}/root"
    shutil.copytree(bundle.busybox(), root, symlinks=True)
    shutil.copy(native(os.path.join(os.path.dirname(__file__), "mounts.c"), "mounts"), f"{root}/bin/mounts")
    b = ctx.bundle(["mounts"], root, change=administrator)
    expected = ctx.reference.run(b)
    check(expected.rc == 0 and len(expected.text) > 1000, f"the comparison itself failed\n{expected}")
    result = ctx.quark.run(b)
    wrong = [f"{a!r} instead of {b!r}" for a, b in zip(result.text.splitlines(), expected.text.splitlines()) if a != b]
    check(not wrong, "\n".join(wrong))
    equal((result.rc, result.text), (0, expected.text), f"outcome\n{result}")


def cases():
    yield Case("mounting inside", agrees)
