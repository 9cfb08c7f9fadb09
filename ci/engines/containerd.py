"""containerd: `ctr` with containerd's shim for runc, which takes Quark as its binary."""
import hashlib
import io
import json
import tarfile

from compare import Case
from engine import Engine
from report import check

PRELUDE = r"""
case $RUNTIME in runc) BINARY=$(command -v runc) ;; *) BINARY=$QUARK ;; esac
c() { ctr -a $DIR/containerd.sock "$@"; }
run() { c run --runtime io.containerd.runc.v2 --runc-binary $BINARY --cgroup /$NEST/$N "$@"; }
until_ok() { for _ in $(seq 100); do "$@" >/dev/null 2>&1 && return 0; sleep 0.1; done; echo "never: $*"; return 1; }
B=docker.io/library/busybox:latest
"""

CASES = [
    Case("run --rm", "run --rm $B $N echo hi", "hi"),
    Case("exit codes", "code() { \"$@\" >/dev/null 2>&1; echo $?; }; code run --rm $B $N sh -c 'exit 42'; code run --rm $B ${N}b sh -c 'sleep 9 & kill -9 $!; wait $!'; "
         "code run --rm $B ${N}c nosuch", "42.137.1"),
    Case("message of a failed start", "run --rm $B $N nosuch 2>&1 | grep -o 'exec: \".*'", "not found in .PATH"),
    Case("stdin", "echo in | run --rm $B $N sh -c 'read x; echo $x'", "in"),
    Case("run -t", "script -qec \"ctr -a $DIR/containerd.sock run --rm -t --runtime io.containerd.runc.v2 --runc-binary $BINARY $B $N sh -c 'tty; exit 3'\" /dev/null; echo rc=$?",
         "pts.*rc=3"),
    Case("env, cwd, mount", "mkdir m; echo f >m/f; run --rm --env A=1 --cwd /tmp --mount type=bind,src=$PWD/m,dst=/m,options=rbind:ro $B $N "
         "sh -c 'exec 2>&1; echo $A; pwd; cat /m/f; touch /m/x' 2>&1; echo rc=$?", "1./tmp.f.*rc=1"),
    Case("read-only, capabilities, limits", "run --rm --read-only --memory-limit 67108864 --cap-drop CAP_CHOWN $B $N sh -c 'exec 2>&1; touch /x; grep CapEff /proc/self/status; "
         "chown 1 /proc' 2>&1 | head -3", "Read-only"),
    Case("tasks: ls, exec, kill, delete", "run -d $B $N sh -c 'trap \"exit 5\" TERM; while :; do sleep 0.1; done'; c task ls | grep $N | grep -o RUNNING; c task exec --exec-id e $N echo in; "
         "c task exec --exec-id f $N sh -c 'exit 4'; echo rc=$?; sleep 0.3; c task kill $N; until_ok sh -c \"ctr -a $DIR/containerd.sock task ls | grep $N | grep -q STOPPED\"; "
         "c task delete $N 2>&1 | grep -o 'code 5'; c container delete $N", "RUNNING.in.rc=4.*code 5"),
    Case("pause, resume", "run -d $B $N sleep 100; c task pause $N; c task ls | grep $N | grep -o PAUSED; c task resume $N; c task ls | grep $N | grep -o RUNNING; c task kill -s 9 $N", "PAUSED.RUNNING"),
    Case("metrics, ps", "run -d $B $N sleep 100; c task metrics $N | grep -cE '^(memory|cpu|pids)'; c task ps $N | wc -l | sed 's/^[2-9]$/some/'; c task kill -s 9 $N", "[1-9].*some"),
    Case("--with-ns pid, ipc", "run -d $B $N sh -c 'exec sleep 123'; pid=$(c task ls | awk -v n=$N '$1 == n { print $2 }'); "
         "run --cgroup /$NEST/${N}b --rm --with-ns pid:/proc/$pid/ns/pid $B ${N}b sh -c 'ps -o args | grep -c \"^sleep 123\"; [ $$ != 1 ] && echo not the first'; "
         "run --cgroup /$NEST/${N}c --rm --with-ns ipc:/proc/$pid/ns/ipc $B ${N}c sh -c 'ps -o args | grep -c \"^sleep 123\"; echo $$'; c task kill -s 9 $N", "1.not the first.0.1"),
    Case("10 at once", "for i in $(seq 10); do run --rm $B $N$i echo $i & done | sort -n | tr '\\n' ' '; wait", "^1 2 3", full=True),
]


def archive(rootfs, target):
    """Writes an image archive as `docker save` does."""
    with open(rootfs, "rb") as f:
        layer = f.read()
    config = json.dumps({
        "architecture": "amd64", "os": "linux", "config": {"Cmd": ["sh"], "Env": ["PATH=/usr/bin:/bin"]},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]}}).encode()
    manifest = json.dumps([{"Config": "config.json", "RepoTags": ["busybox:latest"], "Layers": ["layer.tar"]}]).encode()
    with tarfile.open(target, "w") as tar:
        for name, data in (("config.json", config), ("layer.tar", layer), ("manifest.json", manifest)):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


class Containerd(Engine):
    """A daemon in a nest."""
    packages = ("containerd", "runc", "busybox-static", "procps")
    prelude = PRELUDE
    cleaning = "for i in $(c c ls -q | grep ^$N); do c t rm -f $i; c c rm $i; done"
    cases = CASES

    def start(self):
        n = self.nest
        with open(f"{n.dir}/containerd.toml", "w", encoding="utf-8") as f:
            f.write(f'version = 2\nroot = "{n.dir}/root"\nstate = "{n.dir}/state"\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
                    f'[grpc]\naddress = "{n.dir}/containerd.sock"\n')
        n.daemon(f"containerd -c {n.dir}/containerd.toml", "containerd.log")
        n.wait(f"ctr -a {n.dir}/containerd.sock version")
        archive(n.image(), f"{n.dir}/image.tar")
        rc, out = n.script(f"ctr -a {n.dir}/containerd.sock image import {n.dir}/image.tar")
        check(rc == 0, f"cannot import the image\n{out}")

    def leftovers(self):
        """What is left once every container is removed."""
        return self.nest.remains(("containerd ",), f"{self.nest.dir}/state /run/containerd")
