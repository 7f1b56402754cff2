/* Of a correct tree in another hand than plain_c. Recovery by stdio. */
#include "wal_recovery.h"
#include "wal_record.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static int apply(struct kv_store *s, const struct wal_record *r)
{
    char *k = strndup(r->key, r->key_len);
    int rc = 0;
    if (r->op == WAL_OP_DEL)
        kv_store_del(s, k);
    else {
        char *v = strndup(r->value, r->value_len);
        rc = kv_store_set(s, k, v);
        free(v);
    }
    free(k);
    return rc;
}

long wal_replay_from(const char *path, uint64_t offset, struct kv_store *s)
{
    FILE *f = fopen(path, "rb");
    long n = 0;
    uint8_t head[8];
    if (!f)
        return -1;
    fseek(f, 0, SEEK_END);
    long size = ftell(f);
    fseek(f, (long) offset, SEEK_SET);
    while (fread(head, 1, 8, f) == 8) {
        uint32_t len = head[4] | head[5] << 8 | head[6] << 16 | (uint32_t) head[7] << 24;
        struct wal_record r;
        if (len < 21 || len > 140000 || (long) len - 8 > size - ftell(f))
            break;
        uint8_t *b = malloc(len);
        memcpy(b, head, 8);
        if (fread(b + 8, 1, len - 8, f) != len - 8 || wal_record_decode(b, len, &r) < 0) {
            free(b);
            break;
        }
        apply(s, &r);
        free(b);
        n++;
    }
    fclose(f);
    return n;
}

int wal_recover(const char *path, struct kv_store *s)
{
    return (int) wal_replay_from(path, 0, s);
}
