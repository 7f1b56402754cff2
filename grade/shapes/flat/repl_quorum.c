/* Of a correct tree in another hand than plain_c. A quorum is reported as the number of acks. */
#include "repl_quorum.h"
#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <time.h>
#include <unistd.h>
static long now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

int repl_wait_quorum(struct replication_config *c, uint64_t lsn, int ms)
{
    int q = c->follower_count / 2 + 1, got[NUM_FOLLOWERS] = { 0 }, n = 0;
    long end = now() + ms;
    while (n < q) {
        struct pollfd p[NUM_FOLLOWERS];
        int who[NUM_FOLLOWERS], k = 0;
        long left = end - now();
        if (left < 0)
            left = 0;
        for (int i = 0; i < c->follower_count; i++)
            if (c->followers[i].online && !got[i]) {
                p[k].fd = c->followers[i].fd;
                p[k].events = POLLIN;
                p[k].revents = 0;
                who[k++] = i;
            }
        if (!k)
            return -1;
        int rc = poll(p, (nfds_t) k, (int) left);
        if (rc < 0 && errno == EINTR)
            continue;
        if (rc <= 0)
            return -1;
        for (int j = 0; j < k; j++)
            if (p[j].revents) {
                struct repl_ack a;
                struct repl_node *f = &c->followers[who[j]];
                if (repl_io_read(f->fd, &a, sizeof a) <= 0) {
                    close(f->fd);
                    f->fd = -1;
                    f->online = 0;
                    continue;
                }
                if (be64toh(a.lsn) == lsn && a.status == 0) {
                    got[who[j]] = 1;
                    n++;
                }
            }
    }
    return n;
}
