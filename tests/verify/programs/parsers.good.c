/* Parsers of headers, options and messages, with lengths that the packet gives. */
#include "program.h"

#define MIN(a, b) ((a) < (b) ? (a) : (b))

struct udp {
    u16 source, destination, length, checksum;
};

struct tcp {
    u16 source, destination;
    u32 seq, ack;
    u8 reserved : 4, words : 4;
    u8 fin : 1, syn : 1, rst : 1, psh : 1, ack_flag : 1, urg : 1, ece : 1, cwr : 1;
    u16 window, checksum, urgent;
};

struct ipv6 {
    u8 version : 4, high_class : 4;
    u8 flow[3];
    u16 payload;
    u8 next, hops;
    u32 from[4], to[4];
};

struct ethernet {
    u8 to[6], from[6];
    u16 type;
} __attribute__((packed));

/* The transport header behind an IPv4 header of any length, or NULL. */
CHAM_INLINE void *transport(struct chamelio_ctx *ctx, u8 protocol, u32 need)
{
    struct cham_ipv4 *ip = ctx->data;
    void *end = ctx->data_end;
    if ((void *)(ip + 1) > end || ip->protocol != protocol || (ip->fragment & cham_htons(0x3fff)))
        return 0;
    u32 header = (ip->version_ihl & 15) * 4;
    if (header < sizeof *ip)
        return 0;
    void *l4 = (u8 *)ip + header;
    return l4 + need > end ? 0 : l4;
}

PROGRAM(name_in_a_dns_question)
{
    u8 *end = ctx->data_end, *dns = transport(ctx, 17, 8 + 12);
    if (!dns)
        return CHAM_ERROR(1);
    u8 *at = dns + 20;
    u32 hash = 5381, labels = 0;
    for (u32 i = 0; i < 255; i++) {
        if (at + 1 > end)
            return CHAM_ERROR(2);
        u8 length = *at++;
        if (length == 0)
            break;
        if (length & 0xc0)
            return CHAM_ERROR(3);
        if (at + length > end)
            return CHAM_ERROR(4);
        at += length;
        hash = hash * 33 + length;
        if (++labels > 16)
            return CHAM_ERROR(5);
    }
    if (at + 4 > end)
        return CHAM_ERROR(6);
    u16 kind = *(u16 *)at;
    return kind == cham_htons(1) ? CHAM_TX : CHAM_PUNT | hash << 8;
}

PROGRAM(bytes_of_a_dns_name)
{
    u8 *end = ctx->data_end, *dns = transport(ctx, 17, 8 + 12);
    if (!dns)
        return CHAM_ERROR(1);
    u8 *at = dns + 20;
    u32 hash = 2166136261u, left = 0, dots = 0;
    for (u32 i = 0; i < 64; i++, at++) {
        if (at + 1 > end)
            return CHAM_ERROR(2);
        u8 c = *at;
        if (left == 0) {
            if (c == 0)
                break;
            left = c;
            dots++;
            continue;
        }
        if (c >= 'A' && c <= 'Z')
            c |= 0x20;
        hash = (hash ^ c) * 16777619u;
        left--;
    }
    return hash + dots;
}

PROGRAM(options_of_tcp)
{
    u8 *end = ctx->data_end;
    struct tcp *t = transport(ctx, 6, sizeof *t);
    if (!t || t->words < 5)
        return CHAM_ERROR(1);
    u8 *at = (u8 *)(t + 1), *stop = (u8 *)t + t->words * 4;
    u32 mss = 536, scale = 0, sack = 0, stamp = 0, blocks = 0;
    for (u32 i = 0; i < 12; i++) {
        if (at + 1 > stop || at + 1 > end)
            break;
        if (*at == 0)
            break;
        if (*at == 1) {
            at++;
            continue;
        }
        if (at + 2 > end)
            return CHAM_ERROR(3);
        u8 length = at[1];
        if (length < 2)
            return CHAM_ERROR(4);
        switch (*at) {
        case 2:
            if (length == 4 && at + 4 <= end)
                mss = cham_ntohs(*(u16 *)(at + 2));
            break;
        case 3:
            if (length == 3 && at + 3 <= end)
                scale = MIN(at[2], 14);
            break;
        case 4:
            sack = 1;
            break;
        case 5:
            for (u32 b = 0; b < 4; b++) {
                u8 *block = at + 2 + b * 8;
                if (block + 8 > end || b * 8 + 2 >= length)
                    break;
                blocks += cham_ntohl(*(u32 *)(block + 4)) - cham_ntohl(*(u32 *)block);
            }
            break;
        case 8:
            if (length == 10 && at + 10 <= end)
                stamp = cham_ntohl(*(u32 *)(at + 2));
            break;
        }
        at += length;
    }
    return (u64)mss << scale ^ stamp ^ blocks ^ sack;
}

PROGRAM(timestamp_in_its_usual_place)
{
    u8 *end = ctx->data_end;
    struct tcp *t = transport(ctx, 6, sizeof *t + 12);
    if (!t || t->words < 8)
        return CHAM_PUNT;
    u32 *words = (u32 *)(t + 1);
    if (words[0] != cham_htonl(0x0101080a))
        return CHAM_PUNT;
    u32 value = cham_ntohl(words[1]), echo = cham_ntohl(words[2]);
    u8 *payload = (u8 *)t + t->words * 4;
    if (payload > end)
        return CHAM_ERROR(1);
    u32 length = end - payload;
    return length ? value - echo + length : CHAM_DONE;
}

PROGRAM(extension_headers_of_ipv6)
{
    struct ipv6 *ip = ctx->data;
    u8 *end = ctx->data_end, *at = (u8 *)(ip + 1);
    if (at > end || ip->version != 6)
        return CHAM_ERROR(1);
    u8 next = ip->next;
    for (u32 i = 0; i < 8; i++) {
        switch (next) {
        case 0:  /* hop by hop */
        case 43: /* routing */
        case 60: /* destination */
            if (at + 8 > end)
                return CHAM_ERROR(2);
            next = at[0];
            at += (at[1] + 1) * 8;
            break;
        case 44: /* fragment */
            if (at + 8 > end)
                return CHAM_ERROR(3);
            if (*(u16 *)(at + 2) & cham_htons(0xfff8))
                return CHAM_PUNT;
            next = at[0];
            at += 8;
            break;
        case 51: /* authentication */
            if (at + 8 > end)
                return CHAM_ERROR(4);
            next = at[0];
            at += (at[1] + 2) << 2;
            break;
        case 6:
        case 17:
            if (at + 4 > end)
                return CHAM_ERROR(5);
            return cham_ntohs(((u16 *)at)[1]);
        default:
            return CHAM_PUNT;
        }
    }
    return CHAM_ERROR(6);
}

PROGRAM(gre_with_optional_fields)
{
    u8 *end = ctx->data_end, *gre = transport(ctx, 47, 4);
    if (!gre)
        return CHAM_ERROR(1);
    u16 flags = *(u16 *)gre, protocol = ((u16 *)gre)[1];
    u32 length = 4, key = 0, seq = 0;
    if (flags & cham_htons(0x8000))
        length += 4;
    if (flags & cham_htons(0x2000)) {
        if (gre + length + 4 > end)
            return CHAM_ERROR(2);
        key = *(u32 *)(gre + length);
        length += 4;
    }
    if (flags & cham_htons(0x1000)) {
        if (gre + length + 4 > end)
            return CHAM_ERROR(3);
        seq = *(u32 *)(gre + length);
        length += 4;
    }
    struct cham_ipv4 *inner = (void *)(gre + length);
    if (protocol != cham_htons(0x0800) || (void *)(inner + 1) > (void *)end)
        return CHAM_PUNT;
    return (u64)inner->dst ^ key ^ seq;
}

PROGRAM(vxlan_and_what_is_inside)
{
    void *end = ctx->data_end;
    struct udp *u = transport(ctx, 17, sizeof *u + 8 + sizeof(struct ethernet));
    if (!u || u->destination != cham_htons(4789))
        return CHAM_PUNT;
    u8 *vxlan = (u8 *)(u + 1);
    if (!(vxlan[0] & 8))
        return CHAM_ERROR(1);
    u32 network = cham_ntohl(*(u32 *)(vxlan + 4)) >> 8;
    struct ethernet *e = (void *)(vxlan + 8);
    u16 type = e->type;
    u8 *inner = (u8 *)(e + 1);
    for (u32 i = 0; i < 2 && (type == cham_htons(0x8100) || type == cham_htons(0x88a8)); i++) {
        if ((void *)(inner + 4) > end)
            return CHAM_ERROR(2);
        type = *(u16 *)(inner + 2);
        inner += 4;
    }
    if (type != cham_htons(0x0800))
        return CHAM_PUNT;
    struct cham_ipv4 *ip = (void *)inner;
    if ((void *)(ip + 1) > end)
        return CHAM_ERROR(3);
    u32 *ports = (void *)ip + ip->version_ihl % 16 * 4;
    if ((void *)(ports + 1) > end)
        return CHAM_ERROR(4);
    return ip->src ^ ip->dst ^ *ports ^ network;
}

PROGRAM(geneve_options)
{
    u8 *end = ctx->data_end, *u = transport(ctx, 17, 8 + 8);
    if (!u)
        return CHAM_ERROR(1);
    u8 *g = u + 8;
    u32 left = (g[0] & 0x3f) * 4, found = 0;
    u8 *at = g + 8;
    for (u32 i = 0; i < 16 && left >= 4; i++) {
        if (at + 4 > end)
            return CHAM_ERROR(2);
        u32 length = 4 + (at[3] & 0x1f) * 4;
        if (length > left)
            return CHAM_ERROR(3);
        if (*(u16 *)at == cham_htons(0x0102) && length >= 8) {
            if (at + 8 > end)
                return CHAM_ERROR(4);
            found = *(u32 *)(at + 4);
        }
        at += length;
        left -= length;
    }
    return found;
}

PROGRAM(packet_quoted_by_an_icmp_error)
{
    void *end = ctx->data_end;
    u8 *icmp = transport(ctx, 1, 8 + 20);
    if (!icmp)
        return CHAM_ERROR(1);
    if (icmp[0] != 3 && icmp[0] != 11)
        return CHAM_PUNT;
    struct cham_ipv4 *quoted = (void *)(icmp + 8);
    u32 header = (quoted->version_ihl & 15) << 2;
    if (header < 20 || quoted->protocol != 17)
        return CHAM_DONE;
    struct udp *u = (void *)((u8 *)quoted + header);
    if ((void *)(u + 1) > end)
        return CHAM_ERROR(2);
    struct flow_key k = {.address = quoted->dst, .port = u->destination, .kind = 17};
    __builtin_memset((u8 *)&k + 7, 0, 1);
    struct flow *f = cham_lookup(&table, &k);
    if (!f)
        return CHAM_DONE;
    f->state = icmp[1] == 4 ? cham_ntohs(*(u16 *)(icmp + 6)) : 0;
    return CHAM_DONE;
}

PROGRAM(chunks_of_sctp)
{
    u8 *end = ctx->data_end, *s = transport(ctx, 132, 12);
    if (!s)
        return CHAM_ERROR(1);
    u8 *chunk = s + 12;
    u32 data = 0;
    for (u32 i = 0; i < 12; i++) {
        if (chunk + 4 > end)
            break;
        u32 length = cham_ntohs(*(u16 *)(chunk + 2));
        if (length < 4)
            return CHAM_ERROR(2);
        if (chunk[0] == 0 && chunk + 16 <= end)
            data += cham_ntohl(*(u32 *)(chunk + 4));
        chunk += (length + 3) & ~3u;
    }
    return data;
}

PROGRAM(options_of_dhcp)
{
    u8 *end = ctx->data_end, *d = transport(ctx, 17, 8 + 240);
    if (!d || *(u32 *)(d + 8 + 236) != cham_htonl(0x63825363))
        return CHAM_ERROR(1);
    u8 *at = d + 8 + 240;
    u32 server = 0, kind = 0, lease = 0;
#pragma clang loop unroll(disable)
    for (u32 i = 0; i < 12; i++) {
        if (at + 1 > end || *at == 255)
            break;
        if (*at == 0)
            return CHAM_PUNT;
        if (at + 2 > end)
            break;
        u32 length = at[1];
        u8 *value = at + 2;
        if (*at == 53 && length == 1) {
            if (value + 1 > end)
                return CHAM_ERROR(2);
            kind = *value;
        } else if (length == 4 && (*at == 54 || *at == 51)) {
            if (value + 4 > end)
                return CHAM_ERROR(3);
            if (*at == 54)
                server = *(u32 *)value;
            else
                lease = cham_ntohl(*(u32 *)value);
        }
        at = value + length;
    }
    return server ^ lease ^ kind;
}

/* The server's name in a client's hello: lengths within lengths. */
PROGRAM(server_name_of_tls)
{
    u8 *end = ctx->data_end;
    struct tcp *t = transport(ctx, 6, sizeof *t);
    if (!t)
        return CHAM_ERROR(1);
    u8 *p = (u8 *)t + t->words * 4;
    if (p + 44 > end || p[0] != 0x16 || p[5] != 1)
        return CHAM_PUNT;
    u32 session = p[43];
    p += 44 + session;
    if (p + 2 > end)
        return CHAM_ERROR(2);
    u32 suites = cham_ntohs(*(u16 *)p);
    if (suites > 512)
        return CHAM_ERROR(3);
    p += 2 + suites;
    if (p + 1 > end)
        return CHAM_ERROR(4);
    p += 1 + p[0];
    if (p + 2 > end)
        return CHAM_ERROR(5);
    p += 2;
    for (u32 i = 0; i < 20; i++) {
        if (p + 4 > end)
            return CHAM_ERROR(6);
        u16 type = cham_ntohs(*(u16 *)p), length = cham_ntohs(*(u16 *)(p + 2));
        p += 4;
        if (type == 0) {
            if (p + 5 > end)
                return CHAM_ERROR(7);
            u32 name = cham_ntohs(*(u16 *)(p + 3)), hash = 0;
            p += 5;
            for (u32 k = 0; k < 32; k++) {
                if (k >= name || p + k + 1 > end)
                    break;
                hash = hash * 31 + p[k];
            }
            return hash;
        }
        if (length > 1024)
            return CHAM_ERROR(8);
        p += length;
    }
    return CHAM_PUNT;
}

PROGRAM(long_header_of_quic)
{
    u8 *end = ctx->data_end, *u = transport(ctx, 17, 8 + 7);
    if (!u)
        return CHAM_ERROR(1);
    u8 *q = u + 8;
    if (!(q[0] & 0x80))
        return CHAM_PUNT;
    u32 to = q[5];
    if (to > 20)
        return CHAM_ERROR(2);
    u8 *at = q + 6 + to;
    if (at + 1 > end)
        return CHAM_ERROR(3);
    u32 from = *at;
    if (from > 20)
        return CHAM_ERROR(4);
    at += 1 + from;
    if (at + 1 > end)
        return CHAM_ERROR(5);
    u64 token = *at & 0x3f;
    switch (*at >> 6) {
    case 0:
        at += 1;
        break;
    case 1:
        if (at + 2 > end)
            return CHAM_ERROR(6);
        token = token << 8 | at[1];
        at += 2;
        break;
    default:
        return CHAM_PUNT;
    }
    if (token > 1200 || at + token + 2 > end)
        return CHAM_ERROR(7);
    u8 *length = at + token;
    return (length[0] & 0x3f) << 8 | length[1];
}

PROGRAM(varint_of_quic)
{
    u8 *end = ctx->data_end, *p = transport(ctx, 17, 8 + 1);
    if (!p)
        return CHAM_ERROR(1);
    p += 8;
    u32 length = 1u << (*p >> 6);
    if (p + length > end)
        return CHAM_ERROR(2);
    u64 value = *p & 0x3f;
    for (u32 i = 1; i < 8; i++) {
        if (i >= length || p + i + 1 > end)
            break;
        value = value << 8 | p[i];
    }
    return value;
}

PROGRAM(base_128_varint)
{
    u8 *end = ctx->data_end, *p = ctx->data;
    u64 value = 0;
    u32 shift = 0;
    do {
        if (p + 1 > end || shift > 63)
            return CHAM_ERROR(1);
        value |= (u64)(*p & 0x7f) << shift;
        shift += 7;
    } while (*p++ & 0x80);
    return value;
}

PROGRAM(method_of_http)
{
    u8 *end = ctx->data_end;
    struct tcp *t = transport(ctx, 6, sizeof *t);
    if (!t)
        return CHAM_ERROR(1);
    u8 *p = (u8 *)t + t->words * 4;
    if (p + 8 > end)
        return CHAM_PUNT;
    if (p[0] == 'G' && p[1] == 'E' && p[2] == 'T' && p[3] == ' ')
        return 1;
    if (*(u32 *)p == 0x54534f50 && p[4] == ' ') /* POST */
        return 2;
    if (*(u64 *)p == 0x312e312f50545448) /* HTTP/1.1 */
        return 3;
    return CHAM_PUNT;
}

PROGRAM(length_of_an_http_body)
{
    u8 *end = ctx->data_end, *p = ctx->data;
    static const char name[] = "content-length: ";
    u32 matched = 0, value = 0;
    for (u32 i = 0; i < 48; i++) {
        if (p + i + 1 > end)
            return CHAM_PUNT;
        u8 c = p[i];
        if (matched == sizeof name - 1) {
            if (c < '0' || c > '9')
                break;
            value = value * 10 + (c - '0');
            continue;
        }
        if ((c | 0x20) == (name[matched & 15] | 0x20))
            matched++;
        else
            matched = 0;
    }
    return value;
}

PROGRAM(labels_of_mpls)
{
    u32 *at = ctx->data, label = 0;
    for (u32 i = 0; i < 6; i++, at++) {
        if ((void *)(at + 1) > ctx->data_end)
            return CHAM_ERROR(1);
        u32 entry = cham_ntohl(*at);
        label = entry >> 12;
        if ((entry & 0xff) <= 1)
            return CHAM_ERROR(2);
        if (entry & 0x100)
            break;
    }
    return label;
}

PROGRAM(attributes_of_stun)
{
    u8 *end = ctx->data_end, *u = transport(ctx, 17, 8 + 20);
    if (!u)
        return CHAM_ERROR(1);
    u8 *s = u + 8;
    u16 total = cham_ntohs(*(u16 *)(s + 2));
    if (*(u32 *)(s + 4) != cham_htonl(0x2112a442) || s + 20 + total > end)
        return CHAM_ERROR(2);
    u32 at = 0;
    for (u32 i = 0; i < 16; i++) {
        if (at + 4 > total)
            break;
        u8 *a = s + 20 + at;
        if (a + 4 > end)
            return CHAM_ERROR(3);
        u16 type = cham_ntohs(*(u16 *)a), length = cham_ntohs(*(u16 *)(a + 2));
        if (type == 0x20 && length == 8) {
            if (a + 12 > end)
                return CHAM_ERROR(4);
            return cham_ntohl(*(u32 *)(a + 8)) ^ 0x2112a442;
        }
        at += 4 + ((length + 3) & ~3);
        if (at > 1500)
            return CHAM_ERROR(5);
    }
    return CHAM_PUNT;
}

PROGRAM(command_of_memcached)
{
    u8 *end = ctx->data_end, *p = transport(ctx, 17, 8 + 8 + 4);
    if (!p)
        return CHAM_ERROR(1);
    p += 16;
    if (p[0] != 'g' || p[1] != 'e' || p[2] != 't' || p[3] != ' ')
        return CHAM_PUNT;
    u8 *key = p + 4;
    u32 hash = 2166136261u, length = 0;
    for (; length < 64 && key + length + 1 <= end && key[length] != '\r' && key[length] != ' '; length++)
        hash = (hash ^ key[length]) * 16777619u;
    if (length == 0 || length == 64)
        return CHAM_ERROR(2);
    u32 index = hash % 64;
    struct flow *f = cham_lookup(&flows, &index);
    return f && f->state == hash ? CHAM_TX : CHAM_PUNT;
}

PROGRAM(options_of_coap)
{
    u8 *end = ctx->data_end, *c = transport(ctx, 17, 8 + 4);
    if (!c)
        return CHAM_ERROR(1);
    c += 8;
    u32 number = 0, token = c[0] & 15;
    if (token > 8)
        return CHAM_ERROR(2);
    u8 *at = c + 4 + token;
    for (u32 i = 0; i < 10; i++) {
        if (at >= end || *at == 0xff)
            break;
        u32 delta = *at >> 4, length = *at & 15;
        at++;
        if (delta == 13) {
            if (at >= end)
                return CHAM_ERROR(3);
            delta = *at++ + 13;
        }
        if (length == 13) {
            if (at >= end)
                return CHAM_ERROR(4);
            length = *at++ + 13;
        }
        number += delta;
        at += length;
    }
    return number;
}

PROGRAM(payload_of_rtp)
{
    u8 *end = ctx->data_end, *r = transport(ctx, 17, 8 + 12);
    if (!r)
        return CHAM_ERROR(1);
    r += 8;
    u32 size = 12 + (r[0] & 15) * 4;
    if (r[0] & 0x10) {
        u8 *extension = r + size;
        if (extension + 4 > end)
            return CHAM_ERROR(2);
        size += 4 + cham_ntohs(*(u16 *)(extension + 2)) * 4;
    }
    if (r + size + 1 > end)
        return CHAM_DONE;
    return r[size];
}

PROGRAM(options_of_ip)
{
    u8 *ip = ctx->data, *end = ctx->data_end;
    if (ip + 20 > end)
        return CHAM_ERROR(1);
    u32 header = (ip[0] & 15) * 4, at = 20, alert = 0;
    if (header < 20)
        return CHAM_ERROR(2);
    for (u32 i = 0; i < 12; i++) {
        u8 *option = ip + at;
        if (at >= header)
            break;
        if (option + 1 > end)
            return CHAM_ERROR(3);
        if (option[0] == 0)
            break;
        if (option[0] == 1) {
            at++;
            continue;
        }
        if (option + 2 > end || option[1] < 2)
            return CHAM_ERROR(4);
        if (option[0] == 148)
            alert = 1;
        at += option[1];
    }
    return alert ? CHAM_PUNT : CHAM_DONE;
}

PROGRAM(either_family)
{
    u8 *p = ctx->data;
    void *end = ctx->data_end, *l4;
    u8 protocol;
    u32 address;
    if ((void *)(p + 1) > end)
        return CHAM_ERROR(1);
    if (p[0] >> 4 == 4) {
        struct cham_ipv4 *ip = (void *)p;
        if ((void *)(ip + 1) > end)
            return CHAM_ERROR(2);
        protocol = ip->protocol;
        address = ip->src;
        l4 = p + (p[0] & 15) * 4;
    } else if (p[0] >> 4 == 6) {
        struct ipv6 *ip = (void *)p;
        if ((void *)(ip + 1) > end)
            return CHAM_ERROR(3);
        protocol = ip->next;
        address = ip->from[0] ^ ip->from[1] ^ ip->from[2] ^ ip->from[3];
        l4 = ip + 1;
    } else {
        return CHAM_ERROR(4);
    }
    u16 port = 0;
    if (protocol == 6 || protocol == 17) {
        if (l4 + 4 > end)
            return CHAM_ERROR(5);
        port = ((u16 *)l4)[1];
    }
    return address ^ port;
}

/* A cursor, as many parsers have one. */
struct cursor {
    void *at, *end;
};

CHAM_INLINE void *take(struct cursor *c, u32 size)
{
    void *here = c->at;
    if (here + size > c->end)
        return 0;
    c->at = here + size;
    return here;
}

PROGRAM(cursor_over_headers)
{
    struct cursor c = {ctx->data, ctx->data_end};
    struct cham_ipv4 *ip = take(&c, sizeof *ip);
    if (!ip)
        return CHAM_ERROR(1);
    u32 options = (ip->version_ihl & 15) * 4;
    if (options < 20 || !take(&c, options - 20))
        return CHAM_ERROR(2);
    struct udp *u = take(&c, sizeof *u);
    if (!u)
        return CHAM_ERROR(3);
    u32 *magic = take(&c, 4);
    return magic ? *magic ^ u->destination : CHAM_DONE;
}

NOINLINE u32 next_header(struct cursor *c, u8 kind)
{
    u8 *p = c->at;
    if (p + 2 > (u8 *)c->end || kind == 59)
        return 59;
    c->at = p + 2 + p[1];
    return p[0];
}

PROGRAM(cursor_moved_by_a_function)
{
    struct cursor c = {ctx->data, ctx->data_end};
    u32 kind = 0;
    for (u32 i = 0; i < 5 && kind != 59; i++)
        kind = next_header(&c, kind);
    u8 *p = c.at;
    return p + 1 <= (u8 *)c.end ? p[0] : kind;
}

PROGRAM(fields_of_bits)
{
    struct {
        u32 a : 5, b : 11, c : 16;
        u8 d : 3, e : 5;
    } *h = ctx->data;
    if ((void *)(h + 1) > ctx->data_end)
        return CHAM_ERROR(1);
    h->b += h->a;
    h->e = h->d;
    return h->c;
}

PROGRAM(index_within_a_proven_header)
{
    u8 *p = ctx->data;
    if (p + 64 > (u8 *)ctx->data_end)
        return CHAM_ERROR(1);
    return p[ctx->hash & 63];
}

PROGRAM(word_within_a_proven_header)
{
    u8 *p = ctx->data;
    u32 i = ctx->hash;
    if (p + 64 > (u8 *)ctx->data_end || i > 62)
        return CHAM_ERROR(1);
    return *(u16 *)(p + i);
}
