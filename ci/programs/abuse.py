"""A hostile app: random system calls must end neither the sandbox nor the host."""
import os
import shutil
import time

import bundle
from cases import Case, native
from report import equal

SECONDS = int(os.environ.get("ABUSE_SECONDS") or 60)


def random_system_calls(ctx):
    """Every number from 0 to 600 with random arguments, by children without privileges."""
    root = f"{ctx.directory}/root"
    bundle.skeleton(root)
    shutil.copy(native(os.path.join(os.path.dirname(__file__), "abuse.c"), "abuse"), f"{root}/bin/abuse")
    seed = os.environ.get("SEED") or str(time.time_ns())
    b = ctx.bundle(["/bin/abuse", str(SECONDS), seed], root, resources={"pids": {"limit": 200}, "memory": {"limit": 512 << 20}})
    result = ctx.quark.run(b, timeout=SECONDS * 3 + 30)
    equal((result.rc, result.text), (0, "survived: 1\n"), f"outcome (again with SEED={seed})\n{result}")
    print(f"       {result.errors.strip()}", flush=True)


def cases():
    yield Case("random system calls", random_system_calls)
