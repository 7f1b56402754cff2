/* The lesson's own name of the checksum, for programs that declare it themselves instead of including w10/crc32.h. It
 * is an object of its own in liblogship.a, so it comes into a program only if that calls `crc32` and has defined none
 * by then; weak, so that a definition which comes later wins; hidden, so that a shared libz goes on calling its own.
 *
 * zlib has another crc32(crc, buf, len). Where libz stands behind liblogship.a on the command line, or where the linker
 * looks through all archives for each name (lld, mold), this one is taken for the program's calls and for those inside
 * libz.a. A program that has zlib cannot have the lesson's crc32 too, so there this one does what zlib's does. Whether
 * it has zlib is told by names that nobody else has: of the objects of libz.a that call crc32, and of those that a program
 * names. None is brought in by being asked for: they are weak.
 *
 * It stands among the library's own calls, whose section tells them from a program's (capi/replaced). */
    .section logship_calls, "ax", @progbits
    .weak crc32
    .hidden crc32
    .type crc32, @function
    .weak crc32_z
    .weak deflateInit2_
    .weak inflateInit2_
    .weak zlibVersion
    .p2align 4
crc32:
    endbr64
    movq crc32_z@GOTPCREL(%rip), %rax
    testq %rax, %rax
    jne 1f
    movq deflateInit2_@GOTPCREL(%rip), %rax
    testq %rax, %rax
    jne 2f
    movq inflateInit2_@GOTPCREL(%rip), %rax
    testq %rax, %rax
    jne 2f
    movq zlibVersion@GOTPCREL(%rip), %rax
    testq %rax, %rax
    jne 2f
    jmp logship_crc32@PLT
1:  movl %edx, %edx             /* crc32's length is an unsigned int, crc32_z's a size_t */
    jmp *%rax
2:  jmp logship_crc32_from@PLT
    /* Brings the library in even where somebody has weakened logship_crc32 everywhere: a weak use brings nothing in. */
    .reloc crc32, R_X86_64_NONE, logship_version
    .size crc32, . - crc32
    .section .note.GNU-stack, "", @progbits
