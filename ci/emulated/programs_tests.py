"""Programs of many kinds on the kvm machines: what they print there is what they print under runc in the same emulated machine."""
import os
import shutil
from dataclasses import dataclass
from typing import Callable

import bundle
import calls
import debian
import mounts
import namespaces
import network
import tracing
from cases import native
from report import Skip, check, shorten

PROGRAMS = os.path.dirname(os.path.abspath(debian.__file__))
LIMIT_S = 150
HANDLED = "/run/own"

# Each case under runc, with Debian's libraries and a root that is a mount, as it needs them; and then under Quark.
# The network namespace of HANDLED has an interface whose other end is in one where somebody answers.
DRIVER = r"""
exec 2>/tmp/driver
mkdir -p /run/q /run/r /ref
lives() { n=0; until grep -q ready /tmp/$1; do sleep 0.1; n=$((n+1)); [ $n -lt 300 ] || { cat /tmp/driver; exit 1; }; done; }
for side in own far; do
  unshare -n sh -c 'echo ready; exec sleep 10000' >/tmp/$side & eval $side=$!; lives $side
  touch /run/$side; mount -o bind /proc/$!/ns/net /run/$side
done
mount -o bind /disk0 /ref
for d in dev proc sys run tmp job disk0; do mount -o rbind /$d /ref/$d; done
in_net() { side=$1; shift; nsenter --net=/run/$side chroot /ref "$@"; }
in_net own /bin/ip link add eth0 type veth peer name eth0 netns $far
address() { in_net $1 /bin/ip link set lo up; in_net $1 /bin/ip addr add $2/24 dev eth0; in_net $1 /bin/ip addr add $3/64 dev eth0 nodad; in_net $1 /bin/ip link set eth0 up; }
address own %(own)s; address far %(peer)s; in_net own /bin/ip route add default via %(gateway)s
in_net far /usr/bin/python3 /job/far_side.py %(peer)s >/tmp/answers & lives answers
sed 's/^/@DRIVER /' /tmp/driver
# Not a chroot: Linux allows no user namespaces in one.
runc() { unshare -m sh -c 'cd /ref && mount -o move /ref / && exec chroot . "$@"' sh timeout -s KILL %(limit)d /usr/sbin/runc --root /run/r "$@"; }
told() { echo "@RESULT $1 $2 $(base64 /tmp/out | tr -d '\n'). $(base64 /tmp/err | tr -d '\n')."; }
for id in "$@"; do
  case $id in t*) engine=threads;; *) engine=io_uring
    runc run --bundle /job/cases/$id $id </dev/null >/tmp/out 2>/tmp/err; told $id-linux $?
    runc delete --force $id >/dev/null 2>&1;;
  esac
  timeout -s KILL %(limit)d ./quark --root /run/q --platform=kvm --engine=$engine run --bundle cases/${id#t} $id </dev/null >/tmp/out 2>/tmp/err; told $id $?
  ./quark --root /run/q delete --force $id >/dev/null 2>&1
done
""" % {"limit": LIMIT_S, "own": " ".join(network.OWN), "peer": " ".join(network.PEER), "gateway": network.PEER[0]}

# Shells: what they are used for in start scripts.
BASH = r"""
set -eu; cd /tmp; trap 'echo exit $?' EXIT
mapfile -t lines < <(seq 5); echo ${#lines[@]} ${lines[4]}; while read -r a b; do echo "$b-$a"; done <<<$'1 one\n2 two'
for i in {1..8}; do (sleep 0.0$i; exit $i) & p+=($!); done; for q in "${p[@]}"; do wait $q || echo -n "$? "; done; echo
sleep 100 & k=$!; disown -h; kill -STOP $k; grep -o 'State:.T' /proc/$k/status; kill -CONT $k; kill -9 $k; wait $k || echo killed $?
yes | head -n 20000 | wc -l; set -o pipefail; false | true || echo piped ${PIPESTATUS[*]}; exec 5> >(tr a-z A-Z >up); echo loud >&5; exec 5>&-; wait $!; cat up
mkfifo f; cat f >copy & seq 30000 >f; wait; md5sum <copy; timeout 0.3 sleep 9 || echo timeout $?; bash -ic 'set -m; sleep 0.1 & fg' 2>/dev/null | wc -l
exec {lock}>lockfile; flock -n $lock && ! flock -n lockfile true && echo locked; (exec 7<>/dev/tcp/127.0.0.1/1) 2>/dev/null || echo no connection
"""

REDIS = r"""
cd /tmp; redis-server --dir /tmp --save "" >log & for i in $(seq 200); do redis-cli ping 2>/dev/null | grep -q PONG && break; sleep 0.1; done
redis-benchmark -q -n 100 -c 5 -t set,get,lpush >bench || echo benchmark failed
redis-benchmark -q -n 1000 -c 2 -P 50 -r 300 -t set >>bench || echo pipelined benchmark failed; grep -c 'requests per second' bench
redis-cli eval 'local n = 0; for i = 1, 1000 do n = n + redis.call("incr", KEYS[1]) end; return n' 1 counter
redis-cli bgsave; for i in $(seq 200); do redis-cli info persistence | grep -q '^rdb_bgsave_in_progress:0' && break; sleep 0.1; done
redis-cli info persistence | grep -c '^rdb_last_bgsave_status:ok'; redis-check-rdb dump.rdb | grep -o 'RDB looks OK'
(sleep 0.5; redis-cli lpush later y >/dev/null) & redis-cli blpop later 20; redis-cli shutdown nosave; wait; tail -n 1 log | grep -o 'bye bye'
"""


@dataclass
class Program:
    """One case; `tool`: a C file of ci/programs, its compiler flags and its other parts, else the Debian image's own programs run."""
    name: str
    args: list
    tool: tuple = None
    change: Callable = None
    readonly: bool = True
    threads_too: bool = False
    # Of one architecture only; none: of all.
    arch: str = None


def tool(name, source, *args, flags=(), parts=(), **settings):
    return Program(name, [f"/bin/{source}", *args], (source, flags, parts), **settings)


def own_filters(c):
    c["process"].update(noNewPrivileges=False)


NETWORK = {"flags": ("-Wno-unused-result",), "threads_too": True}
SYSTEM_CALLS = [
    tool("network over loopback", "network", **NETWORK),
    tool("network over an interface", "network", network.PEER[0], network.PEER[1], network.OWN[0], change=network.inside(HANDLED), **NETWORK),
    tool("corners of system calls", "calls", change=calls.with_queues),
    tool("far ends of system calls", "edges"),
    tool("clocks, timers and limits", "cputime"),
    tool("file system calls on tmpfs", "files", "/tmp/files", flags=("-w",)),
    tool("file system calls on the root file system", "files", "/files", flags=("-w",), readonly=False),
    tool("mounting inside", "mounts", change=mounts.administrator),
    tool("namespaces inside", "namespaces", change=namespaces.administrator),
    tool("pid namespaces inside", "pids", parts=namespaces.PIDS_PARTS, change=namespaces.administrator),
    tool("seccomp filters", "seccomp", change=own_filters),
    tool("rights of programs", "privileges", "/", "/mnt", "/tmp", change=calls.with_rights, readonly=False),
    tool("memory as a file", "memfile"),
    tool("signals of readiness", "sigio"),
    tool("tracing", "tracing", change=tracing.privileged, arch="x86_64"),
]
DEBIAN = [
    Program("bash", ["bash", "-c", BASH]),
    *(Program(name, ["python3", "-c", script]) for name, script, _ in debian.PYTHON),
    Program("redis", ["sh", "-c", REDIS]),
    Program("tools for networks", ["sh", "-c", network.TELL], change=network.inside(HANDLED), threads_too=True),
]


def lay_out(machine, programs):
    """Writes the bundles and what they need into the machine's directory."""
    shutil.copy(os.path.join(PROGRAMS, "..", "lib", "far_side.py"), machine.directory)
    for id, p in programs.items():
        if p.tool:
            source, flags, parts = p.tool
            shutil.copy(native(f"{PROGRAMS}/{source}.c", source, flags, parts, arch=machine.arch), f"{machine.directory}/rootfs/bin/{source}")
        args = p.args
        if p.tool and p.tool[0] == "files":
            # The directory starts empty for both.
            args = ["sh", "-c", f"mkdir {args[1]}; files {args[1]}; rc=$?; rm -r {args[1]}; exit $rc"]
        root = "/job/rootfs" if p.tool else "/disk0"
        bundle.write(f"{machine.directory}/cases/{id}", bundle.config(args, root, readonly=p.readonly, change=p.change))


def judge(linux, result):
    """Both are (exit status, stdout, stderr)."""
    check(linux and linux[0] == 0 and len(linux[1]) > 5, f"the comparison itself failed: {linux}")
    check(result and result[0] is not None, f"not run: the machine hung before, or now: {result}")
    theirs, ours = (r[1].decode("utf-8", "replace").splitlines() for r in (linux, result))
    wrong = [f"line {i + 1}: {a!r} instead of {b!r}" for i, (a, b) in enumerate(zip(ours, theirs)) if a != b]
    told = f"exit status {result[0]}, {len(ours)} lines instead of {len(theirs)}\n--- last lines\n{shorten(result[1][-800:])}\n--- stderr\n{result[2].decode('utf-8', 'replace')[-3000:]}"
    check(not wrong, "\n".join(wrong[:20]) + f"\n{told}")
    check((result[0], len(ours)) == (0, len(theirs)), told)


def run(machine, stage, chosen):
    """Runs a list of programs, first under runc and then under Quark, in as few boots as hangs allow."""
    here = [p for p in chosen if p.arch in (None, machine.arch)]
    programs = {f"p{n:02}": p for n, p in enumerate(here) if machine.report.wanted(f"{stage}/{p.name}")}
    if not programs:
        return
    try:
        image = bundle.debian_image({"x86_64": "amd64", "aarch64": "arm64"}[machine.arch], bundle.PROGRAM_PACKAGES, "programs")
        lay_out(machine, programs)
    except Skip as e:
        machine.report.skip(f"{stage}/programs", str(e), e.installable)
        return
    ids = [i for id, p in programs.items() for i in ([id, f"t{id}"] if p.threads_too else [id])]
    results = machine.results(ids, ["sh", "-c", DRIVER], ["--disk", f"{image}:/disk0"], 120)
    for id, p in programs.items():
        for key, name in ((id, p.name), (f"t{id}", f"{p.name}, threads")):
            if key in ids:
                machine.report.case(f"{stage}/{name}", lambda: judge(results.get(f"{id}-linux"), results.get(key)))
