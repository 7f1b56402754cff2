/* What only W11's check programs need: the other end of a connection, driven by hand, so that no verdict depends on
 * a second implementation; and eyes between a student's code and the kernel.
 *
 * The functions of libc that stand below (send, write, fsync, poll...) take libc's place in the whole program. They
 * do what libc's do, note what a check asked them to note, and hand on no more bytes at a time than a check allows:
 * both is within what POSIX lets the real ones do. The check's own end of a connection uses the system calls
 * themselves. */
#ifndef LOGSHIP_CHECK_WIRE_H
#define LOGSHIP_CHECK_WIRE_H

#include "course.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "w11/repl_ack.h"
#include "w11/repl_config.h"
#include "w11/repl_conflict.h"
#include "w11/repl_quorum.h"
#include "w11/repl_rejoin.h"
#include "w11/repl_ship.h"

enum {
    WIRE_READ_MS = 3000,  /* what is due on a connection is there at once; only what is missing takes this long */
    WIRE_CALL_S = 12,     /* a call that has not returned after this long hangs: the contract's own deadlines are 5 s */
    WIRE_CHILD_MS = 15000,
    WIRE_ACK_MAX = 64,
    WIRE_ROOM = 70000,    /* for one encoded record of a check */
    WIRE_FOLLOWERS = 3    /* the most that a check has; a tree may have room for two only */
};

/* ---- what trees write differently ------------------------------------------------------------------------------- */

/* What a tree has not, or its headers do not tell, is declared here as most trees have it; what it has not at all is
 * the check's own, which then judges nothing of the student's. */
#if defined(GRADE_HAS_send_full) && !defined(GRADE_DECLARES_send_full)
int send_full(int fd, const void *buf, size_t len);
#endif
#if defined(GRADE_HAS_recv_full) && !defined(GRADE_DECLARES_recv_full)
int recv_full(int fd, void *buf, size_t len);
#endif
#if defined(GRADE_HAS_repl_accept) && !defined(GRADE_DECLARES_repl_accept)
int repl_accept(int listen_fd);
#endif

#ifdef GRADE_HAS_send_full
#define WIRE_SEND_FULL(fd, buf, len) ((int)send_full((fd), (buf), (len)))
#else
#define WIRE_SEND_FULL(fd, buf, len) (wire_write((fd), (buf), (len)), 0)
#endif
#ifdef GRADE_HAS_recv_full
#define WIRE_RECV_FULL(fd, buf, len) ((int)recv_full((fd), (buf), (len)))
#else
#define WIRE_RECV_FULL(fd, buf, len) (wire_read((fd), (buf), (len)) == (len) ? 0 : -1)
#endif
#ifdef GRADE_HAS_repl_accept
#define WIRE_ACCEPT(listen_fd) ((int)repl_accept(listen_fd))
#else
#define WIRE_ACCEPT(listen_fd) accept((listen_fd), NULL, NULL)
#endif

#ifndef GRADE_NAMES_CONFLICT
enum { SKIP = 0, APPLY = 1 };
#endif

/* ---- a call that hangs or crashes still gets a verdict ---------------------------------------------------------- */

static const char *volatile wire_doing = "the check's own work";

/* check_fail is not async-signal-safe in the letter. What runs here runs at most once, and the process then ends. */
static inline void wire_on_signal(int number)
{
    if (number == SIGALRM)
        check_fail(wire_doing, "returns", "still running after %d s", WIRE_CALL_S);
    if (number == SIGPIPE)
        check_fail(wire_doing, "no SIGPIPE when the other end is gone (send with MSG_NOSIGNAL, or ignore it)",
                   "killed by SIGPIPE");
    check_fail(wire_doing, "returns", "crashed with signal %d (%s)", number, strsignal(number));
}

static inline void wire_begin(const char *doing)
{
    static const int fatal[] = { SIGALRM, SIGPIPE, SIGSEGV, SIGBUS, SIGABRT, SIGFPE };
    static int installed;

    for (size_t i = 0; !installed && i < sizeof fatal / sizeof fatal[0]; i++)
        signal(fatal[i], wire_on_signal);
    installed = 1;
    wire_doing = doing;
    alarm(WIRE_CALL_S);
}

static inline void wire_end(void)
{
    alarm(0);
    wire_doing = "the check's own work";
}

/* One call of a student's function. `doing` says in words which, and in what situation. */
#define CALL(result, doing, call) \
    do {                          \
        wire_begin(doing);        \
        (result) = (call);        \
        wire_end();               \
    } while (0)

/* ---- eyes between the code that is judged and the kernel -------------------------------------------------------- */

static struct {
    int socket;             /* sends on this socket are noted, with the state of the log at that moment */
    int log;                /* and writes to, and fsyncs of, this file */
    char journal[64];       /* 'w' written, 'f' fsynced, 's' sent, in order */
    size_t events;
    size_t sent;            /* bytes that were sent on the socket */
    off_t log_size;         /* the log's size when the watch began */
    int sent_unlogged;      /* something was sent while the log still had that size */
    int offline;            /* a descriptor that poll must not be given */
    int polled_offline;     /* how often it was */
    size_t send_at_most;    /* bytes that one send hands on; 0: all */
    size_t read_at_most;    /* bytes that one read of a file hands on; 0: all */
    uint16_t leader_port;   /* where a connection to the lesson's port 7000 goes; 0: there */
    const char *log_path;   /* what a file that is not there stands for: the leader's log, during a catch-up */
} wire_eyes = { .socket = -1, .log = -1, .offline = -1 };

static inline void wire_note(int fd, int watched, char event)
{
    if (fd == watched && fd >= 0 && wire_eyes.events < sizeof wire_eyes.journal - 1)
        wire_eyes.journal[wire_eyes.events++] = event;
}

/* By the descriptor; -1 if that is none of a file. */
static inline off_t wire_size(int fd)
{
    struct stat info;

    return fstat(fd, &info) == 0 ? info.st_size : -1;
}

static inline void wire_watch(int socket, int log)
{
    memset(wire_eyes.journal, 0, sizeof wire_eyes.journal);
    wire_eyes.events = 0;
    wire_eyes.sent = 0;
    wire_eyes.sent_unlogged = 0;
    wire_eyes.log_size = wire_size(log);
    wire_eyes.socket = socket;
    wire_eyes.log = log;
}

static inline int wire_is(int fd, mode_t type)
{
    struct stat info;

    return fstat(fd, &info) == 0 && (info.st_mode & S_IFMT) == type;
}

static inline size_t wire_send_share(int fd, size_t len)
{
    size_t most = wire_eyes.send_at_most;

    return most > 0 && len > most && wire_is(fd, S_IFSOCK) ? most : len;
}

static inline size_t wire_read_share(int fd, size_t len)
{
    size_t most = wire_eyes.read_at_most;

    return most > 0 && len > most && wire_is(fd, S_IFREG) ? most : len;
}

static inline ssize_t wire_noted(int fd, ssize_t n)
{
    int saved = errno;

    if (n > 0) {
        wire_note(fd, wire_eyes.socket, 's');
        wire_note(fd, wire_eyes.log, 'w');
        if (fd == wire_eyes.socket) {
            wire_eyes.sent += (size_t)n;
            if (wire_eyes.log >= 0 && wire_size(wire_eyes.log) == wire_eyes.log_size)
                wire_eyes.sent_unlogged = 1;
        }
    }
    errno = saved;
    return n;
}

ssize_t sendto(int fd, const void *buf, size_t len, int flags, __CONST_SOCKADDR_ARG address, socklen_t size)
{
    return wire_noted(fd, syscall(SYS_sendto, fd, buf, wire_send_share(fd, len), flags, address.__sockaddr__, size));
}

ssize_t send(int fd, const void *buf, size_t len, int flags)
{
    return wire_noted(fd, syscall(SYS_sendto, fd, buf, wire_send_share(fd, len), flags, NULL, 0));
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    return wire_noted(fd, syscall(SYS_sendmsg, fd, message, flags));
}

ssize_t write(int fd, const void *buf, size_t len)
{
    return wire_noted(fd, syscall(SYS_write, fd, buf, wire_send_share(fd, len)));
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    return wire_noted(fd, syscall(SYS_writev, fd, parts, count));
}

ssize_t pwrite64(int fd, const void *buf, size_t len, off64_t offset)
{
    return wire_noted(fd, syscall(SYS_pwrite64, fd, buf, len, offset));
}

ssize_t pwrite(int fd, const void *buf, size_t len, off_t offset)
{
    return pwrite64(fd, buf, len, offset);
}

ssize_t read(int fd, void *buf, size_t len)
{
    return syscall(SYS_read, fd, buf, wire_read_share(fd, len));
}

ssize_t pread64(int fd, void *buf, size_t len, off64_t offset)
{
    return syscall(SYS_pread64, fd, buf, wire_read_share(fd, len), offset);
}

ssize_t pread(int fd, void *buf, size_t len, off_t offset)
{
    return pread64(fd, buf, len, offset);
}

/* Where the leader's log is, is a tree's own choice: a field of the configuration, a constant, an argument. During a
 * catch-up any file that is opened for reading and is not there (or has no name, since a field that no lesson names was
 * not filled) stands for the log of the check. */
static inline const char *wire_log_for(const char *path)
{
    if (wire_eyes.log_path == NULL || (path != NULL && syscall(SYS_access, path, F_OK) == 0))
        return path;
    return wire_eyes.log_path;
}

int open(const char *path, int flags, ...)
{
    va_list arguments;
    mode_t mode = 0;

    va_start(arguments, flags);
    if ((flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE)
        mode = va_arg(arguments, mode_t);
    va_end(arguments);
    if ((flags & O_CREAT) == 0)
        path = wire_log_for(path);
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    va_list arguments;
    mode_t mode = 0;

    va_start(arguments, flags);
    if ((flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE)
        mode = va_arg(arguments, mode_t);
    va_end(arguments);
    return open(path, flags, mode);
}

FILE *fopen(const char *path, const char *how)
{
    int flags = strchr(how, '+') != NULL ? O_RDWR : how[0] == 'r' ? O_RDONLY : O_WRONLY, fd;

    if (how[0] == 'w')
        flags |= O_CREAT | O_TRUNC;
    if (how[0] == 'a')
        flags |= O_CREAT | O_APPEND;
    fd = open(path, flags | (strchr(how, 'e') != NULL ? O_CLOEXEC : 0), 0666);
    return fd < 0 ? NULL : fdopen(fd, how);
}

FILE *fopen64(const char *path, const char *how)
{
    return fopen(path, how);
}

int stat(const char *path, struct stat *info)
{
    return fstatat(AT_FDCWD, wire_log_for(path), info, 0);
}

int access(const char *path, int mode)
{
    return (int)syscall(SYS_access, wire_log_for(path), mode);
}

int fsync(int fd)
{
    wire_note(fd, wire_eyes.log, 'f');
    return (int)syscall(SYS_fsync, fd);
}

int fdatasync(int fd)
{
    wire_note(fd, wire_eyes.log, 'f');
    return (int)syscall(SYS_fdatasync, fd);
}

int poll(struct pollfd *fds, nfds_t count, int timeout_ms)
{
    for (nfds_t i = 0; i < count; i++)
        if (wire_eyes.offline >= 0 && fds[i].fd == wire_eyes.offline)
            wire_eyes.polled_offline++;
    return (int)syscall(SYS_poll, fds, count, timeout_ms);
}

/* An fd_set has no place for a descriptor of 1024 or more; FD_SET has by now written behind it. With luck that goes
 * well, so it is judged here and not by what comes of it. */
int select(int count, fd_set *readable, fd_set *writable, fd_set *exceptional, struct timeval *timeout)
{
    if (count > FD_SETSIZE)
        check_fail(wire_doing, "poll(2): select(2) can't have descriptors above 1023", "select(2) with descriptor %d",
                   count - 1);
    return (int)syscall(SYS_select, count, readable, writable, exceptional, timeout);
}

/* The lesson's leader listens on port 7000. A check listens on a port that the kernel picked, so that many can run
 * at once. */
int connect(int fd, __CONST_SOCKADDR_ARG address, socklen_t size)
{
    struct sockaddr_in there;

    if (wire_eyes.leader_port != 0 && size >= sizeof there) {
        memcpy(&there, address.__sockaddr__, sizeof there);
        if (there.sin_family == AF_INET && ntohs(there.sin_port) == 7000) {
            there.sin_port = htons(wire_eyes.leader_port);
            return (int)syscall(SYS_connect, fd, &there, sizeof there);
        }
    }
    return (int)syscall(SYS_connect, fd, address.__sockaddr__, size);
}

/* ---- the other end, driven by hand ------------------------------------------------------------------------------ */

static inline uint16_t wire_port_of(int fd)
{
    struct sockaddr_in address = { 0 };
    socklen_t size = sizeof address;

    REQUIRE(getsockname(fd, (struct sockaddr *)&address, &size) == 0, "getsockname");
    return ntohs(address.sin_port);
}

/* Bound to a free port of the loopback; whether it listens is the caller's. */
static inline int wire_bind(void)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    REQUIRE(fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address) == 0, "bind a socket to a free port");
    return fd;
}

static inline int wire_listen(void)
{
    int fd = wire_bind();

    REQUIRE(listen(fd, 16) == 0, "listen");
    return fd;
}

/* The check's own ends never block for ever, and send without waiting to fill a packet. */
static inline int wire_tame(int fd)
{
    struct timeval limit = { .tv_sec = WIRE_READ_MS / 1000, .tv_usec = 0 };
    int one = 1;

    REQUIRE(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) == 0 &&
                setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) == 0 &&
                setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) == 0,
            "options of a socket");
    return fd;
}

static inline int wire_await(int fd, short events, int timeout_ms)
{
    struct pollfd waiting = { .fd = fd, .events = events, .revents = 0 };
    long long end = check_now_ms() + timeout_ms;
    int n;

    do {
        long long left = end - check_now_ms();

        n = (int)syscall(SYS_poll, &waiting, 1, left > 0 ? (int)left : 0);
    } while (n < 0 && errno == EINTR);
    return n > 0;
}

/* The next connection, or -1 if none comes. */
static inline int wire_accept(int listen_fd)
{
    int fd;

    if (!wire_await(listen_fd, POLLIN, WIRE_READ_MS))
        return -1;
    fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);
    return fd < 0 ? -1 : wire_tame(fd);
}

static inline int wire_connect(uint16_t port)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(port),
                                   .sin_addr = { htonl(INADDR_LOOPBACK) } };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    REQUIRE(fd >= 0, "socket");
    if (syscall(SYS_connect, fd, &address, sizeof address) == 0)
        return fd;
    close(fd);
    return -1;
}

/* A connection over the loopback: *judged is for the student's code, *raw is the check's own end. */
static inline void wire_pair(int *judged, int *raw)
{
    int listen_fd = wire_listen();

    *judged = wire_connect(wire_port_of(listen_fd));
    *raw = wire_accept(listen_fd);
    close(listen_fd);
    REQUIRE(*judged >= 0 && *raw >= 0, "a connection over the loopback");
}

static inline void wire_write(int fd, const void *bytes, size_t len)
{
    const char *next = (const char *)bytes;

    while (len > 0) {
        ssize_t n = syscall(SYS_sendto, fd, next, len, MSG_NOSIGNAL, NULL, 0);

        REQUIRE(n > 0 || errno == EINTR, "send on the check's own end");
        next += n > 0 ? n : 0;
        len -= n > 0 ? (size_t)n : 0;
    }
}

/* How many of the bytes came before the end of the stream, or before nothing came for WIRE_READ_MS. */
static inline size_t wire_read(int fd, void *bytes, size_t len)
{
    char *next = (char *)bytes;
    size_t got = 0;

    while (got < len) {
        ssize_t n = syscall(SYS_recvfrom, fd, next + got, len - got, 0, NULL, NULL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        got += (size_t)n;
    }
    return got;
}

/* An ack in the bytes that this tree reads. The lesson names lsn and status of struct repl_ack, and no bytes: the struct
 * as it lies in memory, and numbers in network byte order, are both right. */
static inline size_t wire_make_ack(struct shape_ack shape, uint64_t lsn, uint8_t status, uint8_t *bytes)
{
    memset(bytes, 0, WIRE_ACK_MAX);
    for (int i = 0; i < 8; i++)
        bytes[shape.lsn_at + (shape.order == 'l' ? i : 7 - i)] = (uint8_t)(lsn >> (8 * i));
    if (shape.status_at >= 0)
        bytes[shape.status_at] = status;
    return (size_t)shape.size;
}

static inline void wire_ack(int fd, uint64_t lsn, uint8_t status)
{
    uint8_t bytes[WIRE_ACK_MAX];

    wire_write(fd, bytes, wire_make_ack(shape_ack(), lsn, status, bytes));
}

/* The same in words, for a verdict. */
static inline const char *wire_ack_text(void)
{
    static char text[80];
    struct shape_ack shape = shape_ack();

    snprintf(text, sizeof text, "%d bytes, the LSN in %s byte order%s", shape.size,
             shape.order == 'b' ? "network" : "this machine's", shape.status_at < 0 ? ", without a status" : "");
    return text;
}

/* [length:4, big-endian][encoded record], in one piece. The number of bytes. */
static inline size_t wire_make_frame(const uint8_t *encoded, size_t len, uint8_t *frame)
{
    for (int i = 0; i < 4; i++)
        frame[i] = (uint8_t)(len >> (8 * (3 - i)));
    memcpy(frame + 4, encoded, len);
    return len + 4;
}

static inline void wire_frame(int fd, const uint8_t *encoded, size_t len)
{
    uint8_t frame[4 + WIRE_ROOM];

    wire_write(fd, frame, wire_make_frame(encoded, len, frame));
}

/* One byte at a time. Each is taken before the next is sent, if somebody takes bytes singly; `receiver` is the
 * other end's descriptor, which a forked child has too. */
static inline void wire_trickle(int fd, const uint8_t *bytes, size_t len, int receiver)
{
    for (size_t i = 0; i < len; i++) {
        int unread = 1;

        wire_write(fd, bytes + i, 1);
        for (int tries = 0; tries < 10 && unread > 0; tries++) {
            syscall(SYS_poll, NULL, 0, 1);
            if (ioctl(receiver, FIONREAD, &unread) != 0)
                unread = 0;
        }
    }
}

/* A rejoin message must hold the LSN. The lesson says nothing about its bytes, so either order will do, and text. */
static inline int wire_shows_lsn(const uint8_t *bytes, size_t len, uint64_t lsn)
{
    char text[32];
    size_t digits = (size_t)snprintf(text, sizeof text, "%" PRIu64, lsn);
    uint8_t big[8], little[8];

    for (int i = 0; i < 8; i++) {
        little[i] = (uint8_t)(lsn >> (8 * i));
        big[7 - i] = little[i];
    }
    for (size_t at = 0; at + 8 <= len; at++)
        if (memcmp(bytes + at, big, 8) == 0 || memcmp(bytes + at, little, 8) == 0)
            return 1;
    return memmem(bytes, len, text, digits) != NULL;
}

/* ---- records ---------------------------------------------------------------------------------------------------- */

/* SET key=value. The bytes come from the tree's own wal_record_encode: W11 does not judge W10's layout. */
static inline size_t wire_set(const char *key, const char *value, uint64_t timestamp, uint8_t *encoded)
{
    struct wal_record record = check_set_record(key, value, timestamp);

    return check_encode(&record, encoded, WIRE_ROOM);
}

/* Record n of most checks, SET key-n=value-n with timestamp n. Values grow with n, so that no two records are of
 * one length: a log's offset that is calculated from a length shows. */
static inline struct wal_record wire_nth_record(int n, char *key, char *value)
{
    int len = snprintf(value, 64, "value-%d", n);

    snprintf(key, 64, "key-%d", n);
    for (int i = 0; i < n % 40; i++)
        value[len++] = '.';
    value[len] = '\0';
    return check_set_record(key, value, (uint64_t)n);
}

static inline size_t wire_nth(int n, uint8_t *encoded)
{
    char key[64], value[64];
    struct wal_record record = wire_nth_record(n, key, value);

    return check_encode(&record, encoded, WIRE_ROOM);
}

static inline void wire_append_nth(struct wal_writer *writer, int n)
{
    char key[64], value[64];
    struct wal_record record = wire_nth_record(n, key, value);

    EXPECT(wal_append(writer, &record) >= 0, "wal_append to the leader's log", "no error", "%s", strerror(errno));
}

/* Does the store hold exactly the first n of these? */
static inline void wire_expect_first(const struct kv_store *store, int n, const char *what)
{
    char key[64], value[64], text[200];

    for (int i = 1; i <= n; i++) {
        wire_nth_record(i, key, value);
        snprintf(text, sizeof text, "%s: GET %s", what, key);
        check_expect_string(value, kv_store_get(store, key), text);
    }
    snprintf(text, sizeof text, "%s: number of keys", what);
    EXPECT_INT(n, check_count_keys(store), text);
}

/* Which of the first `most` records starts with these bytes? In words, for a verdict. */
static inline void wire_name_record(const uint8_t *bytes, size_t len, int most, char *name, size_t size)
{
    uint8_t encoded[WIRE_ROOM];

    for (int n = 1; n <= most; n++) {
        size_t want = wire_nth(n, encoded);

        if (len >= want && memcmp(bytes, encoded, want) == 0) {
            snprintf(name, size, "record %d", n);
            return;
        }
    }
    snprintf(name, size, "other bytes");
}

/* The next frame that arrives must be record n. */
static inline void wire_expect_nth(int raw, int n, const char *what)
{
    uint8_t want[WIRE_ROOM], frame[4 + WIRE_ROOM];
    char text[200], expected[64], seen[64];
    size_t len = wire_nth(n, want), got = wire_read(raw, frame, 4), size;

    snprintf(text, sizeof text, "%s: the frame that should be record %d", what, n);
    snprintf(expected, sizeof expected, "record %d", n);
    EXPECT(got == 4, text, expected, "%zu bytes and no more", got);
    size = (size_t)frame[0] << 24 | (size_t)frame[1] << 16 | (size_t)frame[2] << 8 | frame[3];
    EXPECT(size > 0 && size <= WIRE_ROOM, text, expected, "a frame of %zu bytes", size);
    got = wire_read(raw, frame + 4, size);
    EXPECT(got == size, text, expected, "a frame of %zu bytes, of which %zu came", size, got);
    wire_name_record(frame + 4, size, n + 20, seen, sizeof seen);
    EXPECT(size == len && memcmp(frame + 4, want, len) == 0, text, expected, "%s", seen);
}

/* Nothing more has been sent. The sending side is ended first, so that this needs no waiting; it is gone afterwards. */
static inline void wire_expect_end(int judged, int raw, const char *what)
{
    uint8_t rest[4096];
    size_t got;

    if (judged >= 0)
        shutdown(judged, SHUT_WR);
    got = wire_read(raw, rest, sizeof rest);
    EXPECT(got == 0, what, "nothing more is sent", "%zu bytes more", got);
}

/* ---- followers of which the check is the other end -------------------------------------------------------------- */

struct wire_cluster {
    struct replication_config config;
    int raw[WIRE_FOLLOWERS]; /* the follower's end */
#ifdef GRADE_FOLLOWERS_POINTER
    struct repl_node nodes[WIRE_FOLLOWERS];
#endif
};

static char wire_loopback[] = "127.0.0.1";

static inline void wire_set_node(struct repl_node *node, uint16_t port)
{
#ifdef GRADE_NODE_HOST
    SHAPE_SET_TEXT(node->host, wire_loopback);
#endif
    node->port = port;
    node->fd = -1;
    node->online = 0;
}

static inline struct repl_node wire_node(uint16_t port)
{
    struct repl_node node;

    memset(&node, 0, sizeof node);
    wire_set_node(&node, port);
    return node;
}

/* How many followers a configuration of this tree has room for. */
static inline int wire_room_for(void)
{
#ifdef GRADE_FOLLOWERS_POINTER
    return WIRE_FOLLOWERS;
#else
    size_t room = sizeof ((struct replication_config *)NULL)->followers / sizeof(struct repl_node);

    return room < WIRE_FOLLOWERS ? (int)room : WIRE_FOLLOWERS;
#endif
}

/* For a check that takes three followers: the lessons name two, so a tree with room for two is right. */
static inline int wire_has_room_for(int followers)
{
    if (wire_room_for() >= followers)
        return 1;
    check_note("a configuration of this tree has room for %d followers: what takes %d was not looked at",
               wire_room_for(), followers);
    return 0;
}

/* A configuration as the tree makes it. */
static inline void wire_config(struct wire_cluster *cluster)
{
    memset(cluster, 0, sizeof *cluster);
#ifdef GRADE_FOLLOWERS_POINTER
    cluster->config.followers = cluster->nodes;
#endif
#ifdef GRADE_CONFIG_INIT
    wire_begin("repl_config_init");
    (void)repl_config_init(&cluster->config);
    wire_end();
#ifdef GRADE_FOLLOWERS_POINTER
    if (cluster->config.followers == NULL)
        cluster->config.followers = cluster->nodes;
#endif
#endif
}

static inline void wire_join(struct wire_cluster *cluster, int index)
{
    struct repl_node *node = &cluster->config.followers[index];
    int judged;

    wire_pair(&judged, &cluster->raw[index]);
    node->fd = judged;
    node->online = 1;
}

/* A tree may ignore SIGPIPE where it begins, instead of sending without it. */
static inline void wire_prepare(void)
{
    static struct wire_cluster scratch;

    wire_config(&scratch);
}

/* `count` followers that are connected and online. Ports and sockets are the check's, all else is as the tree's own
 * repl_config_init makes it. */
static inline void wire_cluster_open(struct wire_cluster *cluster, int count)
{
    wire_config(cluster);
    for (int i = 0; i < wire_room_for(); i++)
        wire_set_node(&cluster->config.followers[i], (uint16_t)(7001 + i));
    for (int i = 0; i < WIRE_FOLLOWERS; i++)
        cluster->raw[i] = -1;
    cluster->config.follower_count = count;
    for (int i = 0; i < count; i++)
        wire_join(cluster, i);
}

/* The judged end is closed by whoever is first; the number may be another file's by then. */
static inline void wire_node_close(struct repl_node *node)
{
    if (node->fd >= 0 && wire_is(node->fd, S_IFSOCK))
        close(node->fd);
    node->fd = -1;
    node->online = 0;
}

static inline void wire_cluster_close(struct wire_cluster *cluster)
{
    for (int i = 0; i < wire_room_for(); i++) {
        wire_node_close(&cluster->config.followers[i]);
        if (cluster->raw[i] >= 0)
            close(cluster->raw[i]);
        cluster->raw[i] = -1;
    }
}

/* The follower goes away, and the leader's kernel knows. */
static inline void wire_leave(struct wire_cluster *cluster, int index)
{
    close(cluster->raw[index]);
    cluster->raw[index] = -1;
    REQUIRE(wire_await(cluster->config.followers[index].fd, POLLRDHUP, WIRE_READ_MS), "a hang-up over the loopback");
}

/* Tells a configuration where its log is, in the one of the usual ways that the tree has. */
static inline void wire_set_log(struct replication_config *config, struct wal_writer *writer)
{
    (void)config;
    (void)writer;
#ifdef GRADE_WAL_TEXT
    SHAPE_SET_TEXT(GRADE_WAL_TEXT, "leader.wal");
#endif
#ifdef GRADE_WAL_WRITER_POINTER
    GRADE_WAL_WRITER_POINTER = writer;
#endif
#ifdef GRADE_WAL_WRITER
    GRADE_WAL_WRITER = *writer;
#endif
#if defined(GRADE_WAL_FD) && defined(GRADE_WRITER_FD)
    GRADE_WAL_FD = writer->fd;
#endif
}

static inline int wire_catch_up(struct replication_config *config, struct wal_writer *writer, int index, uint64_t lsn)
{
    int rc;

    wire_set_log(config, writer);
    wire_eyes.log_path = "leader.wal";
#if defined(GRADE_CATCH_UP_PATH_LAST)
    rc = (int)repl_catch_up(config, index, lsn, "leader.wal");
#elif defined(GRADE_CATCH_UP_PATH_SECOND)
    rc = (int)repl_catch_up(config, "leader.wal", index, lsn);
#elif defined(GRADE_CATCH_UP_WRITER_LAST)
    rc = (int)repl_catch_up(config, index, lsn, writer);
#else
    rc = (int)repl_catch_up(config, index, lsn);
#endif
    wire_eyes.log_path = NULL;
    return rc;
}

/* A listening socket of the tree's own, on any free port. */
static inline int wire_tree_listen(struct repl_node *node)
{
#if defined(GRADE_LISTEN_NODE)
    return (int)repl_listen(node);
#elif defined(GRADE_LISTEN_PORT)
    return (int)repl_listen(node->port);
#else
    (void)node;
    return wire_listen();
#endif
}

/* ---- descriptors and children ----------------------------------------------------------------------------------- */

static inline int wire_count_fds(void)
{
    DIR *handle = opendir("/proc/self/fd");
    int count = 0;

    REQUIRE(handle != NULL, "list the open descriptors");
    while (readdir(handle) != NULL)
        count++;
    closedir(handle);
    return count;
}

/* A child that plays a part which has to go on while the student's call waits. It ends with _exit. */
static inline void wire_dismiss(pid_t pid)
{
    kill(pid, SIGKILL);
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        continue;
}

static inline void wire_on_interrupt(int number)
{
    (void)number;
}

/* Signals come while this process waits (recv(2) ends with EINTR, since the handler does not restart it), and only then
 * the bytes. The child that does it is for check_join. */
static inline pid_t wire_interrupt_then_write(int raw, const uint8_t *bytes, size_t len)
{
    struct sigaction action = { .sa_handler = wire_on_interrupt };
    pid_t child;

    REQUIRE(sigaction(SIGUSR1, &action, NULL) == 0, "sigaction");
    child = check_fork();
    if (child == 0) {
        for (int i = 0; i < 5; i++) {
            syscall(SYS_poll, NULL, 0, 40);
            kill(getppid(), SIGUSR1);
        }
        wire_write(raw, bytes, len);
        _exit(0);
    }
    return child;
}

/* Memory that a forked child shares with its parent. */
static inline volatile int *wire_shared_flag(void)
{
    void *page = mmap(NULL, sizeof(int), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    REQUIRE(page != MAP_FAILED, "shared memory");
    return (volatile int *)page;
}

#endif
