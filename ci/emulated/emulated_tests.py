"""The busybox programs on the kvm machines, in emulated machines with a real /dev/kvm: same bundles, same expectations."""
import base64
import os
import platform
import re
import shutil
import sys
import tempfile

import apt
import bundle
import cgroup_tests
import machine_tests
import process
import read_tests
import sharing_tests
from cases import SAME, native
from report import Failure, Skip, check, equal, shorten
from runtime import Runtime

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.append(os.path.join(os.path.dirname(HERE), "programs"))
import busybox as programs  # noqa: E402
import debian  # noqa: E402
import programs_tests  # noqa: E402
from confinement import BOUNDED, SERVING  # noqa: E402

MACHINES = [("x86_64", "max"), ("aarch64", "neoverse-n1"), ("aarch64", "cortex-a72")]

# The smoke set: one case for each mechanism. The long run takes every row of the busybox group.
SMOKE = {"echo", "pipeline", "long pipeline", "redirections", "background and wait", "trap", "signal to a child", "here-document",
         "exit status", "killed by a signal", "fifo", "files", "tar and gzip", "own pid is 1", "devices", "read-only root", "timeout"}
# Again with the other engine, which is used where the host forbids io_uring.
THREADS_TOO = {"pipeline", "redirections", "here-document", "fifo", "files", "tar and gzip"}
# These print what differs between the host and an emulated machine.
NOT_HERE = {"identity", "limits", "environment"}

# Need what the unconfigured Debian of the emulated machines does not have.
NOT_IN_TOOLS = {"disk and memory", "users"}
CASE_S = 90
FSETID = 1 << 4
BUSY = ("while :; do :; done & spin=$!; i=0; while [ $i -lt 20 ]; do /bin/true; i=$((i+1)); done; echo $i; "
        "usleep 100000; kill $spin; wait $spin; echo $?")

# Runs in the emulated machine. Results go out case by case, so that a hang costs one case and not all.
DRIVER = r"""
mkdir -p /run/q /tmp/r
for id in "$@"; do
  case $id in d*) limit=600;; *) limit=%(limit)d;; esac
  case $id in t*) engine=threads;; *) engine=io_uring;; esac
  timeout -s KILL $limit ./quark --root /run/q --platform=kvm --engine=$engine run --bundle cases/${id#t} $id </dev/null >/tmp/r/out 2>/tmp/r/err
  echo "@RESULT $id $? $(base64 /tmp/r/out | tr -d '\n'). $(base64 /tmp/r/err | tr -d '\n')."
  ./quark --root /run/q delete --force $id >/dev/null 2>&1
done
""" % {"limit": CASE_S}

# Adds up the processor time of everything that is Quark's, from the scheduler's own nanoseconds.
IDLE = r"""
mkdir -p /run/q
./quark --root /run/q --platform=kvm run --bundle cases/idle idle </dev/null >/tmp/up 2>&1 &
n=0; until grep -q up /tmp/up; do sleep 0.2; n=$((n+1)); [ $n -lt 300 ] || { cat /tmp/up; exit 1; }; done
sleep 3
used() { t=0; for f in /proc/[0-9]*/task/[0-9]*; do case $(readlink ${f%%/task/*}/exe) in */quark)
  read ns rest <$f/schedstat && t=$((t + ns/1000));; esac; done; echo $t; }
a=$(used); sleep 10; b=$(used); echo "used $((b - a)) us"
./quark --root /run/q delete --force idle
"""

# What is seen from outside of a sandbox: each thread of Quark that belongs to one (name, filter, no_new_privs, effective
# capabilities); the KiB that its memory costs, before, while and after an app uses 48 MiB; and what it hears from outside.
OUTSIDE = r"""
mkdir -p /run/q
quark() { timeout -s KILL 90 ./quark --root /run/q --platform=kvm "$@"; }
until_says() { n=0; until grep -q $2 $1; do sleep 0.2; n=$((n+1)); [ $n -lt 400 ] || { echo "@SILENT $(cat $1)"; break; }; done; }
quark run --bundle cases/memory memory </dev/null >/tmp/up 2>&1 &
until_says /tmp/up up
for s in /proc/[0-9]*/task/[0-9]*/status; do
  awk -v task=${s%/status} '{ v[$1] = $2 } END { if (v["Name:"] ~ /^quark-/) print "@THREAD", task, v["Name:"], v["Seccomp:"], v["NoNewPrivs:"], v["CapEff:"] }' $s
done 2>/dev/null
cost() { for f in /proc/[0-9]*/fd/*; do case $(readlink $f) in */memfd:quark-ram*|/memfd:quark-ram*) echo "@COST $1 $(($(stat -Lc %b $f) / 2))"; return;; esac; done; }
cost before
quark exec memory touch /tmp/go
until_says /tmp/up held; cost while
until_says /tmp/up freed; sleep 4; cost after
./quark --root /run/q delete --force memory
mkdir -p /etc/quark; echo '{"DebugLevel":"Trace","LogMaxBytes":8192}' >/etc/quark/config.json
quark run --bundle cases/logs logs </dev/null >/tmp/said 2>&1; echo "@LOGS exit status $?"; sed "s/^/@LOGS /" /tmp/said
f=/var/log/quark/logs.log; for k in 'msg="qkernel::' 'level=debug' 'exit code 3'; do grep -q "$k" $f && echo "@LOGS has $k"; done
[ $(stat -c %s $f) -gt 2000 ] && [ $(stat -c %s $f) -le 8192 ] && echo "@LOGS bounded"; rm /etc/quark/config.json
quark run --bundle cases/auxv auxv </dev/null >/tmp/said; sed "s/^/@AUXV /" /tmp/said
{ sleep 3; echo one; sleep 1; echo two; sleep 1; } | quark run --bundle cases/hears hears >/tmp/said; sed "s/^/@HEARS /" /tmp/said
[ -e waits ] && { sleep 4; echo one; sleep 1; echo two; sleep 1; echo three; sleep 1; echo four; sleep 1; } | quark run --bundle cases/waits waits >/tmp/said && sed "s/^/@WAITS /" /tmp/said
:
"""
# The app waits to be told, holds memory while the pipe's reader sleeps, and ends.
MEMORY = ("cd /tmp; echo up; until [ -e go ]; do usleep 100000; done; "
          "dd if=/dev/zero bs=48M count=1 2>/dev/null | (head -c 1 >/dev/null; echo held; sleep 3; cat >/dev/null); echo freed; sleep 1000")
# A shell waits with poll(2) for a line, and a socket's other end with a program between.
HEARS = ("read -t 60 x; echo got $x; if read -t 0.1 y; then echo early; else echo nothing; fi; read y; echo then $y; "
         "nc -l -p 4000 -e cat & for i in 1 2 3 4 5 6 7 8 9; do sleep 0.3; echo over | nc -w 5 127.0.0.1 4000 && break; done; echo end")

# Every thread of QVisor and the guest kernel log, more than the log may hold; the app goes on and ends as it wants to.
LOGS = "seq 1 300 | sort -rn | tail -n 1; exit 3"
LOGGED = "exit status 3\n1\nhas msg=\"qkernel::\nhas level=debug\nhas exit code 3\nbounded\n"

# Each kind of thread in turn is made to call what it never does.
FORBIDDEN = r"""
mkdir -p /run/q
for name in quark-vcpu0 quark-vcpu1 quark-qcall0 quark-ring quark-poll quark-control quark-relay quark-machine quark-sandbox; do
  case $name in quark-poll) engine=threads;; *) engine=io_uring;; esac
  ./quark --root /run/q --platform=kvm --engine=$engine run --bundle cases/idle $name </dev/null >/tmp/up 2>/tmp/err &
  n=0; until grep -q up /tmp/up; do sleep 0.2; n=$((n+1)); [ $n -lt 300 ] || { cat /tmp/up /tmp/err; exit 1; }; done
  for c in /proc/[0-9]*/task/[0-9]*/comm; do
    [ "$(cat $c 2>/dev/null)" = $name ] && t=${c%/comm} && ./inject ${t##*/} 272 0x20000 && break
  done
  wait $!
  echo "@ENDED $name $? $(cat /tmp/err)"
  ./quark --root /run/q delete --force $name >/dev/null 2>&1
done
"""


# What is right is what Linux does in the same machine: first in a plain chroot, then in a container.
COMPARE = r"""
mount -o bind /dev /disk0/dev
for t in tmp root; do mount -t tmpfs tmpfs /disk0/$t; done
mount -t proc proc /disk0/proc; mount -t sysfs sysfs /disk0/sys
cp -r /tools /disk0/dev/tools
for id in "$@"; do
  timeout -s KILL 240 chroot /disk0 /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C /bin/sh /dev/tools/$id >/tmp/out 2>/dev/null </dev/null
  echo "@RESULT $id-linux $? $(base64 /tmp/out | tr -d '\n'). ."
  rm -rf /disk0/tmp/* /disk0/root/*
done
umount /disk0/dev /disk0/tmp /disk0/root /disk0/proc /disk0/sys
"""


def rows(full):
    """Returns {id: (name, script, expected, settings)} of the cases that run here."""
    chosen = [r for r in programs.SHELL if (full or r[0] in SMOKE) and r[0] not in NOT_HERE]
    return {f"c{n:02}": (r[0], r[1], r[2], r[3] if len(r) > 3 else {}) for n, r in enumerate(chosen)}


def expectations(cases, log):
    """Runs rows that have no literal expectation under runc on the host; returns {id: stdout}."""
    found = {}
    unknown = {id: c for id, c in cases.items() if c[2] is SAME}
    if not unknown:
        return found
    apt.need("runc")
    runc = Runtime("runc", log=log, name="ref")
    try:
        with tempfile.TemporaryDirectory() as d:
            for id, (_, script, _, _) in unknown.items():
                b = bundle.write(f"{d}/{id}", bundle.config(["sh", "-c", script], bundle.busybox()))
                found[id] = runc.run(b).text
    finally:
        runc.clean()
        runc.end()
    return found


def prepare(directory, arch, cases, top):
    """Lays out what goes into the machine."""
    for f in ("quark", "qkernel"):
        built = os.path.join(top, "out", arch, f)
        check(os.path.exists(built), f"{os.path.relpath(built)} is not built")
        shutil.copy(built, directory)
    native = os.path.join(bundle.CACHE, "emulated", arch, "root", "bin", "busybox")
    shutil.copytree(bundle.busybox(native, f"busybox-{arch}"), f"{directory}/rootfs", symlinks=True)
    for id, (_, script, _, _) in cases.items():
        bundle.write(f"{directory}/cases/{id}", bundle.config(["sh", "-c", script], "/job/rootfs"))
    one = {"cpu": {"cpus": "1"}}
    bundle.write(f"{directory}/cases/busy", bundle.config(["sh", "-c", BUSY], "/job/rootfs", resources=one))
    bundle.write(f"{directory}/cases/idle", bundle.config(["sh", "-c", "sleep 1000 | cat & echo up; wait"], "/job/rootfs"))


LOST = (None, b"", b"not run: the machine hung before")


class Emulated:
    """One kind of emulated machine, with everything it needs inside."""

    def __init__(self, report, arch, cpu, directory):
        self.report, self.arch, self.cpu, self.directory = report, arch, cpu, directory
        self.log = report.log_path(f"emulated-{arch}-{cpu}")

    def boot(self, words, timeout, smp="2", more=()):
        command = [os.path.join(HERE, "run"), "--arch", self.arch, "--cpu", self.cpu, "--smp", smp, "--mem", "1536M",
                   "--timeout", str(timeout), "--put", f"{self.directory}:/job", *more, "--", *words]
        return process.run(command, timeout=timeout + 60, log=self.log)

    def results(self, ids, driver, more=(), each_s=20, suffix=""):
        """Runs cases by a driver script; after a hang the rest goes on in a fresh machine. Returns {id: (rc, stdout, stderr)}."""
        found, todo = {}, list(ids)
        for _ in range(3):
            if not todo:
                break
            done = self.boot([*driver, "driver", *todo], 90 + each_s * len(todo), more=more)
            for id, rc, out, err in re.findall(r"^@RESULT (\S+) (\d+) (\S*)\. (\S*)\.$", done.text, re.M):
                found[id.removesuffix(suffix)] = (int(rc), base64.b64decode(out), base64.b64decode(err))
            missing = [id for id in todo if id not in found]
            if missing:
                found[missing[0]] = (None, b"", f"the emulated machine gave no result\n{done}".encode())
            todo = missing[1:]
        return found


def debian_tools(machine, stage):
    """The Debian rows, judged by Linux in the same machine; one boot for all of Linux's answers, then as the others."""
    chosen = {f"d{n:02}": r for n, r in enumerate(debian.TOOLS) if r[0] not in NOT_IN_TOOLS}
    wanted = {id: r for id, r in chosen.items() if machine.report.wanted(f"{stage}/debian {r[0]}")}
    if not wanted:
        return
    image = bundle.debian_image({"x86_64": "amd64", "aarch64": "arm64"}[machine.arch])
    for id, row in wanted.items():
        bundle.write(f"{machine.directory}/cases/{id}", bundle.config(["sh", "-c", row[1]], "/disk0"))
        os.makedirs(f"{machine.directory}/tools", exist_ok=True)
        with open(f"{machine.directory}/tools/{id}", "w", encoding="utf-8") as f:
            f.write(row[1] + "\n")
    disk = ["--disk", f"{image}:/disk0", "--put", f"{machine.directory}/tools:/tools"]
    answers = machine.results(list(wanted), ["sh", "-c", COMPARE], disk, 240, "-linux")
    results = machine.results(list(wanted), ["sh", "-c", DRIVER], disk, 300)
    for id, row in wanted.items():
        linux = answers.get(id, (None, b"", b""))

        def body():
            check(linux[0] == 0, f"the comparison itself failed: {linux}")
            judge(row[0], linux[1].decode(), {}, results.get(id, LOST))
        machine.report.case(f"{stage}/debian {row[0]}", body)


def judge(name, expected, settings, result):
    rc, out, err = result
    told = f"exit status {rc}\n--- stdout\n{shorten(out)}\n--- stderr\n{err.decode('utf-8', 'replace')[-3000:]}"
    check(rc is not None, told)
    check(rc == settings.get("rc", 0), f"exit status {rc}, expected {settings.get('rc', 0)}\n{told}")
    check(out.decode("utf-8", "replace") == expected, f"stdout: expected {shorten(expected)}\n{told}")
    wanted = settings.get("err", "")
    check(re.search(wanted, err.decode("utf-8", "replace"), re.S) and (wanted or not err), f"stderr: expected {wanted!r}\n{told}")


def check_says_kvm(machine):
    result = machine.boot(["./quark", "check"], 90)
    check(result.rc == 0 and "kvm" in result.text.lower(), f"quark check in a machine with a real /dev/kvm\n{result}")


def idle(machine):
    """The emulator makes each timer interrupt dear, hence a wider limit than on the process machine."""
    result = machine.boot(["sh", "-c", IDLE], 150)
    used = re.search(r"used (\d+) us", result.text)
    check(used, f"no measurement\n{result}")
    percent = int(used[1]) / 10e6 * 100
    check(percent < 0.5, f"an idle sandbox took {percent:.2f} % of a processor\n{result}")


def confined(result):
    found = re.findall(r"^@THREAD (\S+) (\S+) (\d) (\d) (\w+)$", result.text, re.M)
    names = {name.rstrip("0123456789") for _, name, *_ in found}
    missing = {"quark-sandbox", "quark-machine", "quark-vcpu", "quark-qcall", "quark-ring", "quark-control", "quark-relay"} - names
    check(not missing, f"not seen: {missing}\n{result}")
    for task, name, filter, privileges, capabilities in found:
        check((filter, privileges) == ("2", "1"), f"{name} ({task}) is not confined\n{result}")
        allowed = SERVING | sum(1 << n for n in BOUNDED.values()) if name.startswith("quark-qcall") else FSETID if name == "quark-ring" else 0
        check(int(capabilities, 16) & ~allowed == 0, f"{name} has the capabilities {capabilities}")


def gives_memory_back(result):
    cost = {when: int(kib) for when, kib in re.findall(r"^@COST (\w+) (\d+)$", result.text, re.M)}
    check(set(cost) == {"before", "while", "after"}, f"not measured\n{result}")
    check(cost["while"] > cost["before"] + 40 * 1024, f"the app did not take its memory: {cost}\n{result}")
    check(cost["after"] < cost["before"] + 16 * 1024, f"KiB of memory: {cost}\n{result}")


def tells_of_the_cpu(result, arch):
    """AT_HWCAP is entry 16; what every CPU of the architecture has: FPU, SSE and SSE2; FP and ASIMD."""
    words = dict(re.findall(r"^@AUXV +(\d+) +(\d+)$", result.text, re.M))
    always = {"x86_64": 1 | 1 << 25 | 1 << 26, "aarch64": 3}[arch]
    check(int(words.get("16", 0)) & always == always, f"AT_HWCAP lacks bits\n{result}")


def section(result, name):
    return "".join(line + "\n" for line in re.findall(rf"^@{name} ?(.*)$", result.text, re.M))


def from_outside(machine, stage):
    """Cases of one boot that are judged from outside of the sandbox."""
    report, arch = machine.report, machine.arch
    names = ("logs", "confined", "memory is given back", "hwcap", "hears the host", "waits")
    if not any(report.wanted(f"{stage}/{n}") for n in names):
        return
    here = arch == platform.machine()
    root = "/job/rootfs"
    for id, script in (("memory", MEMORY), ("auxv", "od -A n -t d8 -w16 /proc/self/auxv"), ("hears", HEARS),
                       ("logs", LOGS)):
        bundle.write(f"{machine.directory}/cases/{id}", bundle.config(["sh", "-c", script], root))
    linux = None
    if here:
        # What waiting means is what it means on the host.
        tool = native(os.path.join(os.path.dirname(HERE), "programs", "waits.c"), "waits")
        shutil.copy(tool, machine.directory)
        shutil.copy(tool, f"{machine.directory}/rootfs/bin/waits")
        bundle.write(f"{machine.directory}/cases/waits", bundle.config(["/bin/waits"], root))
        linux = process.run(["sh", "-c", f"{{ sleep 0.5; echo one; sleep 0.5; echo two; sleep 0.5; echo three; sleep 0.5; echo four; }} | {tool}"], timeout=60)
    result = machine.boot(["sh", "-c", OUTSIDE], 300)
    report.case(f"{stage}/confined", lambda: confined(result))
    report.case(f"{stage}/logs", lambda: equal(section(result, "LOGS"), LOGGED, f"{result}"))
    report.case(f"{stage}/memory is given back", lambda: gives_memory_back(result))
    report.case(f"{stage}/hwcap", lambda: tells_of_the_cpu(result, arch))
    report.case(f"{stage}/hears the host", lambda: equal(section(result, "HEARS"), "got one\nnothing\nthen two\nover\nend\n", f"{result}"))
    if here:
        report.case(f"{stage}/waits", lambda: equal(section(result, "WAITS"), linux.text, f"{result}"))


def forbidden(machine):
    shutil.copy(native(os.path.join(os.path.dirname(HERE), "programs", "inject.c"), "inject"), machine.directory)
    result = machine.boot(["sh", "-c", FORBIDDEN], 340)
    ended = re.findall(r"^@ENDED (\S+) (\d+) (.*)$", result.text, re.M)
    check(len(ended) == 9, f"not every thread was tried\n{result}")
    for name, rc, said in ended:
        check(rc != "0" and "its filter forbids" in said, f"{name}: exit status {rc}: {said}")


def one_machine(report, arch, cpu, cases, expected, top, full):
    stage = f"emulated/{arch}-{cpu}"
    if not report.wanted(stage):
        return
    setup = process.run([os.path.join(HERE, "setup"), arch], timeout=600, log=report.log_path(stage))
    if setup.rc != 0:
        report.skip(stage, f"ci/emulated/setup {arch} failed: {setup.errors.strip()[-500:]}")
        return
    with tempfile.TemporaryDirectory(prefix="emulated.") as directory:
        try:
            prepare(directory, arch, cases, top)
        except Failure as e:
            report.fail(stage, str(e))
            return
        machine = Emulated(report, arch, cpu, directory)
        wanted = {id: c for id, c in cases.items() if report.wanted(f"{stage}/{c[0]}")}
        again = [id for id, c in wanted.items() if c[0] in THREADS_TOO]
        ids = list(wanted) + [f"t{id}" for id in again] + (["busy"] if report.wanted(f"{stage}/busy loop") else [])
        results = machine.results(ids, ["sh", "-c", DRIVER]) if ids else {}
        for id, (name, _, literal, settings) in wanted.items():
            want = expected.get(id, literal)
            report.case(f"{stage}/{name}", lambda: judge(name, want, settings, results.get(id, LOST)))
            if id in again:
                report.case(f"{stage}/{name}, threads", lambda: judge(name, want, settings, results.get(f"t{id}", LOST)))
        report.case(f"{stage}/busy loop", lambda: judge("busy loop", "20\n143\n", {"err": "Terminated|"}, results.get("busy", LOST)))
        report.case(f"{stage}/check", lambda: check_says_kvm(machine))
        report.case(f"{stage}/idle", lambda: idle(machine))
        machine_tests.run(machine, stage)
        read_tests.run(machine, stage)
        from_outside(machine, stage)
        report.case(f"{stage}/containers that share a sandbox", lambda: sharing_tests.sharing(machine))
        if arch == platform.machine():
            report.case(f"{stage}/unified cgroups", lambda: cgroup_tests.unified(machine))
            report.case(f"{stage}/unified cgroups, out of memory", lambda: cgroup_tests.out_of_memory(machine))
            # The tool that injects calls is built by the compiler that there is.
            report.case(f"{stage}/forbidden calls", lambda: forbidden(machine))
        if full:
            debian_tools(machine, stage)
            # The third machine differs from the second in how the processor starts and guards memory, not in what programs see.
            if cpu != "cortex-a72":
                programs_tests.run(machine, stage, programs_tests.SYSTEM_CALLS)
                programs_tests.run(machine, stage, programs_tests.DEBIAN)


def run(report, full, top):
    cases = rows(full)
    try:
        expected = expectations(cases, report.log_path("emulated-expectations"))
    except Skip as e:
        report.skip("emulated", str(e), e.installable)
        return
    for arch, cpu in MACHINES:
        one_machine(report, arch, cpu, cases, expected, top, full)
