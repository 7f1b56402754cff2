/* Appends that are durable when they return: one record a call, and (logship only) many records a call. */
#define _GNU_SOURCE
#include "bench.h"

#include "w10/wal_writer.h"
#ifndef PLAIN_C
#include "logship.h"
#endif

enum { SAMPLES = 1000, APPENDS = 400, BATCHES = 200 };

static struct sample samples[SAMPLES];

static void one_at_a_time(void)
{
    static double each[APPENDS];
    struct wal_writer wal;
    int probe = open_probe_file("append-probe");
    static double fsyncs[APPENDS];

    MUST(wal_open(&wal, "append.wal") == 0);
    for (int i = 0; i < APPENDS; i++) {
        double start = now_s();

        MUST(wal_append(&wal, &samples[i % SAMPLES].record) == 0);
        each[i] = now_s() - start;
        start = now_s();
        append_64_and_fsync(probe);
        fsyncs[i] = now_s() - start;
    }
    MUST(wal_close(&wal) == 0);
    emit("append.one", 1 / median(each, APPENDS), "1/s");
    emit("append.one_fsync_alone", 1 / median(fsyncs, APPENDS), "1/s");
}

#ifndef PLAIN_C
static void in_batches(const char *name, int size)
{
    static struct wal_record records[SAMPLES];
    static double each[BATCHES];
    struct wal_writer wal;

    for (int i = 0; i < size; i++)
        records[i] = samples[i].record;
    MUST(wal_open(&wal, name) == 0);
    for (int i = 0; i < BATCHES; i++) {
        double start = now_s();

        MUST(logship_append_batch(&wal, records, (size_t)size) == 0);
        each[i] = now_s() - start;
    }
    MUST(wal_close(&wal) == 0);
    emit(name, size / median(each, BATCHES), "1/s");
}
#endif

void bench_append(void)
{
    for (int i = 0; i < SAMPLES; i++)
        fill_sample(&samples[i], i, SMALL_VALUE);
    one_at_a_time();
#ifndef PLAIN_C
    in_batches("append.batch_100", 100);
    in_batches("append.batch_1000", 1000);
#endif
}
