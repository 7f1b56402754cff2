/* What the kit's check programs are made of. A program is one table of checks and CHECK_MAIN.
 *
 *   prog --list   prints the table, one check a line, fields parted by tabs: id, requirement, lesson, files, seconds,
 *                 title, line
 *   prog ID       runs one check in the current directory, which is empty and its own
 *
 * LOGSHIP_RESULT holds the name of a file and, behind a blank, a word that no other run has. The main function takes both
 * out of the environment, of which nothing stays in memory, before any of the student's code has run: the kit has
 * disarmed its constructors. The verdict counts with that word alone, so a student's code that writes to the file says
 * nothing. (Code that searches the memory of its process for the word could find it: who does that is not kept out.)
 *
 * The verdict goes to that file, so that nothing a student's code prints can be taken for it:
 * one line "PASS<tab>word", or "FAIL<tab>what<tab>expected<tab>seen"; before it may stand lines "NOTE<tab>text". The exit code
 * is 0 or 1. A program that ends without a
 * verdict (exit() in a student's function, a crash, a signal) has failed, whatever its exit code.
 *
 * Checks call only what the lessons name. They run in a process of their own; the first EXPECT that fails ends it. */
#ifndef LOGSHIP_CHECK_H
#define LOGSHIP_CHECK_H

#ifndef _GNU_SOURCE
#error "define _GNU_SOURCE before the first include"
#endif

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct check {
    const char *id;          /* unique in the kit, lower case: codec_round_trip */
    const char *requirement; /* "W10-R1"; "W09" for the store, which no quest grades */
    const char *lesson;      /* "w10-l01" */
    const char *files;       /* the course's files that it judges, by name, parted by commas: "wal_record.c,crc32.c" */
    int seconds;             /* how long it may run; under valgrind ten times as long */
    const char *title;       /* one line for the table */
    const char *line;        /* what the lesson says, in a sentence */
    void (*run)(void);
};

static int check_result_fd = -1;
static char check_word[64];

/* One line, with no tab or line feed inside a field. */
static inline void check_verdict(const char *text)
{
    size_t left = strlen(text);

    while (left > 0) {
        ssize_t n = write(check_result_fd, text, left);

        if (n < 0 && errno != EINTR)
            _exit(3);
        if (n > 0) {
            text += n;
            left -= (size_t)n;
        }
    }
}

/* A field of the verdict: cut at its size, with control characters shown as dots. */
static inline void check_field(char *out, size_t size, const char *format, va_list arguments)
{
    vsnprintf(out, size, format, arguments);
    for (char *c = out; *c != '\0'; c++)
        if ((unsigned char)*c < 0x20)
            *c = '.';
}

__attribute__((noreturn, format(printf, 3, 4))) static inline void check_fail(const char *what, const char *expected,
                                                                            const char *seen_format, ...)
{
    char seen[400], line[1200];
    va_list arguments;

    va_start(arguments, seen_format);
    check_field(seen, sizeof seen, seen_format, arguments);
    va_end(arguments);
    snprintf(line, sizeof line, "FAIL\t%.300s\t%.300s\t%s\n", what, expected, seen);
    check_verdict(line);
    _exit(1);
}

/* Something that a grader may want to know and that costs nothing. */
__attribute__((format(printf, 1, 2))) static inline void check_note(const char *format, ...)
{
    char text[400], line[500];
    va_list arguments;

    va_start(arguments, format);
    check_field(text, sizeof text, format, arguments);
    va_end(arguments);
    snprintf(line, sizeof line, "NOTE\t%s\n", text);
    check_verdict(line);
}

/* what: what was looked at, in words; expected: what the lesson asks; then what was seen, as for printf. */
#define EXPECT(condition, what, expected, ...)           \
    do {                                                 \
        if (!(condition))                                \
            check_fail((what), (expected), __VA_ARGS__); \
    } while (0)

static inline void check_expect_int(long long expected, long long seen, const char *what)
{
    char text[32];

    snprintf(text, sizeof text, "%lld", expected);
    EXPECT(expected == seen, what, text, "%lld", seen);
}

#define EXPECT_INT(expected, seen, what) check_expect_int((long long)(expected), (long long)(seen), (what))

/* NULL is a value too. */
static inline void check_expect_string(const char *expected, const char *seen, const char *what)
{
    int same = expected == NULL || seen == NULL ? expected == seen : strcmp(expected, seen) == 0;

    EXPECT(same, what, expected == NULL ? "NULL" : expected, "%s", seen == NULL ? "NULL" : seen);
}

#define EXPECT_STRING(expected, seen, what) check_expect_string((expected), (seen), (what))

/* For the check's own preparations: a full disk is not the student's fault, and the verdict says so. */
#define REQUIRE(condition, what) \
    EXPECT((condition), "the check's own preparation: " what, "it works", "%s", strerror(errno))

/* Takes the name and the word; what was in the environment is overwritten, since /proc shows it as it lies there. */
static inline const char *check_take_result(void)
{
    static char path[200];
    char *given = getenv("LOGSHIP_RESULT"), *word;

    if (given == NULL)
        return NULL;
    word = strchr(given, ' ');
    if (word != NULL) {
        snprintf(check_word, sizeof check_word, "%s", word + 1);
        *word = '\0';
        memset(word + 1, 'x', strlen(word + 1));
    }
    snprintf(path, sizeof path, "%s", given);
    memset(given, 'x', strlen(given));
    unsetenv("LOGSHIP_RESULT");
    return path;
}

static inline void check_pass(void)
{
    char line[100];

    snprintf(line, sizeof line, "PASS%s%s\n", check_word[0] == '\0' ? "" : "\t", check_word);
    check_verdict(line);
}

static inline int check_main(int argc, char **argv, const struct check *checks, size_t count)
{
    const char *path = check_take_result();

    if (argc != 2) {
        fprintf(stderr, "usage: %s --list | ID\n", argv[0]);
        return 2;
    }
    for (size_t i = 0; i < count; i++) {
        const struct check *c = &checks[i];

        if (strcmp(argv[1], "--list") == 0) {
            printf("%s\t%s\t%s\t%s\t%d\t%s\t%s\n", c->id, c->requirement, c->lesson, c->files, c->seconds, c->title,
                   c->line);
        } else if (strcmp(argv[1], c->id) == 0) {
            check_result_fd = path == NULL ? dup(STDERR_FILENO)
                                           : open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
            if (check_result_fd < 0) {
                perror(path);
                return 2;
            }
            /* Out of the way of a student's code that closes or counts low numbers. */
            int high = fcntl(check_result_fd, F_DUPFD_CLOEXEC, 200);
            if (high >= 0) {
                close(check_result_fd);
                check_result_fd = high;
            }
#ifdef CHECK_PREPARE
            CHECK_PREPARE();
#endif
            c->run();
            check_pass();
            /* The descriptor goes too, so that a tool that counts open descriptors at exit finds only the student's. */
            close(check_result_fd);
            return 0;
        }
    }
    if (strcmp(argv[1], "--list") == 0)
        return 0;
    fprintf(stderr, "%s: no check %s\n", argv[0], argv[1]);
    return 2;
}

#define CHECK_MAIN(table)                                                            \
    int main(int argc, char **argv)                                                  \
    {                                                                                \
        return check_main(argc, argv, (table), sizeof(table) / sizeof((table)[0]));  \
    }

#endif
