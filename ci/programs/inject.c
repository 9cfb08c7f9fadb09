// Makes another thread, which waits in a system call, make one that it never would: inject TID NUMBER [ARG...].
// It is how a test sees that a filter holds without asking the filtered program to misbehave.
#include <elf.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>

static void must(int good, const char *what) {
    if (!good) {
        fprintf(stderr, "inject: %s: %s\n", what, strerror(errno));
        exit(1);
    }
}

int main(int argc, char **argv) {
    if (argc < 3) {
        fprintf(stderr, "usage: inject TID NUMBER [ARG...]\n");
        return 2;
    }
    int tid = atoi(argv[1]), status;
    uint64_t call[7] = {0};
    for (int i = 2; i < argc && i < 9; i++)
        call[i - 2] = strtoull(argv[i], NULL, 0);
    struct user_regs_struct r;
    struct iovec v = {&r, sizeof r};
    must(ptrace(PTRACE_SEIZE, tid, 0, 0) == 0, "seize");
    must(ptrace(PTRACE_INTERRUPT, tid, 0, 0) == 0, "interrupt");
    must(waitpid(tid, &status, __WALL) == tid, "wait");
    must(ptrace(PTRACE_GETREGSET, tid, NT_PRSTATUS, &v) == 0, "read registers");
    // Stopped on its way out of a system call: the instruction that made it lies just before.
#if defined(__x86_64__)
    r.rip -= 2;
    r.rax = call[0];
    r.orig_rax = -1;
    r.rdi = call[1], r.rsi = call[2], r.rdx = call[3], r.r10 = call[4], r.r8 = call[5], r.r9 = call[6];
#elif defined(__aarch64__)
    r.pc -= 4;
    r.regs[8] = call[0];
    for (int i = 0; i < 6; i++)
        r.regs[i] = call[i + 1];
#endif
    must(ptrace(PTRACE_SETREGSET, tid, NT_PRSTATUS, &v) == 0, "set registers");
    must(ptrace(PTRACE_DETACH, tid, 0, 0) == 0, "let go");
    return 0;
}
