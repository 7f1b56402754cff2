/* Of a correct tree in another hand than plain_c. The store: FNV-1a, a mutex, a count. */
#include "kv_store.h"
#include <stdlib.h>
#include <string.h>
static size_t h(const char *k, size_t n)
{
    uint64_t x = 1469598103934665603ull;
    while (*k)
        x = (x ^ (unsigned char) *k++) * 1099511628211ull;
    return x % n;
}

int kv_store_init(struct kv_store *s, int n)
{
    s->num_buckets = n > 0 ? (size_t) n : 64;
    s->count = 0;
    s->buckets = calloc(s->num_buckets, sizeof *s->buckets);
    pthread_mutex_init(&s->mu, NULL);
    return s->buckets ? 0 : -1;
}

static struct kv_entry *find(struct kv_store *s, const char *k)
{
    for (struct kv_entry * e = s->buckets[h(k, s->num_buckets)]; e; e = e->next)
        if (!strcmp(e->key, k))
            return e;
    return NULL;
}

int kv_store_set(struct kv_store *s, const char *k, const char *v)
{
    struct kv_entry *e = find(s, k);
    if (e) {
        char *c = strdup(v);
        if (!c)
            return -1;
        free(e->value);
        e->value = c;
        return 0;
    }
    e = calloc(1, sizeof *e);
    if (!e)
        return -1;
    e->key = strdup(k);
    e->value = strdup(v);
    size_t b = h(k, s->num_buckets);
    e->next = s->buckets[b];
    s->buckets[b] = e;
    s->count++;
    return 0;
}

const char *kv_store_get(struct kv_store *s, const char *k)
{
    struct kv_entry *e = find(s, k);
    return e ? e->value : NULL;
}

int kv_store_del(struct kv_store *s, const char *k)
{
    for (struct kv_entry ** p = &s->buckets[h(k, s->num_buckets)]; *p; p = &(*p)->next)
        if (!strcmp((*p)->key, k)) {
            struct kv_entry *e = *p;
            *p = e->next;
            free(e->key);
            free(e->value);
            free(e);
            s->count--;
            return 1;
        }
    return 0;
}

void kv_store_destroy(struct kv_store *s)
{
    for (size_t i = 0; i < s->num_buckets; i++)
        while (s->buckets[i]) {
            struct kv_entry *e = s->buckets[i];
            s->buckets[i] = e->next;
            free(e->key);
            free(e->value);
            free(e);
        }
    free(s->buckets);
    s->buckets = NULL;
    s->num_buckets = 0;
    pthread_mutex_destroy(&s->mu);
}
