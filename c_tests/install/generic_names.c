/* The names that other libraries have too, in a program that declares them itself, has one of its own, and uses a
 * library with another send_full (elsewhere.c). */
#define _POSIX_C_SOURCE 200809L
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <unistd.h>

void crc32_init(void);
unsigned kv_hash(const char *key, int num_buckets);
ssize_t read_full(int fd, void *buf, size_t len);
int recv_full(int fd, void *buf, size_t len);
int send_full(int fd, const void *buf, size_t len);
int write_full(int fd, const void *buf, size_t len);
const char *logship_version(void);
int call_the_other_send_full(int number);

#define REQUIRE(what) \
    do { \
        if (!(what)) { \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #what); \
            return 1; \
        } \
    } while (0)

static int own_calls;

/* The program's own: it is what the program calls, and no library does. */
int write_full(int fd, const void *buf, size_t len)
{
    own_calls++;
    return write(fd, buf, len) == (ssize_t)len ? 0 : -1;
}

static int (*const sender)(int, const void *, size_t) = send_full;

int main(void)
{
    int pair[2], pipes[2];
    char got[6];

    crc32_init();
    REQUIRE(kv_hash("city", 7) < 7);
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0 && pipe(pipes) == 0);
    REQUIRE(sender == send_full && sender(pair[0], "hello", 6) == 0);
    REQUIRE(recv_full(pair[1], got, 6) == 0 && strcmp(got, "hello") == 0);
    REQUIRE(write_full(pipes[1], "world", 6) == 0 && own_calls == 1);
    REQUIRE(read_full(pipes[0], got, 6) == 6 && strcmp(got, "world") == 0);
    REQUIRE(call_the_other_send_full(41) == 42);
    return 0;
}
