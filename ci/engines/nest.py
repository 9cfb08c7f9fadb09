"""A nest: network, mount and process namespaces in which the container engines of the distribution run for a test.

Nothing the engines make (bridges, firewall rules, mounts, orphans) is seen outside, and all of it goes when the nest does."""
import os
import shutil
import subprocess
import tempfile
import time

import bundle
import process
from report import Failure, Skip, check

# A nest's /run, /tmp and /var/tmp are its own: nothing in it can clean up what is the host's. Of the host's /tmp only $VISIBLE are seen.
PRIVATE = """
mount -t tmpfs none /run
mount -t tmpfs none /var/tmp
mount -t tmpfs none /mnt
for d in $VISIBLE; do
  mkdir -p /mnt/${d#/tmp}
  mount --bind $d /mnt/${d#/tmp}
done
mount --move /mnt /tmp
"""

# The first process of the nest: it reaps orphans, and ends the daemons in order when its stdin closes.
INIT = PRIVATE + """
ip link set lo up
echo up
while read -r line; do eval "$line"; done
for job in $(jobs -p); do kill -TERM $job; done
wait
"""


UNSHARE = ("--mount", "--net", "--pid", "--fork", "--kill-child", "--propagation", "private")

# A nest whose first process is systemd: in a cgroup of its own, which is the root of what it sees, with nothing but itself to run.
IN_CGROUP = """
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then all=/sys/fs/cgroup; else all=$(ls -d /sys/fs/cgroup/*/); fi
for d in $all; do
  mkdir -p $d/$NAME
  for f in cpuset.cpus cpuset.mems; do [ ! -e $d/$NAME/$f ] || [ -s $d/cgroup.controllers ] || cat $d/$f >$d/$NAME/$f; done
  echo $$ >$d/$NAME/cgroup.procs
done
exec "$@"
"""
SYSTEMD = PRIVATE + """
mount -t proc proc /proc
ip link set lo up
old=$(awk '$3 == "cgroup" {print $2, $4}' /proc/mounts)
umount -R /sys/fs/cgroup
if [ -z "$old" ]; then
  mount -t cgroup2 none /sys/fs/cgroup
else
  mount -t tmpfs none /sys/fs/cgroup
  while read -r at options; do
    mkdir $at
    names=$(echo $options | tr , '\\n' | grep -vE '^(rw|relatime|nosuid|nodev|noexec|xattr|release_agent=.*|clone_children)$' | paste -sd, -)
    case $names in name=*) names=none,$names ;; esac
    mount -t cgroup -o $names none $at
  done <<<"$old"
  mkdir /sys/fs/cgroup/unified
  mount -t cgroup2 none /sys/fs/cgroup/unified
fi
mkdir -p /run/systemd/system
printf '[Unit]\\nDefaultDependencies=no\\nAllowIsolate=yes\\n' >/run/systemd/system/quark.target
export container=quark-test
exec /lib/systemd/systemd --system --unit=quark.target --log-target=console --show-status=no
"""


class Nest:
    """Namespaces and a scratch directory; `script` runs a line of shell in them."""

    def __init__(self, quark, flags):
        if os.geteuid() != 0:
            raise Skip("engines are tested as root: run as root", installable=False)
        self.dir = tempfile.mkdtemp(prefix="e.", dir="/tmp")
        os.chmod(self.dir, 0o755)
        self.name = "quark-test-" + os.path.basename(self.dir)[2:]
        self.quark = os.path.join(self.dir, "quark")
        with open(self.quark, "w", encoding="utf-8") as f:
            f.write(f"#!/bin/sh\nexec {quark} {' '.join(flags)} \"$@\"\n")
        os.chmod(self.quark, 0o755)
        visible = {self.dir, os.path.dirname(os.path.realpath(quark)), os.path.realpath(bundle.CACHE)}
        self.env = dict(os.environ, NAME=self.name, DIR=self.dir, VISIBLE=" ".join(sorted(v for v in visible if v.startswith("/tmp/"))))
        self.p = self.launch()
        process.running.add(self.p)
        self.init = next(iter(process.children(self.p.pid)))
        for directory in ("/run", "/tmp", "/var/tmp"):
            check(not os.path.samefile(directory, f"/proc/{self.init}/root{directory}"), f"the nest has the host's {directory}")

    def launch(self):
        """Starts the nest's first process; gives the one that holds the nest."""
        p = subprocess.Popen(
            ["unshare", *UNSHARE, "--mount-proc", "bash", "-c", INIT], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, env=self.env, start_new_session=True)
        check(p.stdout.readline() == "up\n", "the nest's namespaces cannot be made")
        return p

    def daemon(self, line, log):
        """Starts a daemon in the nest."""
        self.p.stdin.write(f"{line} >>{self.dir}/{log} 2>&1 </dev/null &\n")
        self.p.stdin.flush()

    def enter(self, *words):
        return ["nsenter", "-t", str(self.init), "-m", "-n", "-p", *words]

    def script(self, text, timeout=60, stdin=b"", **env):
        """Runs shell in the nest, stderr among stdout; gives (exit status, output)."""
        command = self.enter("bash", "-c", text)
        p = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                             cwd=self.dir, env=dict(os.environ, **env), start_new_session=True)
        try:
            out, _ = p.communicate(stdin, timeout)
            return p.returncode, out.decode("utf-8", "replace")
        except subprocess.TimeoutExpired:
            process.kill_all(list(process.descendants(p.pid)) + [p.pid])
            out, _ = p.communicate()
            return 124, out.decode("utf-8", "replace") + f"\n(timed out after {timeout} s)"

    def wait(self, text, timeout=60):
        """Repeats a script until it succeeds."""
        end = time.monotonic() + timeout
        while True:
            rc, out = self.script(text, 20)
            if rc == 0:
                return out
            if time.monotonic() > end:
                raise Failure(f"not within {timeout} s: {text}\n{out}\n{self.logs()}")
            time.sleep(0.2)

    def logs(self):
        found = ""
        for name in sorted(os.listdir(self.dir)):
            if name.endswith(".log"):
                with open(os.path.join(self.dir, name), encoding="utf-8", errors="replace") as f:
                    found += f"--- {name}\n{f.read()[-3000:]}\n"
        return found

    def image(self):
        """The busybox root file system as a tar file for `import`."""
        path = os.path.join(self.dir, "busybox.tar")
        if not os.path.exists(path):
            subprocess.run(["tar", "-C", bundle.busybox(), "--exclude=./.complete", "-cf", path, "."], check=True)
        return path

    def processes(self):
        """Command lines of what runs in the nest, by pid there."""
        _, out = self.script("ps -eo pid=,args=")
        return [line.strip() for line in out.splitlines()]

    def remains(self, daemons, directories):
        """What is left of containers once every one is removed: processes but for `daemons`, state below `directories`, cgroups,
        mounts."""
        known = ("bash -c", "ps -eo", "bash ", *daemons)
        alive = [p for p in self.processes() if not p.split(None, 1)[-1].startswith(known) and not p.endswith("<defunct>")]
        _, state = self.script(f"find {directories} -mindepth 2 -maxdepth 4 2>/dev/null | grep -E '/([0-9a-f]{{64}}|t[rq][0-9]+)$'")
        found = [f"process {p}" for p in alive] + [f"state {f}" for f in state.splitlines()]
        for root, dirs, _ in os.walk("/sys/fs/cgroup"):
            if os.path.basename(root) == self.name:
                found += [f"cgroup {root}/{d}" for d in dirs]
        _, out = self.script("grep -E '/(overlay2/[0-9a-f]+/merged|rootfs|mnt) ' /proc/self/mountinfo")
        return found + [f"mount {line.split()[4]}" for line in out.splitlines() if self.dir in line]

    def cgroups(self):
        """Directories of the engines' cgroups, the deepest first."""
        return [r for r, _, _ in os.walk("/sys/fs/cgroup", topdown=False) if f"/{self.name}/" in r + "/"]

    def end(self):
        """Ends the daemons and the namespaces; removes everything."""
        # What is frozen does not die.
        for directory in self.cgroups():
            for file, word in (("freezer.state", "THAWED"), ("cgroup.freeze", "0")):
                if os.path.exists(f"{directory}/{file}"):
                    with open(f"{directory}/{file}", "w", encoding="utf-8") as f:
                        f.write(word)
        try:
            self.p.stdin.close()
            self.p.wait(20)
        except (OSError, subprocess.TimeoutExpired):
            process.kill_all(list(process.descendants(self.p.pid)) + [self.p.pid])
            self.p.wait()
        process.running.discard(self.p)
        process.reap()
        shutil.rmtree(self.dir, ignore_errors=True)
        # What has been killed may still be on its way out.
        end = time.monotonic() + 10
        while (left := self.cgroups()) and time.monotonic() < end:
            for directory in left:
                try:
                    os.rmdir(directory)
                except OSError:
                    time.sleep(0.02)


class SystemdNest(Nest):
    """A nest that systemd rules."""

    def launch(self):
        flags = [*UNSHARE, "--cgroup", "--uts", "--ipc"]
        with open(f"{self.dir}/systemd.log", "w", encoding="utf-8") as log:
            p = subprocess.Popen(["bash", "-c", IN_CGROUP, "bash", "unshare", *flags, "bash", "-c", SYSTEMD], stdin=subprocess.PIPE,
                                 stdout=log, stderr=subprocess.STDOUT, env=self.env, start_new_session=True)
        # Until it has become unshare(1) its children are others.
        process.wait_until(lambda: process.parents()[p.pid][1] == "unshare" and process.children(p.pid), 20, "systemd's namespaces")
        self.init = process.children(p.pid)[0]
        self.wait("systemctl is-system-running | grep -q running", 30)
        return p

    def enter(self, *words):
        return ["nsenter", "-t", str(self.init), "-m", "-n", "-p", "-u", "-C", *words]

    def daemon(self, line, log):
        rc, out = self.script(f"systemd-run -q --property=DefaultDependencies=no --property=Delegate=yes --property=KillMode=process --property=StandardOutput=append:{self.dir}/{log} "
                              f"--property=StandardError=append:{self.dir}/{log} --setenv=PATH=$PATH {line}")
        check(rc == 0, f"cannot start {line}\n{out}")

    def end(self):
        # Nobody ends systemd in order here: it and all below die with the process that holds the namespaces.
        process.kill_all([self.p.pid] + process.children(self.p.pid))
        super().end()
