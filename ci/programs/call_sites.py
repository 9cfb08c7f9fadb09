"""Call sites: system calls that come by a patched site do what trapped ones do, whatever else goes on."""
import os
import shutil

import bundle
from cases import Case, native
from report import equal
from runtime import Runtime

NAMES = ("one thread", "signals", "restarts", "forks", "odd", "threads", "any", "breakpoints", "text", "debugger", "ends", "last")
PARTS = "".join(f"ok {p}\n" for p in NAMES)


def with_sites(quark, way):
    """The same runtime, with call sites patched or not."""
    flags = [f for f in quark.flags if not f.startswith("--call-sites")]
    return Runtime(quark.binary, log=quark.log, flags=[*flags, f"--call-sites={way}"], name=quark.name)


def hammer(way):
    def body(ctx):
        root = f"{ctx.directory}/root"
        shutil.copytree(bundle.busybox(), root, symlinks=True)
        source = os.path.join(os.path.dirname(__file__), "call_sites.c")
        shutil.copy(native(source, "call-sites"), f"{root}/bin/call-sites")
        words = ["call-sites"] + (["patched"] if way == "patch" else [])
        if ctx.is_quark:
            ctx.quark = with_sites(ctx.quark, way)
        else:
            words = ["call-sites"]
        result = ctx.quark.run(ctx.bundle(words, root))
        equal((result.rc, result.text), (0, PARTS), f"outcome\n{result}")
    return body


def shell(ctx):
    """Many short programs, each patched anew or not at all."""
    if ctx.is_quark:
        ctx.quark = with_sites(ctx.quark, "patch")
    script = "i=0; while [ $i -lt 100 ]; do seq 1 200 | sort -r | sort -n | tail -1; i=$((i+1)); done | uniq -c"
    result = ctx.quark.run(ctx.bundle(script, bundle.busybox()))
    equal((result.rc, result.text.split()), (0, ["100", "200"]), f"outcome\n{result}")


def cases():
    yield Case("trapped", hammer("trap"))
    yield Case("patched", hammer("patch"))
    yield Case("patched, pipelines", shell)
