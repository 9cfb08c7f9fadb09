"""What runs out ends in an errno (the same as under runc), and everything works again afterwards."""
import bundle
from cases import SAME, shell

ROOT = bundle.servers

COMMON = """
import ctypes, errno, mmap, os, resource, select, signal, socket, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p; libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]; libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]; libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
def name(): return errno.errorcode.get(ctypes.get_errno(), 'ok')
def code(f, *a):
    try: f(*a)
    except OSError as e: return errno.errorcode[e.errno]
    return 'ok'
def until(f, most=10**6):
    # Calls f until it fails; gives what it made and how it failed.
    made = []
    for _ in range(most):
        try: made.append(f())
        except OSError as e: return made, errno.errorcode[e.errno]
    return made, 'no end'
def limit(what, n): resource.setrlimit(what, (n, resource.getrlimit(what)[1]))
"""

DESCRIPTORS = """
limit(resource.RLIMIT_NOFILE, 200); l = socket.create_server(('127.0.0.1', 0)); c = socket.create_connection(l.getsockname()); a, b = socket.socketpair(); d = os.open('/', os.O_RDONLY)
for f in (lambda: os.open('/dev/null', 0), lambda: os.dup(0), socket.socket, lambda: os.open('/tmp/x', os.O_CREAT | os.O_RDWR), lambda: os.eventfd(0), select.epoll, lambda: os.memfd_create('m')):
    made, how = until(f); print(how, 180 < len(made) < 200); [os.close(m) if isinstance(m, int) else m.close() for m in made]
made, how = until(lambda: os.dup(0)); print(code(os.pipe), code(socket.socketpair), code(l.accept), code(os.listdir, '/'), code(os.openpty)); sys.stdout.flush(); pid = os.fork() or os._exit(0); print(os.waitpid(pid, 0)[1]); os.close(made.pop()); print(code(os.pipe))
# Descriptors that come by message are cut off, not lost.
socket.send_fds(a, [b'x'], [0, 1, 2]); r = socket.recv_fds(b, 9, 9); print(len(r[1]), bool(r[2] & socket.MSG_CTRUNC)); [os.close(m) for m in made]; print(os.dup2(0, 199), code(os.dup2, 0, 200))
"""

MEMORY = """
P = 1 << 20; NONE, RW, PRIV = 0, 3, 0x22
def m(n, prot=RW, flags=PRIV): return ctypes.c_void_p(libc.mmap(None, n, prot, flags, -1, 0)).value
BAD = ctypes.c_void_p(-1).value
for n in (1 << 47, 1 << 50, (1 << 64) - 4096, 0): ctypes.set_errno(0); print(m(n) == BAD, name())
limit(resource.RLIMIT_AS, 1 << 30); made = 0
while m(16 * P) != BAD: made += 1
print(name(), made < 64); sys.stdout.flush(); pid = os.fork() or os._exit(4); print(os.waitpid(pid, 0)[1] >> 8)
try: bytearray(1 << 31)
except MemoryError: print('MemoryError')
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
limit(resource.RLIMIT_DATA, 64 * P); print(m(128 * P) == BAD, name()); resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY,) * 2)
limit(resource.RLIMIT_FSIZE, 10000); signal.signal(signal.SIGXFSZ, lambda *a: print('SIGXFSZ')); f = os.open('/tmp/f', os.O_CREAT | os.O_RDWR); print(os.write(f, b'x' * 20000), code(os.write, f, b'x'), code(os.ftruncate, f, 20000), os.fstat(f).st_size)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
# The stack ends.
if os.fork() == 0:
    limit(resource.RLIMIT_STACK, 1 << 20); resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); os.execvp('python3', ['python3', '-c', 'import sys, ctypes\\nsys.setrecursionlimit(10**9)\\n@ctypes.CFUNCTYPE(ctypes.c_int)\\ndef g(): return g()\\ng()'])
print(os.wait()[1] & 127)
"""

AREAS = """
n = int(open('/proc/sys/vm/max_map_count').read()); base = libc.mmap(None, 2 * (n + 10) * 4096, 0, 0x22, -1, 0); print(n); made = 0
# Every other page gets another protection: an area each.
while made < n and libc.mprotect(base + 8192 * made, 4096, 1) == 0: made += 1
print(name(), n // 2 - 1000 < made <= n // 2); print(ctypes.c_void_p(libc.mmap(None, 4096, 3, 0x22, -1, 0)).value == ctypes.c_void_p(-1).value, name())
print(libc.munmap(base, 2 * (n + 10) * 4096)); print(len(bytearray(8 << 20)))
"""

PROCESSES = """
os.setgroups([]); os.setgid(1234); os.setuid(1234); limit(resource.RLIMIT_NPROC, 30); start = len(os.listdir('/proc')); kids = []
def kid():
    p = os.fork()
    if p == 0: signal.pause()
    kids.append(p); return p
print(until(kid, 100)[1], len(kids)); print(code(os.posix_spawn, '/bin/true', ['true'], {})); e = threading.Event()
try: threading.Thread(target=e.wait, daemon=True).start(); print('a thread')
except RuntimeError as x: print(x)
os.kill(kids[0], 9); os.waitpid(kids[0], 0); print(code(lambda: os.waitpid(os.posix_spawn('/bin/true', ['true'], {}), 0))); [os.kill(k, 9) for k in kids[1:]]; [os.waitpid(k, 0) for k in kids[1:]]; print('done')
"""

THREADS = """
e = threading.Event(); made = []
try:
    while len(made) < 200: t = threading.Thread(target=e.wait); t.start(); made.append(t)
except RuntimeError as x: print(x)
print(50 < len(made) < 80, code(os.fork)); e.set(); [t.join() for t in made]; t = threading.Thread(target=print, args=('again',)); t.start(); t.join(); pid = os.fork() or os._exit(5); print(os.waitpid(pid, 0)[1] >> 8)
"""

TMPFS = """
os.chdir('/mnt'); f = os.open('f', os.O_CREAT | os.O_RDWR); total = 0
try:
    while True: total += os.write(f, b'x' * 100000)
except OSError as e: print(errno.errorcode[e.errno], total)
print(os.statvfs('.').f_bfree, code(os.write, f, b'x'), code(os.posix_fallocate, f, 2 << 20, 4096), code(os.mkdir, 'd'), os.pread(f, 3, (1 << 20) - 3)); m = mmap.mmap(f, 4096); m[0:2] = b'ok'; os.ftruncate(f, 0); print(os.statvfs('.').f_bfree, os.write(f, b'again'))
os.ftruncate(f, 1 << 20); g = os.open('g', os.O_CREAT | os.O_RDWR)
try:
    while True: os.write(g, b'y' * 4096)
except OSError as e: print(errno.errorcode[e.errno])
os.close(g); os.unlink('g'); made, how = until(lambda: os.close(os.open(str(len(os.listdir('.'))), os.O_CREAT)), 2000); print(how, len(os.listdir('.')), code(os.symlink, 'a', 'b'), code(os.mknod, 'p')); os.unlink('2'); print(code(os.symlink, 'a', 'b'))
"""

OTHERS = """
a, b = socket.socketpair(); a.setblocking(False); made, how = until(lambda: a.send(b'x' * 10000)); print('socket pair', how, sum(made) > 50000); r, w = os.pipe(); os.set_blocking(w, False); made, how = until(lambda: os.write(w, b'x' * 4096)); print('pipe', how, sum(made))
l = socket.socket(socket.AF_UNIX); l.bind('/tmp/l'); l.listen(3); cs = []
def c(): s = socket.socket(socket.AF_UNIX); s.setblocking(False); s.connect('/tmp/l'); return s
made, how = until(c, 50); print('backlog', how, len(made)); d, e = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM); d.setblocking(False); made, how = until(lambda: d.send(b'x'), 2000); print('datagrams', how)
x = os.eventfd(1); os.eventfd_write(x, 2**64 - 3); os.set_blocking(x, False); print('eventfd', code(os.eventfd_write, x, 5))
def watch(): i = libc.inotify_init1(0); return i if i >= 0 else (_ for _ in ()).throw(OSError(ctypes.get_errno(), ''))
made, how = until(watch, 500); print('inotify instances', how, len(made) <= 128); [os.close(i) for i in made]
libc.semget.restype = ctypes.c_int; print('semaphores', libc.semget(0, 40000, 0o1600), name()); print('shared memory', libc.shmget(0, ctypes.c_size_t(0), 0o1600), name()); print('message', libc.msgsnd(9999, b'x' * 20, 5, 0), name())
limit(resource.RLIMIT_SIGPENDING, 20); signal.pthread_sigmask(signal.SIG_BLOCK, {40}); n = 0
class V(ctypes.Union): _fields_ = [('i', ctypes.c_int), ('p', ctypes.c_void_p)]
libc.sigqueue.argtypes = [ctypes.c_int, ctypes.c_int, V]
while n < 100 and libc.sigqueue(os.getpid(), 40, V(i=n)) == 0: n += 1
print('signals', name(), 0 < n <= 20);
"""


def cases():
    rows = [("descriptors", DESCRIPTORS, {}), ("memory", MEMORY, {}), ("map areas", AREAS, {}), ("processes", PROCESSES, {}),
            ("threads", THREADS, {"resources": {"pids": {"limit": 80}}}),
            ("tmpfs space and inodes", TMPFS, {"mounts": [{"destination": "/mnt", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m", "nr_inodes=50"]}]}),
            ("queues, signals, instances", OTHERS, {})]
    for name, script, settings in rows:
        yield shell(name, ["python3", "-c", COMMON + script], out=SAME, root=ROOT, timeout=90, **settings)
