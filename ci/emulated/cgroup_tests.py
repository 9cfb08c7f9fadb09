"""The unified cgroup hierarchy on a real kernel: emulated machines have no other. The process machine is enough for that."""
import bundle
from report import check, equal

MIB = 1 << 20
LIMITS = {
    "memory": {"limit": 64 * MIB, "swap": 64 * MIB, "reservation": MIB},
    "cpu": {"quota": 50000, "period": 100000, "shares": 2048, "cpus": "1"},
    "pids": {"limit": 50},
    "blockIO": {"throttleReadBpsDevice": [{"major": 7, "minor": 0, "rate": 1048576}]},
    "unified": {"memory.oom.group": "1"},
}

START = r"""
mkdir -p /run/q; box=/sys/fs/cgroup/box
quark() { timeout -s KILL 90 ./quark --root /run/q --platform=process "$@"; }
"""

SCRIPT = START + r"""
modprobe loop
says() { for f in "$@"; do echo "$f: $(tr '\n' ' ' <$box/one/$f)"; done; }
status() { quark state $1 | tr -d ' "' | sed -n 's/^status://p' | tr -d ,; }
quark create --bundle cases/one one </dev/null >/tmp/one 2>&1 || cat /tmp/one
quark start one
says memory.low cpu.max cpu.weight pids.max cpuset.cpus io.max memory.oom.group
echo "above the limit: $(($(cat $box/one/memory.max) > 67108864)) $(($(cat $box/one/memory.high) > 67108864)) $(($(cat $box/one/memory.max) > $(cat $box/one/memory.high)))"
echo "members: $(($(wc -l <$box/one/cgroup.procs) > 0)) others: $(ls -d $box/*/ | wc -l)"
quark exec one sh -c 'nproc; (for i in $(seq 70); do sleep 5 & done) 2>/dev/null; set -- /proc/[0-9]*; echo $(($# > 30 && $# <= 50))'
quark pause one; says cgroup.freeze; grep frozen $box/one/cgroup.events; status one
quark resume one; says cgroup.freeze; grep frozen $box/one/cgroup.events; status one
quark update --memory 104857600 --memory-swap 104857600 --pids-limit 70 --cpu-quota 20000 --cpu-share 1024 one; says cpu.max pids.max
echo "raised: $(($(cat $box/one/memory.high) > 104857600))"
quark events --stats one | grep -c '"usage":{"limit":104857600\|"usage":[0-9]'
quark delete --force one; ls -d $box/one 2>/dev/null
ls -d $box/*/ 2>/dev/null | wc -l
"""

EXPECTED = """memory.low: 1048576
cpu.max: 50000 100000
cpu.weight: 79
pids.max: 114
cpuset.cpus: 1
io.max: 7:0 rbps=1048576 wbps=max riops=max wiops=max
memory.oom.group: 1
above the limit: 1 1 1
members: 1 others: 1
1
1
cgroup.freeze: 1
frozen 1
paused
cgroup.freeze: 0
frozen 0
running
cpu.max: 20000 100000
pids.max: 134
raised: 1
1
0
"""


# A program among others, then the container's own, takes more than there is. What the host counts is what engines read.
OUT_OF_MEMORY = START + r"""
until_ok() { for i in $(seq 200); do "$@" >/dev/null 2>&1 && return; sleep 0.1; done; echo "never: $*"; }
ended() { quark state $1 | grep -q stopped; }
counted() { [ $(sed -n 's/^oom_kill //p' $box/$1/memory.events) -gt 0 ]; }
quark create --bundle cases/child child </dev/null >/tmp/child 2>&1 || cat /tmp/child
quark events --interval 200ms child >/tmp/events & watch=$!
quark start child
until_ok grep code /tmp/child; grep code /tmp/child
until_ok grep '"oom"' /tmp/events && echo told; ended child || echo "lives on"; counted child || echo "nobody was killed by the host"
quark kill child KILL; until_ok ended child; wait $watch; counted child && echo counted
quark delete child
quark create --bundle cases/own own </dev/null >/tmp/own 2>&1 || cat /tmp/own
quark start own; until_ok ended own
quark state own | tr -d ' "' | sed -n 's/^exitCode://p' | tr -d ,; counted own && echo counted
quark delete own; ls -d $box/*/ 2>/dev/null | wc -l
"""

OUT_OF_MEMORY_EXPECTED = """code 137
told
lives on
nobody was killed by the host
counted
137
counted
0
"""


def place(machine, name, command, resources):
    """Makes a bundle whose container is in the cgroup /box/`name`."""
    def change(c):
        c["linux"]["cgroupsPath"] = f"/box/{name}"
    bundle.write(f"{machine.directory}/cases/{name}", bundle.config(command, "/job/rootfs", resources=resources, change=change))


def says(machine, script, expected):
    result = machine.boot(["sh", "-c", script], 300)
    lines = "".join(line.rstrip() + "\n" for line in result.text.splitlines())
    check(lines, f"the machine said nothing\n{result}")
    equal(lines, expected, f"what the host's cgroups hold\n{result}")


def unified(machine):
    """Limits, freezer, statistics and removal where there is no version 1."""
    place(machine, "one", ["sleep", "1000"], LIMITS)
    says(machine, SCRIPT, EXPECTED)


def out_of_memory(machine):
    """The guest kernel's killer acts before the host's, and engines learn of it by the host's count."""
    limit = {"memory": {"limit": 64 * MIB, "swap": 64 * MIB}}
    place(machine, "child", ["sh", "-c", "tail /dev/zero; echo code $?; sleep 1000"], limit)
    place(machine, "own", ["tail", "/dev/zero"], limit)
    says(machine, OUT_OF_MEMORY, OUT_OF_MEMORY_EXPECTED)
