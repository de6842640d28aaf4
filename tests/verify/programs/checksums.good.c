/* Checksums, hashes and what is rewritten in packets. */
#include "program.h"

struct udp {
    u16 source, destination, length, checksum;
};

static const u32 crc_table[16] = {
    0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4, 0x4db26158, 0x5005713c,
    0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c, 0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c,
};

CHAM_INLINE u16 fold16(u32 sum)
{
    for (int i = 0; i < 3; i++)
        if (sum >> 16)
            sum = (sum & 0xffff) + (sum >> 16);
    return (u16)~sum;
}

CHAM_INLINE void replace_word(u16 *field, u32 old, u32 new)
{
    u32 sum = (u16)~*field + (~old & 0xffff) + (~old >> 16) + (new & 0xffff) + (new >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    *field = (u16)~(sum + (sum >> 16));
}

PROGRAM(sum_of_a_header_until_it_fits)
{
    u16 *word = ctx->data;
    u32 sum = 0;
    if ((void *)(word + 10) > ctx->data_end)
        return CHAM_ERROR(1);
#pragma clang loop unroll(full)
    for (int i = 0; i < 10; i++)
        sum += word[i];
    return fold16(sum) ? CHAM_ERROR(2) : CHAM_DONE;
}

PROGRAM(sum_of_words_by_pointer)
{
    u16 *p = ctx->data, *end = ctx->data_end;
    u32 sum = 0;
#pragma clang loop unroll(disable)
    for (u32 i = 0; i < 750; i++) {
        if (p + 1 > end)
            break;
        sum += *p++;
    }
    if ((u8 *)p + 1 <= (u8 *)end)
        sum += *(u8 *)p;
    return fold16(sum);
}

PROGRAM(sum_of_the_rest_four_bytes_at_a_time)
{
    u8 *ip = ctx->data, *end = ctx->data_end;
    if (ip + 20 > end)
        return CHAM_ERROR(1);
    u64 sum = 0;
    u8 *p = ip + (ip[0] & 15) * 4;
    for (u32 i = 0; i < 64 && p + 4 <= end; i++, p += 4)
        sum += *(u32 *)p;
    for (u32 i = 0; i < 3 && p + 1 <= end; i++, p++)
        sum += (u32)*p << i * 8;
    return cham_fold(sum);
}

PROGRAM(sum_by_a_countdown)
{
    u8 *ip = ctx->data, *end = ctx->data_end;
    if (ip + 20 > end)
        return CHAM_ERROR(1);
    u32 words = (ip[0] & 15) << 1;
    u16 *p = (u16 *)ip;
    u64 sum = 0;
    for (u32 left = 30; left > 30 - words; left--) {
        if ((void *)(p + 1) > (void *)end)
            return CHAM_ERROR(2);
        sum += *p++;
    }
    return cham_fold(sum);
}

PROGRAM(pseudo_header)
{
    struct cham_ipv4 *ip = ctx->data;
    if ((void *)(ip + 1) > ctx->data_end)
        return CHAM_ERROR(1);
    u32 header = (ip->version_ihl & 15) * 4, length = cham_ntohs(ip->total_length);
    if (length < header || length > (u64)(ctx->data_end - ctx->data))
        return CHAM_ERROR(2);
    u64 seed = (u64)ip->src + ip->dst + cham_htons(ip->protocol) + cham_htons(length - header);
    return cham_csum(ctx, CHAM_SPAN(header, length - header), cham_fold(seed)) == 0xffff ? CHAM_DONE : CHAM_ERROR(3);
}

PROGRAM(time_to_live)
{
    struct cham_ipv4 *ip = ctx->data;
    if ((void *)(ip + 1) > ctx->data_end || ip->ttl <= 1)
        return CHAM_ERROR(1);
    u16 old = *(u16 *)&ip->ttl;
    ip->ttl--;
    ip->checksum = cham_csum_replace(ip->checksum, old, *(u16 *)&ip->ttl);
    return CHAM_TX;
}

PROGRAM(address_translated)
{
    struct cham_ipv4 *ip = ctx->data;
    void *end = ctx->data_end;
    if ((void *)(ip + 1) > end || (ip->protocol != 6 && ip->protocol != 17))
        return CHAM_PUNT;
    u32 header = (ip->version_ihl & 15) * 4;
    if (header < sizeof *ip)
        return CHAM_ERROR(1);
    u16 *ports = (void *)ip + header;
    if ((void *)(ports + 2) > end)
        return CHAM_ERROR(2);
    struct flow_key k = {};
    k.address = ip->dst;
    k.port = ports[1];
    k.kind = ip->protocol;
    struct flow *f = cham_lookup(&table, &k);
    if (!f)
        return CHAM_PUNT;
    u32 old = ip->dst, new = f->state;
    u16 *check;
    if (ip->protocol == 6) {
        check = (void *)ports + 16;
        if ((void *)(check + 1) > end)
            return CHAM_ERROR(3);
    } else {
        check = (void *)ports + 6;
        if ((void *)(check + 1) > end)
            return CHAM_ERROR(4);
        if (!*check)
            check = 0;
    }
    ip->dst = new;
    replace_word(&ip->checksum, old, new);
    if (check) {
        replace_word(check, old, new);
        replace_word(check, ports[1], f->next & 0xffff);
    }
    ports[1] = (u16)f->next;
    f->packets++;
    f->bytes += cham_ntohs(ip->total_length);
    return CHAM_TX;
}

PROGRAM(congestion_experienced)
{
    u8 *ip = ctx->data;
    if (ip + 20 > (u8 *)ctx->data_end)
        return CHAM_ERROR(1);
    if ((ip[1] & 3) == 0 || (ip[1] & 3) == 3)
        return CHAM_DONE;
    u16 *check = (u16 *)(ip + 10);
    u16 before = *(u16 *)ip;
    ip[1] |= 3;
    *check = cham_csum_replace(*check, before, *(u16 *)ip);
    return CHAM_TX;
}

PROGRAM(crc_by_nibbles)
{
    u8 *p = ctx->data, *end = ctx->data_end;
    u32 crc = ~0u;
#pragma clang loop unroll(disable)
    for (u32 i = 0; i < 128; i++) {
        if (p + i + 1 > end)
            break;
        crc ^= p[i];
        crc = crc_table[crc & 15] ^ crc >> 4;
        crc = crc_table[crc & 15] ^ crc >> 4;
    }
    return ~crc;
}

PROGRAM(crc_by_bits)
{
    u8 *p = ctx->data;
    u16 crc = 0xffff;
    if (p + 8 > (u8 *)ctx->data_end)
        return CHAM_ERROR(1);
    for (u32 i = 0; i < 8; i++) {
        crc ^= (u16)(p[i] << 8);
        for (u32 b = 0; b < 8; b++)
            crc = crc & 0x8000 ? (u16)(crc << 1 ^ 0x1021) : (u16)(crc << 1);
    }
    return crc;
}

PROGRAM(adler)
{
    u8 *p = ctx->data, *end = ctx->data_end;
    u32 a = 1, b = 0, n = 0;
    while (p < end && n++ < 200) {
        a = (a + *p++) % 65521;
        b = (b + a) % 65521;
    }
    return (u64)b << 16 | a;
}

CHAM_INLINE u32 rotate(u32 x, u32 n)
{
    return x << n | x >> (32 - n);
}

PROGRAM(jenkins)
{
    struct cham_ipv4 *ip = ctx->data;
    if ((void *)(ip + 1) > ctx->data_end)
        return CHAM_ERROR(1);
    u32 a = ip->src + 0xdeadbeef, b = ip->dst + 0xdeadbeef, c = ip->protocol + 0xdeadbeef;
    c ^= b, c -= rotate(b, 14);
    a ^= c, a -= rotate(c, 11);
    b ^= a, b -= rotate(a, 25);
    c ^= b, c -= rotate(b, 16);
    a ^= c, a -= rotate(c, 4);
    b ^= a, b -= rotate(a, 14);
    c ^= b, c -= rotate(b, 24);
    u32 bucket = c & 63;
    struct flow *f = cham_lookup(&flows, &bucket);
    return f && f->state == ip->src ? CHAM_TX : CHAM_PUNT;
}

PROGRAM(murmur_of_a_name)
{
    u32 i = ctx->id, h = ctx->hash;
    struct flow *f = cham_lookup(&flows, &i);
    if (!f)
        return CHAM_ERROR(1);
    for (u32 at = 0; at < sizeof f->name; at += 4) {
        u32 k = *(u32 *)(f->name + at) * 0xcc9e2d51;
        h = rotate(h ^ rotate(k, 15) * 0x1b873593, 13) * 5 + 0xe6546b64;
    }
    h ^= h >> 16;
    h *= 0x85ebca6b;
    return h ^ h >> 13;
}

PROGRAM(siphash_rounds)
{
    u64 v0 = ctx->now, v1 = ctx->hash, v2 = ctx->id, v3 = 0x7465646279746573ull;
    for (int i = 0; i < 4; i++) {
        v0 += v1, v1 = v1 << 13 | v1 >> 51, v1 ^= v0, v0 = v0 << 32 | v0 >> 32;
        v2 += v3, v3 = v3 << 16 | v3 >> 48, v3 ^= v2;
        v0 += v3, v3 = v3 << 21 | v3 >> 43, v3 ^= v0;
        v2 += v1, v1 = v1 << 17 | v1 >> 47, v1 ^= v2, v2 = v2 << 32 | v2 >> 32;
    }
    return v0 ^ v1 ^ v2 ^ v3;
}

PROGRAM(toeplitz)
{
    static const u8 key[16] = {0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0};
    u8 *ip = ctx->data;
    u32 hash = 0;
    if (ip + 20 > (u8 *)ctx->data_end)
        return CHAM_ERROR(1);
    for (u32 i = 0; i < 8; i++) {
        u8 byte = ip[12 + i];
        for (u32 b = 0; b < 8; b++) {
            if (byte & 0x80 >> b) {
                u32 window = (u32)key[i] << 24 | key[i + 1] << 16 | key[i + 2] << 8 | key[i + 3];
                hash ^= window << b | key[i + 4] >> (8 - b);
            }
        }
    }
    return hash;
}

PROGRAM(port_changed_with_its_checksum)
{
    u8 *ip = ctx->data, *end = ctx->data_end;
    if (ip + 20 > end)
        return CHAM_ERROR(1);
    struct udp *u = (void *)(ip + (ip[0] & 15) * 4);
    if ((u8 *)(u + 1) > end)
        return CHAM_ERROR(2);
    u16 old = u->destination, new = cham_htons(53);
    u->destination = new;
    if (u->checksum) {
        u32 sum = (u16)~u->checksum + (u16)~old + new;
        u->checksum = fold16(sum);
        if (!u->checksum)
            u->checksum = 0xffff;
    }
    return CHAM_TX;
}

PROGRAM(answers_an_echo)
{
    struct cham_ipv4 *ip = ctx->data;
    u8 *end = ctx->data_end;
    if ((u8 *)(ip + 1) > end || ip->protocol != 1)
        return CHAM_PUNT;
    u8 *icmp = (u8 *)ip + (ip->version_ihl & 15) * 4;
    if (icmp + 8 > end || icmp[0] != 8)
        return CHAM_PUNT;
    u32 address = ip->src;
    ip->src = ip->dst;
    ip->dst = address;
    u16 *check = (u16 *)(icmp + 2);
    u32 sum = *check + cham_htons(0x0800);
    *check = (u16)(sum + (sum >> 16));
    icmp[0] = 0;
    return CHAM_TX;
}

PROGRAM(completes_the_checksum_later)
{
    u8 *ip = ctx->data, *end = ctx->data_end;
    if (ip + 40 > end || ip[0] != 0x45)
        return CHAM_PUNT;
    u32 length = end - ip - 20;
    u64 sum = (u64)*(u32 *)(ip + 12) + *(u32 *)(ip + 16) + cham_htons(6) + cham_htons(length);
    *(u16 *)(ip + 36) = (u16)cham_fold(sum);
    return cham_csum_later(ctx, 20, 36) ? CHAM_ERROR(1) : CHAM_TX;
}

PROGRAM(sum_folded_until_it_fits)
{
    u16 *word = ctx->data;
    u32 sum = 0;
    if ((void *)(word + 10) > ctx->data_end)
        return CHAM_ERROR(1);
    for (int i = 0; i < 10; i++)
        sum += word[i];
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return sum;
}
