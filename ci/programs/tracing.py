"""ptrace as strace and gdb use it, and process_vm_readv, as under runc."""
import os
import re
import shutil

import bundle
from cases import Case, native
from report import check, equal

SOURCE = """#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>
static int depth(int n) { return n ? depth(n - 1) + 1 : 0; }
int main(void) {
  int x = depth(3);
  printf("depth %d\\n", x);
  fflush(stdout);
  if (fork() == 0) _exit(4);
  wait(0);
  return x;
}
"""


def root():
    return bundle.debian(["strace", "gdb", "gcc", "libc6-dev"], "debug")


def privileged(c):
    for names in c["process"]["capabilities"].values():
        if "CAP_SYS_PTRACE" not in names:
            names.append("CAP_SYS_PTRACE")


def both(ctx, script, timeout=90):
    b = ctx.bundle(script, root(), change=privileged)
    expected = ctx.reference.run(b, timeout=timeout)
    check(expected.rc == 0, f"the comparison itself failed\n{expected}")
    result = ctx.quark.run(b, timeout=timeout)
    equal(result.rc, 0, f"exit status\n{result}")
    return expected.text, result.text


def same(script, tidy=lambda text: text, timeout=90):
    def body(ctx):
        expected, got = both(ctx, script, timeout)
        check(len(expected) > 20, f"the comparison itself says nothing: {expected!r}")
        equal(tidy(got), tidy(expected), "stdout")
    return body


def lines(ctx):
    directory = f"{ctx.directory}/root"
    bundle.skeleton(directory)
    program = native(os.path.join(os.path.dirname(__file__), "tracing.c"), "tracing")
    shutil.copy(program, f"{directory}/bin/tracing")
    b = ctx.bundle(["/bin/tracing"], directory, change=privileged)
    expected, result = ctx.reference.run(b), ctx.quark.run(b)
    check(expected.rc == 0 and len(expected.text) > 500, f"the comparison itself failed\n{expected}")
    ours, theirs = result.text.splitlines(), expected.text.splitlines()
    wrong = [f"line {i + 1}: {a!r} instead of {b!r}" for i, (a, b) in enumerate(zip(ours, theirs)) if a != b]
    check(not wrong, "\n".join(wrong[:20]))
    equal((result.rc, len(ours)), (0, len(theirs)), f"outcome\n{result}")


def no_addresses(text):
    """Without what differs from run to run: addresses and process numbers."""
    return re.sub(r"process \d+", "process", re.sub(r"0x[0-9a-f]+", "ADDR", text))


def calls_of(text):
    """The calls of a strace log that do not depend on the moment, with their results."""
    found = re.findall(r"^(?:\d+ +)?(execve|wait4|exit_group|kill|mkdir)\(.*", text, re.M)
    return sorted(found)


PROGRAM = f"cat >/tmp/t.c <<'END'\n{SOURCE}END\ngcc -g -O0 -o /tmp/t /tmp/t.c\n"


def cases():
    yield Case("stops, registers, memory and events line by line", lines)
    yield Case("strace -f", same("for i in 1 2 3 4 5; do strace -f -o /tmp/log sh -c 'mkdir /tmp/d$$; (exit 3); kill -0 $$; true | cat' || exit 1; done; "
                                 "cat /tmp/log", calls_of))
    yield Case("strace of its own signals", same("strace -o /tmp/log -e trace=kill,rt_sigreturn sh -c 'trap \"echo got\" USR1; kill -USR1 $$; echo after'; "
                                                  "grep -c SIGUSR1 /tmp/log; grep -o 'si_code=[A-Z_]*' /tmp/log; tail -1 /tmp/log"))
    yield Case("strace -c", same("for i in $(seq 20); do strace -c -o /tmp/log true || exit 1; done; awk '$NF == \"execve\" {print $NF, $4}' /tmp/log; echo counted all calls"))
    yield Case("strace -p", same("sleep 100 & p=$!; sleep 1; strace -o /tmp/log -p $p 2>/dev/null & s=$!; sleep 2; kill $s; wait $s; "
                                 "kill -0 $p && echo still there and well; wc -l </tmp/log"))
    yield Case("gdb: break, run, bt, continue", same(
        PROGRAM + "gdb -q -batch -ex 'break main' -ex run -ex bt -ex 'break depth if n == 0' -ex continue -ex bt -ex 'print n' -ex stepi "
        "-ex 'print $pc' -ex 'set var n = 0' -ex delete -ex finish -ex continue /tmp/t 2>/dev/null", no_addresses))
    yield Case("gdb: attach, look, detach", same(
        PROGRAM + "sleep 100 & sleep 1; gdb -q -batch -p $! -ex 'print $_siginfo.si_signo' -ex 'print 6*7' -ex detach 2>/dev/null | grep -E '^\\$|etach'; "
        "kill -0 $! && echo alive and well", no_addresses))
