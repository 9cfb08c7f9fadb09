"""Waiting for what is outside of the guest kernel, as a program whose lines every kernel must print alike."""
import os
import shutil

import bundle
import process
from cases import Case, native
from report import equal


def host_objects(ctx):
    """epoll, poll and select on a pipe from the host, on sockets, and on both with objects of the guest."""
    root = f"{ctx.directory}/root"
    bundle.skeleton(root)
    tool = native(os.path.join(os.path.dirname(__file__), "waits.c"), "waits")
    shutil.copy(tool, f"{root}/bin/waits")
    b = ctx.bundle(["/bin/waits"], root)
    feed = "{ sleep 1; echo one; sleep 0.5; echo two; sleep 0.5; echo three; sleep 0.5; echo four; sleep 0.5; } | "
    outcomes = []
    for command in ([tool], ctx.quark.command("run", "--bundle", b, ctx.quark.new_id())):
        result = process.run(["sh", "-c", feed + " ".join(command)], timeout=60, log=ctx.log)
        equal(result.rc, 0, f"exit status\n{result}")
        outcomes.append(result.text)
    equal(outcomes[1], outcomes[0], "lines")


def cases():
    yield Case("host objects", host_objects)
