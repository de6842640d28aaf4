/* Headers on the wire: offsets and numbers of Ethernet, ARP (RFC 826), IPv4 (RFC 791) and ICMP (RFC 792). */
#ifndef CHAM_NET_H
#define CHAM_NET_H

#include "base.h"

#define ETH_IPV4 0x0800
#define ETH_ARP 0x0806
#define ETH_VLAN 0x8100
#define ETH_QINQ 0x88a8

#define ARP_BYTES 28
#define ARP_REQUEST 1
#define ARP_REPLY 2
#define ARP_OP 6
#define ARP_SENDER_MAC 8
#define ARP_SENDER_IP 14
#define ARP_TARGET_MAC 18
#define ARP_TARGET_IP 24

#define IPV4_MIN 20
#define IPV4_PLAIN 0x45 /* the first byte of a header without options */
#define IPV4_TOTAL 2
#define IPV4_FRAGMENT 6
#define IPV4_TTL 8
#define IPV4_PROTOCOL 9
#define IPV4_CHECKSUM 10
#define IPV4_SRC 12
#define IPV4_DST 16

#define IP_ICMP 1

#define ICMP_MIN 8
#define ICMP_ECHO_REPLY 0
#define ICMP_UNREACHABLE 3
#define ICMP_ECHO 8
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETER 12

CHAM_INLINE void eth_header(u8 *eth, const u8 *to, const u8 *from, u32 type)
{
    __builtin_memcpy(eth, to, 6);
    __builtin_memcpy(eth + 6, from, 6);
    cham_store16(eth + 12, cham_be16((u16)type));
}

CHAM_INLINE u32 ipv4_header(const u8 *ip) { return (ip[0] & 15u) * 4; }

/* The six bytes of a MAC at the top of a word; the two bytes behind it are read, too. */
CHAM_INLINE u64 mac_bits(const u8 *mac) { return cham_load64(mac) << 16; }

/* Neither 0/8, 127/8, multicast nor reserved (RFC 1122 section 3.2.1.3); `address` in packet byte order. */
CHAM_INLINE u32 ipv4_unicast(u32 address)
{
    u8 first = (u8)address;
    return (u8)(first - 1) < 223 && first != 127;
}

/* A 32-bit-wise sum folded to 16 bits. */
CHAM_INLINE u32 inet_fold(u64 sum)
{
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return (u32)((sum & 0xffff) + (sum >> 16));
}

/* RFC 1071: the folded, not inverted, sum of `len` bytes; 0xffff over a header that carries its own checksum. */
CHAM_INLINE u32 inet_sum(const u8 *p, u32 len)
{
    u64 sum = 0;
    for (; len >= 4; p += 4, len -= 4)
        sum += cham_load32(p);
    if (len & 2) {
        sum += cham_load16(p);
        p += 2;
    }
    if (len & 1)
        sum += *p;
    return inet_fold(sum);
}

/* Whether the 20 bytes of a header without options add up: their sum is 0xffff with the carries added in. */
CHAM_INLINE u32 ipv4_plain_sum(const u8 *ip)
{
    u64 sum = cham_load64(ip), middle = cham_load64(ip + 8), last = cham_load32(ip + 16);
    sum += middle;
    last += sum < middle;
    sum += last;
    sum += sum < last;
    __asm__("" : "+r"(sum)); /* else the carries are computed twice */
    /* a half plus the other, and what the other pair carries: what folds a sum, in the upper half */
    u32 half = (u32)((sum + (sum << 32 | sum >> 32)) >> 32);
    return (half + (half << 16 | half >> 16)) >> 16 == 0xffff;
}

#endif
