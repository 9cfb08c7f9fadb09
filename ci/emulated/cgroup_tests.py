"""The unified cgroup hierarchy on a real kernel: emulated machines have no other. The process machine is enough for that."""
import bundle
from report import check, equal

MIB = 1 << 20
LIMITS = {
    "memory": {"limit": 64 * MIB, "swap": 64 * MIB, "reservation": MIB},
    "cpu": {"quota": 50000, "period": 100000, "shares": 2048, "cpus": "0"},
    "pids": {"limit": 50},
    "blockIO": {"throttleReadBpsDevice": [{"major": 7, "minor": 0, "rate": 1048576}]},
    "unified": {"memory.oom.group": "1"},
}

SCRIPT = r"""
mkdir -p /run/q; modprobe loop; box=/sys/fs/cgroup/box
quark() { timeout -s KILL 90 ./quark --root /run/q --platform=process "$@"; }
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
cpuset.cpus: 0
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


def unified(machine):
    """Limits, freezer, statistics and removal where there is no version 1."""

    def place(c):
        c["linux"]["cgroupsPath"] = "/box/one"
    bundle.write(f"{machine.directory}/cases/one", bundle.config(["sleep", "1000"], "/job/rootfs", resources=LIMITS, change=place))
    result = machine.boot(["sh", "-c", SCRIPT], 300)
    lines = "".join(line.rstrip() + "\n" for line in result.text.splitlines())
    check(lines, f"the machine said nothing\n{result}")
    equal(lines, EXPECTED, f"what the host's cgroups hold\n{result}")
