/* Log shipping: [length:4, big-endian][encoded record], leader to follower. */
#ifndef PLAIN_W11_REPL_SHIP_H
#define PLAIN_W11_REPL_SHIP_H

#include <stddef.h>
#include <stdint.h>

#include "../w09/kv_store.h"
#include "../w10/wal_record.h"
#include "../w10/wal_writer.h"
#include "repl_ack.h"
#include "repl_config.h"

int send_full(int fd, const void *buf, size_t len);
int recv_full(int fd, void *buf, size_t len);
int repl_ship_record(struct replication_config *config, const uint8_t *encoded_buf, size_t encoded_len);
int repl_receive_record(int fd, struct wal_writer *writer, struct kv_store *store);

#endif
