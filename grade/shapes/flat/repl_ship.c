/* Of a correct tree in another hand than plain_c.
 * Shipping and receiving: the receiver acks, with 9 bytes in network byte order. */
#include "repl_ship.h"
#include "repl_conflict.h"
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
int repl_io_write(int fd, const void *b, size_t n)
{
    const char *p = b;
    while (n) {
        ssize_t k = send(fd, p, n, MSG_NOSIGNAL);
        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0)
            return -1;
        p += k;
        n -= (size_t) k;
    }
    return 1;
}

int repl_io_read(int fd, void *b, size_t n)
{
    char *p = b;
    while (n) {
        ssize_t k = recv(fd, p, n, 0);
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0)
            return -1;
        if (!k)
            return 0;
        p += k;
        n -= (size_t) k;
    }
    return 1;
}

int repl_ship_record(struct replication_config *c, const uint8_t *buf, size_t len)
{
    uint32_t be = htonl((uint32_t) len);
    int sent = 0;
    for (int i = 0; i < c->follower_count; i++) {
        struct repl_node *f = &c->followers[i];
        if (!f->online)
            continue;
        if (repl_io_write(f->fd, &be, 4) < 0 || repl_io_write(f->fd, buf, len) < 0) {
            close(f->fd);
            f->fd = -1;
            f->online = 0;
        }
        else
            sent++;
    }
    return sent;
}

static struct kv_entry *entry(struct kv_store *s, const char *k)
{
    for (size_t i = 0; i < s->num_buckets; i++)
        for (struct kv_entry * e = s->buckets[i]; e; e = e->next)
            if (!strcmp(e->key, k))
                return e;
    return NULL;
}

int repl_receive_record(int fd, struct wal_writer *w, struct kv_store *s)
{
    uint32_t be;
    int rc = repl_io_read(fd, &be, 4);
    if (rc <= 0)
        return rc;
    uint32_t len = ntohl(be);
    if (len < 8 || len > 140000)
        return -1;
    uint8_t *b = malloc(len);
    struct wal_record r;
    struct repl_ack a = { 0, 0 };
    if (!b)
        return -1;
    rc = repl_io_read(fd, b, len);
    if (rc <= 0) {
        free(b);
        return rc;
    }
    if (wal_record_decode(b, len, &r) < 0) {
        a.lsn = htobe64(w->lsn + 1);
        a.status = 1;
        free(b);
        return repl_io_write(fd, &a, sizeof a) < 0 ? -1 : CRC_MISMATCH;
    }
    if (wal_append(w, &r) < 0) {
        free(b);
        return -1;
    }
    char *k = strndup(r.key, r.key_len), *v = r.op == WAL_OP_SET ? strndup(r.value, r.value_len) : NULL;
    struct kv_entry *e = entry(s, k);
    if (!e || repl_resolve_conflict(e->last_write_ts, r.timestamp, e->value, v ? v : "") == APPLY) {
        if (v) {
            kv_store_set(s, k, v);
            entry(s, k)->last_write_ts = r.timestamp;
        }
        else
            kv_store_del(s, k);
    }
    free(k);
    free(v);
    free(b);
    a.lsn = htobe64(w->lsn);
    return repl_io_write(fd, &a, sizeof a) < 0 ? -1 : 1;
}
