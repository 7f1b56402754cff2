/* repl_config.c: nodes, their sockets, and the options that the lessons ask of these. */
#define _GNU_SOURCE
#include "wire.h"

static int option(int fd, int level, int name)
{
    int value = -1;
    socklen_t size = sizeof value;

    return getsockopt(fd, level, name, &value, &size) == 0 ? value : -1;
}

static void expect_keepalive(int fd, const char *what)
{
    int idle = option(fd, IPPROTO_TCP, TCP_KEEPIDLE), interval = option(fd, IPPROTO_TCP, TCP_KEEPINTVL);
    int count = option(fd, IPPROTO_TCP, TCP_KEEPCNT);
    char text[200];

    snprintf(text, sizeof text, "%s: SO_KEEPALIVE", what);
    EXPECT(option(fd, SOL_SOCKET, SO_KEEPALIVE) > 0, text, "on", "off");
    snprintf(text, sizeof text, "%s: TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT", what);
    EXPECT(idle == 5 && interval == 1 && count == 3, text, "5, 1, 3", "%d, %d, %d", idle, interval, count);
}

/* The judged tree's listening socket. A student's repl_listen may leave the port in the node or not. */
static int judged_listen(struct repl_node *node, uint16_t *port)
{
    int fd;

    CALL(fd, "repl_listen on port 0 of 127.0.0.1", wire_tree_listen(node));
    EXPECT(fd >= 0, "repl_listen on port 0 of 127.0.0.1", "a descriptor", "%d (%s)", fd, strerror(errno));
    *port = wire_port_of(fd);
    EXPECT(*port != 0, "the socket that repl_listen returned", "bound to a port", "not bound");
    return fd;
}

/* Whether the call fills in hosts and ports, or the program does, no lesson says. What it fills in must be right. */
static void defaults(void)
{
    struct wire_cluster cluster;
    const struct replication_config *config = &cluster.config;
    char what[100];

    wire_config(&cluster);
#ifdef GRADE_CONFIG_INIT
    EXPECT(config->follower_count == 0 || config->follower_count == 2, "repl_config_init: follower_count", "2", "%d",
           (int)config->follower_count);
    for (int i = 0; i < 2; i++) {
        const struct repl_node *node = &config->followers[i];

        snprintf(what, sizeof what, "repl_config_init: port of follower-%d", i + 1);
        if (node->port != 0)
            EXPECT_INT(7001 + i, node->port, what);
        else
            check_note("repl_config_init leaves the ports to the program");
        snprintf(what, sizeof what, "repl_config_init: online of follower-%d, to which nobody has connected", i + 1);
        EXPECT_INT(0, node->online, what);
    }
#else
    (void)config;
    (void)what;
    check_note("this tree's repl_config_init has another form than repl_config_init(config): it was not looked at");
#endif
}

static void connect_both_ways(void)
{
    int listen_fd = wire_listen(), raw, rc;
    struct repl_node node = wire_node(wire_port_of(listen_fd));
    char bytes[4];

    CALL(rc, "repl_connect to a follower that listens", repl_connect(&node));
    EXPECT(rc >= 0, "repl_connect to a follower that listens", "0", "%d (%s)", rc, strerror(errno));
    raw = wire_accept(listen_fd);
    EXPECT(raw >= 0, "the follower's listening socket after repl_connect", "a connection", "none");
    EXPECT(node.fd >= 0 && wire_is(node.fd, S_IFSOCK), "fd of the node after repl_connect", "the socket", "%d",
           node.fd);
    EXPECT_INT(1, node.online, "online of the node after repl_connect");
    wire_write(node.fd, "beat", 4);
    EXPECT(wire_read(raw, bytes, 4) == 4 && memcmp(bytes, "beat", 4) == 0, "4 bytes from the leader's end",
           "they arrive", "they don't");
    wire_write(raw, "ack!", 4);
    wire_tame(node.fd);
    EXPECT(wire_read(node.fd, bytes, 4) == 4 && memcmp(bytes, "ack!", 4) == 0, "4 bytes from the follower's end",
           "they arrive", "they don't");
    close(node.fd);
    close(raw);
    close(listen_fd);
}

/* Trying again until the follower listens is the lesson's; whether repl_connect does that itself or its caller, is not.
 * The follower listens a while after the first try. */
static void connect_before_listen(void)
{
    int bound = wire_bind(), before, rc = -1, raw, tries = 0;
    struct repl_node node = wire_node(wire_port_of(bound));
    volatile int *listens = wire_shared_flag();
    pid_t child;

    before = wire_count_fds();
    child = check_fork();
    if (child == 0) {
        syscall(SYS_poll, NULL, 0, 300);
        if (listen(bound, 4) == 0)
            *listens = 1;
        _exit(0);
    }
    while (rc < 0 && tries < 1000) {
        int listened = *listens;

        tries++;
        CALL(rc, "repl_connect to a follower that listens a while later", repl_connect(&node));
        EXPECT(rc >= 0 || !listened, "repl_connect to a follower that listens by now", "0", "%d (%s)", rc,
               strerror(errno));
        if (rc >= 0)
            break;
        EXPECT_INT(0, node.online, "online of a node to which repl_connect failed");
        EXPECT_INT(before, wire_count_fds(), "open descriptors after a failed repl_connect, with those of the check");
        syscall(SYS_poll, NULL, 0, 20);
    }
    EXPECT(*listens, "repl_connect to a port on which nobody listens yet", "-1, or it tries until somebody does", "%d",
           rc);
    check_join(child, WIRE_CHILD_MS, "the check's follower");
    raw = wire_accept(bound);
    EXPECT(raw >= 0 && node.online == 1, "the node after repl_connect, once the follower listens",
           "connected and online", "online %d", node.online);
    close(node.fd);
    close(raw);
    close(bound);
}

/* A follower is a process of the test program, which reaps it. What the course's functions start is theirs to reap. */
static void no_child_left(void)
{
    struct wire_cluster cluster;
    int listen_fd = wire_listen(), rc, raw;
    pid_t left;

    wire_config(&cluster);
    wire_set_node(&cluster.config.followers[0], wire_port_of(listen_fd));
    CALL(rc, "repl_connect to a follower that listens", repl_connect(&cluster.config.followers[0]));
    EXPECT(rc >= 0, "repl_connect to a follower that listens", "0", "%d (%s)", rc, strerror(errno));
    raw = wire_accept(listen_fd);
    left = waitpid(-1, NULL, WNOHANG);
    EXPECT(left < 0 && errno == ECHILD, "child processes after repl_config_init and repl_connect", "none, or reaped",
           "%s", left > 0 ? "one that nobody reaped" : "one that still runs");
    close(cluster.config.followers[0].fd);
    close(raw);
    close(listen_fd);
}

static void keepalive_connected(void)
{
    int listen_fd = wire_listen(), rc;
    struct repl_node node = wire_node(wire_port_of(listen_fd));

    CALL(rc, "repl_connect to a follower that listens", repl_connect(&node));
    EXPECT(rc >= 0, "repl_connect to a follower that listens", "0", "%d (%s)", rc, strerror(errno));
    expect_keepalive(node.fd, "the leader's socket, from repl_connect");
    close(node.fd);
    close(listen_fd);
}

static void keepalive_accepted(void)
{
    struct repl_node node = wire_node(0);
    uint16_t port;
    int listen_fd = judged_listen(&node, &port), raw = wire_connect(port), fd;

    EXPECT(raw >= 0, "a connection to the socket of repl_listen", "accepted by the kernel", "%s", strerror(errno));
    CALL(fd, "repl_accept with a connection waiting", WIRE_ACCEPT(listen_fd));
    EXPECT(fd >= 0, "repl_accept with a connection waiting", "a descriptor", "%d (%s)", fd, strerror(errno));
#ifndef GRADE_HAS_repl_accept
    /* accept(2) stands in the student's program; only what the listening socket hands down is seen here. */
    if (option(fd, SOL_SOCKET, SO_KEEPALIVE) <= 0) {
        check_note("this tree has no function that accepts: keepalive after accept(2) was not looked at");
        close(fd);
        close(raw);
        close(listen_fd);
        return;
    }
#endif
    expect_keepalive(fd, "the follower's socket, from repl_accept");
    close(fd);
    close(raw);
    close(listen_fd);
}

/* The side that closes first keeps the port for a minute (TIME_WAIT). A follower that is started again must not
 * wait. */
static void listen_again(void)
{
    struct repl_node node = wire_node(0);
    uint16_t port;
    int listen_fd = judged_listen(&node, &port), raw = wire_connect(port), fd;
    char byte;

#if !defined(GRADE_LISTEN_NODE) && !defined(GRADE_LISTEN_PORT)
    check_note("this tree has no repl_listen that takes a node or a port: SO_REUSEADDR was not looked at");
    (void)byte;
    (void)fd;
    close(raw);
    close(listen_fd);
    return;
#endif

    EXPECT(raw >= 0, "a connection to the socket of repl_listen", "accepted by the kernel", "%s", strerror(errno));
    fd = wire_accept(listen_fd);
    REQUIRE(fd >= 0, "accept");
    close(fd);
    wire_tame(raw);
    REQUIRE(wire_read(raw, &byte, 1) == 0, "the end of the connection");
    close(raw);
    close(listen_fd);
    node.port = port;
    CALL(listen_fd, "repl_listen on the port of a follower that has just ended", wire_tree_listen(&node));
    EXPECT(listen_fd >= 0, "repl_listen on the port of a follower that has just ended",
           "a descriptor: SO_REUSEADDR, set before bind", "%d (%s)", listen_fd, strerror(errno));
    EXPECT(option(listen_fd, SOL_SOCKET, SO_REUSEADDR) > 0, "SO_REUSEADDR of the listening socket", "on", "off");
    close(listen_fd);
}

/* Lesson 1's heartbeat, with the check as both followers. */
static void heartbeat_two(void)
{
    struct repl_node nodes[2];
    int raws[2], rc;
    char bytes[4];

    for (int i = 0; i < 2; i++) {
        int listen_fd = wire_listen();

        nodes[i] = wire_node(wire_port_of(listen_fd));
        CALL(rc, "repl_connect to a follower that listens", repl_connect(&nodes[i]));
        EXPECT(rc >= 0, "repl_connect to a follower that listens", "0", "%d (%s)", rc, strerror(errno));
        raws[i] = wire_accept(listen_fd);
        EXPECT(raws[i] >= 0, "the follower's listening socket after repl_connect", "a connection", "none");
        close(listen_fd);
    }
    for (int i = 0; i < 2; i++) {
        CALL(rc, "send_full of a 4-byte heartbeat", WIRE_SEND_FULL(nodes[i].fd, "ping", 4));
        EXPECT(rc >= 0, "send_full of a 4-byte heartbeat", "0", "%d (%s)", rc, strerror(errno));
    }
    for (int i = 0; i < 2; i++) {
        EXPECT(wire_read(raws[i], bytes, 4) == 4 && memcmp(bytes, "ping", 4) == 0,
               "the heartbeat at each of two followers",
               "4 bytes, as sent", "follower-%d did not get them", i + 1);
        wire_write(raws[i], "pong", 4);
        memset(bytes, 0, sizeof bytes);
        CALL(rc, "recv_full of the 4-byte answer", WIRE_RECV_FULL(nodes[i].fd, bytes, 4));
        EXPECT(rc >= 0 && memcmp(bytes, "pong", 4) == 0, "recv_full of the 4-byte answer", "pong", "%d, %.4s", rc,
               bytes);
        close(nodes[i].fd);
        close(raws[i]);
    }
}

static const struct check checks[] = {
    { "config_defaults", "W11-R1", "w11-l01", "repl_config.c", 20, "leader and two followers on ports 7000 to 7002",
      "A configuration names one leader and two followers on the loopback, none of them online yet.", defaults },
    { "connect_online", "W11-R1", "w11-l01", "repl_config.c", 30, "repl_connect connects and sets fd and online",
      "The leader connects to a follower; online is set to 1 on a successful connect.", connect_both_ways },
    { "connect_before_listen", "W11-R1", "w11-l01", "repl_config.c", 40,
      "a follower that does not listen yet is an error and can be tried again",
      "Connecting before the follower listens fails: try again until it listens.", connect_before_listen },
    { "no_child_left", "W11-R1", "w11-l01", "repl_config.c", 30, "no child process is left unreaped",
      "Children are reaped with waitpid: none stays behind as a zombie.", no_child_left },
    { "heartbeat_two", "W11-R1", "w11-l01", "repl_config.c,repl_ship.c", 60,
      "a 4-byte heartbeat goes to both followers and back",
      "Each of two followers reads 4 bytes and answers 4: 2/2 followers responded.", heartbeat_two },
    { "listen_again", "W11-R1", "w11-l01", "repl_config.c", 30, "a restarted follower gets its port again at once",
      "Set SO_REUSEADDR before bind, or a restart fails with EADDRINUSE.", listen_again },
    { "keepalive_connected", "W11-R6", "w11-l05", "repl_config.c", 30, "keepalive on the socket of repl_connect",
      "TCP keepalive is enabled on every replication socket with idle 5, interval 1, count 3.", keepalive_connected },
    { "keepalive_accepted", "W11-R6", "w11-l05", "repl_config.c", 30, "keepalive on an accepted socket",
      "TCP keepalive is enabled after accept(2) too, with idle 5, interval 1, count 3.", keepalive_accepted },
};

CHECK_MAIN(checks)
