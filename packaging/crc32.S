/* The lesson's own name of the checksum, for programs that declare it themselves instead of including w10/crc32.h. It
 * is an object of its own in liblogship.a, so it comes into a program only if that calls `crc32` and has defined none
 * by then; weak, so that a definition which comes later wins; hidden, so that a shared libz goes on calling its own.
 *
 * zlib has another crc32(crc, buf, len). Where a shared libz stands behind liblogship.a on the command line, this one
 * has been taken by then for the program's calls; so in a program that has zlib it does what zlib's does. A libz.a must
 * stand before liblogship.a: docs/linking.md.
 *
 * It stands among the library's own calls, whose section tells them from a program's (capi/replaced). */
    .section logship_calls, "ax", @progbits
    .weak crc32
    .hidden crc32
    .type crc32, @function
    .weak crc32_z
    .p2align 4
crc32:
    endbr64
    movq crc32_z@GOTPCREL(%rip), %rax
    testq %rax, %rax
    jne 1f
    jmp logship_crc32@PLT
1:  movl %edx, %edx             /* crc32's length is an unsigned int, crc32_z's a size_t */
    jmp *%rax
    .size crc32, . - crc32
    .section .note.GNU-stack, "", @progbits
