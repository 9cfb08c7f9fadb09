"""Containers that share a sandbox, on the kvm machines: namespaces, files, networks and ends as `ci/programs/sharing.py` has them of runc."""
import bundle
from report import check, equal

SCRIPT = r"""
mkdir -p /run/q
quark() { timeout -s KILL 90 ./quark --root /run/q --platform=kvm "$@"; }
field() { quark state $1 | tr -d ' ",' | sed -n "s/^$2://p"; }
until_ok() { for i in $(seq 200); do "$@" >/dev/null 2>&1 && return; sleep 0.1; done; echo "never: $*"; }
is() { [ "$(field $1 status)" = $2 ]; }
begin() { quark create --bundle cases/$1 $1 </dev/null >/tmp/$1 2>&1 || cat /tmp/$1; quark start $1; }
share() { sed "s,@PID@,$(field first pid)," cases/$1/config.json >/tmp/c && cp /tmp/c cases/$1/config.json; }
begin first; for i in pids ipc net limited; do share $i; done; until_ok quark exec first test -f /tmp/up
quark run --bundle cases/pids pids </dev/null 2>&1; echo "rc=$?"
quark run --bundle cases/net net </dev/null 2>&1; echo "rc=$?"
quark run --bundle cases/limited limited </dev/null 2>&1 | grep -o 'memory.limit: on a kvm machine'
begin ipc; until_ok grep done /tmp/ipc; cat /tmp/ipc; quark exec ipc sh -c 'ps -o args | grep -c ^sleep'; quark exec first sh -c 'ps -o args | grep -c "^sleep 77"'
quark pause ipc; is ipc paused && echo paused; quark exec first echo alive; quark resume ipc; is ipc running && echo goes on
quark kill first KILL; until_ok is ipc stopped; field ipc exitCode; quark delete ipc; quark delete first; ls /run/q | wc -l
"""

# Its own network has no address but the loopback's, and nobody answers there.
PIDS = """echo "$(ps -o args | grep -c '^sleep 50') $(hostname)"; [ $$ = 1 ] || echo not the first; kill -USR1 1; sleep 0.5; cat /proc/1/root/tmp/told
ip link set lo up 2>/dev/null; ls /sys/class/net; wget -q -O- http://127.0.0.1/ 2>&1 | grep -o -e page -e refused; echo mine >/tmp/index.html; httpd -p 81 -h /tmp
for i in 1 2 3 4 5; do wget -q -O- http://127.0.0.1:81/ && break; sleep 0.3; done; grep -c :0050 /proc/net/tcp6; grep -q :0051 /proc/net/tcp6 && echo listens
[ "$(readlink /proc/self/ns/net)" = "$(readlink /proc/1/ns/net)" ] || echo other network; seq 1000 >/tmp/many; md5sum </tmp/many; ls -d /proc/sys; sleep 100 & exit 6"""
NET = "for i in 1 2 3 4 5; do wget -q -O- http://127.0.0.1/ && break; sleep 0.3; done; ps -o args | grep -c '^sleep 100'; true"
FIRST = "trap 'echo told >/tmp/told' USR1; ip link set lo up; echo page >/tmp/index.html; httpd -p 80 -h /tmp; sleep 50 & touch /tmp/up; while :; do sleep 0.1; done"
IPC = "echo $$ $(ps -o args | grep -c '^sleep 50'); sleep 77 & echo done; wait"

EXPECTED = """1 container
not the first
told
lo
refused
mine
0
listens
other network
53d025127ae99ab79e8502aae2d9bea6  -
/proc/sys
rc=6
page
0
rc=0
memory.limit: on a kvm machine
1 0
done
1
0
paused
alive
goes on
137
0
"""


def sharing(machine):
    """Writes the bundles; what is to be shared is told by the pid of the first container, which the machine fills in."""
    def bundled(name, script, *kinds, resources=None):
        def change(c):
            for kind in kinds:
                ns = next(n for n in c["linux"]["namespaces"] if n["type"] == kind)
                ns["path"] = f"/proc/@PID@/ns/{'net' if kind == 'network' else kind}"
            for sort in ("bounding", "effective", "permitted"):
                c["process"]["capabilities"][sort] = bundle.CAPABILITIES + ["CAP_NET_ADMIN"]
        bundle.write(f"{machine.directory}/cases/{name}", bundle.config(["sh", "-c", script], "/job/rootfs", resources=resources, change=change))
    bundled("first", FIRST)
    bundled("pids", PIDS, "pid")
    bundled("net", NET, "pid", "network")
    bundled("ipc", IPC, "ipc")
    bundled("limited", "true", "pid", resources={"memory": {"limit": 64 << 20}})
    result = machine.boot(["sh", "-c", SCRIPT], 300)
    lines = "".join(line.rstrip() + "\n" for line in result.text.splitlines())
    check(lines, f"the machine said nothing\n{result}")
    equal(lines, EXPECTED, f"what they say\n{result}")
