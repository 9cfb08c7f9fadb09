"""Counting and telling: every case ends as passed, failed or skipped, and the last line says how many."""
import os
import sys
import time
import traceback


class Failure(Exception):
    """A case found something wrong; the message says what."""


class Skip(Exception):
    """A case cannot run here. `installable`: what is missing is something continuous integration can install."""

    def __init__(self, message, installable=True):
        super().__init__(message)
        self.installable = installable


def check(condition, message):
    if not condition:
        raise Failure(message)


def equal(got, expected, what):
    if got != expected:
        raise Failure(f"{what}: expected {shorten(expected)}, got {shorten(got)}")


def shorten(value, limit=1200):
    text = value if isinstance(value, str) else repr(value)
    if isinstance(value, bytes):
        text = repr(value.decode("utf-8", "backslashreplace"))
    elif isinstance(value, str):
        text = repr(value)
    return text if len(text) <= limit else f"{text[: limit // 2]} [...] {text[-limit // 2:]}"


def known_failures():
    """Known failures: prefix of the case's name, a text the failure must hold, the reason."""
    path = os.path.join(os.path.dirname(__file__), "..", "known-failures")
    with open(path, encoding="utf-8") as f:
        lines = [l.strip() for l in f if l.strip() and not l.startswith("#")]
    return [tuple(part.strip() for part in l.split(":", 2)) for l in lines]


# Lines of the table at the end: what was run, how many of its own tests passed and failed, why it differs from runc.
outcomes = []


def tell(program, passed, failed, reason=""):
    """Adds a line to the table at the end; a case uses it whose program counts tests itself."""
    outcomes.append((program, str(passed), str(failed), reason))


class Report:
    """Collects outcomes; `only` restricts to cases whose full name starts with one of its entries."""

    def __init__(self, logs, only=()):
        self.logs = logs
        self.only = [o.rstrip("/") for o in only]
        self.passed = self.failed = self.skipped = 0
        self.failures, self.skips, self.unsteady = [], [], []
        # What a line of the table at the end says of each group of cases: passed, failed, reasons.
        self.groups = {}
        self.strict = os.environ.get("CI", "") not in ("", "0", "false")
        os.makedirs(logs, exist_ok=True)

    def wanted(self, name):
        """Whether a case, or anything below a stage or group of this name, was asked for."""
        if not self.only:
            return True
        return any(name == o or name.startswith(o + "/") or o.startswith(name + "/") for o in self.only)

    def log_path(self, name):
        return os.path.join(self.logs, name.replace("/", "-").replace(" ", "_")[:120] + ".log")

    def case(self, name, function):
        """Runs one case; returns whether it passed. One that fails is run once more, and named at the end if it passes then."""
        if not self.wanted(name):
            return None
        began = time.monotonic()
        first = None
        while True:
            try:
                function()
            except Skip as e:
                return self.skip(name, str(e), e.installable)
            except Failure as e:
                message = str(e)
            except Exception:  # a case that breaks is a case that fails; the others still run
                message = traceback.format_exc()
            else:
                break
            if first is not None:
                return self.fail(name, message, time.monotonic() - began)
            first = message
        if first is not None:
            self.unsteady.append(f"{name}: {first.strip().splitlines()[0][:200]}")
        return self.ok(name, time.monotonic() - began)

    def count(self, name, passed=0, failed=0, reason=""):
        row = self.groups.setdefault("/".join(name.split("/")[:2]), [0, 0, []])
        row[0] += passed
        row[1] += failed
        if reason and reason not in row[2]:
            row[2].append(reason)

    def ok(self, name, seconds=None, count=1):
        self.passed += count
        self.count(name, passed=count)
        self.line("ok", name, seconds)
        return True

    def fail(self, name, message, seconds=None):
        known = (why for prefix, symptom, why in known_failures() if name.startswith(prefix) and symptom in message)
        reason = next(known, None)
        if reason is not None:
            self.skipped += 1
            self.skips.append(f"{name}: known to fail: {reason}")
            self.count(name, failed=1, reason=f"known: {reason}")
            self.line("KNOWN", name, seconds)
            with open(self.log_path(name), "a", encoding="utf-8") as f:
                f.write(message + "\n")
            return False
        self.failed += 1
        self.failures.append(name)
        self.count(name, failed=1)
        self.line("FAILED", name, seconds)
        for text in message.rstrip().splitlines()[:60]:
            print("        " + text)
        with open(self.log_path(name), "a", encoding="utf-8") as f:
            f.write(message + "\n")
        sys.stdout.flush()
        return False

    def skip(self, name, why, installable=True):
        if self.strict and installable:
            return self.fail(name, f"skipped, which is a failure here: {why}")
        self.skipped += 1
        self.skips.append(f"{name}: {why}")
        self.count(name, reason=f"not run: {(why.strip().splitlines() or [why])[0][:100]}")
        print(f"SKIPPED {name}: {why}", flush=True)
        return None

    @staticmethod
    def line(word, name, seconds):
        took = "" if seconds is None else f" ({seconds:.1f} s)"
        print(f"{word:6} {name}{took}", flush=True)

    def finish(self):
        """Prints the end; returns the exit status."""
        groups = [(name, str(passed), str(failed), "; ".join(why)) for name, (passed, failed, why) in self.groups.items()
                  if name.split("/")[0] in ("programs", "engines", "emulated")]
        if groups or outcomes:
            rows = [("program", "passed", "failed", "differs because"), *groups, *outcomes]
            widths = [max(len(r[i]) for r in rows) for i in range(3)]
            for program, passed, failed, reason in rows:
                print(f"{program:{widths[0]}}  {passed:>{widths[1]}}  {failed:>{widths[2]}}  {reason}".rstrip())
        for s in self.skips:
            print(f"not run: {s}")
        for u in self.unsteady:
            print(f"passed only when run again: {u}")
        for f in self.failures:
            print(f"failed: {f}   {os.path.relpath(self.log_path(f))}")
        print(f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped", flush=True)
        nothing = self.passed + self.failed == 0
        return 1 if self.failed or nothing else 0
