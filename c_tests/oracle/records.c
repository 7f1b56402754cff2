/* Where the bodies get their records from.
 *
 * logship remembers deleted keys, plain C does not (TOMBSTONES): a SET that is older than a DEL before it stays
 * without effect in one and revives the key in the other. So a key that was deleted is set again only with a
 * timestamp not below the highest of its deletes. Everything else is drawn freely: equal timestamps, older ones,
 * ones of 0, values that hold a whole record. */
#include "oracle.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "../own/bytes.h"

void source_begin(struct source *source, struct rng *rng, enum stamps stamps)
{
    memset(source, 0, sizeof *source);
    source->rng = rng;
    source->stamps = stamps;
    source->now = 1000;
}

static uint64_t next_stamp(struct source *source, int key, int is_set)
{
    uint64_t stamp;

    if (source->stamps == STAMPS_NONE)
        return 0;
    if (source->stamps == STAMPS_RISING)
        return ++source->now;
    switch (rng_below(source->rng, 8)) {
    case 0:
        stamp = 0;
        break;
    case 1:
    case 2:
        stamp = source->now;
        break;
    case 3:
        stamp = source->now - rng_below(source->rng, 20);
        break;
    default:
        source->now += 1 + rng_below(source->rng, 10);
        stamp = source->now;
    }
    if (is_set && source->deleted[key] && stamp < source->deleted_at[key]) {
        let_through(TOMBSTONES);
        stamp = source->deleted_at[key];
    }
    if (!is_set) {
        source->deleted[key] = 1;
        if (stamp > source->deleted_at[key])
            source->deleted_at[key] = stamp;
    }
    return stamp;
}

/* No NUL inside: the store's values are C strings. */
static uint16_t fill_text(struct rng *rng, char *out, size_t len)
{
    static const char letters[] = "abcxyz \xff\x80\x7f\x01";

    for (size_t i = 0; i < len; i++)
        out[i] = letters[rng_below(rng, sizeof letters - 1)];
    out[len] = '\0';
    return (uint16_t)len;
}

static uint16_t next_value(struct source *source)
{
    switch (rng_below(source->rng, 12)) {
    case 0:
        return fill_text(source->rng, source->value, 0);
    case 1:
        return fill_text(source->rng, source->value, rng_below(source->rng, sizeof source->value - 1));
    case 2:
    case 3:
        /* Few different ones, so that equal timestamps meet equal values. */
        return fill_text(source->rng, source->value, 1);
    default:
        return fill_text(source->rng, source->value, rng_below(source->rng, 40));
    }
}

struct wal_record source_next(struct source *source)
{
    int key = (int)rng_below(source->rng, SOURCE_KEYS);
    int is_set = rng_below(source->rng, 4) != 0;
    struct wal_record record = {.op = is_set ? WAL_OP_SET : WAL_OP_DEL, .key = source->key, .value = source->value};

    record.key_len = (uint16_t)snprintf(source->key, sizeof source->key, "key-%d%s", key, key % 3 ? "" : "\xc3\xa9");
    source->value[0] = '\0';
    if (is_set)
        record.value_len = next_value(source);
    record.timestamp = next_stamp(source, key, is_set);
    return record;
}

size_t source_encoded(struct source *source, uint8_t *buffer)
{
    struct wal_record record = source_next(source);

    return own_encode(buffer, record.op, record.key, record.key_len, record.value, record.value_len,
                      record.timestamp, 1);
}
