"""A Debian root file system: dynamic programs, the usual tools, compilers and interpreters, judged by runc on the same bundle."""
import bundle
from cases import SAME, table

ROOT = bundle.debian

# These rows also run on the kvm machines, in the long run.
TOOLS = [
    ("bash", "bash -c 'a=(x y z); declare -A m=([k]=v); echo ${a[@]: -1} ${m[k]} ${#a[@]}; diff <(echo a) <(echo b); "
     "coproc cat; echo hi >&${COPROC[1]}; read -u ${COPROC[0]} l; echo $l; printf -v t %05d 42; echo $t; [[ abc =~ b(.) ]] && echo ${BASH_REMATCH[1]}'",
     "z v 3\n1c1\n< a\n---\n> b\nhi\n00042\nc\n"),
    ("shuffle and sort", "seq 1 200000 | sort -R | sort -n | md5sum", SAME),
    ("parallel sort of a file", "seq 1 300000 | rev >/tmp/n; sort --parallel=2 -S 8M -T /tmp /tmp/n | md5sum; wc -lc /tmp/n", SAME),
    ("every file name", "find / -xdev | sort | sha256sum", SAME),
    ("every mode, owner and size", "find /usr /etc /var -xdev -printf '%p %m %u %g %s %n %l %T@\\n' | sort | sha256sum", SAME),
    ("grep a tree", "grep -rl '^package ' /usr/lib/*-linux-gnu/perl-base | sort | sha256sum; grep -rc -i copyright /usr/lib/*-linux-gnu/perl-base | sort | sha256sum; "
     "grep -c bash /etc/passwd", SAME),
    ("sed and awk", "sed -E 's/:[^:]*:/ <&> /' /etc/passwd | awk -F'[ :]' '{n+=NF; print $1} END {print n}' | sort | md5sum", SAME),
    ("gzip", "gzip -c /usr/bin/perl | gunzip | cmp - /usr/bin/perl && echo same; seq 1 99999 | gzip -9n | md5sum", SAME),
    ("dpkg -l", "dpkg -l | sha256sum; dpkg -L bash | wc -l; dpkg -s perl-base | grep ^Status", SAME),
    ("perl", "perl -e 'my %h=map{$_=>$_**2}1..999; my $s=0; $s+=$_ for values %h; print \"$s\\n\"; print join(\",\",sort{$a<=>$b}grep{$_%7==0}1..50),\"\\n\"; "
     "my $p=open(my $f,\"-|\",\"echo child; exit 3\"); print <$f>; close $f; print $?>>8,\"\\n\"; $SIG{ALRM}=sub{print \"alarm\\n\"; exit}; alarm 1; sleep 9'",
     "332833500\n7,14,21,28,35,42,49\nchild\n3\nalarm\n"),
    ("stat and touch", "cd /tmp; touch -d '2001-02-03 04:05:06.789 UTC' f; stat -c '%y %s %A %U' f; cp -p f g; stat -c %Y g; ln -s f l; readlink -f l", SAME),
    ("copy a tree", "cp -a /etc /tmp/e; diff -r --no-dereference /etc /tmp/e && echo same; du -s --apparent-size /tmp/e | cut -f1; rm -rf /tmp/e; ls /tmp", SAME),
    ("users", "getent passwd root; id nobody; su nobody -s /bin/sh -c id", SAME),
    ("disk and memory", "df --output=fstype,target /tmp /dev/shm; free | awk '/Mem/ {print ($2 > 100000)}'; nproc | grep -c .", SAME),
    ("dd with large blocks", "dd if=/dev/zero bs=1M count=64 status=none | tee /tmp/z | sha1sum; sha1sum </tmp/z; stat -c %s /tmp/z", SAME),
]

PYTHON = [
    ("python modules", "import ssl, json, asyncio, sqlite3, hashlib, decimal, zlib, ctypes, multiprocessing, select\n"
     "print(json.dumps({'a': [1, 2, {'b': None}]}), hashlib.sha256(b'x').hexdigest()[:8], ssl.OPENSSL_VERSION[:7], zlib.crc32(b'quark'))",
     '{"a": [1, 2, {"b": null}]} 2d711642 OpenSSL 3490540671\n'),
    ("python threads", "import threading, queue\nq = queue.Queue(); r = []; lock = threading.Lock()\n"
     "def work():\n while (i := q.get()) is not None:\n  with lock: r.append(i * i)\n"
     "t = [threading.Thread(target=work) for _ in range(20)]\n[x.start() for x in t]\n[q.put(i) for i in range(5000)]\n[q.put(None) for _ in t]\n[x.join() for x in t]\n"
     "print(sum(r), threading.active_count())", "41654167500 1\n"),
    ("python subprocess", "import subprocess, sys\n"
     "for i in range(20): assert subprocess.run(['sh', '-c', f'exit {i}']).returncode == i\n"
     "p = subprocess.Popen(['cat'], stdin=subprocess.PIPE, stdout=subprocess.PIPE); print(p.communicate(b'q' * 200000)[0].count(b'q'))\n"
     "print(subprocess.check_output('echo $((6*7))', shell=True))\n"
     "try: subprocess.run(['sleep', '9'], timeout=0.3)\nexcept subprocess.TimeoutExpired: print('timeout')\n"
     "try: subprocess.run(['/no/such'])\nexcept FileNotFoundError as e: print(e)",
     "200000\nb'42\\n'\ntimeout\n[Errno 2] No such file or directory: '/no/such'\n"),
    ("python sockets", "import socket, threading\nl = socket.create_server(('127.0.0.1', 0)); got = []\n"
     "def serve():\n for _ in range(10):\n  c, _a = l.accept()\n  with c:\n   d = b''\n   while len(d) < 100000: d += c.recv(65536)\n   c.sendall(d[::-1])\n"
     "t = threading.Thread(target=serve); t.start()\n"
     "for i in range(10):\n s = socket.create_connection(l.getsockname()); s.sendall(bytes([i]) * 100000); d = b''\n while len(d) < 100000: d += s.recv(65536)\n got.append(d == bytes([i]) * 100000); s.close()\n"
     "t.join(); print(all(got))\n"
     "a, b = socket.socketpair(); a.send(b'x'); print(b.recv(9))\n"
     "u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind(('127.0.0.1', 0)); v = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); v.sendto(b'dgram', u.getsockname()); print(u.recv(99))\n"
     "try: socket.create_connection(('127.0.0.1', 1))\nexcept ConnectionRefusedError: print('refused')\n"
     "x = socket.socket(socket.AF_UNIX); x.bind('/tmp/s'); x.listen(); y = socket.socket(socket.AF_UNIX); y.connect('/tmp/s'); c, _ = x.accept(); y.send(b'unix'); print(c.recv(9))",
     "True\nb'x'\nb'dgram'\nrefused\nb'unix'\n"),
    ("python epoll of duplicates", "import os, select, socket\nI, ET, ONE = select.EPOLLIN, select.EPOLLET, select.EPOLLONESHOT\n"
     "l = socket.create_server(('127.0.0.1', 0)); e = select.epoll(); d, f = os.dup(l.fileno()), os.dup(l.fileno())\n"
     "e.register(l, I); e.register(d, I | ET); e.register(f, I | ONE)\nnames = {l.fileno(): 'l', d: 'd', f: 'f'}\nlook = lambda t=0: ''.join(sorted(names[n] for n, _ in e.poll(t)))\n"
     "print([look(), bool(c := socket.create_connection(l.getsockname())), look(5), look(), look()])\ne.modify(f, I | ONE); print(look(), look()); e.unregister(l); print([look()])\n"
     "e.modify(d, I); print(look(), look()); l.accept(); print([look()]); os.close(d); e.modify(f, I); c = socket.create_connection(l.getsockname()); print(look(5))",
     "['', True, 'dfl', 'l', 'l']\nfl l\n['']\nd d\n['']\ndf\n"),
    ("python asyncio", "import asyncio\nasync def echo(r, w):\n w.write((await r.readline()).upper()); await w.drain(); w.close()\n"
     "async def main():\n s = await asyncio.start_server(echo, '127.0.0.1', 0); port = s.sockets[0].getsockname()[1]\n"
     " async def ask(i):\n  r, w = await asyncio.open_connection('127.0.0.1', port); w.write(b'm%d\\n' % i); x = await r.readline(); w.close(); return x\n"
     " print(b''.join(await asyncio.gather(*map(ask, range(5)))))\n"
     " p = await asyncio.create_subprocess_exec('echo', 'sub', stdout=asyncio.subprocess.PIPE); print((await p.communicate())[0], await asyncio.sleep(0.1, 'slept'))\n"
     "asyncio.run(main())", "b'M0\\nM1\\nM2\\nM3\\nM4\\n'\nb'sub\\n' slept\n"),
    ("python sqlite3", "import sqlite3\nd = sqlite3.connect('/tmp/d.db'); d.execute('create table t(a integer primary key, b text)')\n"
     "d.executemany('insert into t(b) values (?)', [('v%d' % i,) for i in range(10000)]); d.commit(); d.execute('pragma journal_mode=wal'); d.execute('delete from t where a % 2'); d.commit()\n"
     "print(d.execute('select count(*), max(b) from t').fetchall()); d.close(); print(sqlite3.connect('/tmp/d.db').execute('pragma integrity_check').fetchone())",
     "[(5000, 'v9999')]\n('ok',)\n"),
    ("python multiprocessing", "import multiprocessing as m\ndef f(x): return x * x\n"
     "if __name__ == '__main__':\n with m.Pool(4) as p: print(sum(p.map(f, range(2000))))\n v = m.Value('i', 0)\n def g():\n  for _ in range(500):\n   with v.get_lock(): v.value += 1\n"
     " ps = [m.Process(target=g) for _ in range(4)]\n [p.start() for p in ps]; [p.join() for p in ps]; print(v.value)", "2664667000\n2000\n"),
    ("python files", "import os, mmap, tempfile, fcntl, shutil\nf = open('/tmp/m', 'w+b'); f.truncate(1 << 20); m = mmap.mmap(f.fileno(), 0); m[5000:5005] = b'hello'; m.flush(); f.seek(5000); print(f.read(5))\n"
     "p = mmap.mmap(f.fileno(), 0, mmap.MAP_PRIVATE); p[5000:5005] = b'HELLO'; f.seek(5000); print(f.read(5), p[5000:5005])\n"
     "if os.fork() == 0:\n m[0:4] = b'kid!'; os._exit(0)\nos.wait(); print(m[0:4]); fcntl.flock(f, fcntl.LOCK_EX); print(os.stat('/tmp/m').st_size, shutil.disk_usage('/').total > 0)\n"
     "with tempfile.TemporaryDirectory() as d:\n open(d + '/a', 'w').write('x'); os.rename(d + '/a', d + '/b'); print(os.listdir(d), os.path.exists(d + '/a'))",
     "b'hello'\nb'hello' b'HELLO'\nb'kid!'\n1048576 True\n['b'] False\n"),
    ("python signals and time", "import signal, time, os\nhits = []\nsignal.signal(signal.SIGALRM, lambda *a: hits.append(1)); signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05); t = time.monotonic()\n"
     "while len(hits) < 5: signal.pause()\nsignal.setitimer(signal.ITIMER_REAL, 0); print(len(hits), 0.2 < time.monotonic() - t < 3)\n"
     "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1}); os.kill(os.getpid(), signal.SIGUSR1); print(signal.sigpending(), signal.sigwait({signal.SIGUSR1}).name)",
     "5 True\n{<Signals.SIGUSR1: 10>} SIGUSR1\n"),
]

DEVELOPMENT = [
    ("archive of /usr", "tar c /usr 2>/dev/null | sha256sum", SAME, {"timeout": 120}),
    ("gcc", "cd /tmp; printf '#include <stdio.h>\\n#include <math.h>\\nint main(int c, char **v) { printf(\"hello %%s %%.3f\\\\n\", v[1], sqrt(2)); return c; }\\n' >h.c; "
     "gcc -O2 -Wall -o h h.c -lm && ./h world; echo $?; gcc -static -o s h.c -lm && ./s static", "hello world 1.414\n2\nhello static 1.414\n", {"rc": 2}),
    ("sanitizers", "cd /tmp; printf '#include <pthread.h>\\n#include <stdio.h>\\n#include <stdlib.h>\\nstatic void *f(void *a) { ++*(int *)a; return a; }\\n"
     "int main(int c, char **v) { int *p = calloc(4, 4); pthread_t t; pthread_create(&t, 0, f, p); pthread_join(t, 0); printf(\"%%d\\\\n\", p[c - 1]); free(p); return 0; }\\n' >s.c; "
     "for s in address thread; do gcc -pthread -fsanitize=$s s.c -o s && for i in 1 2 3; do ASAN_OPTIONS=detect_leaks=0 ./s; done; done", "1\n1\n1\n1\n1\n1\n"),
    ("gcc with threads", "cd /tmp; printf '#include <pthread.h>\\n#include <stdio.h>\\nstatic __thread int t; static int n; static void *f(void *a) { for (int i = 0; i < 10000; i++) { t++; __atomic_add_fetch(&n, 1, 5); } "
     "return 0; }\\nint main(void) { pthread_t p[8]; for (int i = 0; i < 8; i++) pthread_create(p + i, 0, f, 0); for (int i = 0; i < 8; i++) pthread_join(p[i], 0); printf(\"%%d %%d\\\\n\", n, t); }\\n' >t.c; "
     "gcc -pthread t.c -o t && ./t", "80000 0\n"),
    ("make", "cd /tmp; printf 'all: a b\\n\\t@cat a b\\na b:\\n\\t@echo $@ >$@\\n' >Makefile; make -s -j4; make; touch -d '1 hour' Makefile; make -q nosuch 2>/dev/null; echo $?",
     "a\nb\na\nb\n2\n"),
    ("git", "cd /tmp; export GIT_AUTHOR_DATE='2020-01-01T00:00:00Z' GIT_COMMITTER_DATE='2020-01-01T00:00:00Z'; git config --global user.name t; git config --global user.email t@e; "
     "git init -q -b main r; cd r; for i in 1 2 3; do echo $i >f$i; git add .; git commit -qm c$i; done; git log --oneline; git clone -q . ../c; cd ../c; git log -1 --format=%H; git checkout -q HEAD~1; ls; "
     "git diff HEAD main --stat; git gc -q; git fsck 2>&1 | grep -v -e HEAD -e dangling; echo checked", SAME),
    ("xz and bzip2", "seq 1 100000 | xz -T2 | xz -d | md5sum; seq 1 100000 | bzip2 | bunzip2 | md5sum", SAME),
    ("ps and top", "sleep 33 & sleep 0.5; ps -e -o comm= >/tmp/ps; sort /tmp/ps | tr '\\n' ' '; top -bn1 | grep -c sleep; pgrep -x sleep | wc -l; pkill sleep; wait; echo", SAME, {"err": "(Terminated)?"}),
]


def python_rows():
    return [(name, ["python3", "-c", source], out) for name, source, out in PYTHON]


def cases():
    yield from table(TOOLS + python_rows() + DEVELOPMENT, root=ROOT)
