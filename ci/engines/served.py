"""Servers of Debian in containers of Docker, driven by clients in another network namespace than the container's and the host's."""
import os
import subprocess

import bundle
import docker
from compare import Case
from report import check

# `outside COMMAND`: on another machine, so to speak: beyond a cable, with a root file system of its own.
PRELUDE = docker.PRELUDE + r"""
outside() { ip netns exec outside chroot $DIR/outside env PATH=/usr/lib/postgresql/15/bin:$PATH "$@"; }
port_of() { docker port $N $1 | head -1 | sed 's/.*://'; }
H=10.77.0.1
code() { docker inspect -f '{{.State.ExitCode}}' $N; }
"""

REDIS = r"""
redis() { outside redis-cli -h $H -p $P "$@"; }
answers() { P=$(port_of 6379) && [ "$(redis ping)" = PONG ]; }
up() { until_ok answers || { docker logs $N; exit 1; }; }
run -d --name $N --user redis -p 6379 -v $N:/var/lib/redis -w /var/lib/redis servers sh -c 'exec redis-server --bind "* -::*" --protected-mode no --save "" --appendonly yes --appendfsync always' >/dev/null
up
"""

NGINX = r"""
mkdir site; seq 100000 >site/big; echo first >site/index.html
cat >nginx.conf <<C
daemon off; worker_processes 2; error_log stderr notice; pid /run/nginx.pid;
events { worker_connections 256; }
http { access_log off; sendfile on; server { listen 80; listen [::]:80; root /site; location /where { return 200 "\$server_addr \$remote_addr\n"; } } }
C
run -d --name $N -p 80 --tmpfs /run -v $PWD/nginx.conf:/etc/nginx.conf:ro -v $PWD/site:/site:ro --stop-signal QUIT servers nginx -c /etc/nginx.conf >/dev/null
U=http://$H:$(port_of 80); until_ok outside curl -sf $U/
"""

POSTGRES = r"""
psql() { outside psql -h $H -p $P -U postgres "$@"; }
answers() { P=$(port_of 5432) && psql -tAc 'select 1'; }
up() { until_ok answers || { docker logs $N; exit 1; }; }
balance() { psql bench -tAc 'select count(*), (select sum(abalance) from pgbench_accounts) = coalesce(sum(delta), 0) from pgbench_history'; }
cat >start <<'S'
PATH=$PATH:/usr/lib/postgresql/15/bin
[ -e $PGDATA/PG_VERSION ] || { initdb -U postgres -A trust && echo 'host all all all trust' >>$PGDATA/pg_hba.conf; } >/dev/null
exec postgres -c listen_addresses='*' -c jit=off -k /tmp
S
run -d --name $N --user postgres -p 5432 -v $N:/var/lib/postgresql -v $PWD/start:/start:ro -e PGDATA=/var/lib/postgresql/data --shm-size 128m --stop-signal INT servers sh /start >/dev/null
for _ in 1 2 3 4; do up >/dev/null && break; done; up
outside createdb -h $H -p $P -U postgres bench; outside pgbench -h $H -p $P -U postgres -q -i -s 1 bench >log 2>&1 || cat log
outside pgbench -h $H -p $P -U postgres -c 4 -j 2 -t 100 bench 2>&1 | grep -E 'processed|failed'; balance
"""

ECHO = r"""
import socket, sys
kind, port = sys.argv[1], 7
if kind == 'udp':
    s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); s.bind(('::', port)); print('up', flush=True)
    while True:
        d, a = s.recvfrom(65536); s.sendto(d.upper(), a)
s = socket.create_server(('::', port), family=socket.AF_INET6, dualstack_ipv6=True); print('up', flush=True)
while True:
    c, _ = s.accept()
    while d := c.recv(65536): c.sendall(d.upper())
    c.close()
"""
ASK = r"""
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(2); got = 0
for n in (1, 100, 1400, 8000):
    for _ in range(5):
        s.sendto(b'a' * n, (sys.argv[1], int(sys.argv[2])))
        try: got += s.recv(65536) == b'A' * n; break
        except OSError: pass
print('answers', got)
"""

CASES = [
    Case("redis: benchmark from outside, another user, volume, stop, restart",
         REDIS + r"""outside redis-benchmark -h $H -p $P -q -n 5000 -c 20 -t set,get,lpush,mset >bench 2>&1 || cat bench; grep -c 'requests per second' bench
outside redis-benchmark -h $H -p $P -q -n 20000 -c 20 -P 16 -r 1000 -t set,get >bench 2>&1 || cat bench; grep -c 'requests per second' bench
redis set key value; docker exec $N sh -c 'redis-cli get key; id -un; stat -c %U /var/lib/redis/appendonlydir'
docker stop $N >/dev/null; code; docker logs $N 2>&1 | grep -o 'bye bye'; redis get key 2>&1 | grep -o refused
docker start $N >/dev/null; up; redis get key; redis incr n
docker kill $N >/dev/null; code; docker restart $N >/dev/null; up; redis mget key n""", "4.2.OK.value.redis.redis.0.*bye.*refused.value.1.137.value.1", timeout=120),
    Case("redis: --restart always after its own end and after its death",
         REDIS.replace("run -d", "run -d --restart always") + r"""redis set key value; redis shutdown; up; redis get key
started() { docker inspect -f '{{.State.StartedAt}}' $N; }; before=$(started); docker exec $N sh -c 'kill -9 1; kill -TERM 1' ; until_ok eval '[ "$(started)" != "$before" ]'; up; redis get key
docker inspect -f '{{.RestartCount}}' $N""", "OK.*value.*value.2", timeout=120),
    Case("nginx: load from outside, sendfile, reload, graceful stop",
         NGINX + r"""outside curl -s $U/; outside curl -s $U/big | cmp - site/big && echo same; outside curl -s $U/where | sed 's/172.29.*/both/'; outside curl -s -o /dev/null -w '%{http_code}\n' $U/nosuch
outside ab -q -n 2000 -c 20 $U/index.html | grep -E '^(Complete|Failed)'; outside ab -q -k -n 2000 -c 20 $U/index.html | grep -E '^(Complete|Failed)'; outside ab -q -n 100 -c 5 $U/big | grep -E '^(Complete|Failed)'
echo second >site/index.html; docker exec $N nginx -c /etc/nginx.conf -s reload 2>/dev/null; outside curl -s $U/; docker exec $N ps -eo user= | sort | uniq -c | grep www-data | tr -s ' '
(outside curl -s --limit-rate 400k $U/big | cmp - site/big && echo finished) & sleep 0.5; docker stop $N >/dev/null; code; wait; outside curl -s $U/ || echo gone""",
         "first.same.*404.*Complete requests: *2000.Failed requests: *0.*second.*finished.*gone", timeout=120),
    Case("PostgreSQL: pgbench from outside, volume of its user, stop, start, death",
         POSTGRES + r"""docker stop $N >/dev/null; code; docker start $N >/dev/null; up; balance
docker kill $N >/dev/null; docker start $N >/dev/null; up; balance; docker logs $N 2>&1 | grep -o 'automatic recovery'; docker logs $N 2>&1 | grep -c PANIC
docker exec $N /usr/lib/postgresql/15/bin/psql -h /tmp -U postgres bench -tAc 'select count(*) from pgbench_accounts'""", "400/400.*400.t.0.400.t.400.t.automatic recovery.0.100000", timeout=180),
    Case("-p of UDP, and of both on one port",
         f"cat >echo.py <<'P'\n{ECHO}\nP\ncat >ask.py <<'P'\n{ASK}\nP\n" + r"""run -d --name $N -p 7/udp -p 7/tcp -v $PWD/echo.py:/echo.py:ro servers sh -c 'python3 /echo.py udp & exec python3 /echo.py tcp' >/dev/null
for _ in $(seq 100); do [ $(docker logs $N | grep -c up) = 2 ] && break; sleep 0.1; done
outside python3 - $H $(docker port $N 7/udp | head -1 | sed 's/.*://') <ask.py
P=$(docker port $N 7/tcp | head -1 | sed 's/.*://'); head -c 3000000 /dev/zero | tr '\0' a | outside timeout 20 python3 -c "
import socket, sys, threading
s = socket.create_connection(('$H', $P)); d = sys.stdin.buffer.read(); threading.Thread(target=lambda: (s.sendall(d), s.shutdown(1))).start(); n = 0
while b := s.recv(65536): n += b.count(b'A')
print(n)"
docker stop -t 1 $N >/dev/null""", "answers 4.3000000"),
]


class Served(docker.Docker):
    """The daemon with an image of servers, and a machine beside the nest's."""
    packages = (*docker.Docker.packages, "curl")
    prelude = PRELUDE
    cases = CASES

    def start(self):
        root = bundle.servers()
        super().start()
        n = self.nest
        os.mkdir(f"{n.dir}/outside")
        rc, out = n.script(f"""set -e
mount --rbind {root} $PWD/outside; mount --rbind /dev $PWD/outside/dev; mount -t tmpfs none $PWD/outside/tmp
mkdir -p /run/netns; ip netns add outside; ip link add cable type veth peer name far netns outside
ip addr add 10.77.0.1/24 dev cable; ip link set cable up; ip -n outside link set lo up; ip -n outside addr add 10.77.0.2/24 dev far; ip -n outside link set far up
""".replace("$PWD", n.dir))
        check(rc == 0, f"cannot make the other machine\n{out}")
        left_out = [f"--exclude={what}" for what in ("./usr/share/i18n", "./usr/share/perl", "*/libLLVM*", "./var/lib/postgresql/15")]
        command = n.enter("docker", "-H", f"unix://{n.dir}/docker.sock", "import", "-c", f"ENV {docker.PATH}", "-", "servers")
        with subprocess.Popen(["tar", "-C", root, *left_out, "-c", "."], stdout=subprocess.PIPE) as tar:
            done = subprocess.run(command, stdin=tar.stdout, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300, check=False, text=True)
        check(done.returncode == 0, f"cannot import the image\n{done.stdout}")
