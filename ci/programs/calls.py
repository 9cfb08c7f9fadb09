"""Corners of system calls that programs rely on, line by line the same as under runc."""
import os
import shutil

import bundle
from cases import Case, native
from report import check, equal


def agrees(name):
    def body(ctx):
        root = f"{ctx.directory}/root"
        shutil.copytree(bundle.busybox(), root, symlinks=True)
        shutil.copy(native(os.path.join(os.path.dirname(__file__), f"{name}.c"), name), f"{root}/bin/{name}")
        b = ctx.bundle([name], root)
        expected = ctx.reference.run(b)
        check(expected.rc == 0 and len(expected.text) > 500, f"the comparison itself failed\n{expected}")
        result = ctx.quark.run(b)
        wrong = [f"{a!r} instead of {b!r}" for a, b in zip(result.text.splitlines(), expected.text.splitlines()) if a != b]
        check(not wrong, "\n".join(wrong))
        equal((result.rc, result.text), (0, expected.text), f"outcome\n{result}")
    return body


def cases():
    yield Case("corners of system calls", agrees("calls"))
    yield Case("far ends, running programs, sockets in sockets", agrees("edges"))
