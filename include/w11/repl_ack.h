#ifndef LOGSHIP_W11_REPL_ACK_H
#define LOGSHIP_W11_REPL_ACK_H


/* Generated from src/capi by `make headers`: change it there. */

#include <stddef.h>
#include <stdint.h>


/**
 * Stored, durable.
 */
#define REPL_ACK_OK 0

/**
 * Rejected: the CRC did not match.
 */
#define REPL_ACK_CRC_FAIL 1

/**
 * Not stored: the follower's log failed.
 */
#define REPL_ACK_NOT_STORED 2

/**
 * An ack, and its 16 bytes on the wire (x86-64: `lsn` little-endian, `status`, 7 bytes of padding).
 */
struct repl_ack {
    /**
     * The record's number in the follower's log.
     */
    uint64_t lsn;
    /**
     * One of `REPL_ACK_*`.
     */
    uint8_t status;
};

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Sends one ack, without a mark: it counts for its own LSN. Returns 0, or -1 with `errno` (EPIPE, ECONNRESET,
 * ETIMEDOUT after the send deadline...). Never raises SIGPIPE.
 */
int repl_send_ack(int fd,
                  uint64_t lsn,
                  uint8_t status);

/**
 * Receives one ack. Returns 1; 0 if the peer has closed in order, -1 with `errno` if not (ENOTCONN: closed in the
 * middle of an ack; EINVAL for NULL). Acks that were read early come first. Waits for the first byte as long as TCP
 * says that the peer lives, then the receive deadline for the rest.
 */
int repl_recv_ack(int fd,
                  struct repl_ack *ack);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

/* The layout that the library was built with. A #pragma pack that is still open, or another header with a struct of
 * the same name, does not compile: docs/linking.md. */
#ifndef LOGSHIP_LAYOUT
#if defined(__cplusplus) && __cplusplus >= 201103L
#define LOGSHIP_LAYOUT(name, holds, otherwise) static_assert(holds, otherwise)
#elif !defined(__cplusplus) && defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L
#define LOGSHIP_LAYOUT(name, holds, otherwise) _Static_assert(holds, otherwise)
#else
#define LOGSHIP_LAYOUT(name, holds, otherwise) typedef char logship_layout_##name[(holds) ? 1 : -1]
#endif
#endif
LOGSHIP_LAYOUT(repl_ack_repl_ack, sizeof(struct repl_ack) == 16 &&
    offsetof(struct repl_ack, lsn) == 0 &&
    offsetof(struct repl_ack, status) == 8,
    "struct repl_ack is laid out otherwise in liblogship: delete the repl_ack.h of your own, or end #pragma pack");

#endif /* LOGSHIP_W11_REPL_ACK_H */
