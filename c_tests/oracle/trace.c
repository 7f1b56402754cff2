/* What a body saw, as lines of text, and how two of those are compared. */
#include "oracle.h"

#include <dirent.h>
#include <errno.h>
#include <glob.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../own/bytes.h"

enum { BYTES_SHOWN = 96, LINES_BEFORE = 6 };

void require_failed(const char *what, const char *file, int line)
{
    printf("    %s:%d: the oracle's own: %s [errno %d %s]\n", file, line, what, errno, strerror(errno));
    fflush(stdout);
    _exit(1);
}

void rng_fill(struct rng *rng, void *bytes, size_t len)
{
    uint8_t *out = bytes;

    for (size_t i = 0; i < len; i++)
        out[i] = (uint8_t)(rng_next(rng) >> 40);
}

void trace_say(struct trace *trace, const char *format, ...)
{
    va_list arguments;
    char *line = NULL;

    if (trace->count == trace->room) {
        trace->room = trace->room == 0 ? 256 : 2 * trace->room;
        trace->lines = realloc(trace->lines, trace->room * sizeof *trace->lines);
        REQUIRE_THAT(trace->lines != NULL);
    }
    va_start(arguments, format);
    REQUIRE_THAT(vasprintf(&line, format, arguments) >= 0);
    va_end(arguments);
    trace->lines[trace->count++] = line;
}

void trace_result(struct trace *trace, const char *call, long long result, int error)
{
    if (result < 0)
        trace_say(trace, "%s = %lld %s", call, result, strerrorname_np(error) ? strerrorname_np(error) : "no errno");
    else
        trace_say(trace, "%s = %lld", call, result);
}

/* Short ones in full; of long ones a checksum tells that they differ, and the beginning often where. */
void trace_bytes(struct trace *trace, const char *what, const void *bytes, size_t len)
{
    const uint8_t *in = bytes;
    char hex[2 * BYTES_SHOWN + 1];
    size_t shown = len < BYTES_SHOWN ? len : BYTES_SHOWN;
    uint64_t hash = 0xcbf29ce484222325; /* FNV-1a */

    for (size_t i = 0; i < shown; i++)
        sprintf(hex + 2 * i, "%02x", in[i]);
    hex[2 * shown] = '\0';
    for (size_t i = 0; i < len; i++)
        hash = (hash ^ in[i]) * 0x100000001b3;
    trace_say(trace, "%s: %zu bytes %s, in all %016llx", what, len, hex, (unsigned long long)hash);
}

void trace_file(struct trace *trace, const char *path)
{
    long long size = own_file_size(path);
    uint8_t *bytes;

    if (size < 0) {
        trace_say(trace, "%s: no file", path);
        return;
    }
    bytes = malloc((size_t)size + 1);
    REQUIRE_THAT(bytes != NULL && own_read_file(path, bytes, (size_t)size + 1) == size);
    trace_bytes(trace, path, bytes, (size_t)size);
    free(bytes);
}

int remove_stamps(void)
{
    glob_t found;
    int removed = 0;

    if (glob("*.stamps-*", 0, NULL, &found) != 0)
        return 0;
    for (size_t i = 0; i < found.gl_pathc; i++)
        removed += unlink(found.gl_pathv[i]) == 0;
    globfree(&found);
    return removed;
}

void trace_directory(struct trace *trace)
{
    struct dirent **names;
    int count = scandir(".", &names, NULL, alphasort);

    REQUIRE_THAT(count >= 0);
    for (int i = 0; i < count; i++) {
        if (strstr(names[i]->d_name, ".stamps-") != NULL)
            let_through(STAMPS_FILE);
        else if (names[i]->d_name[0] != '.')
            trace_say(trace, "file %s", names[i]->d_name);
        free(names[i]);
    }
    free(names);
}

void trace_record(struct trace *trace, const struct wal_record *record)
{
    trace_say(trace, "record op=%u key_len=%u value_len=%u crc=%08x timestamp=%llu", record->op, record->key_len,
              record->value_len, record->crc, (unsigned long long)record->timestamp);
    /* With the NUL behind them. */
    if (record->key != NULL)
        trace_bytes(trace, "key", record->key, record->key_len + 1u);
    if (record->value != NULL)
        trace_bytes(trace, "value", record->value, record->value_len + 1u);
}

static int by_key(const void *one, const void *two)
{
    const struct kv_entry *const *a = one, *const *b = two;

    return strcmp((*a)->key, (*b)->key);
}

void trace_store(struct trace *trace, const struct library *lib, const struct kv_store *store, int with_timestamps)
{
    int room = lib->kv_store_count(store), count = 0;
    const struct kv_entry **entries;

    trace_say(trace, "store: count %d", room);
    if (room < 0 || store->buckets == NULL)
        return;
    entries = calloc((size_t)room + 1, sizeof(*entries));
    REQUIRE_THAT(entries != NULL);
    for (int i = 0; i < store->num_buckets; i++) {
        for (const struct kv_entry *entry = store->buckets[i]; entry != NULL; entry = entry->next) {
            if (lib->kv_hash(entry->key, store->num_buckets) != (unsigned)i)
                trace_say(trace, "%s: the key %s is in another bucket than its own", lib->name, entry->key);
            if (count < room)
                entries[count] = entry;
            count++;
        }
    }
    if (count != room)
        trace_say(trace, "%s: %d entries, but count says %d", lib->name, count, room);
    else if (count > 0)
        qsort(entries, (size_t)count, sizeof(*entries), by_key);
    for (int i = 0; count == room && i < count; i++) {
        if (i > 0 && strcmp(entries[i]->key, entries[i - 1]->key) == 0)
            trace_say(trace, "%s: the key %s twice", lib->name, entries[i]->key);
        if (with_timestamps)
            trace_say(trace, "entry %s at %llu", entries[i]->key, (unsigned long long)entries[i]->last_write_ts);
        else
            trace_say(trace, "entry %s", entries[i]->key);
        trace_bytes(trace, "value", entries[i]->value, strlen(entries[i]->value));
    }
    free(entries);
}

void trace_clear(struct trace *trace)
{
    for (size_t i = 0; i < trace->count; i++)
        free(trace->lines[i]);
    free(trace->lines);
    *trace = (struct trace){0};
}

int traces_agree(const struct trace *logship, const struct trace *plain)
{
    size_t shorter = logship->count < plain->count ? logship->count : plain->count, at = 0;

    while (at < shorter && strcmp(logship->lines[at], plain->lines[at]) == 0)
        at++;
    if (at == logship->count && at == plain->count)
        return 1;
    for (size_t i = at > LINES_BEFORE ? at - LINES_BEFORE : 0; i < at; i++)
        printf("    both     %.300s\n", logship->lines[i]);
    printf("    logship  %.300s\n", at < logship->count ? logship->lines[at] : "(its trace ends)");
    printf("    plain C  %.300s\n", at < plain->count ? plain->lines[at] : "(its trace ends)");
    fflush(stdout);
    return 0;
}
