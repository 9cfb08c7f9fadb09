// Programs of the tests' app; position-independent. Calls: 0 nop, 1 report, 2 exit, 3 fork, 4 thread, 5 exec, 6 set_tls, 7 lost, 8 resize.
.pushsection .rodata.programs, "a"
.balign 64
.globl programs
programs:

.macro CALL number
    mov x8, #\number
    svc #0
.endm
// x0 to report.
.macro REPORT
    CALL 1
.endm

.globl program_exit
program_exit:
    CALL 2
    udf #0

// All registers but x0 survive a call, and the flags.
.globl program_registers
program_registers:
    .irp n, 1,2,3,4,5,6,7,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30
    mov x\n, #0x5500 + \n
    movk x\n, #0xaa00 + \n, lsl #48
    .endr
    mov x0, #41
    mov x8, #0
    // Carry and zero set.
    cmp xzr, xzr
    svc #0
    b.ne 9f
    b.cc 9f
    cmp x0, #42
    b.ne 9f
    cbnz x8, 9f
    .irp n, 1,2,3,4,5,6,7,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30
    mov x0, #0x5500 + \n
    movk x0, #0xaa00 + \n, lsl #48
    cmp x0, x\n
    b.ne 9f
    .endr
    mov x0, #1
    b 8f
9:  mov x0, #0
8:  REPORT
    b program_exit

// Vector registers survive calls and a fork, in both processes. Reports 1 for each part that holds.
.globl program_vectors
program_vectors:
    .arch_extension simd
    movz x9, #0xdef0
    movk x9, #0x9abc, lsl #16
    movk x9, #0x5678, lsl #32
    movk x9, #0x1234, lsl #48
    dup v7.2d, x9
    dup v31.2d, x9
    mov x20, #1000
2:  CALL 0
    subs x20, x20, #1
    b.ne 2b
    bl check_vectors
    CALL 3
    bl check_vectors
    b program_exit

check_vectors:
    mov x21, x30
    mov x0, #0
    umov x10, v7.d[1]
    cmp x9, x10
    b.ne 3f
    umov x10, v31.d[0]
    cmp x9, x10
    b.ne 3f
    mov x0, #1
3:  REPORT
    ret x21
    .arch_extension nosimd

// Spins until an interrupt sets x0, twice a report. The first report returns 0, unless the interrupt came then already.
.globl program_spin
program_spin:
    mov x0, #1
    REPORT
2:  yield
    cbz x0, 2b
    mov x0, #2
    REPORT
    b program_exit

// A mapped file is cut short after its second page was touched: a load and a store there. Then it grows again, and the load
// gives zero, which is reported. x19 says where to go on.
.globl program_short
program_short:
    adr x19, 9f
    mov x20, #0x700000
    add x20, x20, #0x1000
    mov x0, #0x2000
    CALL 8
    mov w0, #77
    str w0, [x20, #0x10]
    mov x0, #0x1000
    CALL 8
    adr x19, 2f
    ldr w0, [x20, #0x20]
2:  adr x19, 3f
    str w0, [x20, #0x30]
3:  adr x19, 9f
    mov x0, #0x2000
    CALL 8
    ldr w0, [x20, #0x10]
    REPORT
9:  b program_exit

// One fault of each kind; x19 says where to go on.
.globl program_faults
program_faults:
    mov x9, #0x600000
    mov x10, #0x500000
    adr x19, 2f
    ldr w0, [x9, #0x10]
2:  adr x19, 3f
    str w0, [x9, #0x20]
3:  adr x19, 4f
    mov x9, #0x400000
    str w0, [x9]
4:  adr x19, 5f
    br x10
5:  adr x19, 6f
    udf #0
6:  adr x19, 7f
    mov x9, #0xffff800000000000
    ldr x0, [x9]
7:  adr x19, 10f
    CALL 7
10: adr x19, 8f
    brk #0
8:  adr x19, 9f
    add x9, x10, #1
    ldxr x0, [x9]
9:  b program_exit

// Copy on write: each process sees its own value.
.globl program_fork
program_fork:
    mov x19, #0x500000
    mov w0, #7
    str w0, [x19, #0x100]
    CALL 3
    cbz x0, 2f
    mov w0, #8
    str w0, [x19, #0x100]
    ldr w0, [x19, #0x100]
    REPORT
    b program_exit
2:  mov x20, #2000
3:  CALL 0
    subs x20, x20, #1
    b.ne 3b
    ldr w0, [x19, #0x100]
    add w0, w0, #100
    REPORT
    b program_exit

// A thread in the same memory answers.
.globl program_threads
program_threads:
    mov x19, #0x500000
    adr x0, program_thread_body
    mov x1, #0x510000
    CALL 4
2:  CALL 0
    ldr w0, [x19, #0x200]
    cbz w0, 2b
    REPORT
    b program_exit

.globl program_thread_body
program_thread_body:
    mov x19, #0x500000
    mov w0, #33
    str w0, [x19, #0x200]
    b program_exit

// Exec from a thread while another one lives in the old address space, which must stay as it is.
.globl program_exec
program_exec:
    mov x19, #0x500000
    adr x0, 5f
    mov x1, #0x510000
    CALL 4
2:  CALL 0
    ldr w0, [x19, #0x300]
    cbz w0, 2b
    mov x20, #5000
3:  CALL 0
    subs x20, x20, #1
    b.ne 3b
    ldr w0, [x19, #0x300]
    REPORT
    b program_exit
5:  mov x19, #0x500000
    mov w0, #44
    str w0, [x19, #0x300]
    adr x0, program_after_exec
    CALL 5
    udf #0

// In a fresh address space memory is zero; a second exec, alone in it, works in place.
.globl program_after_exec
program_after_exec:
    mov x19, #0x500000
    ldr w0, [x19, #0x300]
    add w0, w0, #1000
    mov w1, #55
    str w1, [x19, #0x300]
    REPORT
    adr x0, 2f
    CALL 5
    udf #0
2:  mov x19, #0x500000
    ldr w0, [x19, #0x300]
    add w0, w0, #2000
    REPORT
    b program_exit

// 100000 calls.
.globl program_calls
program_calls:
    movz x20, #0x86a0
    movk x20, #1, lsl #16
2:  CALL 0
    subs x20, x20, #1
    b.ne 2b
    b program_exit

.globl program_tls
program_tls:
    mov x19, #0x500000
    mov w0, #66
    str w0, [x19, #0x400]
    add x0, x19, #0x400
    CALL 6
    mrs x9, tpidr_el0
    ldr w0, [x9]
    REPORT
    CALL 3
    mrs x9, tpidr_el0
    ldr w0, [x9]
    REPORT
    b program_exit

// 200 children.
.globl program_forks
program_forks:
    mov x20, #200
2:  CALL 3
    cbz x0, program_exit
    subs x20, x20, #1
    b.ne 2b
    b program_exit

.globl programs_end
programs_end:
.popsection
