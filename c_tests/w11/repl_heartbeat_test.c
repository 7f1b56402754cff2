/*
 * W11 L01: a leader connects to two followers and each answers a heartbeat: four bytes there, four bytes back.
 *
 * This is the one program with fixed ports, 7001 and 7002: the lesson's configuration names them.
 */
#define _GNU_SOURCE
#include "repl_test_util.h"

/* A frame of length zero: on this wire, that is what a heartbeat is. */
static const uint8_t HEARTBEAT[4] = { 0, 0, 0, 0 };

static void heartbeat_follower(struct follower *self)
{
    struct replication_config config;
    uint8_t received[4] = { 1, 2, 3, 4 };

    CHECK_EQ(repl_config_init(&config), 0);
    self->listen_fd = repl_listen(&config.followers[self->number - 1]);
    CHECK(self->listen_fd >= 0);
    report(self, "listening");
    follower_accept(self);
    CHECK_EQ(recv_full(self->fd, received, sizeof received), 0);
    CHECK(memcmp(received, HEARTBEAT, sizeof received) == 0);
    CHECK_EQ(send_full(self->fd, received, sizeof received), 0);
    report(self, "follower-%d: heartbeat received, ack sent", self->number);
    CHECK(close(self->fd) == 0);
}

/*
 * Leader and followers start at the same time, so the follower may not listen yet: then the connect is refused and has to
 * be tried again. When, its first line tells; without it a leader could only try now and then.
 */
static void connect_with_retry(struct repl_node *node, const struct follower_process *process)
{
    int connected = repl_connect(node) == 0;
    char line[64];

    if (!connected)
        CHECK_EQ(errno, ECONNREFUSED);
    hear(process, line, sizeof line);
    CHECK_STR(line, "listening");
    if (!connected)
        CHECK_EQ(repl_connect(node), 0);
    CHECK_EQ(node->online, 1);
}

static int send_heartbeats(struct replication_config *config)
{
    int sent = 0;

    for (int i = 0; i < config->follower_count; i++)
        sent += send_full(config->followers[i].fd, HEARTBEAT, sizeof HEARTBEAT) == 0;
    return sent;
}

static int receive_answers(struct replication_config *config)
{
    int responded = 0;

    for (int i = 0; i < config->follower_count; i++) {
        uint8_t answer[4] = { 1, 2, 3, 4 };

        CHECK_EQ(recv_full(config->followers[i].fd, answer, sizeof answer), 0);
        CHECK(memcmp(answer, HEARTBEAT, sizeof answer) == 0);
        responded++;
    }
    return responded;
}

static void test_heartbeat(void)
{
    struct replication_config config;
    struct follower_process followers[2];
    int responded;

    CHECK_EQ(repl_config_init(&config), 0);
    CHECK_EQ(config.follower_count, 2);
    for (int i = 0; i < 2; i++) {
        struct follower self;

        init_follower(&self, i + 1, -1);
        spawn(&followers[i], &self, heartbeat_follower);
    }
    for (int i = 0; i < 2; i++) {
        connect_with_retry(&config.followers[i], &followers[i]);
        printf("leader: connected to follower-%d on port %d\n", i + 1, config.followers[i].port);
    }
    printf("leader: sent heartbeat to %d followers\n", send_heartbeats(&config));
    responded = receive_answers(&config);
    for (int i = 0; i < 2; i++)
        relay_line(&followers[i]);
    printf("heartbeat: %d/%d followers responded\n", responded, config.follower_count);
    for (int i = 0; i < 2; i++) {
        reap_follower(&followers[i]);
        close_node(&config.followers[i]);
    }
}

int main(void)
{
    return run_test(test_heartbeat);
}
