/*
 * W09 L01: SET, GET and DEL of the key-value store.
 */
#define _GNU_SOURCE
#include <stdio.h>

#include "../test_util.h"
#include "w09/kv_store.h"

static void set_and_print(struct kv_store *store, const char *key, const char *value)
{
    CHECK_EQ(kv_store_set(store, key, value), 0);
    printf("SET %s=%s → ok\n", key, value);
}

static void get_and_print(const struct kv_store *store, const char *key, const char *expected)
{
    const char *value = kv_store_get(store, key);

    printf("GET %s → %s\n", key, value == NULL ? "(nil)" : value);
    if (expected == NULL)
        CHECK(value == NULL);
    else
        CHECK_STR(value, expected);
}

static void del_and_print(struct kv_store *store, const char *key, int expected)
{
    int found = kv_store_del(store, key);

    printf("DEL %s → %d\n", key, found);
    CHECK_EQ(found, expected);
}

int main(void)
{
    struct kv_store store;

    alarm(TEST_DEADLINE_S); /* a chain that bites its own tail has no end */
    CHECK_EQ(kv_store_init(&store), 0);
    set_and_print(&store, "foo", "bar");
    set_and_print(&store, "name", "alice");
    set_and_print(&store, "count", "42");
    get_and_print(&store, "foo", "bar");
    get_and_print(&store, "name", "alice");
    get_and_print(&store, "count", "42");
    del_and_print(&store, "name", 1);
    get_and_print(&store, "name", NULL);
    kv_store_destroy(&store);
    return 0;
}
