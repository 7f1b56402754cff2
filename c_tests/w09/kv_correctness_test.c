/*
 * W09 L03: the store keeps its promises. After every step the whole table is walked and checked against what a correct
 * hash table must look like, so that damage shows at the step that did it and not at some later GET.
 */
#define _GNU_SOURCE
#include <stdio.h>

#include "../test_util.h"
#include "w09/kv_store.h"

#define MANY_KEYS 1000

/* No NULL, each key in the bucket its hash gives, no key twice (equal keys have equal hashes, so only inside a bucket). */
static void check_table(const struct kv_store *store, int expected_keys)
{
    int keys = 0;

    CHECK(store->buckets != NULL && store->num_buckets > 0);
    for (int i = 0; i < store->num_buckets; i++) {
        for (const struct kv_entry *entry = store->buckets[i]; entry != NULL; entry = entry->next) {
            CHECK(entry->key != NULL && entry->value != NULL);
            CHECK_EQ(kv_hash(entry->key, store->num_buckets), i);
            for (const struct kv_entry *other = entry->next; other != NULL; other = other->next)
                CHECK(strcmp(entry->key, other->key) != 0);
            keys++;
        }
    }
    CHECK_EQ(keys, expected_keys);
}

static void set_checked(struct kv_store *store, const char *key, const char *value, int expected_keys)
{
    CHECK_EQ(kv_store_set(store, key, value), 0);
    CHECK_STR(kv_store_get(store, key), value);
    check_table(store, expected_keys);
}

static void del_checked(struct kv_store *store, const char *key, int expected_found, int expected_keys)
{
    CHECK_EQ(kv_store_del(store, key), expected_found);
    CHECK(kv_store_get(store, key) == NULL);
    check_table(store, expected_keys);
}

static void test_set_get_basic(struct kv_store *store)
{
    check_table(store, 0);
    CHECK(kv_store_get(store, "foo") == NULL);
    set_checked(store, "foo", "bar", 1);
    set_checked(store, "name", "alice", 2);
    CHECK_STR(kv_store_get(store, "foo"), "bar");
    CHECK(kv_store_get(store, "fo") == NULL);
    CHECK(kv_store_get(store, "fooo") == NULL);
}

static void test_set_overwrite(struct kv_store *store)
{
    char value[] = "third";

    set_checked(store, "foo", "first", 1);
    set_checked(store, "foo", "a second value, longer than the first", 1);
    set_checked(store, "foo", value, 1);
    /* The store keeps a copy: what the caller does to its own buffer afterwards must not show. */
    value[0] = 'T';
    CHECK_STR(kv_store_get(store, "foo"), "third");
    set_checked(store, "foo", "", 1);
}

static void test_del_existing(struct kv_store *store)
{
    set_checked(store, "foo", "bar", 1);
    set_checked(store, "name", "alice", 2);
    del_checked(store, "foo", 1, 1);
    CHECK_STR(kv_store_get(store, "name"), "alice");
    set_checked(store, "foo", "again", 2);
}

static void test_del_missing(struct kv_store *store)
{
    del_checked(store, "nothing", 0, 0);
    set_checked(store, "foo", "bar", 1);
    del_checked(store, "nothing", 0, 1);
    del_checked(store, "foo", 1, 0);
    del_checked(store, "foo", 0, 0);
}

static void test_many_keys(struct kv_store *store)
{
    char key[32], value[32];

    for (int i = 0; i < MANY_KEYS; i++) {
        snprintf(key, sizeof key, "key-%d", i);
        snprintf(value, sizeof value, "value-%d", i);
        set_checked(store, key, value, i + 1);
    }
    for (int i = 0; i < MANY_KEYS; i += 2) {
        snprintf(key, sizeof key, "key-%d", i);
        del_checked(store, key, 1, MANY_KEYS - i / 2 - 1);
    }
    for (int i = 0; i < MANY_KEYS; i++) {
        snprintf(key, sizeof key, "key-%d", i);
        snprintf(value, sizeof value, "value-%d", i);
        if (i % 2 == 0)
            CHECK(kv_store_get(store, key) == NULL);
        else
            CHECK_STR(kv_store_get(store, key), value);
    }
}

/* Any hash has two keys that share a bucket: look for them instead of trusting that two names collide. */
static void find_collision(const struct kv_store *store, char *first, char *second, size_t size)
{
    unsigned bucket;

    snprintf(first, size, "collide-0");
    bucket = kv_hash(first, store->num_buckets);
    for (int i = 1; i < 100 * store->num_buckets; i++) {
        snprintf(second, size, "collide-%d", i);
        if (kv_hash(second, store->num_buckets) == bucket)
            return;
    }
    CHECK(!"two keys of one bucket were found");
}

static void test_collision(struct kv_store *store)
{
    char first[32], second[32];

    find_collision(store, first, second, sizeof first);
    set_checked(store, first, "one", 1);
    set_checked(store, second, "two", 2);
    CHECK_EQ(kv_hash(first, store->num_buckets), kv_hash(second, store->num_buckets));
    CHECK_STR(kv_store_get(store, first), "one");
    set_checked(store, first, "uno", 2);
    CHECK_STR(kv_store_get(store, second), "two");
    del_checked(store, first, 1, 1);
    CHECK_STR(kv_store_get(store, second), "two");
    del_checked(store, second, 1, 0);
}

static void run(const char *name, void (*test)(struct kv_store *store))
{
    struct kv_store store;

    CHECK_EQ(kv_store_init(&store), 0);
    test(&store);
    kv_store_destroy(&store);
    printf("%-24sPASS\n", name);
}

int main(void)
{
    alarm(TEST_DEADLINE_S); /* a chain that bites its own tail has no end */
    run("test_set_get_basic", test_set_get_basic);
    run("test_set_overwrite", test_set_overwrite);
    run("test_del_existing", test_del_existing);
    run("test_del_missing", test_del_missing);
    run("test_many_keys", test_many_keys);
    run("test_collision", test_collision);
    return 0;
}
