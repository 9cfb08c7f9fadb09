"""Clocks, timers and limits of CPU time, and children nobody waits for, line by line the same as under runc."""
import os
import shutil

import bundle
from cases import Case, native
from report import check, equal


def agrees(ctx):
    root = f"{ctx.directory}/root"
    bundle.skeleton(root)
    shutil.copy(native(os.path.join(os.path.dirname(__file__), "cputime.c"), "cputime"), f"{root}/bin/cputime")
    b = ctx.bundle(["/bin/cputime"], root)
    expected = ctx.reference.run(b, timeout=60)
    check(expected.rc == 0 and len(expected.text) > 1500, f"the comparison itself failed\n{expected}")
    result = ctx.quark.run(b, timeout=60)
    wrong = [f"{a!r} instead of {b!r}" for a, b in zip(result.text.splitlines(), expected.text.splitlines()) if a != b]
    check(not wrong, "\n".join(wrong))
    equal((result.rc, result.text), (0, expected.text), f"outcome\n{result}")


def cases():
    yield Case("clocks, timers and limits", agrees)
