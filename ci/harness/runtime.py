"""An OCI runtime under test, or the one that says what is right; both are driven by the same words."""
import json
import os
import shutil
import subprocess
import tempfile
import time

import process
from report import Failure, Skip


class Runtime:
    """One runtime with a state directory of its own; everything it holds is removed by `clean`."""

    def __init__(self, binary, log=None, flags=(), name=None):
        self.binary = shutil.which(binary) or binary
        if not os.path.exists(self.binary):
            raise Skip(f"no {binary}")
        self.name = name or os.path.basename(binary)
        # Short: control sockets live below, and their paths are limited to 108 bytes.
        self.root = tempfile.mkdtemp(prefix="q.", dir="/tmp")
        self.flags, self.log = list(flags), log
        self.count = 0

    def new_id(self):
        self.count += 1
        return f"t{os.getpid()}-{self.name[:5]}{self.count}"

    def command(self, *words):
        return [self.binary, "--root", self.root, *self.flags, *map(str, words)]

    def call(self, *words, timeout=60, **options):
        return process.run(self.command(*words), timeout=timeout, log=self.log, **options)

    def start(self, *words, **options):
        return process.Program(self.command(*words), log=self.log, **options)

    def run(self, bundle, timeout=60, id=None, **options):
        return self.call("run", "--bundle", bundle, id or self.new_id(), timeout=timeout, **options)

    def terminal(self, *words, **options):
        return process.Terminal(self.command(*words), log=self.log, **options)

    def containers(self):
        result = self.call("list", "--format", "json", timeout=30)
        if result.rc != 0:
            raise Failure(f"{self.name} list failed\n{result}")
        return json.loads(result.text or "null") or []

    def state(self, id):
        result = self.call("state", id, timeout=30)
        if result.rc != 0:
            raise Failure(f"{self.name} state {id} failed\n{result}")
        return json.loads(result.text)

    def clean(self):
        """Deletes what is left; returns complaints about what a well-behaved runtime would not have left."""
        complaints = []
        try:
            for c in self.containers():
                done = self.call("delete", "--force", c["id"], timeout=30)
                if done.rc != 0:
                    complaints.append(f"delete --force {c['id']}: {done.errors.strip()}")
        except (Failure, ValueError) as e:
            complaints.append(str(e))
        return complaints

    def remains(self):
        """Returns what lies about in the state directory, in mounts and in cgroups."""
        found = [f"state directory {self.root}/{e}" for e in os.listdir(self.root)
                 if os.path.isdir(os.path.join(self.root, e)) and not e.startswith(".") and os.listdir(os.path.join(self.root, e))]
        with open("/proc/self/mountinfo", encoding="utf-8") as f:
            found += [f"mount {line.split()[4]}" for line in f if line.split()[4].startswith(self.root)]
        prefix = f"t{os.getpid()}-{self.name[:5]}"
        for root, dirs, _ in os.walk("/sys/fs/cgroup"):
            found += [f"cgroup {root}/{d}" for d in dirs if prefix in d]
        return found

    def end(self):
        remove_tree(self.root)


def remove_tree(path):
    """Removes a directory; what something left mounted below it is let go first, lest its content be removed too."""
    with open("/proc/self/mountinfo", encoding="utf-8") as f:
        mounts = [line.split()[4] for line in f if line.split()[4].startswith(path + "/")]
    for mount in reversed(mounts):
        subprocess.run(["umount", "--lazy", mount], check=True)
    shutil.rmtree(path, ignore_errors=True)


def settle(timeout=5):
    """Waits until nothing of the tests runs any more; returns what still does."""
    end = time.monotonic() + timeout
    while True:
        process.reap()
        left = process.descendants()
        if not left or time.monotonic() > end:
            return left
        time.sleep(0.05)
