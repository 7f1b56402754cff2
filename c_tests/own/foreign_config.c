/* A program with a repl_config.h of its own, in which the host is an array and a node has a field more. It compiles, and
 * no call can know its layout; but what it hands over is no struct of ours, and that is said in one line. */
#include "harness.h"

struct repl_node { char host[64]; uint16_t port; int fd; uint8_t online; uint64_t last_acked; };
struct replication_config { struct repl_node leader; struct repl_node followers[8]; int follower_count; };

int repl_config_init(struct replication_config *config);
int repl_connect(struct repl_node *node);
int repl_listen(struct repl_node *node);
int repl_ship_record(struct replication_config *config, const uint8_t *encoded_buf, size_t encoded_len);
void logship_set_log(void (*function)(int level, const char *message, void *context), void *context);

static char line[512];
static int lines;

static void note(int level, const char *message, void *context)
{
    (void)level, (void)context;
    snprintf(line, sizeof line, "%s", message);
    lines++;
}

/* As many lines as that since the last time, the last of which names the cause and the page. */
static int said(int count)
{
    int right = lines == count && strstr(line, "repl_config.h") != NULL && strstr(line, "docs/linking.md") != NULL;

    lines = 0;
    return right;
}

static void a_host_that_is_text(void)
{
    struct replication_config config;

    memset(&config, 0, sizeof config);
    repl_config_init(&config);
    strcpy(config.leader.host, "127.0.0.1");
    strcpy(config.followers[0].host, "127.0.0.1");
    config.followers[0].port = 7001;
    errno = 0;
    CHECK_EQ(repl_listen(&config.leader), -1);
    CHECK_EQ(errno, EINVAL);
    CHECK(said(1));
    CHECK_EQ(repl_connect(&config.followers[0]), -1);
    CHECK(said(1));
    CHECK(strstr(line, "88 bytes into") != NULL);
}

/* The program connects by itself and only ships. */
static void a_port_where_a_host_is(void)
{
    struct replication_config config;
    const uint8_t byte = 0;

    repl_config_init(&config);
    for (int i = 0; i < 8; i++) {
        config.followers[i].port = (uint16_t)(7001 + i);
        config.followers[i].fd = 100 + i;
        config.followers[i].online = 1;
    }
    repl_ship_record(&config, &byte, 1);
    CHECK(said(1));
}

static void a_count_that_is_none(void)
{
    struct replication_config config;
    const uint8_t byte = 0;

    repl_config_init(&config);
    memset(config.followers[1].host, '1', sizeof config.followers[1].host);
    CHECK_EQ(repl_ship_record(&config, &byte, 1), -1);
    CHECK(said(1));
}

static void a_struct_that_is_packed(void)
{
    static _Alignas(8) char room[1024];

    CHECK_EQ(repl_connect((struct repl_node *)(void *)(room + 15)), -1);
    CHECK(said(1));
}

int main(void)
{
    logship_set_log(note, NULL);
    CASE("a host that is text", a_host_that_is_text);
    CASE("nodes of another size, filled in by the program", a_port_where_a_host_is);
    CASE("a number of followers that can't be", a_count_that_is_none);
    CASE("a node at an address that none has", a_struct_that_is_packed);
    return own_end();
}
