/* Of a correct tree in another hand than plain_c. Checkpoints by stdio, written in their place. */
#include "wal_checkpoint.h"
#include "wal_recovery.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static void p(FILE * f, uint64_t v, int n)
{
    while (n--) {
        fputc((int) (v & 255), f);
        v >>= 8;
}}

static int g(FILE * f, uint64_t * v, int n)
{
    *v = 0;
    for (int i = 0; i < n; i++) {
        int c = fgetc(f);
        if (c == EOF)
            return -1;
        *v |= (uint64_t) c << (8 * i);
    }
    return 0;
}

int wal_checkpoint_write(struct kv_store *s, const char *path, uint64_t off)
{
    FILE *f = fopen(path, "wb");
    if (!f)
        return -1;
    fwrite("CKPT", 1, 4, f);
    p(f, off, 8);
    p(f, s->count, 4);
    for (size_t i = 0; i < s->num_buckets; i++)
        for (struct kv_entry * e = s->buckets[i]; e; e = e->next) {
            size_t k = strlen(e->key), v = strlen(e->value);
            p(f, k, 2);
            fwrite(e->key, 1, k, f);
            p(f, v, 2);
            fwrite(e->value, 1, v, f);
        }
    if (fflush(f) || fsync(fileno(f))) {
        fclose(f);
        return -1;
    }
    return fclose(f) ? -1 : 0;
}

static char *str(FILE * f)
{
    uint64_t n;
    if (g(f, &n, 2))
        return NULL;
    char *s = calloc(1, n + 1);
    if (fread(s, 1, n, f) != n) {
        free(s);
        return NULL;
    }
    return s;
}

int wal_checkpoint_load(const char *path, struct kv_store *s, uint64_t * off)
{
    FILE *f = fopen(path, "rb");
    char m[4];
    uint64_t n;
    if (!f)
        return -1;
    if (fread(m, 1, 4, f) != 4 || memcmp(m, "CKPT", 4) || g(f, off, 8) || g(f, &n, 4)) {
        fclose(f);
        return -1;
    }
    while (n--) {
        char *k = str(f), *v = k ? str(f) : NULL;
        if (!v) {
            free(k);
            fclose(f);
            return -1;
        }
        kv_store_set(s, k, v);
        free(k);
        free(v);
    }
    fclose(f);
    return 0;
}

int wal_recover_with_checkpoint(const char *w, const char *c, struct kv_store *s)
{
    uint64_t off = 0;
    if (wal_checkpoint_load(c, s, &off))
        off = 0;
    return (int) wal_replay_from(w, off, s);
}
