"""redis, PostgreSQL and nginx together under load for ten minutes: what the guest kernel holds must not grow."""
import os
import time

import bundle
import process
from cases import Case
from report import check, equal

# After a minute everything is warm; from then on, at the same places of the same load:
HEAP_GROWTH = 2 << 20
DESCRIPTOR_GROWTH = 40
ROUND = b"PONG\nhello\n100000\nend\n"
THREAD_GROWTH = 10

# Each round is the same work; between rounds only the servers remain.
SCRIPT = """
export PATH=$PATH:/usr/lib/postgresql/15/bin PGHOST=/tmp PGUSER=postgres PGDATA=/tmp/pg; cd /tmp; mkdir -p n www r; echo hello >www/index.html; head -c 300000 /dev/zero >www/big
as() { su -s /bin/sh "$1" -c "$2"; }
chown postgres . ; chown -R redis r; as postgres 'PATH=$PATH:/usr/lib/postgresql/15/bin; initdb -D /tmp/pg -U postgres -A trust >/dev/null && pg_ctl -D /tmp/pg -o "-k /tmp" -l /tmp/pg.log -w start >/dev/null' || { cat pg.log; exit 1; }
as redis 'redis-server --dir /tmp/r --appendonly yes >/tmp/r/log' & 
cat >conf <<C
daemon off; worker_processes 2; pid /tmp/n/pid; error_log /tmp/n/err warn; user www-data;
events { worker_connections 512; }
http { sendfile on; access_log off; client_body_temp_path /tmp/n/b; proxy_temp_path /tmp/n/p; fastcgi_temp_path /tmp/n/f; uwsgi_temp_path /tmp/n/u; scgi_temp_path /tmp/n/s; server { listen 8080; root /tmp/www; } }
C
nginx -c /tmp/conf -e /tmp/n/err & master=$!
for i in $(seq 100); do redis-cli ping 2>/dev/null | grep -q PONG && curl -s localhost:8080 >/dev/null && break; sleep 0.1; done
createdb bench; pgbench -q -i -s 1 bench >/dev/null 2>&1; redis-cli config set save '' >/dev/null
end=$(($(date +%s) + $TIME))
while [ $(date +%s) -lt $end ]; do
  redis-benchmark -q -n 4000 -c 20 -r 1000 -t set,get,lpush,rpop,incr >/dev/null & ab -q -n 1500 -c 20 http://127.0.0.1:8080/index.html >/dev/null & ab -q -k -n 300 -c 5 http://127.0.0.1:8080/big >/dev/null &
  pgbench -n -C -c 4 -t 25 bench >/dev/null 2>&1; pgbench -n -c 4 -t 100 bench >log 2>&1 || cat log
  redis-cli bgrewriteaof >/dev/null; kill -HUP $master; psql bench -qc 'vacuum pgbench_branches; truncate pgbench_history; checkpoint'; redis-cli flushall >/dev/null
  for i in $(seq 100); do [ $(pgrep -c 'redis-benchmark|^ab$') = 0 ] && break; sleep 0.1; done; sleep 0.5
  redis-cli ping; curl -s localhost:8080; psql bench -tAc 'select count(*) from pgbench_accounts'; echo end; sleep 1.5
done; echo finished
redis-cli shutdown nosave; kill -QUIT $master; as postgres 'PATH=$PATH:/usr/lib/postgresql/15/bin; pg_ctl -D /tmp/pg -m fast stop >/dev/null'; wait; grep -c PANIC pg.log; echo over
"""


def figures(ctx, id):
    """The guest kernel's figures, and those of the host about its processes."""
    got = ctx.quark.call("metrics", id, timeout=20)
    equal(got.rc, 0, f"metrics\n{got}")
    out = {name: int(value) for name, value in (line.split() for line in got.text.splitlines())}
    sandbox = ctx.quark.state(id)["pid"]
    threads, descriptors = 0, 0
    for pid in (sandbox, *process.descendants(sandbox)):
        try:
            threads += len(os.listdir(f"/proc/{pid}/task"))
            # They share one table.
            descriptors = max(descriptors, len(os.listdir(f"/proc/{pid}/fd")))
        except OSError:
            pass
    return {**out, "host_threads": threads, "host_descriptors": descriptors}


def soak(seconds):
    def body(ctx):
        id = ctx.quark.new_id()
        b = ctx.bundle(f"TIME={seconds}\n{SCRIPT}", bundle.servers(), mounts=bundle.SERVER_MOUNTS)
        p = ctx.quark.start("run", "--bundle", b, id)
        history, rounds = [], 0
        while True:
            # Until the next round is over, or all are.
            limit = time.monotonic() + 120
            while p.out.count(b"end\n") == rounds and b"finished" not in p.out:
                check(p.p.poll() is None and time.monotonic() < limit, f"no round is finished\n{p.describe()}")
                time.sleep(0.05)
            if p.out.count(b"end\n") == rounds:
                break
            rounds += 1
            if time.monotonic() - p.began > min(60, seconds / 3):
                history.append(figures(ctx, id))
        result = p.finish(seconds + 200)
        equal(result.text, ROUND.decode() * rounds + "finished\n0\nover\n", "output")
        check(len(history) >= 3, f"only {rounds} rounds")
        # The least of each half: a reading may fall on a moment of work, growth is in every one.
        half = len(history) // 2
        report = []
        for name, bound in (("heap_allocated_bytes", HEAP_GROWTH), ("host_descriptors", DESCRIPTOR_GROWTH), ("host_threads", THREAD_GROWTH),
                            ("open_files", DESCRIPTOR_GROWTH), ("tasks", THREAD_GROWTH)):
            first, last = (min(h[name] for h in part) for part in (history[:half], history[half:]))
            report.append(f"{name}: {first} then {last}, may grow by {bound}")
            if last - first > bound:
                report[-1] += ": grew"
        if ctx.log:
            with open(ctx.log, "a", encoding="utf-8") as f:
                f.write("\n".join([f"{rounds} rounds", *report, ""]))
        check(not any(r.endswith("grew") for r in report), "\n".join(report))
    return body


def cases():
    yield Case("servers together, a minute", soak(40))
    yield Case("servers together, ten minutes", soak(600), full=True)
