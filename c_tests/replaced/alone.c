/* One function of a program's own, NAME, which counts and leaves its work to the library's, here real_NAME. Says at the
 * end whether it was called: what this program calls itself goes to real_NAME too (run_alone.sh), so by the library. */
#include <stdio.h>

long alone_calls;

#define TEXT(name) #name
#define QUOTED(name) TEXT(name)
__asm__(".pushsection plain_text, \"ax\", @progbits\n"
        ".globl " QUOTED(NAME) "\n"
        ".type " QUOTED(NAME) ", @function\n" QUOTED(NAME) ":\n"
        "    lock incq alone_calls(%rip)\n"
        "    jmp real_" QUOTED(NAME) "@PLT\n"
        ".popsection\n");

__attribute__((destructor)) static void say(void)
{
    if (alone_calls > 0)
        puts(QUOTED(NAME));
}
