"""Sockets over the loopback interface and over a real one, line by line the same as under runc, and what tools say of the network."""
import contextlib
import os
import shutil
import subprocess

import bundle
from cases import Case, native
from process import run
from report import Skip, check, equal

HERE = os.path.dirname(os.path.abspath(__file__))
# The container's side of the pair and the other one.
OWN = ("10.77.0.2", "fd77::2")
PEER = ("10.77.0.1", "fd77::1")


def program(ctx):
    root = f"{ctx.directory}/root"
    if not os.path.exists(root):
        shutil.copytree(bundle.busybox(), root, symlinks=True)
        shutil.copy(native(os.path.join(HERE, "network.c"), "network", ["-Wno-unused-result"]), f"{root}/bin/network")
        with open(f"{root}/etc/hosts", "w", encoding="utf-8") as f:
            f.write("127.0.0.1 localhost\n::1 localhost\n")
    return root


def must(*words):
    done = run(["ip", *words], timeout=20)
    check(done.rc == 0, f"ip {' '.join(words)}\n{done}")


@contextlib.contextmanager
def pair():
    """Two network namespaces of our own with a pair of interfaces between them: as a network plugin prepares a container's."""
    if not shutil.which("ip"):
        raise Skip("no ip: apt-get install iproute2")
    names = [f"qt{os.getpid()}{side}" for side in "ab"]
    made = []
    try:
        for n in names:
            must("netns", "add", n)
            made.append(n)
            must("-n", n, "link", "set", "lo", "up")
        must("-n", names[0], "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", names[1])
        for n, own, via in ((names[0], OWN, PEER), (names[1], PEER, None)):
            must("-n", n, "addr", "add", f"{own[0]}/24", "dev", "eth0")
            must("-n", n, "addr", "add", f"{own[1]}/64", "dev", "eth0", "nodad")
            must("-n", n, "link", "set", "eth0", "up")
            if via:
                must("-n", n, "route", "add", "default", "via", via[0])
        yield names
    finally:
        for n in made:
            run(["ip", "netns", "delete", n], timeout=20)


def inside(path):
    """Puts the container into the network namespace that is bound at `path`."""
    def change(c):
        for n in c["linux"]["namespaces"]:
            if n["type"] == "network":
                n["path"] = path
    return change


@contextlib.contextmanager
def echo(name):
    """Answers TCP and UDP on port 7777 of the far namespace."""
    command = ["ip", "netns", "exec", name, "python3", os.path.join(HERE, "..", "lib", "far_side.py"), *PEER]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as far:
        try:
            check(far.stdout.readline() == b"ready\n", "the far side is not ready")
            yield
        finally:
            far.kill()


def agree(ctx, args, root=None, **settings):
    b = ctx.bundle(args, root or program(ctx), **settings)
    expected = ctx.reference.run(b, timeout=90)
    check(expected.rc == 0, f"the comparison itself failed\n{expected}")
    result = ctx.quark.run(b, timeout=90)
    ours, theirs = result.text.splitlines(), expected.text.splitlines()
    wrong = [f"line {i + 1}: {a!r} instead of {b!r}" for i, (a, b) in enumerate(zip(ours, theirs)) if a != b]
    check(not wrong, "\n".join(wrong[:30]))
    equal((result.rc, len(ours)), (0, len(theirs)), f"outcome\n{result}")


def loopback(ctx):
    agree(ctx, ["network"])


def real_interface(ctx):
    with pair() as (own, far), echo(far):
        agree(ctx, ["network", PEER[0], PEER[1], OWN[0]], change=inside(f"/run/netns/{own}"))


TELL = """
ip -br addr | sed 's/fe80[^ ]*//'; ip route; ip -6 route show default; ip -br link | cut -c1-20; ip -s link show eth0 | grep -c RX; ls /sys/class/net; cat /sys/class/net/eth0/address /sys/class/net/eth0/mtu /sys/class/net/eth0/type
cut -d: -f1 /proc/net/dev; cat /proc/net/route; grep -v ^fe80 /proc/net/if_inet6 | cut -c1-44 | sort; route -n; netstat -rn; hostname -I; ifconfig eth0 | grep -c 10.77.0.2
ping -c 1 -W 2 10.77.0.1 | grep -c '1 received'; ping -6 -c 1 -W 2 fd77::1 | grep -c '1 received'; ip neigh | grep -v fe80 | cut -d' ' -f1-3 | sort
getent hosts localhost; getent ahostsv4 127.0.0.1; cat /proc/sys/net/ipv4/ip_local_port_range /proc/sys/net/core/somaxconn
sed 1d /proc/net/snmp | cut -d: -f1 | sort -u; cut -d: -f1 /proc/net/sockstat
"""

LISTENERS = """
cd /tmp; cat >s.py <<'P'
import os, socket, sys, time
os.setgid(65534); os.setuid(65534)
a = socket.create_server(('127.0.0.1', 8001), backlog=7); b = socket.create_server(('::1', 8002), family=socket.AF_INET6, backlog=9000); u = socket.socket(type=socket.SOCK_DGRAM); u.bind(('127.0.0.1', 8003))
x = socket.socket(socket.AF_UNIX); x.bind('/tmp/sock'); x.listen(); y = socket.socket(socket.AF_UNIX); y.bind(b'\\0abstract'); c = socket.create_connection(('127.0.0.1', 8001)); d, _ = a.accept(); d.send(b'12345'); print('up', flush=True); time.sleep(60)
P
python3 s.py >up & for i in $(seq 100); do grep -q up up && break; sleep 0.1; done; P=$!
ss -Hltn | sort; ss -Hltnp | grep -o '"python3",pid=[0-9]*,fd=[0-9]*' | grep -c pid=$P; ss -Huan | wc -l; ss -Htn state established | sed 's/:[1-9][0-9]*[0-9]/:port/g' | sort; ss -Hlx | awk '{print $1, $2, $5}' | sort
netstat -ltn | tail -n +3 | sort; netstat -ltnp 2>&1 | grep -c "$P/python3"; lsof -nP -iTCP -sTCP:LISTEN | awk 'NR > 1 {print $1, $3, $5, $8, $9, $10}' | sort; awk 'NR > 1 {print $2, $4, $8}' /proc/net/tcp | sort | head -1; awk '{print $8}' /proc/net/unix | grep -v ^$ | sort
I=$(readlink /proc/$P/fd/3 | tr -dc 0-9); awk '{print $10}' /proc/net/tcp | grep -c "^$I\\$"; lsof -U -a -p $P | grep -c tmp/sock; kill $P
"""


def tools(ctx):
    with pair() as (own, _):
        agree(ctx, TELL, bundle.servers(), change=inside(f"/run/netns/{own}"))


def listeners(ctx):
    agree(ctx, LISTENERS, bundle.servers(), change=lambda c: c["linux"].update(sysctl={"net.core.somaxconn": "1000"}))


def cases():
    yield Case("sockets over loopback", loopback)
    yield Case("sockets over a real interface", real_interface)
    yield Case("what tools say of the network", tools)
    yield Case("what tools say of sockets", listeners)
