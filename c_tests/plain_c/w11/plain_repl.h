/* What the W11 files share and the course's headers do not name. Every name starts with plain_, so that these files compile
 * beside any header set. */
#ifndef PLAIN_REPL_H
#define PLAIN_REPL_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#include "w10/wal_record.h"
#include "w11/repl_ack.h"
#include "w11/repl_config.h"

/* A test of deadlines may make them shorter. */
#ifndef PLAIN_DEADLINE_MS
#define PLAIN_DEADLINE_MS 5000
#endif

enum { PLAIN_FRAME_MAX = 4 + WAL_RECORD_MAX, PLAIN_ACK_BYTES = PLAIN_ACK == 0 ? 16 : PLAIN_ACK == 1 ? 9 : 8 };

/* An ack's bytes on the wire. The padding is sent too, and must not be whatever lay on the stack. */
static inline void plain_put_ack(uint64_t lsn, uint8_t status, uint8_t *bytes)
{
    struct repl_ack ack;

    if (PLAIN_ACK == 0) {
        memset(&ack, 0, sizeof ack);
        ack.lsn = lsn;
        ack.status = status;
        memcpy(bytes, &ack, sizeof ack);
        return;
    }
    for (int i = 0; i < 8; i++)
        bytes[i] = (uint8_t)(lsn >> (8 * (7 - i)));
    if (PLAIN_ACK == 1)
        bytes[PLAIN_ACK_BYTES - 1] = status;
}

static inline void plain_get_ack(const uint8_t *bytes, struct repl_ack *ack)
{
    if (PLAIN_ACK == 0) {
        memcpy(ack, bytes, sizeof *ack);
        return;
    }
    ack->lsn = 0;
    for (int i = 0; i < 8; i++)
        ack->lsn = ack->lsn << 8 | bytes[i];
    ack->status = PLAIN_ACK == 1 ? bytes[PLAIN_ACK_BYTES - 1] : 0;
}

/* What send_full and recv_full return for `len` bytes. */
static inline int plain_full(size_t len)
{
    return PLAIN_FULL == 0 ? 0 : PLAIN_FULL == 1 ? (int)len : 1;
}

static inline int64_t plain_now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* What poll(2) may still wait until the deadline; a negative deadline is none. */
static inline int plain_remaining_ms(int64_t deadline)
{
    int64_t left;

    if (deadline < 0)
        return -1;
    left = deadline - plain_now_ms();
    return left > 0 ? (int)left : 0;
}

/* In repl_config.c. --------------------------------------------------------------------------------------------------- */

int plain_follower_count_ok(const struct replication_config *config);

/* Takes the acks that have arrived, then closes the socket: online 0, fd -1, one line on stderr. Keeps errno. */
void plain_mark_offline(struct replication_config *config, int index, const char *why);

/* Takes one whole ack from the follower's socket, if one has arrived, and remembers it if its status is OK.
 * 1 taken, 0 none there yet, -1 the follower is gone (everything that it sent has been taken). Never blocks. */
int plain_take_ack(struct replication_config *config, int index, struct repl_ack *ack);

/* Forgets what came over other sockets than those that the followers have now. */
void plain_refresh_acks(const struct replication_config *config);

/* Did an OK for this LSN arrive from this follower, and has no wait used it up? */
int plain_has_acked(const struct replication_config *config, int index, uint64_t lsn);
void plain_use_up_ack(const struct replication_config *config, int index, uint64_t lsn);

/* repl_set_wal's path for this config, or NULL. */
const char *plain_wal_path(const struct replication_config *config);
int plain_set_wal_path(const struct replication_config *config, const char *path);

/* In repl_ship.c. ----------------------------------------------------------------------------------------------------- */

/* Sends one frame to one follower within PLAIN_DEADLINE_MS. When that is not possible the follower is offline. 0, -1. */
int plain_send_frame(struct replication_config *config, int index, const uint8_t *frame, size_t len);

/* Sends the record `lsn` again to a follower whose copy was damaged. 0, -1 when there is no good copy to send. */
int plain_ship_again(struct replication_config *config, int index, uint64_t lsn);

/* Exactly len bytes before the deadline, or -1: ENOTCONN when the peer closed, ETIMEDOUT. */
int plain_recv_until(int fd, void *buf, size_t len, int64_t deadline);

#endif
