/* Two network namespaces joined by one cable, and a cable that can be cut in either direction. They have no names and
 * are gone with the last process in them. Needs root and ip(8).
 *
 * A direction is cut by giving the sender a wrong hardware address for the other end: the packets go out and nobody
 * takes them, nobody says so. (A route or an interface that is taken away would tell the sender.) */
#ifndef FAULTS_NET_H
#define FAULTS_NET_H
#include "faults.h"
#include <sched.h>
#include <stdarg.h>

static const char leader_host[] = "10.77.0.1", follower_host[] = "10.77.0.2";
enum { LEADER_SIDE, FOLLOWER_SIDE };
struct net {
    int ns[2];
};

static inline const char *net_missing(void)
{
    if (geteuid() != 0)
        return "network namespaces need root";
    if (system("command -v ip >/dev/null 2>&1") != 0)
        return "network namespaces need ip(8), which is not here";
    pid_t pid = own_fork();
    if (pid == 0)
        _exit(unshare(CLONE_NEWNET) != 0 || system("ip link add va type veth peer name vb 2>/dev/null") != 0);
    return own_reap(pid) == 0 ? NULL : "this kernel or container gives no network namespace with a veth pair";
}
static inline void net_enter(int ns)
{
    REQUIRE(setns(ns, CLONE_NEWNET) == 0);
}
/* Runs a command on one side; 0 if it succeeded. */
static inline int net_run(const struct net *net, int side, const char *format, ...)
{
    char command[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(command, sizeof command, format, arguments);
    va_end(arguments);
    pid_t pid = own_fork();
    if (pid == 0) {
        net_enter(net->ns[side]);
        execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(127);
    }
    return own_reap(pid);
}
static inline void net_make(struct net *net)
{
    pid_t holders[2];
    for (int side = 0; side < 2; side++) {
        int ready[2];
        char path[64], byte;
        REQUIRE(pipe(ready) == 0);
        holders[side] = own_fork();
        if (holders[side] == 0) {
            if (unshare(CLONE_NEWNET) != 0 || write(ready[1], "x", 1) != 1)
                _exit(1);
            pause();
        }
        REQUIRE(read(ready[0], &byte, 1) == 1);
        close(ready[0]);
        close(ready[1]);
        snprintf(path, sizeof path, "/proc/%d/ns/net", (int)holders[side]);
        net->ns[side] = open(path, O_RDONLY | O_CLOEXEC);
        REQUIRE(net->ns[side] >= 0);
    }
    CHECK_EQ(net_run(net, LEADER_SIDE, "ip link set lo up && ip link add va address 02:00:00:00:00:01 type veth "
                     "peer name vb address 02:00:00:00:00:02 netns %d", (int)holders[FOLLOWER_SIDE]), 0);
    CHECK_EQ(net_run(net, LEADER_SIDE, "ip addr add %s/24 dev va && ip link set va up", leader_host), 0);
    CHECK_EQ(net_run(net, FOLLOWER_SIDE, "ip link set lo up && ip addr add %s/24 dev vb && ip link set vb up",
                     follower_host), 0);
    for (int side = 0; side < 2; side++) {
        kill(holders[side], SIGKILL);
        own_reap(holders[side]);
    }
    REQUIRE(own_bad == 0);
}
/* What this side sends gets lost from now on, or arrives again. */
static inline void net_cut(const struct net *net, int side, int cut)
{
    CHECK_EQ(net_run(net, side, "ip neigh replace %s lladdr 02:00:00:00:00:%s dev %s nud permanent",
                     side == LEADER_SIDE ? follower_host : leader_host,
                     cut ? "99" : side == LEADER_SIDE ? "02" : "01", side == LEADER_SIDE ? "va" : "vb"), 0);
}

#endif
