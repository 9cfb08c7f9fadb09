"""Podman: no daemon; conmon calls the runtime."""
from compare import Case
from engine import Engine
from report import check

PRELUDE = r"""
case $RUNTIME in runc) BINARY=$(command -v runc) ;; *) BINARY=$QUARK ;; esac
podman() { command podman $FLAGS --runtime $BINARY "$@"; }
run() { podman run --network none --label test=$N "$@"; }
until_ok() { for _ in $(seq 100); do "$@" >/dev/null 2>&1 && return 0; sleep 0.1; done; echo "never: $*"; return 1; }
export FLAGS BINARY
B=localhost/busybox
"""

CASES = [
    Case("run --rm", "run --rm $B echo hi", "hi"),
    Case("exit codes", "code() { \"$@\" >/dev/null 2>&1; echo $?; }; code run --rm $B sh -c 'exit 42'; code run --rm $B nosuch; code run --rm $B /etc/passwd; "
         "code run --rm $B sh -c 'sleep 9 & kill -9 $!; wait $!'; code run --rm --nosuch $B", "42.127.126.137.125"),
    Case("stdin, -d, logs, wait", "echo in | run -i --rm $B cat; run -d --name $N $B sh -c 'echo out; exit 5' >/dev/null; podman wait $N; podman logs $N", "in.5.out"),
    Case("run -it", "script -qec \"podman $FLAGS --runtime $BINARY run --network none --rm -it $B sh -c 'tty; exit 3'\" /dev/null | sed 's,\\^@,,g'; echo rc=${PIPESTATUS[0]}", "pts.*rc=3"),
    Case("exec", "run -d --name $N $B sleep 100 >/dev/null; podman exec $N echo hi; echo in | podman exec -i $N cat; podman exec -u 1000 -w /tmp -e A=1 $N sh -c 'id -u; pwd; echo $A'; "
         "podman exec $N sh -c 'exit 6'; echo rc=$?; podman exec $N nosuch >/dev/null 2>&1; echo rc=$?", "hi.in.1000./tmp.1.rc=6.rc=127"),
    Case("exec -t", "run -d --name $N $B sleep 100 >/dev/null; script -qec \"podman $FLAGS --runtime $BINARY exec -it $N tty\" /dev/null | sed 's,\\^@,,g'", "pts"),
    Case("stop, kill, pause", "run -d --name $N $B sh -c 'trap \"exit 7\" TERM; while :; do sleep 0.1; done' >/dev/null; sleep 0.5; podman pause $N >/dev/null; podman inspect -f '{{.State.Status}}' $N; "
         "podman unpause $N >/dev/null; podman stop $N >/dev/null; podman inspect -f '{{.State.ExitCode}}' $N; podman start $N >/dev/null; podman kill $N >/dev/null; podman wait $N", "paused.7.137"),
    Case("mounts", "mkdir v; echo a >v/a; run --rm -v $PWD/v:/v:ro -v $PWD/v/a:/b --tmpfs /t:size=1m --read-only $B sh -c 'exec 2>&1; cat /v/a /b; touch /v/x /y; touch /t/z && ls /t' 2>&1", "a.a.*Read-only.*z"),
    Case("user, workdir, hostname, env", "run --rm -u 1000:50 -w /tmp --hostname box -e A=1 $B sh -c 'id -u; pwd; hostname; echo $A'", "1000./tmp.box.1"),
    Case("limits", "run --rm --memory 64m --pids-limit 30 --cpus 0.5 $B cat /proc/self/oom_score_adj; run --name $N --memory 64m $B tail /dev/zero; echo rc=$?", "rc=137"),
    Case("--preserve-fds", "exec 3<<<three; run --rm --preserve-fds 1 $B sh -c 'cat <&3'", "three"),
    Case("cp, commit, export", "run --name $N $B sh -c 'echo e >/e'; podman cp $N:/e .; cat e; podman commit -q $N $N >/dev/null; run --rm localhost/$N cat /e", "e.e"),
    Case("top", "run -d --name $N $B sh -c 'sleep 100 & sleep 200' >/dev/null; sleep 0.5; podman top $N hpid | tail -n +2 | wc -l | sed 's/^[1-9]$/some/'", "some",
         ours="0\n", why="podman looks into the pid namespace of the first process, which is the sandbox's host side"),
    Case("top, by ps(1) inside", "run -d --name $N $B sh -c 'sleep 100 & sleep 200' >/dev/null; sleep 0.5; podman top $N -o args | sort", "sleep 100.*sleep 200"),
    Case("--init", "run --rm --init $B sh -c 'echo $$ | grep -vw 1 | wc -l'", "1"),
    Case("--pid container:, --ipc container:", "run -d --name $N --ipc shareable $B sh -c 'echo there >/dev/shm/f; exec sleep 123' >/dev/null; until_ok podman exec $N test -f /dev/shm/f; "
         "run --rm --pid container:$N $B sh -c 'ps -o args | grep -c \"^sleep 123\"; [ $$ != 1 ] && echo not the first'; run --rm --ipc container:$N $B sh -c 'cat /dev/shm/f; ps -o args | grep -c \"^sleep 123\"; echo $$'",
         "1.not the first.there.0.1"),
    Case("a pod", "podman pod create --name $N --label test=$N --infra-image $B --infra-command '/bin/sleep 1000' --network none --hostname pod >/dev/null; "
         "podman run -d --pod $N --label test=$N --name ${N}a $B sh -c 'echo there >/dev/shm/f; cd /tmp; echo page >index.html; exec httpd -f -p 80' >/dev/null; until_ok podman exec ${N}a test -f /dev/shm/f; "
         "podman run --rm --pod $N --label test=$N $B sh -c 'hostname; cat /dev/shm/f; for i in 1 2 3 4 5; do wget -q -O- http://127.0.0.1/ && break; sleep 0.5; done; echo $$; ps -o args | grep -c ^httpd'; "
         "podman pod stop -t 1 $N >/dev/null; podman pod inspect -f '{{.State}}' $N; podman pod rm -f $N >/dev/null; podman ps -aq --filter label=test=$N | wc -l", "pod.there.page.1.0.Exited.0"),
    Case("build", "printf 'FROM localhost/busybox\\nRUN echo made >/made\\n' >Dockerfile; podman build -q --network none --runtime $BINARY -t $N . >/dev/null; run --rm localhost/$N cat /made", "made", full=True),
    Case("10 at once", "for i in $(seq 10); do run --rm $B echo $i & done | sort -n | tr '\\n' ' '; wait", "^1 2 3", full=True, timeout=120),
]


class Podman(Engine):
    """Podman in a nest, with storage of its own."""
    packages = ("podman", "conmon", "runc", "busybox-static", "catatonit", "procps")
    prelude = PRELUDE
    cleaning = "for i in $(podman ps -aq --filter label=test=$N); do podman rm -f -t 0 $i; done"
    cases = CASES

    def start(self):
        n = self.nest
        rc, out = n.script(f"command podman {self.flags()} import -q {n.image()} localhost/busybox", 120)
        check(rc == 0, f"cannot import the image\n{out}")

    def flags(self):
        d = self.nest.dir
        return f"--root {d}/storage --runroot {d}/run --tmpdir {d}/tmp --cgroup-manager cgroupfs --events-backend none --log-level error"

    def environment(self, runtime, name):
        return {**super().environment(runtime, name), "FLAGS": self.flags()}

    def leftovers(self):
        """What is left once every container is removed."""
        return self.nest.remains((), "/run/runc /run/quark")
