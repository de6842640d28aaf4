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

CHAM_INLINE u32 ipv4_header(const u8 *ip) { return (ip[0] & 15u) * 4; }

/* Neither 0/8, 127/8, multicast nor reserved (RFC 1122 section 3.2.1.3); `address` in packet byte order. */
CHAM_INLINE u32 ipv4_unicast(u32 address)
{
    u8 first = (u8)address;
    return first != 0 && first != 127 && first < 224;
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

/* The same over an IPv4 header, which has no options as a rule. */
CHAM_INLINE u32 ipv4_sum(const u8 *ip, u32 header)
{
    if (likely(header == IPV4_MIN))
        return inet_fold((u64)cham_load32(ip) + cham_load32(ip + 4) + cham_load32(ip + 8) + cham_load32(ip + 12) + cham_load32(ip + 16));
    return inet_sum(ip, header);
}

#endif
