/* What a follower answers after each record: 16 bytes, as the struct lies in memory. */
#ifndef PLAIN_W11_REPL_ACK_H
#define PLAIN_W11_REPL_ACK_H

#include <stdint.h>

#include "../plain_shape.h"

enum { REPL_ACK_OK = 0, REPL_ACK_CRC_FAIL = 1, REPL_ACK_NOT_STORED = 2 };

struct repl_ack {
    uint64_t lsn;
    uint8_t status;
};

int repl_send_ack(int fd, uint64_t lsn, uint8_t status);
int repl_recv_ack(int fd, struct repl_ack *ack);

#endif
