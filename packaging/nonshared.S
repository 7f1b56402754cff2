/* One of the names that the shared library does not export, because other libraries have functions of that name too:
 * NAME is a program's way to logship_NAME, which is exported. It is linked into the program from
 * liblogship_nonshared.a, and only if the program calls NAME and has none of its own: see docs/linking.md. Hidden, so that another library that
 * calls some NAME of its own gets that one. */
#define JOINED(prefix, name) prefix##name
#define EXPORTED(name) JOINED(logship_, name)
    .text
    .weak NAME
    .hidden NAME
    .type NAME, @function
    .p2align 4
NAME:
    endbr64
    jmp EXPORTED(NAME)@PLT
    .size NAME, . - NAME
    .section .note.GNU-stack, "", @progbits
