"""What tools that look at a system find: processes, memory, disks, limits. Numbers that move are judged by their range."""
import bundle
from cases import SAME, Case, shell
from report import equal

ROOT = bundle.servers
MIB = 1 << 20
CGROUP = [{"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro", "nosuid", "noexec", "nodev"]}]

PS = """
sleep 44 & sh -c 'exit 3' & (sleep 0 & exec sleep 45) & sleep 0.5
ps aux | awk '{print $1, $8, $11, $12}' | sed 's/ R+ / R /'; ps -eo pid,ppid,pgid,sid,stat,user,comm --no-headers | awk '{print NF, $5, $6, $7, $8}'; ps -o pid= -C sleep | wc -l; pgrep -c sleep; ps -eo nlwp,nice,pri,cls,tty | sort -u
ps -p 1 -o rss=,vsz= | awk '{print ($1 > 500), ($2 >= $1)}'; ps -o etimes= -p 1 | awk '{print ($1 < 20)}'; pmap -x $$ | tail -1 | awk '{print $1, ($3 > 500), ($4 > 300)}'; pwdx 1; pidof sleep | wc -w; pkill sleep; wait
su nobody -s /bin/sh -c 'ps -o user=,comm= -C sh | sort -u; ls -l /proc/1/exe 2>&1 | grep -c denied'
"""

SYSTEM = """
top -b -n1 | awk 'NR == 2 {print $1, NF} NR == 7 {print} NR > 7 {print $2, $12}'; uptime | grep -c 'load average: [0-9]*\\.[0-9][0-9], '; free -b | awk '/^Mem/ {print ($2 > 100e6), ($3 > 0), ($4 > 0), ($7 <= $2), ($7 >= $4)}'
vmstat 1 2 | tail -1 | awk '{print NF, ($4 > 1000), ($13 + $14 + $15 + $16 + $17 >= 98)}'; vmstat -s | grep -c .; vmstat -d >/dev/null; echo $?; mpstat | tail -1 | awk '{print NF}'; w -h | wc -l; nproc; getconf _NPROCESSORS_CONF; lscpu | grep -E '^(CPU\\(s\\)|On-line|Architecture|Vendor)' | tr -s ' '
awk '{print NF, ($1 < 1000), ($4 ~ /^[0-9]+\\/[0-9]+$/)}' /proc/loadavg; awk '{print NF, ($1 > 0)}' /proc/uptime; awk '/^cpu/ {print $1, NF, ($5 > 0)}' /proc/stat; grep -c -E '^(ctxt|btime|processes|procs_running|procs_blocked) [0-9]' /proc/stat; grep -c processor /proc/cpuinfo
ls /sys/devices/system/cpu | grep -E '^cpu[0-9]|online|possible|present'; cat /sys/devices/system/cpu/online /sys/devices/system/cpu/possible; python3 -c "import os; print(os.cpu_count(), len(os.sched_getaffinity(0)), len(os.getloadavg()), os.sysconf('SC_PHYS_PAGES') > 1000, os.sysconf('SC_AVPHYS_PAGES') > 1000)"
"""

DISKS = """
df --output=fstype,target | sed 1d | grep -E 'tmpfs +/(tmp|dev|root)' | tr -s ' '; df -B1 --output=size,avail,target /tmp | awk 'NR == 2 {print ($1 > 1e8), ($2 <= $1)}'; df -i /tmp | awk 'NR == 2 {print ($2 > 1000)}'; mount | awk '{print $3, $5}' | grep -E '^/(proc|dev|dev/pts|dev/shm|tmp) '
findmnt -no FSTYPE /proc; findmnt -no FSTYPE,TARGET /dev/shm; awk '{print $5}' /proc/self/mountinfo | grep -c -E '^/(proc|dev|dev/pts|dev/shm|tmp|sys)$'; stat -f -c %T /proc /tmp /dev/shm /sys; lsof -p $$ -Fftn | grep -E '^n/(usr/bin/dash|bin/dash)$' | head -1; exec 7>/tmp/held; lsof -a -p $$ -d 7 -Fn | tail -1; lsof -t /tmp/held | wc -l
seq 100000 >/tmp/s; xz -k -T2 /tmp/s && xz -dc /tmp/s.xz | cmp - /tmp/s && xz -l /tmp/s.xz | tail -1 | awk '{print $1, $2, $7}'; zstd -q -T2 -19 /tmp/s -o /tmp/s.zst && zstd -dc /tmp/s.zst | cmp - /tmp/s && echo same; getent hosts localhost; getent passwd root nobody; getent services http/tcp; getent protocols tcp
"""

SELF = """
cd /proc/self; for f in smaps smaps_rollup io limits mountinfo cgroup auxv environ status stat statm maps comm cmdline oom_score_adj wchan personality sched schedstat mounts mountstats loginuid sessionid timerslack_ns syscall stack; do [ -e $f ] && { head -c 1000000 $f >/tmp/x 2>/tmp/e; echo $f $? $([ -s /tmp/x ] && echo full || echo empty); }; done 2>&1 | grep -v -E '^(stack|syscall|loginuid|sessionid|sched|schedstat|mountstats|timerslack_ns|wchan) '
for n in cgroup ipc mnt net pid uts user; do readlink ns/$n | sed 's/[0-9]*/N/g' | tr -s N; done; cat limits | cut -c1-25; exec 5</etc/passwd; read x <&5; grep -E '^(pos|flags|mnt_id|ino)' fdinfo/5 2>/dev/null | cut -f1; grep -c . fdinfo/0 | awk '{print ($1 > 2)}'; grep -E '^(Name|State|Threads|NoNewPrivs|CapBnd|Seccomp|voluntary_ctxt_switches|VmSwap|Cpus_allowed_list):' status | cut -d: -f1
tr '\\0' '\\n' <environ | grep -c PATH; od -An -tx8 -w16 auxv | awk '{print $1}' | grep -c -E '0000000000000019|0000000000000006|0000000000000021'; awk '/^Rss|^Pss:|^Private_Dirty/ {print $1, ($2 > 0)}' smaps_rollup; grep -c -E '^(Size|Rss|VmFlags)' smaps | awk '{print ($1 > 20)}'
for f in kernel/ostype kernel/hostname kernel/pid_max kernel/threads-max kernel/cap_last_cap kernel/random/boot_id vm/overcommit_memory vm/max_map_count fs/file-max fs/nr_open fs/pipe-max-size net/core/somaxconn net/ipv4/tcp_rmem; do [ -s /proc/sys/$f ] || cat /proc/sys/$f >/tmp/v 2>&1 && echo $f; done
"""

LIMITS = """
import os
def read(p): return open('/sys/fs/cgroup/' + p).read().strip()
def table(p): return dict(l.split() for l in read(p).splitlines())
def info(): return {l.split(':')[0]: int(l.split()[1]) for l in open('/proc/meminfo') if 'kB' in l}
print(read('memory.max'), read('pids.max'), read('cpu.max'), info()['MemTotal'], os.sysconf('SC_PHYS_PAGES') * 4096)
before, free = int(read('memory.current')), info()['MemFree']
x = bytearray(100 << 20)
for i in range(0, len(x), 4096): x[i] = 1
print(90 << 20 < int(read('memory.current')) - before < 130 << 20, 90 << 10 < free - info()['MemFree'] < 130 << 10, int(table('memory.stat')['anon']) > 90 << 20, int(read('memory.peak')) > 100 << 20)
n = int(read('pids.current')); pid = os.fork()
if pid == 0:
    while True: pass
print(int(read('pids.current')) - n, str(pid) in read('cgroup.procs').split(), read('cpuset.cpus.effective') != '', int(table('cpu.stat')['usage_usec']) > 0)
os.kill(pid, 9); os.waitpid(pid, 0)
pid = os.fork()
if pid == 0:
    y = [bytearray(b'x' * (4 << 20)) for i in range(100)]; os._exit(0)
print(os.waitpid(pid, 0)[1] & 127, table('memory.events')['oom_kill'], os.statvfs('/tmp').f_blocks * os.statvfs('/tmp').f_frsize == 100 << 20)
"""


def limits(ctx):
    """The cgroup in the container has the limits of the bundle and the use of the moment."""
    resources = {"memory": {"limit": 200 * MIB}, "pids": {"limit": 60}, "cpu": {"quota": 150000, "period": 100000}}
    b = ctx.bundle(["python3", "-c", LIMITS], ROOT(), mounts=CGROUP, resources=resources)
    result = ctx.quark.run(b)
    equal(result.rc, 0, f"exit status\n{result}")
    total = 200 * MIB
    equal(result.text, f"{total} 60 150000 100000 {total >> 10} {total}\nTrue True True True\n1 True True True\n9 1 True\n", f"figures\n{result}")


def no_limits(ctx):
    """Without limits a container is told of the machine's memory."""
    result = ctx.quark.run(ctx.bundle("free -k | awk '/Mem/ {print $2}'; cat /sys/fs/cgroup/memory.max", ROOT(), mounts=CGROUP))
    with open("/proc/meminfo", encoding="utf-8") as f:
        total = f.readline().split()[1]
    equal(result.text, f"{total}\nmax\n", f"figures\n{result}")


def cases():
    common = {"out": SAME, "root": ROOT, "timeout": 60}
    yield shell("processes", PS, **common)
    yield shell("the system", SYSTEM, **common)
    yield shell("disks, mounts, open files", DISKS, **common)
    yield shell("what a process sees of itself", SELF, **common)
    yield Case("a container's limits and use", limits)
    yield Case("a container without limits", no_limits)
