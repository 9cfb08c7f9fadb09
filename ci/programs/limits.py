"""Many processes, many threads, much memory, and the bundle's limits on them."""
import bundle
import process
from cases import Case, shell
from report import check, equal

MIB = 1 << 20
THREADS = """
import threading
b = threading.Barrier(201)
t = [threading.Thread(target=lambda: (b.wait(), b.wait())) for _ in range(200)]
[x.start() for x in t]; b.wait()
print([l.split()[1] for l in open('/proc/self/status') if l.startswith('Threads')][0])
b.wait(); [x.join() for x in t]; print(threading.active_count())
"""
FORKS = """
import os, signal, errno
kids = []
try:
    while len(kids) < 500:
        pid = os.fork()
        if pid == 0: signal.pause()
        kids.append(pid)
except OSError as e: print(errno.errorcode[e.errno])
print(40 <= len(kids) <= 64)
for k in kids: os.kill(k, 9)
for k in kids: os.waitpid(k, 0)
os.fork() or os._exit(7)
print(os.wait()[1] >> 8)
"""
TOUCH = """
import mmap
m = mmap.mmap(-1, 1 << 30)
for i in range(0, 1 << 30, 4096): m[i] = i >> 12 & 255
print(sum(m[i] for i in range(0, 1 << 30, 1 << 20)) == 0, m[5 << 12])
m.close(); print('done')
"""
EAT = "x = []\nwhile True: x.append(b'x' * (4 << 20))"


def fork_bomb(ctx):
    """A real one: the limit holds it, the host stays usable, and one kill ends it all."""
    q, id, limit = ctx.quark, ctx.quark.new_id(), 100
    b = ctx.bundle("echo up; bomb() { bomb | bomb & }; bomb 2>/dev/null; while :; do :; done", bundle.busybox(),
                   resources={"pids": {"limit": limit}})
    p = q.start("run", "--bundle", b, id)
    p.wait_for(b"up\n")
    most = 0
    for _ in range(30):
        most = max(most, len(process.descendants(p.p.pid)))
        process.time.sleep(0.1)
    # A sandbox has processes and threads of its own besides the guest's.
    check(most <= 2 * limit + 32, f"{most} host processes under a limit of {limit}")
    equal(q.call("kill", id, "KILL", timeout=20).rc, 0, "kill")
    equal(p.finish(40).rc, 137, "exit status")


def memory_limit(ctx):
    """The container's program is the guest's out-of-memory victim: exit status 137, and said so."""
    b = ctx.bundle(["python3", "-c", EAT], bundle.debian(), resources={"memory": {"limit": 200 * MIB}})
    result = ctx.quark.run(b)
    equal(result.rc, 137, f"exit status\n{result}")


def memory_limit_spares_others(ctx):
    """The largest process dies, its parent lives on."""
    b = ctx.bundle(["sh", "-c", "echo before; python3 -c \"$0\"; echo $?; echo after", EAT], bundle.debian(),
                   resources={"memory": {"limit": 200 * MIB}})
    result = ctx.quark.run(b)
    equal((result.rc, result.text), (0, "before\n137\nafter\n"), f"outcome\n{result}")


def cases():
    yield shell("200 processes at once", "i=0; while [ $i -lt 200 ]; do sleep 3 & i=$((i+1)); done; set -- /proc/[0-9]*; echo $#; wait; echo $i",
                "201\n200\n", root=bundle.busybox)
    yield shell("200 threads at once", ["python3", "-c", THREADS], "201\n1\n", root=bundle.debian)
    yield shell("2000 processes in turn", "i=0; while [ $i -lt 2000 ]; do (exit 3); [ $? = 3 ] || exit 1; i=$((i+1)); done; echo $i",
                "2000\n", root=bundle.busybox)
    yield shell("pids limit", ["python3", "-c", FORKS], "EAGAIN\nTrue\n7\n", root=bundle.debian, resources={"pids": {"limit": 64}})
    yield Case("fork bomb", fork_bomb)
    yield shell("1 GiB touched", ["python3", "-c", TOUCH], "True 5\ndone\n", root=bundle.debian, timeout=120)
    yield Case("memory limit", memory_limit)
    yield Case("memory limit spares others", memory_limit_spares_others)
