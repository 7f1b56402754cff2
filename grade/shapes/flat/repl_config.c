/* Of a correct tree in another hand than plain_c.
 * Nodes: room for two followers, repl_listen takes a port, repl_connect tries for a second. */
#include "repl_config.h"
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
static void ka(int fd)
{
    int on = 1, a = 5, b = 1, c = 3;
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &a, sizeof a);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &b, sizeof b);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &c, sizeof c);
}

void repl_config_init(struct replication_config *c)
{
    memset(c, 0, sizeof *c);
    c->follower_count = 2;
    c->leader.fd = -1;
    c->leader.port = 7000;
    strcpy(c->leader.host, "127.0.0.1");
    for (int i = 0; i < 2; i++) {
        strcpy(c->followers[i].host, "127.0.0.1");
        c->followers[i].port = (uint16_t) (7001 + i);
        c->followers[i].fd = -1;
    } c->next_lsn = 1;
}

int repl_connect(struct repl_node *n)
{
    for (int tries = 0; tries < 50; tries++) {
        struct sockaddr_in a = {.sin_family = AF_INET,.sin_port = htons(n->port) };
        inet_pton(AF_INET, n->host, &a.sin_addr);
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        if (fd < 0)
            return -1;
        ka(fd);
        if (!connect(fd, (struct sockaddr *) &a, sizeof a)) {
            n->fd = fd;
            n->online = 1;
            return fd;
        }
        close(fd);
        usleep(20000);
    }
    n->online = 0;
    return -1;
}

int repl_listen(uint16_t port)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    struct sockaddr_in a = {.sin_family = AF_INET,.sin_port = htons(port),.sin_addr =
            { htonl(INADDR_LOOPBACK) } };
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (struct sockaddr *) &a, sizeof a) || listen(fd, 8)) {
        close(fd);
        return -1;
    }
    return fd;
}
