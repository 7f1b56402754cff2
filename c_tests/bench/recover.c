/*
 * Recovery of a log of distinct keys, which the page cache holds, into a new store. `recover` has malloc's memory
 * touched before; `recover_cold` is a process that has just begun, as after a restart.
 */
#define _GNU_SOURCE
#include "bench.h"

#include <unistd.h>

#include "w09/kv_store.h"
#include "w10/wal_recovery.h"

static void recover(const char *name, int value_len)
{
    int count = bench_records();
    struct kv_store store;
    double start;

    write_log("recover.wal", count, value_len);
    warm_machine((size_t)count * 512);
    start = now_s();
    MUST(kv_store_init(&store) == 0);
    MUST(wal_recover("recover.wal", &store) == count);
    emit(name, count / (now_s() - start) / 1e6, "M/s");
    MUST(kv_store_count(&store) == count);
    kv_store_destroy(&store);
    MUST(unlink("recover.wal") == 0);
}

void bench_recover(void)
{
    touch_heap((size_t)bench_records() * 320);
    recover("recover.16B", SMALL_VALUE);
    recover("recover.100B", LARGE_VALUE);
}

void bench_recover_cold(void)
{
    recover("recover_cold.16B", SMALL_VALUE);
}
