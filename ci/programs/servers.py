"""Servers from Debian's packages do real work as their own users; what they print is what they print under runc."""
import bundle
from cases import SAME, shell

ROOT = bundle.servers

REDIS = """
cd /tmp
start() { redis-server --dir /tmp --save "" "$@" >>/tmp/log & server=$!; for i in $(seq 100); do redis-cli ping 2>/dev/null | grep -q PONG && return; sleep 0.1; done; cat /tmp/log; exit 1; }
settled() { for i in $(seq 200); do redis-cli info persistence | tr -d '\\r' | grep -q "^$1:0" && return; sleep 0.1; done; echo "$1 does not end"; }
state() { redis-cli info persistence | tr -d '\\r' | grep -E "^($1):"; }
start
redis-benchmark -q -n $N -c 20 -t set,get,incr,lpush,rpop,sadd,mset >bench || echo benchmark failed
redis-benchmark -q -n $N -P 16 -c 20 -r 5000 -t set,get >>bench || echo pipelined benchmark failed
grep -c 'requests per second' bench
python3 - <<'P'
import socket
s = socket.create_connection(('127.0.0.1', 6379)); f = s.makefile('rb')
s.sendall(b''.join(b'SET key:%d %0200d\\r\\n' % (i, i) for i in range(20000)))
print(sum(f.readline() == b'+OK\\r\\n' for i in range(20000)))
s.sendall(b'SUBSCRIBE c\\r\\n'); print([f.readline() for _ in range(6)][1])
P
redis-cli lpush blocked x >/dev/null; redis-cli blpop blocked 1; (sleep 0.3; redis-cli lpush later y >/dev/null) & redis-cli blpop later 5
redis-cli eval 'local n = 0; for i = 1, 1000 do n = n + redis.call("incr", KEYS[1]) end; return n' 1 counter
redis-cli bgsave; redis-cli set after save; settled rdb_bgsave_in_progress; state rdb_last_bgsave_status
redis-check-rdb dump.rdb | grep -o 'RDB looks OK'; redis-cli config set appendonly yes; settled aof_rewrite_in_progress; state 'aof_last_bgrewrite_status|aof_enabled'
for i in 1 2 3; do redis-cli incr counted; redis-cli bgrewriteaof >/dev/null; redis-cli incr counted; settled aof_rewrite_in_progress; done
state aof_last_bgrewrite_status
# What was acknowledged survives the server's death.
redis-cli config set appendfsync always; redis-cli set last words; kill -9 $server; wait $server 2>/dev/null; start --appendonly yes
redis-cli mget last counted after key:19999 | md5sum; redis-cli shutdown nosave; wait; ls appendonlydir | wc -l
"""

NGINX = """
mkdir -p /tmp/n /tmp/www; cd /tmp/n; i=0; while [ $i -lt 60000 ]; do echo "line $i of a file that is served"; i=$((i+1)); done >/tmp/www/big; echo hello >/tmp/www/index.html
cat >conf <<C
daemon off; worker_processes 2; pid /tmp/n/pid; error_log /tmp/n/err notice;
events { worker_connections 512; }
http { sendfile on; tcp_nopush on; access_log /tmp/n/acc; client_body_temp_path /tmp/n/b; proxy_temp_path /tmp/n/p; fastcgi_temp_path /tmp/n/f;
  uwsgi_temp_path /tmp/n/u; scgi_temp_path /tmp/n/s; default_type text/plain; types { text/plain txt; } gzip_types text/plain;
  server { listen 8080 reuseport; listen [::1]:8080; listen unix:/tmp/n/sock; root /tmp/www; location /x { return 200 "version 0.\\n"; }
    location /gz { gzip on; alias /tmp/www/; } location /proxy/ { proxy_pass http://127.0.0.1:8080/; } } }
C
nginx -c /tmp/n/conf -e /tmp/n/err & master=$!
for i in $(seq 100); do curl -s localhost:8080/x && break; sleep 0.1; done
ps -eo user,comm | grep -c nginx
for u in http://127.0.0.1:8080/big 'http://[::1]:8080/big' http://127.0.0.1:8080/proxy/big '--unix-socket /tmp/n/sock http://x/big'; do curl -s $u | cmp - /tmp/www/big && echo same; done
curl -s --compressed http://127.0.0.1:8080/gz/big | cmp - /tmp/www/big && echo same; curl -s -r 1000000-1000019 localhost:8080/big; echo; curl -s -o /dev/null -w '%{http_code}\\n' localhost:8080/nosuch
ab -q -n $N -c 20 http://127.0.0.1:8080/index.html | grep -E 'Complete|Failed'
ab -q -k -n $N -c 20 http://127.0.0.1:8080/index.html | grep -E 'Complete|Failed'
ab -q -n 200 -c 5 http://127.0.0.1:8080/big | grep -E 'Complete|Failed'
for i in $(seq $RELOADS); do sed -i "s/version [0-9]*\\./version $i./" conf; kill -HUP $master
  for j in $(seq 100); do [ "$(curl -s localhost:8080/x)" = "version $i." ] && break; sleep 0.1; done; [ $j = 100 ] && { echo reload $i is not seen; tail -5 err; exit 1; }; done; echo reloaded
curl -s --limit-rate 2M localhost:8080/big >got & sleep 0.3; nginx -c /tmp/n/conf -e /tmp/n/err -s quit; wait; cmp got /tmp/www/big && echo graceful; pgrep nginx | wc -l; grep -c -E 'crit|alert|emerg' err; true
"""

POSTGRES = """
export PATH=$PATH:/usr/lib/postgresql/15/bin PGHOST=/tmp PGUSER=postgres PGDATA=/tmp/pg; cd /tmp
initdb -U postgres -A trust >log 2>&1 || { cat log; exit 1; }
up() { pg_ctl -o "-k /tmp -c listen_addresses=127.0.0.1" -l pg.log -w start >up.log 2>&1 || { cat up.log pg.log; exit 1; }; }
# The clients' own balance sheet: every transaction is there wholly or not at all.
check() { psql bench -tAc 'select (select sum(abalance) from pgbench_accounts) = (select coalesce(sum(delta), 0) from pgbench_history)
  and (select sum(bbalance) from pgbench_branches) = (select sum(tbalance) from pgbench_tellers)'; }
up; createdb bench; pgbench -q -i -s 2 bench >log 2>&1 || cat log
pgbench -c 8 -j 2 -t $N bench 2>&1 | grep -E 'processed|failed'; check
psql bench -q -h 127.0.0.1 -tAc 'set max_parallel_workers_per_gather=2; set min_parallel_table_scan_size=0; set parallel_setup_cost=0; set parallel_tuple_cost=0; select count(*), sum(aid) from pgbench_accounts'
psql bench -q -tA <<S
create table t(a int primary key, b text); insert into t select i, md5(i::text) from generate_series(1, 20000) i; create index on t(b); vacuum analyze t;
select count(*), md5(string_agg(b, '' order by a)) from t; select b from t where a = 777; begin; delete from t; rollback; select count(*) from t; copy (select * from t where a < 3 order by a) to stdout;
S
psql bench -q -tAc "listen c; notify c, 'said'" | sed 's/ PID.*//'
pgbench -n -c 4 -T 30 bench >/dev/null 2>&1 & sleep 2; kill -9 $(pgrep -f checkpointer); wait
for i in $(seq 200); do psql bench -tAc 'select 1' >/dev/null 2>&1 && break; sleep 0.1; done; check
pgbench -n -c 4 -T 30 bench >/dev/null 2>&1 & sleep 2; kill -9 $(head -1 pg/postmaster.pid); wait; while pgrep -x postgres >/dev/null; do sleep 0.1; done
up; check; pg_ctl -m fast stop | tail -1; grep -c 'automatic recovery' pg.log; grep -c PANIC pg.log; true
"""

SQLITE = """
cd /tmp; cat >w.py <<'P'
import sqlite3, sys
d = sqlite3.connect('/tmp/s.db', timeout=60, isolation_level=None)
for i in range(int(sys.argv[2])):
    d.execute('begin immediate'); n = d.execute('select v from c').fetchone()[0]; d.execute('update c set v=?', (n + 1,)); d.execute('insert into t values(?,?)', (sys.argv[1], n)); d.execute('commit')
P
for mode in wal delete; do rm -f s.db; sqlite3 s.db "pragma journal_mode=$mode; create table c(v); insert into c values(0); create table t(who,n);"
python3 w.py a $N & python3 w.py b $N &
python3 - <<'P'
import sqlite3
d = sqlite3.connect('/tmp/s.db', timeout=60); last = -1; ok = True
for _ in range(100):
    n = d.execute('select v, (select count(*) from t) from c').fetchone(); ok = ok and n[0] == n[1] and n[0] >= last; last = n[0]
print('consistent', ok)
P
wait; sqlite3 s.db 'select v from c; select who, count(*) from t group by who order by who; select count(distinct n) from t; pragma integrity_check;'; done
sqlite3 s.db "begin exclusive; insert into t values('x',1);" ".shell sqlite3 s.db 'insert into t values(1,1)' 2>&1; true" ".shell sqlite3 s.db 'select 1 from t limit 1' 2>&1; true"
# A writer dies in the middle of its transaction: the journal it left is rolled back.
python3 - <<'P'
import sqlite3, os
d = sqlite3.connect('/tmp/r.db', isolation_level=None); d.execute('create table t(a)'); d.execute('begin'); d.executemany('insert into t values(?)', [(i,) for i in range(100)]); d.execute('commit')
if os.fork() == 0:
    e = sqlite3.connect('/tmp/r.db', isolation_level=None); e.execute('pragma cache_size=10'); e.execute('begin'); e.executemany('insert into t values(?)', [('x' * 500,) for i in range(20000)]); os.kill(os.getpid(), 9)
os.wait(); print(os.path.exists('/tmp/r.db-journal')); f = sqlite3.connect('/tmp/r.db'); print(f.execute('select count(*) from t').fetchone(), os.path.exists('/tmp/r.db-journal'), f.execute('pragma integrity_check').fetchone())
P
"""


def as_user(name):
    """Runs the container's program as a user of the root file system."""
    def change(c):
        with open(f"{c['root']['path']}/etc/passwd", encoding="utf-8") as f:
            uid, gid = next(line.split(":")[2:4] for line in f if line.startswith(name + ":"))
        c["process"]["user"] = {"uid": int(uid), "gid": int(gid)}
    return change


def server(name, script, user, quick, thorough):
    """The same work twice: a short one always, a long one in the full run. `quick` and `thorough` set the script's variables."""
    common = {"out": SAME, "root": ROOT, "mounts": bundle.SERVER_MOUNTS, "change": as_user(user)}
    yield shell(name, f"{quick}\n{script}", timeout=100, **common)
    yield shell(f"{name}, longer", f"{thorough}\n{script}", timeout=400, full=True, **common)


def cases():
    yield from server("redis: benchmark, BGSAVE, AOF rewrite, death and return", REDIS, "redis", "N=2000", "N=50000")
    yield from server("nginx: two workers, sendfile, reload, graceful stop", NGINX, "www-data", "N=1000 RELOADS=5", "N=20000 RELOADS=50")
    yield from server("PostgreSQL: pgbench, death of a process and of the server", POSTGRES, "postgres", "N=100", "N=2000")
    yield from server("SQLite: two writers, WAL and rollback journal", SQLITE, "nobody", "N=150", "N=2000")
