"""A static busybox: the shell language, pipes, jobs, signals, and a terminal."""
import os
import subprocess
import time

import bundle
import process
from cases import SAME, Case, table
from report import check, equal

ROOT = bundle.busybox

# name, script, what it prints. These rows also run on the kvm machines (ci/emulated/emulated_tests.py).
SHELL = [
    ("echo", "echo hello world", "hello world\n"),
    ("pipeline", "printf 'b\\na\\nc\\n' | sort | tr a-z A-Z | tail -n 2 | head -n 1", "B\n"),
    ("long pipeline", "seq 1 20000 | cat | cat | cat | grep 7 | wc -l", "6878\n"),
    ("pipeline through much data", "yes | head -c 3000000 | md5sum", "f30a749ec7a7b55d3a75349f242c4cd8  -\n"),
    ("redirections", "cd /tmp; echo one >a; echo two >>a; cat <a; ls nosuch 2>err; wc -l <err; exec 3<a; read x <&3; read y <&3; "
     "echo $y-$x; echo noise >&2 2>/dev/null; { echo o; echo e >&2; } >both 2>&1; cat both", "one\ntwo\n1\ntwo-one\no\ne\n",
     {"err": "^noise\n$"}),
    ("background and wait", "for i in 1 2 3; do (sleep 0.$i; echo $i; exit $i) & done; wait; echo all; (exit 5) & wait $!; echo $?",
     "1\n2\n3\nall\n5\n"),
    ("trap", "trap 'echo got usr1' USR1; trap 'echo bye' EXIT; kill -USR1 $$; trap '' TERM; kill -TERM $$; echo alive",
     "got usr1\nalive\nbye\n"),
    ("signal to a child", "sleep 100 & kill -TERM $!; wait $!; echo $?; sleep 100 & kill -9 $!; wait $!; echo $?", "143\n137\n",
     # The shell says nothing of a child that ended before `wait` looked, under any kernel.
     {"err": "^(Terminated\n)?(Killed\n)?$"}),
    ("trap interrupts wait", "trap 'echo usr2; kill $s' USR2; sleep 100 & s=$!; (sleep 0.2; kill -USR2 $$) & wait $s; echo $(( $? > 128 ))",
     "usr2\n1\n"),
    ("here-document", "x=5; cat <<E; cat <<'E'\nval $x $((x*2))\nE\nraw $x\nE\n", "val 5 10\nraw $x\n"),
    ("exit status", "exit 42", "", {"rc": 42}),
    ("last status", "true && false || echo no; ! true; echo $?; nosuchprogram; echo $?", "no\n1\n127\n", {"err": "not found"}),
    ("killed by a signal", "sh -c 'kill -KILL $$'; echo $?; sh -c 'kill -SEGV $$'; echo $?", "137\n139\n", {"err": "Killed.*Segmentation"}),
    ("stopped in a group that always was an orphan", "sleep 100 & kill -STOP $!; for i in 1 2 3; do (exit $i); sleep 0.1; done; kill -CONT $!; kill $!; wait $!; echo $?", "143\n",
     {"err": "(Terminated)?"}),
    ("subshell and substitution", "x=$(echo a; echo b); echo \"$x\" | wc -l; (cd /tmp; pwd); pwd; echo $(( $(echo 6) * 7 ))",
     "2\n/tmp\n/\n42\n"),
    ("functions and loops", "f() { local n=$1; [ $n -le 1 ] && echo 1 || echo $(( n * $(f $((n-1))) )); }; f 6; "
     "i=0; while [ $i -lt 1000 ]; do i=$((i+1)); done; echo $i", "720\n1000\n"),
    ("fifo", "cd /tmp; mkfifo p; (echo through >p) & cat p; wait", "through\n"),
    ("closed descriptor", "cd /tmp; exec 4>f; echo x >&4; exec 4>&-; echo y >&4", "", {"rc": 1, "err": "Bad file descriptor"}),
    ("files", "cd /tmp; mkdir -p a/b/c; touch a/b/c/f; ln -s c a/b/l; ls a/b/l; mv a/b/c/f a/g; ln a/g a/h; stat -c '%h %s %F' a/h; "
     "rm -r a; ls", "f\n2 0 regular empty file\n"),
    ("permissions", "cd /tmp; umask 027; echo >f; stat -c %a f; chmod 4711 f; stat -c %a f; chown 12:34 f; stat -c %u:%g f",
     "640\n4711\n12:34\n"),
    ("dd and checksums", "dd if=/dev/zero of=/tmp/z bs=64k count=100 2>/dev/null; md5sum </tmp/z; sha1sum </tmp/z",
     SAME),
    ("sparse file", "cd /tmp; dd if=/dev/zero of=s bs=1 count=1 seek=10M 2>/dev/null; stat -c %s s; truncate -s 5 s; stat -c %s s",
     "10485761\n5\n"),
    ("find and xargs", "cd /tmp; mkdir d; for i in 1 2 3; do echo $i >d/$i; done; find d -type f | sort | xargs cat", "1\n2\n3\n"),
    ("sed awk grep cut", "printf 'a:1\\nb:2\\nc:3\\n' >/tmp/t; sed -n 's/b:/B=/p' /tmp/t; awk -F: '{s+=$2} END {print s}' /tmp/t; "
     "grep -c '[ac]' /tmp/t; cut -d: -f1 /tmp/t | paste -s -d, -", "B=2\n6\n2\na,b,c\n"),
    ("tar and gzip", "cd /tmp; mkdir s; echo data >s/f; ln -s f s/l; tar cz s | (mkdir o; cd o; tar xz); ls -l o/s | awk '{print $9,$10,$11}' | "
     "sed 's/ *$//' | grep .; cat o/s/l; seq 1 50000 | gzip | gunzip | md5sum", SAME),
    ("many processes in turn", "i=0; while [ $i -lt 100 ]; do /bin/true; i=$((i+1)); done; echo $i", "100\n"),
    ("sort numbers", "seq 1 5000 | sort -r | sort -n | md5sum; seq 1 5000 | md5sum", SAME),
    ("environment", "env | grep -c .; A=b sh -c 'echo $A'; export X=1; sh -c 'echo ${X:-0}'; env -i /bin/env", SAME),
    ("identity", "id; hostname; whoami; tty; uname -s -m", SAME),
    ("own pid is 1", "echo $$; ls -d /proc/1 /proc/self; readlink /proc/self/exe; read n </proc/1/comm; echo $n",
     "1\n/proc/1\n/proc/self\n/bin/busybox\nsh\n"),
    ("proc of the container's own", "sleep 50 & usleep 300000; set -- /proc/[0-9]*; echo $#; tr '\\0' ' ' </proc/$!/cmdline; echo; "
     "grep -E '^(Name|State|PPid|Threads)' /proc/$!/status; kill $!", SAME),
    ("ps", "sleep 50 & usleep 300000; ps -o comm >/tmp/p; sort /tmp/p; kill $!", SAME),
    ("devices", "echo gone >/dev/null; head -c 5 /dev/zero | od -An -tx1; head -c 8 /dev/urandom | wc -c; echo x >/dev/full; "
     "ls /dev/fd /dev/stdin /dev/ptmx -d; ls -l /dev/null | cut -c1-10", " 00 00 00 00 00\n8\n/dev/fd\n/dev/ptmx\n/dev/stdin\ncrw-rw-rw-\n",
     {"err": "No space left"}),
    ("read-only root", "echo x >/file; echo $?; mkdir /d; rm /bin/true; echo $?", "1\n1\n", {"err": "Read-only file system"}),
    ("proc mounts", "awk '{print $2,$3}' /proc/mounts | grep -E '^/(proc|dev|dev/pts|tmp|sys) ' | sort", SAME),
    ("timeout", "timeout 0.3 sleep 10; echo $?; timeout 5 true; echo $?", "143\n0\n", {"err": "Terminated"}),
    ("limits", "ulimit -n; ulimit -n 64; ulimit -n; ulimit -c", SAME),
    ("unix time moves", "a=$(date +%s); sleep 1.2; b=$(date +%s); [ $((b-a)) -ge 1 ] && [ $((b-a)) -le 3 ] && echo moves", "moves\n"),
    ("no such directory as cwd of cd", "cd /nosuch; echo $?; cd /proc/self/fd && echo in", "2\nin\n", {"err": "nosuch"}),
]


def terminal_bundle(ctx, script="exec sh -i", **settings):
    return ctx.bundle(["sh", "-c", script], ROOT(), terminal=True, env=["PS1=ready> "], **settings)


def job_control(ctx):
    """Stops, resumes and interrupts jobs from an interactive shell's terminal."""
    t = ctx.quark.terminal("run", "--bundle", terminal_bundle(ctx), ctx.quark.new_id())
    try:
        t.expect(b"ready> ")
        t.send(b"tty; stty size\n")
        t.expect(b"/dev/pts/0")
        t.expect(b"24 80")
        t.expect(b"ready> ")
        t.send(b"sleep 100\n")
        t.expect(b"\n")
        time.sleep(0.3)
        t.send(b"\x1a")
        t.expect(b"Stopped")
        t.expect(b"ready> ")
        t.send(b"jobs\n")
        t.expect(b"Stopped")
        t.expect(b"ready> ")
        t.send(b"bg\n")
        t.expect(b"ready> ")
        t.send(b"jobs\n")
        t.expect(b"Running")
        t.expect(b"ready> ")
        t.send(b"fg\n")
        t.expect(b"sleep 100")
        time.sleep(0.3)
        t.send(b"\x03")
        t.expect(b"ready> ")
        t.send(b"echo status=$?\n")
        t.expect(b"status=130")
        t.expect(b"ready> ")
        t.send(b"cat >/tmp/f\n")
        t.expect(b"\n")
        time.sleep(0.3)  # until cat has the terminal in its usual mode
        t.send(b"line one\n\x04")
        t.expect(b"ready> ")
        t.send(b"cat /tmp/f; exit 7\n")
        t.expect(b"line one")
        equal(t.finish(), 7, "exit status")
    finally:
        t.close()


def terminal_resize(ctx):
    t = ctx.quark.terminal("run", "--bundle", terminal_bundle(ctx, "trap 'stty size' WINCH; echo up; while :; do sleep 0.1; done"),
                           ctx.quark.new_id())
    try:
        t.expect(b"up")
        t.resize(33, 111)
        t.expect(b"33 111")
    finally:
        t.close()


def line_editing(ctx):
    """A terminal in its usual mode echoes, erases and turns ^C into a signal."""
    t = ctx.quark.terminal("run", "--bundle", terminal_bundle(ctx, "trap 'echo interrupted; exit 3' INT; echo up; read x; echo got=$x; read y"),
                           ctx.quark.new_id())
    try:
        t.expect(b"up")
        t.send(b"abX\x7fc\n")
        t.expect(b"got=abc")
        t.send(b"\x03")
        t.expect(b"interrupted")
        equal(t.finish(), 3, "exit status")
    finally:
        t.close()


def stdin_to_stdout(ctx):
    """Every byte value passes unchanged, and much of it."""
    data = bytes(range(256)) * 8192
    result = ctx.quark.run(ctx.bundle("cat", ROOT()), stdin=data)
    equal(result.rc, 0, "exit status")
    check(result.out == data, f"{len(result.out)} bytes came back of {len(data)}, or changed")


def unbuffered(ctx):
    """What the program writes is seen at once, not at the end."""
    id = ctx.quark.new_id()
    p = ctx.quark.start("run", "--bundle", ctx.bundle("echo one; sleep 50", ROOT()), id)
    p.wait_for(b"one\n")
    equal(ctx.quark.call("kill", id, "KILL").rc, 0, "kill")
    equal(p.finish(10).rc, 137, "exit status of a killed container")


def streams_apart(ctx):
    result = ctx.quark.run(ctx.bundle("echo to out; echo to err >&2", ROOT()))
    equal((result.out, result.err), (b"to out\n", b"to err\n"), "stdout and stderr")


def signals_reach(ctx):
    """A signal sent to the foreground runtime arrives at the program, and its exit status comes back."""
    b = ctx.bundle("trap 'echo term; exit 9' TERM; trap 'echo hup' HUP; echo up; while :; do sleep 0.1; done", ROOT())
    p = ctx.quark.start("run", "--bundle", b, ctx.quark.new_id())
    p.wait_for(b"up\n")
    p.p.send_signal(1)
    p.wait_for(b"hup\n")
    p.p.terminate()
    p.wait_for(b"term\n")
    equal(p.finish(20).rc, 9, "exit status")


def quietly(ctx, *words):
    """Runs the runtime with files as stdio, which the container keeps; returns (exit status, what it printed)."""
    with open(f"{ctx.directory}/io", "w+", encoding="utf-8") as io:
        done = subprocess.run(ctx.quark.command(*words), stdin=subprocess.DEVNULL, stdout=io, stderr=io, timeout=60, check=False)
        io.seek(0)
        return done.returncode, io.read()


def life_cycle(ctx):
    """create, start, state, exec, ps, kill, delete, each seen in the state."""
    q, id = ctx.quark, ctx.quark.new_id()
    b = ctx.bundle("trap 'exit 5' TERM; while :; do sleep 0.1; done", ROOT())
    pid_file = f"{ctx.directory}/pid"
    equal(quietly(ctx, "create", "--bundle", b, "--pid-file", pid_file, id), (0, ""), "create")
    state = q.state(id)
    equal((state["status"], state["id"], state["bundle"]), ("created", id, b), "state after create")
    with open(pid_file, encoding="utf-8") as f:
        equal(int(f.read()), state["pid"], "pid file")
    equal(q.call("start", id).rc, 0, "start")
    equal(q.state(id)["status"], "running", "state after start")
    result = q.call("exec", id, "sh", "-c", "echo in $(hostname); cat; exit 6", stdin=b"fed")
    equal((result.text, result.rc), ("in container\nfed", 6), "exec")
    check("sh" in q.call("ps", id).text, "ps does not show the shell")
    check(any(c["id"] == id and c["status"] == "running" for c in q.containers()), "list does not show it running")
    check(q.call("delete", id).rc != 0, "delete of a running container must be refused")
    equal(q.call("kill", id, "TERM").rc, 0, "kill")
    process.wait_until(lambda: q.state(id)["status"] == "stopped", 10, "stopped after kill")
    check(q.call("start", id).rc != 0, "start of a stopped container must be refused")
    equal(q.call("delete", id).rc, 0, "delete")
    check(q.call("state", id).rc != 0, "state after delete must fail")


def detached(ctx):
    q, id = ctx.quark, ctx.quark.new_id()
    equal(quietly(ctx, "run", "--detach", "--bundle", ctx.bundle("sleep 100", ROOT()), id), (0, ""), "run --detach")
    equal(q.state(id)["status"], "running", "state")
    equal(q.call("kill", id, "KILL").rc, 0, "kill")
    process.wait_until(lambda: q.state(id)["status"] == "stopped", 10, "stopped after kill")


def host_files(ctx):
    """A bind mount shows the host's files both ways, mapped memory included."""
    shared = f"{ctx.directory}/shared"
    os.makedirs(shared)
    with open(f"{shared}/in", "w", encoding="utf-8") as f:
        f.write("from the host\n")
    mount = {"destination": "/mnt", "type": "bind", "source": shared, "options": ["rbind", "rw"]}
    result = ctx.quark.run(ctx.bundle("cat /mnt/in; echo from inside >/mnt/out; mv /mnt/in /mnt/moved; chmod 600 /mnt/out", ROOT(), mounts=[mount]))
    equal((result.text, result.err, result.rc), ("from the host\n", b"", 0), "inside")
    with open(f"{shared}/out", encoding="utf-8") as f:
        equal(f.read(), "from inside\n", "the file on the host")
    equal((sorted(os.listdir(shared)), os.stat(f"{shared}/out").st_mode & 0o777), (["moved", "out"], 0o600), "on the host")
    mount["options"] = ["rbind", "ro"]
    result = ctx.quark.run(ctx.bundle("echo x >/mnt/no", ROOT(), mounts=[mount]))
    check(result.rc != 0 and "Read-only" in result.errors, f"a read-only bind mount was written\n{result}")


def user_of_the_spec(ctx):
    def change(c):
        c["process"]["user"] = {"uid": 1000, "gid": 1001, "additionalGids": [5, 6], "umask": 0o077}
        c["process"]["cwd"] = "/tmp"
        c["process"]["capabilities"] = {}
    result = ctx.quark.run(ctx.bundle("id -u; id -g; id -G; umask; pwd; chown 0 /tmp 2>/dev/null || echo denied", ROOT(), change=change))
    equal((result.text, result.rc), ("1000\n1001\n1001 5 6\n0077\n/tmp\ndenied\n", 0), "identity")


def do_command(ctx):
    """`do` runs a host command on a read-only view of the host whose changes vanish."""
    if not ctx.is_quark:
        return
    result = ctx.quark.call("do", "--", "sh", "-c", "seq 1 1000 | sort -rn | head -1; echo x >/etc/quark-was-here && cat /etc/quark-was-here; exit 4")
    equal((result.text, result.rc), ("1000\nx\n", 4), "do")
    check(not os.path.exists("/etc/quark-was-here"), "do wrote to the host")


def cases():
    yield from table(SHELL, root=ROOT)
    for body in (job_control, terminal_resize, line_editing, stdin_to_stdout, unbuffered, streams_apart, signals_reach, life_cycle,
                 detached, host_files, user_of_the_spec, do_command):
        yield Case(body.__name__.replace("_", " "), body)
