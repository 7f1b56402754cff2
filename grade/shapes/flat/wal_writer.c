/* Of a correct tree in another hand than plain_c. The log: the writer counts LSNs and allocates its path. */
#include "wal_writer.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
int wal_open(struct wal_writer *w, const char *path)
{
    struct stat st;
    memset(w, 0, sizeof *w);
    w->fd = open(path, O_RDWR | O_CREAT | O_APPEND, 0644);
    if (w->fd < 0)
        return -1;
    if (fstat(w->fd, &st)) {
        close(w->fd);
        return -1;
    }
    uint8_t head[8];
    off_t at = 0;               /* an LSN is a record's number */
    while (pread(w->fd, head, 8, at) == 8) {
        at += head[4] | head[5] << 8 | head[6] << 16;
        w->lsn++;
    }
    w->offset = (uint64_t) st.st_size;
    w->wal_path = strdup(path);
    return 0;
}

int wal_append(struct wal_writer *w, const struct wal_record *r)
{
    size_t cap = 32u + r->key_len + r->value_len;
    uint8_t *b = malloc(cap);
    if (!b)
        return -1;
    int n = wal_record_encode(r, b, cap), done = 0;
    while (n > 0 && done < n) {
        ssize_t k = write(w->fd, b + done, (size_t) (n - done));
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0) {
            free(b);
            return -1;
        }
        done += (int) k;
    }
    free(b);
    if (n < 0 || fsync(w->fd))
        return -1;
    w->offset += (uint64_t) n;
    w->lsn++;
    return n;
}

void wal_close(struct wal_writer *w)
{
    if (w->fd >= 0) {
        fsync(w->fd);
        close(w->fd);
    }
    w->fd = -1;
    free(w->wal_path);
    w->wal_path = NULL;
}
