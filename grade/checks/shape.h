/* How the judged tree reads what the lessons leave open. `logship grade` compiles a few lines against the submission's
 * headers and hands on what it found as macros, with -include; without it these are logship's own headers.
 *
 *   GRADE_STORE_WALK, GRADE_RECORD_TIMESTAMP, GRADE_WRITER_FD, GRADE_WRITER_OFFSET, GRADE_NODE_HOST, GRADE_ACK: the
 *       lessons' fields are there, under the lessons' names
 *   GRADE_INIT_TWO, GRADE_INIT_RETURNS, GRADE_CLOSE_RETURNS, GRADE_WAL_OPEN_PATH, GRADE_WAL_OPEN_SWAPPED,
 *   GRADE_RECOVER_SWAPPED, GRADE_LISTEN_NODE, GRADE_LISTEN_PORT, GRADE_CONFIG_INIT, GRADE_SEND_ACK_STRUCT: the form of a
 *       function
 *   GRADE_CATCH_UP_3, _PATH_LAST, _PATH_SECOND, _WRITER_LAST: what repl_catch_up is given
 *   GRADE_WAL_TEXT, GRADE_WAL_WRITER_POINTER, GRADE_WAL_WRITER, GRADE_WAL_FD: a field of the configuration that says
 *       where the leader's log is, as an expression over `config`
 *   GRADE_FOLLOWERS_POINTER: config->followers is a pointer, not an array
 *   GRADE_NAMES_CONFLICT, GRADE_NAMES_CRC: the headers have APPLY and SKIP, CRC_MISMATCH
 *   GRADE_HAS_f: the tree has the function f, which no lesson insists on; GRADE_DECLARES_f: its headers say so
 *
 * What only a run can show comes in LOGSHIP_SHAPE: words parted by blanks. `ack=SIZE,LSN_AT,ORDER,STATUS_AT`, ORDER l or
 * b, STATUS_AT -1 if there is none; `recover=status` if wal_recover does not count. */
#ifndef LOGSHIP_CHECK_SHAPE_H
#define LOGSHIP_CHECK_SHAPE_H

#ifndef GRADE_SHAPED
#define GRADE_STORE_WALK 1
#define GRADE_RECORD_TIMESTAMP 1
#define GRADE_WRITER_FD 1
#define GRADE_WRITER_OFFSET 1
#define GRADE_NODE_HOST 1
#define GRADE_ACK 1
#define GRADE_INIT_RETURNS 1
#define GRADE_CLOSE_RETURNS 1
#define GRADE_LISTEN_NODE 1
#define GRADE_CONFIG_INIT 1
#define GRADE_CATCH_UP_3 1
#define GRADE_NAMES_CONFLICT 1
#define GRADE_NAMES_CRC 1
#define GRADE_HAS_wal_record_free 1
#define GRADE_DECLARES_wal_record_free 1
#define GRADE_HAS_send_full 1
#define GRADE_DECLARES_send_full 1
#define GRADE_HAS_recv_full 1
#define GRADE_DECLARES_recv_full 1
#define GRADE_HAS_repl_accept 1
#define GRADE_DECLARES_repl_accept 1
#define GRADE_HAS_repl_send_ack 1
#define GRADE_DECLARES_repl_send_ack 1
#define GRADE_HAS_repl_recv_ack 1
#define GRADE_DECLARES_repl_recv_ack 1
#define GRADE_HAS_crc32_init 1
#define GRADE_DECLARES_crc32_init 1
#endif

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The value of a word of LOGSHIP_SHAPE, or NULL. */
static inline const char *shape_word(const char *name)
{
    const char *at = getenv("LOGSHIP_SHAPE");
    size_t len = strlen(name);

    while (at != NULL && *at != '\0') {
        if (strncmp(at, name, len) == 0 && at[len] == '=')
            return at + len + 1;
        at = strchr(at, ' ');
        at = at == NULL ? NULL : at + 1;
    }
    return NULL;
}

/* The bytes of an ack. */
struct shape_ack {
    int size, lsn_at, status_at;
    char order; /* 'l' little-endian, 'b' big-endian */
};

static inline struct shape_ack shape_ack(void)
{
    struct shape_ack ack = { .size = 16, .lsn_at = 0, .status_at = 8, .order = 'l' };
    const char *word = shape_word("ack");

    if (word != NULL)
        sscanf(word, "%d,%d,%c,%d", &ack.size, &ack.lsn_at, &ack.order, &ack.status_at);
    return ack;
}

/* Does the tree's wal_recover say how many records it has replayed, or only that it went well? */
static inline int shape_recover_counts(void)
{
    const char *word = shape_word("recover");

    return word == NULL || strncmp(word, "status", 6) != 0;
}

/* Is this field a pointer to char, or an array that holds the text itself? */
#define SHAPE_IS_POINTER(field)                                  \
    (__builtin_types_compatible_p(__typeof__(field), char *) || \
     __builtin_types_compatible_p(__typeof__(field), const char *))

/* Sets such a field; a text that it points to must outlive it. */
#define SHAPE_SET_TEXT(field, text)                                           \
    do {                                                                      \
        const char *shape_text = (text);                                      \
        if (SHAPE_IS_POINTER(field))                                          \
            memcpy((void *)&(field), (void *)&shape_text, sizeof shape_text); \
        else                                                                  \
            snprintf((char *)(void *)&(field), sizeof(field), "%s", shape_text); \
    } while (0)

#endif
