/* Of a correct tree in another hand than plain_c.
 * The codec: the timestamp stands behind op, length counts the whole record, decode points into the buffer. */
#include "wal_record.h"
#include "crc32.h"
#include <string.h>
static void w16(uint8_t *p, unsigned v)
{
    p[0] = v & 255;
    p[1] = (v >> 8) & 255;
}

static void w32(uint8_t *p, uint32_t v)
{
    w16(p, v & 65535);
    w16(p + 2, v >> 16);
}

static void w64(uint8_t *p, uint64_t v)
{
    w32(p, (uint32_t) v);
    w32(p + 4, (uint32_t) (v >> 32));
}

static unsigned r16(const uint8_t *p)
{
    return p[0] | p[1] << 8;
}

static uint32_t r32(const uint8_t *p)
{
    return r16(p) | (uint32_t) r16(p + 2) << 16;
}

static uint64_t r64(const uint8_t *p)
{
    return r32(p) | (uint64_t) r32(p + 4) << 32;
}

int wal_record_encode(const struct wal_record *r, uint8_t *b, size_t n)
{
    size_t vl = r->op == WAL_OP_DEL ? 0 : r->value_len, total = 4 + 4 + 1 + 8 + 2 + r->key_len + 2 + vl;
    if (n < total)
        return -1;
    uint8_t *p = b + 4;
    w32(p, (uint32_t) total);
    p += 4;
    *p++ = r->op;
    w64(p, r->timestamp);
    p += 8;
    w16(p, r->key_len);
    p += 2;
    memcpy(p, r->key, r->key_len);
    p += r->key_len;
    w16(p, (unsigned) vl);
    p += 2;
    if (vl)
        memcpy(p, r->value, vl);
    w32(b, crc32(b + 4, total - 4));
    return (int) total;
}

int wal_record_decode(const uint8_t *b, size_t len, struct wal_record *r)
{
    if (len < 21)
        return -1;
    if (r32(b + 4) != len)
        return CRC_MISMATCH;
    if (r32(b) != crc32(b + 4, len - 4))
        return CRC_MISMATCH;
    r->crc = r32(b);
    r->op = b[8];
    r->timestamp = r64(b + 9);
    r->key_len = (uint16_t) r16(b + 17);
    if (19u + r->key_len + 2 > len)
        return -1;
    r->key = (const char *) b + 19;
    r->value_len = (uint16_t) r16(b + 19 + r->key_len);
    if (21u + r->key_len + r->value_len != len)
        return -1;
    r->value = r->op == WAL_OP_DEL ? NULL : (const char *) b + 21 + r->key_len;
    return (int) len;
}
