/* No check: what only a run of the tree shows of what the lessons leave open. `probe tree` prints to the verdict's file
 * a line "SHAPE<tab>words" for LOGSHIP_SHAPE, and lines "NOTE<tab>text". Each look is a child of its own: one that
 * crashes or hangs has learned nothing, and the checks then say what is wrong. */
#define _GNU_SOURCE
#include "wire.h"

#include <stddef.h>

enum { LOOK_MS = 4000, WAIT_MS = 1000, NO_MS = 150, LSNS = 3, FORMATS = 16 };

/* What a child has learned. */
struct looks {
    int ack_known;
    struct shape_ack ack;
    int recover_3, recover_5;
};

static struct looks *looks;

static void look(void (*with)(void))
{
    pid_t child = check_fork();

    if (child == 0) {
        check_result_fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
        with();
        _exit(0);
    }
    check_wait_ms(child, LOOK_MS);
}

/* ---- what is sent as an ack ------------------------------------------------------------------------------------- */

/* Bytes of an ack of this LSN, whose bytes all differ, or of LSN 1. */
static int read_ack(const uint8_t *bytes, size_t len, uint64_t lsn, uint8_t status, struct shape_ack *shape)
{
    for (int at = 0; at + 8 <= (int)len; at++) {
        for (int order = 0; order < 2; order++) {
            uint64_t seen = 0;

            for (int i = 0; i < 8; i++)
                seen = seen << 8 | bytes[at + (order == 0 ? i : 7 - i)];
            if (seen != lsn)
                continue;
            *shape = (struct shape_ack){ .size = (int)len, .lsn_at = at, .status_at = -1,
                                         .order = order == 0 ? 'b' : 'l' };
            if (len > 8)
                shape->status_at = at >= 1 ? 0 : 8;
            if (shape->status_at >= 0 && bytes[shape->status_at] != status)
                return 0;
            return 1;
        }
    }
    return 0;
}

/* By repl_send_ack. */
static void look_at_send_ack(void)
{
#ifdef GRADE_HAS_repl_send_ack
    const uint64_t lsn = 0x0102030405060708;
    uint8_t bytes[WIRE_ACK_MAX];
    int judged, raw;

    wire_pair(&judged, &raw);
#ifdef GRADE_SEND_ACK_STRUCT
    struct repl_ack ack;

    memset(&ack, 0, sizeof ack);
    ack.lsn = lsn;
    ack.status = 1;
    (void)repl_send_ack(judged, &ack);
#else
    (void)repl_send_ack(judged, lsn, 1);
#endif
    shutdown(judged, SHUT_WR);
    looks->ack_known = read_ack(bytes, wire_read(raw, bytes, sizeof bytes), lsn, 1, &looks->ack);
#endif
}

/* By a repl_receive_record that acks itself: of its first record, so that the LSN is 1. */
static void look_at_receive(void)
{
    uint8_t encoded[WIRE_ROOM], bytes[WIRE_ACK_MAX];
    struct wal_writer writer;
    struct kv_store store;
    int judged, raw;

    if (CHECK_STORE_INIT(&store) < 0 || CHECK_WAL_OPEN(&writer, "probe.wal") < 0)
        return;
    wire_pair(&judged, &raw);
    wire_frame(raw, encoded, wire_nth(1, encoded));
    (void)repl_receive_record(judged, &writer, &store);
    shutdown(judged, SHUT_WR);
    looks->ack_known = read_ack(bytes, wire_read(raw, bytes, sizeof bytes), 1, 0, &looks->ack);
}

/* ---- what is read as an ack ------------------------------------------------------------------------------------- */

/* Does the tree's repl_wait_quorum take acks in these bytes for what they are: three one after the other, and an older
 * one for no newer? */
static int is_read(struct shape_ack shape)
{
    struct wire_cluster cluster;
    uint8_t encoded[WIRE_ROOM], bytes[WIRE_ACK_MAX];
    size_t len;

    wire_cluster_open(&cluster, 2);
    for (int n = 1; n <= LSNS + 2; n++) {
        len = wire_nth(n, encoded);
        (void)repl_ship_record(&cluster.config, encoded, len);
    }
    for (int lsn = 1; lsn <= LSNS; lsn++) {
        len = wire_make_ack(shape, (uint64_t)lsn, 0, bytes);
        for (int i = 0; i < 2; i++)
            wire_write(cluster.raw[i], bytes, len);
        if (repl_wait_quorum(&cluster.config, (uint64_t)lsn, WAIT_MS) < 0)
            return 0;
    }
    len = wire_make_ack(shape, LSNS + 1, 0, bytes);
    for (int i = 0; i < 2; i++)
        wire_write(cluster.raw[i], bytes, len);
    return repl_wait_quorum(&cluster.config, LSNS + 2, NO_MS) < 0;
}

static size_t formats(struct shape_ack *all)
{
    size_t count = 0;

    if (looks->ack_known)
        all[count++] = looks->ack;
    all[count++] = (struct shape_ack){ 8, 0, -1, 'b' };
    all[count++] = (struct shape_ack){ 8, 0, -1, 'l' };
    all[count++] = (struct shape_ack){ 9, 0, 8, 'b' };
    all[count++] = (struct shape_ack){ 9, 0, 8, 'l' };
    all[count++] = (struct shape_ack){ 9, 1, 0, 'b' };
    all[count++] = (struct shape_ack){ 9, 1, 0, 'l' };
#ifdef GRADE_ACK
    for (int order = 0; order < 2; order++)
        all[count++] = (struct shape_ack){ (int)sizeof(struct repl_ack), (int)offsetof(struct repl_ack, lsn),
                                           (int)offsetof(struct repl_ack, status), order == 0 ? 'l' : 'b' };
#endif
    all[count++] = (struct shape_ack){ 12, 0, 8, 'b' };
    all[count++] = (struct shape_ack){ 16, 0, 8, 'l' };
    all[count++] = (struct shape_ack){ 16, 0, 8, 'b' };
    return count;
}

/* All at a time: most of those that are wrong end by the clock. The first in the list that is read is the one. */
static void look_at_quorum(void)
{
    struct shape_ack all[FORMATS];
    pid_t children[FORMATS];
    size_t count = formats(all), started = 0;
    long long end = check_now_ms() + LOOK_MS;
    int status, found = -1;

    for (size_t i = 0; i < count; i++) {
        children[started++] = check_fork();
        if (children[i] == 0) {
            check_result_fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
            _exit(is_read(all[i]) ? 0 : 1);
        }
        /* The tree's own format is most likely the one, and then no other is tried. */
        if (i == 0 && looks->ack_known) {
            status = check_wait_ms(children[0], LOOK_MS);
            if (status == 0)
                return;
        }
    }
    for (size_t i = looks->ack_known ? 1 : 0; i < started && found < 0; i++) {
        long long left = end - check_now_ms();

        status = check_wait_ms(children[i], left > 0 ? (int)left : 0);
        if (status == 0) {
            found = (int)i;
            looks->ack = all[i];
            looks->ack_known = 2;
        }
        children[i] = -1;
    }
    for (size_t i = 0; i < started; i++)
        if (children[i] > 0)
            wire_dismiss(children[i]);
}

/* ---- recovery --------------------------------------------------------------------------------------------------- */

static int recover_of(const char *path, int records)
{
    struct wal_writer writer;
    struct kv_store store;

    if (CHECK_WAL_OPEN(&writer, path) < 0)
        return -1;
    for (int n = 1; n <= records; n++)
        wire_append_nth(&writer, n);
    (void)CHECK_WAL_CLOSE(&writer);
    if (CHECK_STORE_INIT(&store) < 0)
        return -1;
    return check_recover(path, &store);
}

static void look_at_recover(void)
{
    looks->recover_3 = recover_of("three.wal", 3);
    looks->recover_5 = recover_of("five.wal", 5);
}

static void tree(void)
{
    char line[200], words[100] = "";
    int sent;

    looks = (struct looks *)mmap(NULL, sizeof *looks, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    REQUIRE(looks != MAP_FAILED, "shared memory");
    looks->recover_3 = looks->recover_5 = -1;
    look(look_at_recover);
    look(look_at_receive);
    if (looks->ack_known)
        check_note("this tree's repl_receive_record sends the ack itself");
    else
        look(look_at_send_ack);
    sent = looks->ack_known;
    look_at_quorum();
    if (looks->ack_known) {
        snprintf(words, sizeof words, " ack=%d,%d,%c,%d", looks->ack.size, looks->ack.lsn_at, looks->ack.order,
                 looks->ack.status_at);
        if (looks->ack.size != 16 || looks->ack.order != 'l' || looks->ack.lsn_at != 0)
            check_note("this tree acks with %d bytes, the LSN in %s%s", looks->ack.size,
                       looks->ack.order == 'b' ? "network byte order" : "this machine's byte order",
                       looks->ack.status_at < 0 ? ", and no status" : "");
        if (sent && looks->ack_known == 2)
            check_note("what this tree's follower sends as an ack is not what its repl_wait_quorum reads");
    }
    if (looks->recover_3 >= 0 && looks->recover_3 == looks->recover_5) {
        strcat(words, " recover=status");
        check_note("this tree's wal_recover returns %d, not the number of records", looks->recover_3);
    }
    snprintf(line, sizeof line, "SHAPE\t%s\n", words[0] == ' ' ? words + 1 : "");
    check_verdict(line);
}

static const struct check checks[] = {
    { "tree", "W09", "w09-l01", "kv_store.c", 20, "how this tree reads what the lessons leave open",
      "What no lesson says is learned from the tree.", tree },
};

CHECK_MAIN(checks)
