/* The store of W09: what a program sees through the calls, and what a walk over the buckets shows. */
#define _GNU_SOURCE
#include "course.h"

enum { MANY = 1000 };

/* The lesson's own test does this after every step. kv_hash is not called: a student's hash may have another name, so
 * the right bucket is the one where get finds the key. */
static void check_walk(const struct kv_store *store, int keys, const char *when)
{
#ifndef GRADE_STORE_WALK
    (void)store;
    (void)keys;
    (void)when;
    check_note("struct kv_store has other fields than the lesson's walk over the buckets takes: it is not walked");
#else
    int seen = 0;

    EXPECT(store->buckets != NULL && store->num_buckets > 0, when, "a table with buckets", "%d buckets at %s",
           (int)store->num_buckets, store->buckets == NULL ? "NULL" : "an address");
    for (int i = 0; i < (int)store->num_buckets; i++) {
        for (const struct kv_entry *entry = store->buckets[i]; entry != NULL; entry = entry->next) {
            EXPECT(++seen <= keys, when, "no more entries in the buckets than keys were set", "%d or more", seen);
            EXPECT(entry->key != NULL && entry->value != NULL, when, "key and value are not NULL", "bucket %d has NULL",
                   i);
            for (const struct kv_entry *other = entry->next; other != NULL; other = other->next)
                EXPECT(strcmp(entry->key, other->key) != 0, when, "each key once", "key %s twice in bucket %d",
                       entry->key, i);
            EXPECT(kv_store_get(CHECK_STORE(store), entry->key) != NULL &&
                       strcmp(kv_store_get(CHECK_STORE(store), entry->key), entry->value) == 0,
                   when, "GET finds the entry that is in the buckets", "not for key %s of bucket %d", entry->key, i);
        }
    }
    EXPECT_INT(keys, seen, when);
#endif
}

static void set(struct kv_store *store, const char *key, const char *value)
{
    char text[100];

    snprintf(text, sizeof text, "what kv_store_set returns for %.40s", key);
    EXPECT(kv_store_set(store, key, value) >= 0, text, "0", "a negative number");
}

static void set_get_basic(void)
{
    struct kv_store store;

    EXPECT_INT(0, CHECK_STORE_INIT(&store), "what kv_store_init returns");
    check_walk(&store, 0, "the empty store");
    set(&store, "foo", "bar");
    set(&store, "name", "alice");
    set(&store, "count", "42");
    set(&store, "empty", "");
    check_walk(&store, 4, "after SET of four keys");
    EXPECT_STRING("bar", kv_store_get(&store, "foo"), "GET foo");
    EXPECT_STRING("alice", kv_store_get(&store, "name"), "GET name");
    EXPECT_STRING("42", kv_store_get(&store, "count"), "GET count");
    EXPECT_STRING("", kv_store_get(&store, "empty"), "GET of a key with an empty value");
    kv_store_destroy(&store);
}

static void get_missing(void)
{
    struct kv_store store;

    EXPECT_INT(0, CHECK_STORE_INIT(&store), "what kv_store_init returns");
    EXPECT_STRING(NULL, kv_store_get(&store, "foo"), "GET in an empty store");
    set(&store, "foo", "bar");
    EXPECT_STRING(NULL, kv_store_get(&store, "fo"), "GET of a beginning of a key");
    EXPECT_STRING(NULL, kv_store_get(&store, "fooo"), "GET of a longer key");
    EXPECT_STRING(NULL, kv_store_get(&store, "Foo"), "GET of a key in other letters");
    kv_store_destroy(&store);
}

static void overwrite(void)
{
    struct kv_store store;

    EXPECT_INT(0, CHECK_STORE_INIT(&store), "what kv_store_init returns");
    set(&store, "foo", "bar");
    set(&store, "foo", "a longer value than the one before");
    EXPECT_STRING("a longer value than the one before", kv_store_get(&store, "foo"), "GET after a second SET");
    check_walk(&store, 1, "entries after two SETs of one key");
    set(&store, "foo", "z");
    EXPECT_STRING("z", kv_store_get(&store, "foo"), "GET after a third SET");
    check_walk(&store, 1, "entries after three SETs of one key");
    EXPECT_INT(1, kv_store_del(&store, "foo"), "what DEL returns");
    EXPECT_STRING(NULL, kv_store_get(&store, "foo"), "GET after DEL of a key that was SET three times");
    kv_store_destroy(&store);
}

static void del_existing(void)
{
    struct kv_store store;

    EXPECT_INT(0, CHECK_STORE_INIT(&store), "what kv_store_init returns");
    set(&store, "foo", "bar");
    set(&store, "name", "alice");
    EXPECT_INT(1, kv_store_del(&store, "name"), "what DEL of a key that is there returns");
    EXPECT_STRING(NULL, kv_store_get(&store, "name"), "GET of a deleted key");
    EXPECT_STRING("bar", kv_store_get(&store, "foo"), "GET of another key");
    check_walk(&store, 1, "after DEL");
    set(&store, "name", "bob");
    EXPECT_STRING("bob", kv_store_get(&store, "name"), "GET of a key that was deleted and SET again");
    check_walk(&store, 2, "after SET of a deleted key");
    kv_store_destroy(&store);
}

static void del_missing(void)
{
    struct kv_store store;

    EXPECT_INT(0, CHECK_STORE_INIT(&store), "what kv_store_init returns");
    EXPECT_INT(0, kv_store_del(&store, "foo"), "what DEL in an empty store returns");
    set(&store, "foo", "bar");
    EXPECT_INT(0, kv_store_del(&store, "name"), "what DEL of a key that is not there returns");
    check_walk(&store, 1, "after DEL of a missing key");
    EXPECT_INT(1, kv_store_del(&store, "foo"), "what the first DEL returns");
    EXPECT_INT(0, kv_store_del(&store, "foo"), "what a second DEL of the same key returns");
    check_walk(&store, 0, "after both DELs");
    kv_store_destroy(&store);
}

static void copies(void)
{
    char key[] = "foo", value[] = "bar";
    struct kv_store store;

    EXPECT_INT(0, CHECK_STORE_INIT(&store), "what kv_store_init returns");
    set(&store, key, value);
    memset(key, 'x', 3);
    memset(value, 'y', 3);
    EXPECT_STRING("bar", kv_store_get(&store, "foo"), "GET after the caller's own strings have changed");
    EXPECT_STRING(NULL, kv_store_get(&store, "xxx"), "GET of what the caller's key has become");
    kv_store_destroy(&store);
}

static const char *key_name(int i)
{
    static char name[32];

    snprintf(name, sizeof name, "key-%d", i);
    return name;
}

static void fill(struct kv_store *store)
{
    char value[32];

    for (int i = 0; i < MANY; i++) {
        snprintf(value, sizeof value, "value-%d", i);
        set(store, key_name(i), value);
    }
}

static void expect_key(const struct kv_store *store, int i, int there, const char *when)
{
    char value[32], text[120];

    snprintf(value, sizeof value, "value-%d", i);
    snprintf(text, sizeof text, "GET %s %s", key_name(i), when);
    EXPECT_STRING(there ? value : NULL, kv_store_get(CHECK_STORE(store), key_name(i)), text);
}

static void many_keys(void)
{
    struct kv_store store;

    EXPECT_INT(0, CHECK_STORE_INIT(&store), "what kv_store_init returns");
    fill(&store);
    check_walk(&store, MANY, "entries after SET of 1000 keys");
    for (int i = 0; i < MANY; i += 2)
        EXPECT_INT(1, kv_store_del(&store, key_name(i)), "what DEL of one of 1000 keys returns");
    check_walk(&store, MANY / 2, "entries after every other key was deleted");
    for (int i = 0; i < MANY; i++)
        expect_key(&store, i, i % 2 == 1, "after every other key was deleted");
    kv_store_destroy(&store);
}

#ifdef GRADE_STORE_WALK

/* The longest chain of the table: with a thousand keys there is one, whatever the hash. */
static const struct kv_entry *longest_chain(const struct kv_store *store, int *length)
{
    const struct kv_entry *longest = NULL;

    *length = 0;
    for (int i = 0; i < (int)store->num_buckets; i++) {
        int n = 0;

        for (const struct kv_entry *entry = store->buckets[i]; entry != NULL; entry = entry->next)
            n++;
        if (n > *length) {
            *length = n;
            longest = store->buckets[i];
        }
    }
    return longest;
}

/* Deletes the entry at `place` of the longest chain; all others must stay. */
static void del_in_chain(int place_from_end, int place, const char *which)
{
    char gone[64], text[120];
    struct kv_store store;
    const struct kv_entry *entry;
    int length;

    EXPECT_INT(0, CHECK_STORE_INIT(&store), "what kv_store_init returns");
    fill(&store);
    entry = longest_chain(&store, &length);
    if (length <= place) { /* a table that grows may have no such chain */
        kv_store_destroy(&store);
        return;
    }
    for (int i = place_from_end ? length - 1 - place : place; i > 0; i--)
        entry = entry->next;
    snprintf(gone, sizeof gone, "%s", entry->key);
    snprintf(text, sizeof text, "after DEL of the %s of %d keys of one bucket", which, length);
    EXPECT_INT(1, kv_store_del(&store, gone), text);
    for (int i = 0; i < MANY; i++)
        expect_key(&store, i, strcmp(key_name(i), gone) != 0, text);
    check_walk(&store, MANY - 1, text);
    kv_store_destroy(&store);
}

static void collision(void)
{
    del_in_chain(0, 0, "first");
    del_in_chain(0, 1, "second");
    del_in_chain(1, 0, "last");
}

#else

static void collision(void)
{
    many_keys();
}

#endif

static void two_stores(void)
{
    struct kv_store first, second;

    EXPECT_INT(0, CHECK_STORE_INIT(&first), "what kv_store_init returns");
    EXPECT_INT(0, CHECK_STORE_INIT(&second), "what a second kv_store_init returns");
    set(&first, "foo", "bar");
    EXPECT_STRING(NULL, kv_store_get(&second, "foo"), "GET in the other store");
    kv_store_destroy(&second);
    EXPECT_STRING("bar", kv_store_get(&first, "foo"), "GET after the other store was destroyed");
    kv_store_destroy(&first);
    EXPECT_INT(0, CHECK_STORE_INIT(&first), "what kv_store_init returns for a store that was destroyed");
    check_walk(&first, 0, "a store made anew");
    kv_store_destroy(&first);
}

static const struct check checks[] = {
    { "store_set_get", "W09", "w09-l01", "kv_store.c", 5, "SET and GET", "SET foo=bar, then GET foo gives bar.",
      set_get_basic },
    { "store_get_missing", "W09", "w09-l01", "kv_store.c", 5, "GET of a missing key",
      "GET of a key that is not there gives NULL.", get_missing },
    { "store_overwrite", "W09", "w09-l03", "kv_store.c", 5, "SET twice",
      "A second SET replaces the value; no key is there twice.", overwrite },
    { "store_del", "W09", "w09-l01", "kv_store.c", 5, "DEL", "DEL returns 1 and the key is gone.", del_existing },
    { "store_del_missing", "W09", "w09-l03", "kv_store.c", 5, "DEL of a missing key",
      "DEL of a key that is not there returns 0 and changes nothing.", del_missing },
    { "store_copies", "W09", "w09-l01", "kv_store.c", 5, "the store has copies",
      "The store keeps copies of key and value.", copies },
    { "store_many_keys", "W09", "w09-l03", "kv_store.c", 10, "1000 keys",
      "1000 keys, every other one deleted: the rest is there.", many_keys },
    { "store_collision", "W09", "w09-l03", "kv_store.c", 10, "keys of one bucket",
      "Keys of one bucket stay apart, also when one of them is deleted.", collision },
    { "store_two_stores", "W09", "w09-l01", "kv_store.c", 5, "two stores, destroyed",
      "Stores share nothing; destroy releases one, which can be made anew.", two_stores },
};

CHECK_MAIN(checks)
