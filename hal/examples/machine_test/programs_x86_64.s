# Programs of the tests' app; position-independent. Calls: 0 nop, 1 report, 2 exit, 3 fork, 4 thread, 5 exec, 6 set_tls, 7 lost, 8 resize.
.pushsection .rodata.programs, "a"
.balign 64
.globl programs
programs:

.globl program_exit
program_exit:
    mov eax, 2
    syscall
    ud2

# All registers but rax, rcx and r11 survive a call.
.globl program_registers
program_registers:
    mov rbx, 0x1111111111111111
    mov rdx, 0x2222222222222222
    mov rsi, 0x3333333333333333
    mov rbp, 0x4444444444444444
    mov r8,  0x5555555555555555
    mov r9,  0x6666666666666666
    mov r10, 0x7777777777777777
    mov r12, 0x8888888888888888
    mov r13, 0x9999999999999999
    mov r14, 0xaaaaaaaaaaaaaaaa
    mov r15, 0xbbbbbbbbbbbbbbbb
    mov rdi, 41
    std
    xor eax, eax
    syscall
    pushfq
    cld
    pop rcx
    test ecx, 0x400
    jz 9f
    cmp rax, 42
    jne 9f
    cmp rdi, 41
    jne 9f
    mov rax, 0x1111111111111111
    cmp rbx, rax
    jne 9f
    mov rax, 0x2222222222222222
    cmp rdx, rax
    jne 9f
    mov rax, 0x3333333333333333
    cmp rsi, rax
    jne 9f
    mov rax, 0x4444444444444444
    cmp rbp, rax
    jne 9f
    mov rax, 0x5555555555555555
    cmp r8, rax
    jne 9f
    mov rax, 0x6666666666666666
    cmp r9, rax
    jne 9f
    mov rax, 0x7777777777777777
    cmp r10, rax
    jne 9f
    mov rax, 0x8888888888888888
    cmp r12, rax
    jne 9f
    mov rax, 0x9999999999999999
    cmp r13, rax
    jne 9f
    mov rax, 0xaaaaaaaaaaaaaaaa
    cmp r14, rax
    jne 9f
    mov rax, 0xbbbbbbbbbbbbbbbb
    cmp r15, rax
    jne 9f
    mov edi, 1
    jmp 8f
9:  xor edi, edi
8:  mov eax, 1
    syscall
    jmp program_exit

# AVX registers survive calls and a fork, in both processes. Reports 1 for each part that holds.
.globl program_vectors
program_vectors:
    mov rax, 0x123456789abcdef0
    vmovq xmm0, rax
    vpbroadcastq ymm7, xmm0
    mov r12d, 1000
2:  xor eax, eax
    syscall
    dec r12d
    jnz 2b
    call check_vectors
    mov eax, 3
    syscall
    call check_vectors
    jmp program_exit

check_vectors:
    mov rbx, 0x123456789abcdef0
    vextracti128 xmm1, ymm7, 1
    vmovq rcx, xmm1
    xor edi, edi
    cmp rbx, rcx
    jne 3f
    vpextrq rcx, xmm7, 1
    cmp rbx, rcx
    jne 3f
    mov edi, 1
3:  mov eax, 1
    syscall
    ret

# Spins until an interrupt sets rax, twice a report. The first report returns 0, unless the interrupt came then already.
.globl program_spin
program_spin:
    mov edi, 1
    mov eax, 1
    syscall
2:  pause
    test rax, rax
    jz 2b
    mov edi, 2
    mov eax, 1
    syscall
    jmp program_exit

# A mapped file is cut short after its second page was touched: a load and a store there. Then it grows again, and the load
# gives zero, which is reported. rbx says where to go on.
.globl program_short
program_short:
    lea rbx, [rip + 9f]
    mov edi, 0x2000
    mov eax, 8
    syscall
    mov dword ptr [0x701010], 77
    mov edi, 0x1000
    mov eax, 8
    syscall
    lea rbx, [rip + 2f]
    mov eax, dword ptr [0x701020]
2:  lea rbx, [rip + 3f]
    mov dword ptr [0x701030], eax
3:  lea rbx, [rip + 9f]
    mov edi, 0x2000
    mov eax, 8
    syscall
    mov edi, dword ptr [0x701010]
    mov eax, 1
    syscall
9:  jmp program_exit

# One fault of each kind; rbx says where to go on.
.globl program_faults
program_faults:
    lea rbx, [rip + 2f]
    mov eax, dword ptr [0x600010]
2:  lea rbx, [rip + 3f]
    mov dword ptr [0x600020], eax
3:  lea rbx, [rip + 4f]
    mov dword ptr [0x400000], eax
4:  lea rbx, [rip + 5f]
    mov eax, 0x500000
    jmp rax
5:  lea rbx, [rip + 6f]
    ud2
6:  lea rbx, [rip + 7f]
    xor ecx, ecx
    xor edx, edx
    mov eax, 1
    div ecx
7:  lea rbx, [rip + 8f]
    mov rax, 0x8000000000000000
    mov rax, [rax]
8:  lea rbx, [rip + 9f]
    sgdt [rsp - 64]
9:  lea rbx, [rip + 10f]
    mov eax, 7
    syscall
10: int3
    pushfq
    or dword ptr [rsp], 0x100
    popfq
    nop
    pushfq
    and dword ptr [rsp], 0xfffffeff
    popfq
    jmp program_exit

# Copy on write: each process sees its own value.
.globl program_fork
program_fork:
    mov dword ptr [0x500100], 7
    mov eax, 3
    syscall
    test eax, eax
    jz 2f
    mov dword ptr [0x500100], 8
    mov edi, dword ptr [0x500100]
    mov eax, 1
    syscall
    jmp program_exit
2:  mov r12d, 2000
3:  xor eax, eax
    syscall
    dec r12d
    jnz 3b
    mov edi, dword ptr [0x500100]
    add edi, 100
    mov eax, 1
    syscall
    jmp program_exit

# A thread in the same memory answers.
.globl program_threads
program_threads:
    lea rdi, [rip + program_thread_body]
    mov esi, 0x510000
    mov eax, 4
    syscall
2:  xor eax, eax
    syscall
    cmp dword ptr [0x500200], 0
    je 2b
    mov edi, dword ptr [0x500200]
    mov eax, 1
    syscall
    jmp program_exit

.globl program_thread_body
program_thread_body:
    mov dword ptr [0x500200], 33
    jmp program_exit

# Exec from a thread while another one lives in the old address space, which must stay as it is.
.globl program_exec
program_exec:
    lea rdi, [rip + 5f]
    mov esi, 0x510000
    mov eax, 4
    syscall
2:  xor eax, eax
    syscall
    cmp dword ptr [0x500300], 0
    je 2b
    mov r12d, 5000
3:  xor eax, eax
    syscall
    dec r12d
    jnz 3b
    mov edi, dword ptr [0x500300]
    mov eax, 1
    syscall
    jmp program_exit
5:  mov dword ptr [0x500300], 44
    lea rdi, [rip + program_after_exec]
    mov eax, 5
    syscall
    ud2

# In a fresh address space memory is zero; a second exec, alone in it, works in place.
.globl program_after_exec
program_after_exec:
    mov edi, dword ptr [0x500300]
    add edi, 1000
    mov dword ptr [0x500300], 55
    mov eax, 1
    syscall
    lea rdi, [rip + 2f]
    mov eax, 5
    syscall
    ud2
2:  mov edi, dword ptr [0x500300]
    add edi, 2000
    mov eax, 1
    syscall
    jmp program_exit

# 100000 calls.
.globl program_calls
program_calls:
    mov r12d, 100000
2:  xor eax, eax
    syscall
    dec r12d
    jnz 2b
    jmp program_exit

.globl program_tls
program_tls:
    mov dword ptr [0x500400], 66
    mov edi, 0x500400
    mov eax, 6
    syscall
    mov edi, dword ptr fs:[0]
    mov eax, 1
    syscall
    mov eax, 3
    syscall
    mov edi, dword ptr fs:[0]
    mov eax, 1
    syscall
    jmp program_exit

# 200 children.
.globl program_forks
program_forks:
    mov r12d, 200
2:  mov eax, 3
    syscall
    test eax, eax
    jz program_exit
    dec r12d
    jnz 2b
    jmp program_exit

.globl programs_end
programs_end:
.popsection
