/* Of a correct tree in another hand than plain_c.
 * Shipping and receiving: the receiver acks, with 9 bytes in network byte order. */
#pragma once
#include "repl_config.h"
#include "kv_store.h"
#include "wal_writer.h"
struct __attribute__((packed)) repl_ack {
    uint64_t lsn;
    uint8_t status;
};

int repl_ship_record(struct replication_config *c, const uint8_t *buf, size_t len);
int repl_receive_record(int fd, struct wal_writer *w, struct kv_store *s);
int repl_io_read(int fd, void *b, size_t n);
int repl_io_write(int fd, const void *b, size_t n);
