"""Running programs with a time limit, watching what they leave behind."""
import ctypes
import os
import pty
import select
import signal
import subprocess
import threading
import time
from dataclasses import dataclass

from report import Failure

PR_SET_CHILD_SUBREAPER = 36


def become_subreaper():
    """Makes orphans of our tests our children, so that nothing escapes being seen and ended."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


@dataclass
class Result:
    rc: int
    out: bytes
    err: bytes
    seconds: float
    held_open: bool = False

    @property
    def text(self):
        return self.out.decode("utf-8", "replace")

    @property
    def errors(self):
        return self.err.decode("utf-8", "replace")

    def __str__(self):
        return f"exit status {self.rc}\n--- stdout\n{self.text[-4000:]}\n--- stderr\n{self.errors[-4000:]}"


def parents():
    """Returns {pid: (ppid, command, state)} of every process of the machine."""
    found = {}
    for d in os.listdir("/proc"):
        if d.isdigit():
            try:
                with open(f"/proc/{d}/stat", encoding="utf-8", errors="replace") as f:
                    head, rest = f.read().rsplit(")", 1)
            except OSError:
                continue
            words = rest.split()
            found[int(d)] = (int(words[1]), head.split("(", 1)[1], words[0])
    return found


def descendants(of=None, dead=False):
    """Returns {pid: command} of all living descendants of a process (ourselves)."""
    table, root = parents(), os.getpid() if of is None else of
    children = {}
    for pid, (ppid, _, _) in table.items():
        children.setdefault(ppid, []).append(pid)
    found, todo = {}, [root]
    while todo:
        for pid in children.get(todo.pop(), ()):
            todo.append(pid)
            if dead or table[pid][2] != "Z":
                found[pid] = table[pid][1]
    return found


def children(of):
    """Returns the pids of a process's children."""
    return [pid for pid, (ppid, _, _) in parents().items() if ppid == of]


def reap():
    """Collects orphans that ended, so that they do not stay as zombies of ours."""
    known = {p.pid for p in running}
    for pid, (ppid, _, state) in parents().items():
        if ppid == os.getpid() and state == "Z" and pid not in known:
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                pass


running = set()


def cpu_seconds(pids):
    """Returns the processor time used so far by these processes, those they waited for included."""
    total = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as f:
                words = f.read().rsplit(")", 1)[1].split()
        except OSError:
            continue
        total += sum(int(w) for w in words[11:15])
    return total / os.sysconf("SC_CLK_TCK")


class Program:
    """A program under way; its output is collected by threads, so that it never blocks on us."""

    def __init__(self, command, stdin=b"", cwd=None, env=None, log=None, pass_fds=()):
        self.command, self.log = command, log
        self.began = time.monotonic()
        self.p = subprocess.Popen(
            command, stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, cwd=cwd, env=env, pass_fds=pass_fds, start_new_session=True)
        running.add(self.p)
        self.parts = {"out": [], "err": []}
        self.readers = [threading.Thread(target=self._read, args=a, daemon=True)
                        for a in ((self.p.stdout, "out"), (self.p.stderr, "err"))]
        for r in self.readers:
            r.start()
        if stdin is not None:
            threading.Thread(target=self._write, args=(stdin,), daemon=True).start()

    def _read(self, stream, name):
        while data := os.read(stream.fileno(), 1 << 16):
            self.parts[name].append((time.monotonic(), data))

    def _write(self, data):
        try:
            self.p.stdin.write(data)
            self.p.stdin.close()
        except (OSError, ValueError):
            pass

    @property
    def out(self):
        return b"".join(d for _, d in self.parts["out"])

    @property
    def err(self):
        return b"".join(d for _, d in self.parts["err"])

    def wait_for(self, text, timeout=20):
        """Waits until stdout contains `text`."""
        end = time.monotonic() + timeout
        while text not in self.out:
            if time.monotonic() > end:
                raise Failure(f"no {text!r} on stdout within {timeout} s\n{self.describe()}")
            if self.p.poll() is not None and not any(r.is_alive() for r in self.readers) and text not in self.out:
                raise Failure(f"ended before it printed {text!r}\n{self.describe()}")
            time.sleep(0.01)

    def describe(self):
        return f"$ {' '.join(map(str, self.command))}\n{Result(self.p.poll(), self.out, self.err, 0)}"

    def finish(self, timeout=60):
        """Waits for the end; on time out the program and all its descendants are ended and the case fails."""
        end = self.began + timeout
        try:
            rc = self.p.wait(max(0.1, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            stuck = self.describe_stuck()
            kill_all(descendants(self.p.pid) | {self.p.pid: ""})
            self.p.wait()
            running.discard(self.p)
            raise Failure(f"timed out after {timeout:.0f} s\n{self.describe()}\n{stuck}") from None
        running.discard(self.p)
        seconds = time.monotonic() - self.began
        for r in self.readers:
            r.join(3)
        result = Result(rc, self.out, self.err, seconds, any(r.is_alive() for r in self.readers))
        if self.log:
            with open(self.log, "a", encoding="utf-8") as f:
                f.write(f"$ {' '.join(map(str, self.command))}\n{result}\n")
        return result

    def describe_stuck(self):
        lines = []
        for pid, name in list(descendants(self.p.pid).items())[:20]:
            lines.append(f"  {pid} {name}: {wait_channel(pid)}")
        return "still there:\n" + "\n".join(lines)


def wait_channel(pid):
    parts = []
    for f in ("syscall", "wchan"):
        try:
            with open(f"/proc/{pid}/{f}", encoding="utf-8") as h:
                parts.append(h.read().strip()[:60])
        except OSError:
            pass
    return " ".join(parts)


def run(command, timeout=60, **options):
    """Runs a program to its end and returns its Result."""
    return Program(command, **options).finish(timeout)


def kill_all(pids):
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError:
            pass


def wait_until(condition, timeout, what):
    """Waits until `condition()` holds."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise Failure(f"not within {timeout} s: {what}")
        time.sleep(0.05)


class Terminal:
    """A program on a terminal of its own, driven by what it prints."""

    def __init__(self, command, rows=24, columns=80, log=None):
        self.command, self.log, self.seen, self.all = command, log, b"", b""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            try:
                os.execvp(command[0], command)
            finally:
                os._exit(127)
        self.resize(rows, columns)

    def resize(self, rows, columns):
        import fcntl
        import struct
        import termios
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def send(self, data):
        os.write(self.fd, data)

    def expect(self, text, timeout=15):
        """Waits for `text` in what came since the last match; returns what came before it."""
        end = time.monotonic() + timeout
        while text not in self.seen:
            ready = select.select([self.fd], [], [], max(0, end - time.monotonic()))[0]
            data = b""
            if ready:
                try:
                    data = os.read(self.fd, 1 << 16)
                except OSError:
                    pass
            if not data:
                why = "the terminal closed" if ready else f"not within {timeout} s"
                raise Failure(f"{why}: waited for {text!r}; the whole terminal so far:\n"
                              + self.all.decode("utf-8", "replace"))
            self.seen += data
            self.all += data
        before, self.seen = self.seen.split(text, 1)
        return before

    def finish(self, timeout=15):
        """Waits for the end of the program; returns its exit status as a shell would."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if select.select([self.fd], [], [], 0.05)[0]:
                try:
                    data = os.read(self.fd, 1 << 16)
                    self.seen += data
                    self.all += data
                except OSError:
                    pass
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.pid = None
                self.close()
                return os.waitstatus_to_exitcode(status)
        self.close()
        raise Failure(f"did not end within {timeout} s; the terminal:\n" + self.all.decode("utf-8", "replace"))

    def close(self):
        if self.log:
            with open(self.log, "a", encoding="utf-8") as f:
                f.write(f"$ {' '.join(map(str, self.command))}   (on a terminal)\n{self.all.decode('utf-8', 'replace')}\n")
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None
        if self.pid:
            kill_all(list(descendants(self.pid)) + [self.pid])
            os.waitpid(self.pid, 0)
            self.pid = None
