"""Reads of the host's files out of mapped pieces: the bytes are the file's whoever changes it meanwhile, and the host is not asked."""
import re

import bundle
from report import check, equal

# Outside and inside meet by files: inside says at1, outside does something and answers go1. Outside also says what is right.
OUTSIDE = r"""
mkdir -p /run/q /tmp/data /tmp/layers; modprobe loop; modprobe ext4; modprobe overlay
truncate -s 96M /tmp/image; losetup /dev/loop0 /tmp/image; mke2fs /dev/loop0 >/tmp/said 2>&1
mount -t ext4 /dev/loop0 /tmp/data || mount -t ext2 /dev/loop0 /tmp/data || cat /tmp/said
cd /tmp/data; mkdir sums overlay
for n in 0 1 4095 4096 4097 65536 65537 200000 2097151 2097152 2097153 4198400; do head -c $n /dev/urandom >sums/$n; done
truncate -s 5M sums/sparse; printf x | dd of=sums/sparse bs=1 seek=3000000 conv=notrunc 2>/dev/null
head -c 16777216 /dev/urandom >big
for f in grow cut seen; do head -c 1048576 /dev/urandom | tr '\0' x >$f; done
xs() { head -c 700000 /dev/zero | tr '\0' x; }
{ head -c 307200 /dev/zero | tr '\0' x; xs; } >busy
mount -t tmpfs tmpfs /tmp/layers; cd /tmp/layers; mkdir low up work; cp /tmp/data/seen low/file
mount -t overlay -o lowerdir=low,upperdir=up,workdir=work overlay /tmp/data/overlay; cd /job
quark() { timeout -s KILL 200 ./quark --root /run/q --platform=kvm "$@"; }
quark run --bundle cases/reads reads </dev/null >/tmp/inside 2>&1 & app=$!
wait_at() { until [ -e /tmp/data/at$1 ]; do sleep 0.1; kill -0 $app 2>/dev/null || { echo "ended before $1"; cat /tmp/inside; exit 1; }; done; }
go() { : >/tmp/data/go$1; }
figures() { echo "@FIGURES $1 $(quark metrics reads | grep -E 'host_requests|window_read_bytes' | tr '\n' ' ')"; }
cd /tmp/data; for f in sums/*; do echo "@SUM $(sha256sum $f)"; done; cd /job
wait_at 1; figures before; go 1
wait_at 2; figures after; go 2
for n in 3 4 5; do wait_at $n; head -c 300000 /dev/urandom >>/tmp/data/grow; echo "@GROWN $(tail -c 300000 /tmp/data/grow | sha256sum)"; go $n; done
wait_at 6; truncate -s $((64*4096 + 100)) /tmp/data/cut; go 6
wait_at 7; truncate -s 100 /tmp/data/cut; go 7
wait_at 8; truncate -s 1M /tmp/data/cut; go 8
wait_at 9; n=0; while [ $n -lt 25 ]; do truncate -s 307200 /tmp/data/busy; xs >>/tmp/data/busy; n=$((n+1)); done; go 9
wait_at 10; dd if=/dev/zero of=/tmp/data/seen bs=4k seek=32 count=16 conv=notrunc 2>/dev/null; go 10
wait; sed "s/^/@INSIDE /" /tmp/inside
umount /tmp/data/overlay /tmp/layers /tmp/data
"""

INSIDE = r"""
cd /mnt
meet() { : >at$1; until [ -e go$1 ]; do usleep 100000; done; }
pages() { dd bs=4k count=$1 2>/dev/null; }
for size in 4096 5000 300000; do for f in sums/*; do echo "sum $(dd if=$f bs=$size 2>/dev/null | sha256sum | cut -c 1-64)  $f"; done; done
meet 1; for n in 1 2; do dd if=big bs=4k of=/dev/null 2>/dev/null; done; meet 2
exec 3<grow; cat <&3 | wc -c
for n in 3 4 5; do meet $n; echo "grown $(dd bs=4k <&3 2>/dev/null | sha256sum)"; done
exec 3<cut; [ "$(pages 64 <&3 | md5sum)" = "$(head -c 262144 cut | md5sum)" ] || echo "not the same"; meet 6
echo "rest $(pages 1 <&3 | wc -c) $(pages 1 <&3 | wc -c)"
exec 3<cut; pages 8 <&3 >/dev/null; meet 7
echo "behind the end $(pages 1 <&3 | wc -c)"; meet 8
exec 3<cut; echo "grown again $(pages 300 <&3 | tr -d '\0' | wc -c)"
: >at9; until [ -e go9 ]; do for read in "cat busy" "dd if=busy bs=4k"; do
  other=$($read 2>/dev/null | tr -d x | wc -c); [ $other = 0 ] || echo "$read: $other bytes of something else"; done; done
exec 3<seen; pages 32 <&3 >/dev/null; meet 10
echo "written outside $(pages 16 <&3 | tr -d '\0' | wc -c)"
dd if=/dev/zero of=seen bs=4k seek=48 count=16 conv=notrunc 2>/dev/null; echo "written inside $(pages 16 <&3 | tr -d '\0' | wc -c)"
exec 3<overlay/file; pages 32 <&3 >/dev/null; dd if=/dev/zero of=overlay/file bs=4k seek=32 count=16 conv=notrunc 2>/dev/null
echo "written to the upper layer $(pages 16 <&3 | tr -d '\0' | wc -c)"
"""

EXPECTED = """1048576
{grown}rest 100 0
behind the end 0
grown again 100
written outside 0
written inside 0
written to the upper layer 0
"""

BIG = 16 << 20


def right(result):
    sums = re.findall(r"^@SUM (.*)$", result.text, re.M)
    inside = re.findall(r"^@INSIDE (.*)$", result.text, re.M)
    check(len(sums) == 13, f"the machine did not come far\n{result}")
    equal([line[4:] for line in inside if line.startswith("sum ")], sums * 3, f"sums\n{result}")
    grown = "".join(f"grown {s}\n" for s in re.findall(r"^@GROWN (.*)$", result.text, re.M))
    equal("".join(line + "\n" for line in inside if not line.startswith("sum ")), EXPECTED.format(grown=grown), f"{result}")


def without_requests(result):
    """Two passes in pieces of 4 KiB were 8194 requests; two processes start, and both sides look for each other's files."""
    found = re.findall(r"^@FIGURES \w+ host_requests (\d+) window_read_bytes (\d+)", result.text, re.M)
    check(len(found) == 2, f"no figures\n{result}")
    requests, copied = (int(after) - int(before) for before, after in zip(*found))
    check(copied > 2 * BIG - (1 << 20), f"{copied} bytes were read out of the window\n{result}")
    check(requests < 600, f"{requests} requests\n{result}")


def run(machine, stage):
    names = ("reads see every change", "reads need no requests")
    if not any(machine.report.wanted(f"{stage}/{n}") for n in names):
        return
    shared = [{"destination": "/mnt", "type": "bind", "source": "/tmp/data", "options": ["rbind", "rw"]}]
    bundle.write(f"{machine.directory}/cases/reads", bundle.config(["sh", "-c", INSIDE], "/job/rootfs", mounts=shared))
    result = machine.boot(["sh", "-c", OUTSIDE], 300)
    machine.report.case(f"{stage}/{names[0]}", lambda: right(result))
    machine.report.case(f"{stage}/{names[1]}", lambda: without_requests(result))
