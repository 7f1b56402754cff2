/* Of a correct tree in another hand than plain_c.
 * Rejoin closes the old connection and opens another; the log is known from config.wal_path. */
#include "repl_rejoin.h"
#include <endian.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int repl_follower_rejoin(int fd, uint64_t lsn)
{
    struct repl_node n;
    memset(&n, 0, sizeof n);
    strcpy(n.host, "127.0.0.1");
    n.port = 7000;
    uint64_t be = htobe64(lsn);
    if (fd >= 0)
        close(fd);
    if (repl_connect(&n) < 0)
        return -1;
    if (repl_io_write(n.fd, &be, 8) < 0) {
        close(n.fd);
        return -1;
    }
    return n.fd;
}

int repl_catch_up(struct replication_config *c, int i, uint64_t lsn)
{
    struct replication_config one;
    FILE *f = fopen(c->wal_path, "rb");
    uint8_t head[8];
    uint64_t at = 0;
    int sent = 0;
    if (!f)
        return -1;
    memset(&one, 0, sizeof one);
    one.follower_count = 1;
    one.followers[0] = c->followers[i];
    one.followers[0].online = 1;
    while (fread(head, 1, 8, f) == 8) {
        uint32_t len = head[4] | head[5] << 8 | head[6] << 16 | (uint32_t) head[7] << 24;
        uint8_t *b = malloc(len);
        memcpy(b, head, 8);
        if (fread(b + 8, 1, len - 8, f) != len - 8) {
            free(b);
            break;
        }
        if (++at > lsn) {
            if (repl_ship_record(&one, b, len) != 1) {
                free(b);
                fclose(f);
                c->followers[i].online = 0;
                c->followers[i].fd = -1;
                return -1;
            }
            sent++;
        }
        free(b);
    }
    fclose(f);
    c->followers[i].online = 1;
    return sent;
}
