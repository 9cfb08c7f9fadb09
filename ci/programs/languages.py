"""Languages: each does real work (servers, threads, processes, files, signals), builds real C projects, and clones over the network."""
import os
import re

import bundle
from cases import SAME, Case, shell
from report import check, tell

ROOT = bundle.languages
SOURCES = {"destination": "/mnt", "type": "bind", "source": os.path.join(os.path.dirname(os.path.abspath(__file__)), "languages"), "options": ["rbind", "ro"]}

NODE = """node string true true container
http 200 true 3afa24e704adfa0c
stream 26704
workers 179999700000 6
files 100 49500 rename new
true false
zlib 1000000
false
sync out in
exit 0,1,2,3,4,5,6,7,8,9
signal SIGTERM
fork 42 0
through unix
timers 10,20,30
SIGUSR2
"""
JAVA = """tcp 2000 true
http 1190
nio 200000
files 1225 256
watch watched
TO THE CHILD 5
exit 28 143
memory 160000000 20000 1
parallel 100000
hook
"""
GO = """http 400 <nil>
goroutines true 99990000
preemption true
signals 50
recovered true
files 495000
processes 2000190 signal: killed
unix 500000 <nil>
timeout true
"""
PERL = """server 400 20
open3 50006 7
files 1275 25
locked 500
alarms 10
died usr1
through the fifo
shared
SELECT
36bbec965367dcdf02a6b51ff59780410e7e27a2fa479ab735f35d9a5774d667
words 20000
"""
GIT = """
cd /tmp; export GIT_PROGRESS_DELAY=1000 GIT_AUTHOR_DATE='2020-01-01T00:00:00Z' GIT_COMMITTER_DATE='2020-01-01T00:00:00Z'
git config --global user.name t; git config --global user.email t@e; git config --global init.defaultBranch main
mkdir srv; git init -q --bare srv/r.git; git daemon --reuseaddr --base-path=/tmp/srv --export-all --enable=receive-pack --listen=127.0.0.1 --pid-file=/tmp/pid 2>/dev/null & daemon=$!
git init -q a; cd a; cp -r /usr/include/linux .; git add .; git commit -qm headers; for i in $(seq 20); do echo $i >f$i; git add f$i; git commit -qm c$i; done
for i in $(seq 50); do git ls-remote git://127.0.0.1/r.git >/dev/null 2>&1 && break; sleep 0.1; done
git push -q git://127.0.0.1/r.git main; cd ..; git clone -q git://127.0.0.1/r.git b; cd b; git log -1 --format=%H; git log --oneline | wc -l; ls linux | wc -l
git fsck --full 2>/dev/null && echo sound; cd ../a; git rm -qr linux; git commit -qm gone; git push -q git://127.0.0.1/r.git main; cd ../b; git pull -q; ls | wc -l
git clone -q --depth 1 git://127.0.0.1/r.git ../shallow; git -C ../shallow log --oneline | wc -l; git clone -q git://127.0.0.1/no.git 2>&1 | head -1; kill $daemon; wait $daemon; echo $?
"""
MAKE = """
mkdir /tmp/m; cd /tmp/m; for i in $(seq 40); do echo "int f$i(void) { return $i; }" >f$i.c; done
(echo '#include <stdio.h>'; for i in $(seq 40); do echo "int f$i(void);"; done; echo 'int main(void) { int n = 0;'; for i in $(seq 40); do echo "n += f$i();"; done; echo 'printf("%d\\\\n", n); return 0; }') >main.c
printf 'OBJECTS := $(patsubst %%.c,%%.o,$(wildcard *.c))\\nall: prog lib.so\\n\\t@./prog\\nprog: $(OBJECTS)\\n\\t@$(CC) -o $@ $^\\nlib.so: $(filter-out main.o,$(OBJECTS))\\n\\t@$(CC) -shared -o $@ $^\\n%%.o: %%.c\\n\\t@$(CC) -O2 -fPIC -c -o $@ $<\\n' >Makefile
make -j4 && ls *.o | wc -l; touch f7.c; make -j4 | tail -1; make -j8 -B -s; make -q prog && echo nothing to do
"""
LUA = """
mkdir /tmp/l; cd /tmp/l; echo '#define DEB_HOST_MULTIARCH "here"' >lua5.4-deb-multiarch.h
ls /usr/src/lua5.4/src/*.c | grep -v luac.c | xargs -P 4 -n 1 gcc -O2 -I. -DLUA_USE_LINUX -c && gcc -o lua -Wl,-E *.o -lm -ldl
./lua - <<'E'
local t = {} for i = 1, 1e5 do t[i] = i * i end
print(#t, t[777], select("#", table.unpack(t, 1, 200)), string.format("%5.2f", math.pi), collectgarbage("count") > 100)
print(io.popen("echo piped"):read("a"), os.execute("exit 3"))
print(pcall(error, "x"), coroutine.wrap(function(a) return coroutine.yield(a + 1) end)(41), os.rename("/nosuch", "/tmp/x"))
E
"""

ROWS = [
    ("node", "node /mnt/work.js", NODE, {"rc": 3}),
    ("java", "javac -d /tmp /mnt/Work.java && java -cp /tmp Work", JAVA, {"rc": 3}),
    ("go", "export GO111MODULE=off; go build -o /tmp/work /mnt/work.go && /tmp/work", GO, {"rc": 3}),
    ("perl", "perl /mnt/work.pl", PERL, {"rc": 4}),
    ("make -j4", MAKE, "820\n41\n820\n820\nnothing to do\n"),
    ("git over a daemon", GIT, SAME, {"err": "^(Terminated\n)?$"}),
    # What a project prints holds times and the order of parallel jobs: its own tests judge, and the archive's symbols.
    ("zlib builds and passes its tests", "cp -r /usr/src/zlib /tmp/z; cd /tmp/z; ./configure >/dev/null && make -s -j4 >/dev/null && make -s test; nm libz.a | grep -c ' T '", SAME,
     {"timeout": 240}),
    ("lua builds and runs", LUA, SAME, {"timeout": 240}),
]

# Go's own tests of what stands on the kernel.
GO_TESTS = ["os", "os/exec", "os/signal", "syscall", "internal/poll", "net"]


def go_test(ctx, runtime, packages):
    """Returns the packages that pass, the tests that fail, and all that was said."""
    b = ctx.bundle(f"cd /usr/lib/go-1.19/src; go test -short {' '.join(packages)}", ROOT(), env=["GOCACHE=/tmp/cache", "GOFLAGS=-trimpath", "GO111MODULE=off"])
    result = runtime.run(b, timeout=500)
    passed = [line.split()[1] for line in result.text.splitlines() if line.startswith("ok ")]
    return passed, set(re.findall(r"^--- FAIL: (\S+)", result.text, re.M)), result


def go_tests(ctx):
    """Some need what no container has: what fails must fail under runc too."""
    passed, failed, result = go_test(ctx, ctx.quark, GO_TESTS)
    rest = [p for p in GO_TESTS if p not in passed]
    allowed = go_test(ctx, ctx.reference, rest)[1] if rest else set()
    tell("go's own tests, packages", len(passed), len(rest), f"as under runc: {', '.join(sorted(failed))}" if failed else "")
    check(failed <= allowed and bool(rest) == bool(failed), f"{failed - allowed}\n{result}")


def cases():
    for name, script, out, *more in ROWS:
        settings = {"timeout": 120, **(more[0] if more else {})}
        yield shell(name, script, out, root=ROOT, mounts=[SOURCES], env=["GOCACHE=/tmp/cache"], **settings)
    yield Case("go's own tests", go_tests, True)
