"""Cases for an engine: a script, run with runc and with Quark; what it prints must be the same."""
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from report import Failure, check


@dataclass
class Case:
    """`script` is bash; it sees $N (a name of its own) and what the engine's prelude defines. `expect`: a pattern that runc's
    output must hold, so that two equal failures are no success. `full`: only in the long run. `ours`: what Quark prints
    where it rightly differs (then `why`)."""
    name: str
    script: str
    expect: str = ""
    full: bool = False
    timeout: int = 60
    ours: str | None = None
    why: str = ""


def normal(text, name):
    """Without what differs from run to run: ids, the container's own name, carriage returns."""
    text = text.replace("\r\n", "\n").replace(name, "N")
    return re.sub(r"\b[0-9a-f]{64}\b", "ID64", re.sub(r"\b[0-9a-f]{12}\b", "ID12", text))


def short(text, limit=70):
    one = " / ".join(line for line in text.strip().splitlines())
    return one if len(one) <= limit else one[:limit - 3] + "..."


def one_side(engine, runtime, case):
    """Runs a case with one runtime; gives exit status and output."""
    name = "t" + runtime[0] + str(engine.next_number())
    try:
        rc, out = engine.script(runtime, name, case.script, case.timeout)
    finally:
        engine.clean(runtime, name)
    return rc, normal(out, name)


def run(engine, case):
    """Runs a case both ways, at the same time; returns the line to print. Fails unless the results agree."""
    with ThreadPoolExecutor(2) as pool:
        sides = {r: pool.submit(one_side, engine, r, case) for r in ("runc", "quark")}
        seen = {r: side.result() for r, side in sides.items()}
    (rc, theirs), (our_rc, ours) = seen["runc"], seen["quark"]
    told = f"runc {rc}: {short(theirs)} | quark {our_rc}: {short(ours)}"
    both = f"--- runc, exit status {rc}\n{theirs}--- quark, exit status {our_rc}\n{ours}"
    check(rc == 0, f"the comparison itself failed\n{both}\n{engine.nest.logs()[-1500:]}")
    check(re.search(case.expect, theirs, re.S), f"runc did not print {case.expect!r}\n{both}")
    if case.ours is not None:
        if our_rc or not re.fullmatch(case.ours, ours, re.S):
            raise Failure(f"not as expected ({case.why}): {case.ours!r}\n{both}")
    elif (rc, theirs) != (our_rc, ours):
        raise Failure(f"not the same\n{both}")
    return told
