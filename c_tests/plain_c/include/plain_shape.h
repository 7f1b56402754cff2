/* What the lessons leave open, as options: each combination is a complete and correct tree. A copy of this directory
 * whose plain_shape.h defines some of them is another student's, as grade/shapes lists them. All are 0 by default. */
#ifndef PLAIN_SHAPE_H
#define PLAIN_SHAPE_H

/* The timestamp stands last (0), behind op (1), behind length (2). */
#ifndef PLAIN_STAMP
#define PLAIN_STAMP 0
#endif
/* The ack on the wire: the struct as it lies in memory (0), 8 bytes big-endian and a status (1), 8 bytes (2). Without a
 * status a damaged record is not acknowledged. */
#ifndef PLAIN_ACK
#define PLAIN_ACK 0
#endif
/* The order of fields: the lessons' (0), another, with fields of the tree's own (1). */
#ifndef PLAIN_FIELDS
#define PLAIN_FIELDS 0
#endif
/* The host of a node: char * (0), char[64] (1). */
#ifndef PLAIN_HOST
#define PLAIN_HOST 0
#endif
/* Where the leader's log is: repl_set_wal or leader.wal (0), config.wal_path, an array (1), config.wal, a writer (2), a
 * constant (3), an argument of repl_catch_up (4). */
#ifndef PLAIN_LOG
#define PLAIN_LOG 0
#endif
/* repl_receive_record: 0, CRC_MISMATCH, -1 (0); 1, -2, 0 when the leader has closed, -1 (1); 0, 1, -1 (2). */
#ifndef PLAIN_RECEIVE
#define PLAIN_RECEIVE 0
#endif
/* send_full and recv_full: 0 (0), the length (1), 1, 0 when the peer has closed, -1 (2). */
#ifndef PLAIN_FULL
#define PLAIN_FULL 0
#endif
/* Who acks: the caller of repl_receive_record (0), that function (1). */
#ifndef PLAIN_ACKS
#define PLAIN_ACKS 0
#endif
/* wal_recover returns the number of records (0), or prints it and returns 0 (1). */
#ifndef PLAIN_RECOVER
#define PLAIN_RECOVER 0
#endif
/* wal_record_decode returns 0 (0), the length (1). */
#ifndef PLAIN_DECODE
#define PLAIN_DECODE 0
#endif
/* wal_open(writer, path) (0), wal_open(path) (1). */
#ifndef PLAIN_OPEN
#define PLAIN_OPEN 0
#endif
/* The first value of enum wal_op is 1 (0), 0 (1). */
#ifndef PLAIN_ENUM
#define PLAIN_ENUM 0
#endif
/* There is room for eight followers (0), two (1). */
#ifndef PLAIN_ROOM
#define PLAIN_ROOM 0
#endif
/* repl_wait_quorum returns 0 (0), the number of acks (1). */
#ifndef PLAIN_QUORUM
#define PLAIN_QUORUM 0
#endif

#endif
