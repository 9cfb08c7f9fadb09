"""What Docker's users feel: the start of a container, and servers behind the bridge with clients on another machine."""
import os
import re
import statistics
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "engines"))

import apt  # noqa: E402
import served  # noqa: E402
from report import Failure, Skip  # noqa: E402

START = r"""
begin=$EPOCHREALTIME; docker run --rm --runtime=$RUNTIME --network none busybox true || exit; end=$EPOCHREALTIME
echo $(( (${end/.} - begin_us) ))
""".replace("begin_us", "${begin/.}")

REDIS = r"""
answers() { P=$(port_of 6379) && [ "$(outside redis-cli -h $H -p $P ping)" = PONG ]; }
run -d --name $N -p 6379 servers redis-server --bind "* -::*" --protected-mode no --save "" >/dev/null
until_ok answers || { docker logs $N; exit 1; }
for depth in 1 16; do outside redis-benchmark -h $H -p $P --csv -c 50 -t get -P $depth -n $((40000 * depth / (depth > 1 ? 2 : 1))) | tail -1 | tr -d '"' | cut -d, -f2; done
"""

NGINX = served.NGINX.replace("seq 100000 >site/big", "head -c 1024 /dev/zero | tr '\\0' a >site/kib") + r"""
ip netns exec outside wrk -t 1 -c 50 -d 4s $U/kib | grep Requests/sec
"""


class Bench(served.Served):
    """The daemon of the tests of servers, with gVisor among its runtimes: on sockets of the container's network namespace, since its
    own stack refuses kernels that show net.core.rmem_default there."""
    packages = (*served.Served.packages, "wrk")

    def runtimes(self):
        return super().runtimes() | {"runsc": {"path": "/usr/bin/runsc", "runtimeArgs": ["--platform=systrap", "--network=host", "--ignore-cgroups"]}}


def rows(peers, rounds, clock):
    """Yields (title, {name: value}): times, so that less is better everywhere."""
    try:
        apt.need(*Bench.packages)
        engine = Bench(peers["quark"].binary, peers["quark"].flags)
    except (Failure, Skip, KeyError) as e:
        print(f"not measured: Docker: {e}", file=sys.stderr)
        return
    names = [n for n in peers if n in ("quark", "runc", "runsc")]
    count = 0

    def ask(name, text):
        """The numbers a script prints; none if it fails or there is no time."""
        nonlocal count
        count += 1
        container = f"bench{count}"
        if clock.left() < 20:
            return []
        rc, out = engine.script(name, container, text, clock.limit(60))
        engine.clean(name, container)
        if rc != 0:
            print(f"Docker with {name}: {out.strip()[-300:]}", file=sys.stderr)
        return [float(w) for w in re.findall(r"[\d.]+$", out, re.M)] if rc == 0 else []

    def median(values):
        return {n: statistics.median(v) for n, v in values.items() if v}

    try:
        taken = {n: [] for n in names}
        for n in range(2 * rounds + 1):
            for name in names:
                got = ask(name, START)
                if n:  # the first round warms caches
                    taken[name] += [us / 1000 for us in got]
        yield "`docker run --network none` of `true`, ms", median(taken)
        plain, deep, pages = ({n: [] for n in names} for _ in range(3))
        for _ in range(rounds):
            for name in names:
                got = ask(name, REDIS)
                if len(got) == 2:
                    plain[name].append(1e6 / got[0])
                    deep[name].append(1e6 / got[1])
                pages[name] += [1e6 / rate for rate in ask(name, NGINX)]
        yield "redis GET through the bridge, 50 clients, µs", median(plain)
        yield "the same, 16 in a pipeline, µs", median(deep)
        yield "nginx, 1 KiB through the bridge by wrk, 50 clients, µs", median(pages)
    finally:
        engine.end()
