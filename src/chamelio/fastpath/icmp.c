/* ICMP for local addresses: the provider answers echo; errors go to the slow path of the protocol that they quote. */
#include "demux.h"
#include "net.h"

static void echo_reply(struct cham_core *core, u32 network, u32 tenant, struct cham_frame *f)
{
    u8 *ip = frame_ip(f), *icmp = ip + ipv4_header(ip);
    u32 source = cham_load32(ip + IPV4_SRC);
    cham_store32(ip + IPV4_SRC, cham_load32(ip + IPV4_DST));
    cham_store32(ip + IPV4_DST, source);
    ip[IPV4_TTL] = 64;
    cham_store16(ip + IPV4_CHECKSUM, 0);
    cham_store16(ip + IPV4_CHECKSUM, (u16)~inet_sum(ip, ipv4_header(ip)));
    icmp[0] = ICMP_ECHO_REPLY;
    cham_store16(icmp + 2, 0);
    cham_store16(icmp + 2, (u16)~inet_sum(icmp, f->len - ipv4_header(ip)));
    f->flags = 0;
    core->counters->icmp_handled++;
    core->counters->tenants[tenant].icmp_echo++;
    cham_send(core, network, 0, f);
}

void cham_icmp(struct cham_core *core, u32 network, const struct cham_binding *address, struct cham_frame *f)
{
    u8 *ip = frame_ip(f);
    u32 header = ipv4_header(ip), len = f->len - header;
    const u8 *icmp = ip + header;
    if (len < ICMP_MIN || inet_sum(icmp, len) != 0xffff)
        return cham_drop(core, 0, address->tenant, f, CHAM_DROP_ICMP);
    if (icmp[0] == ICMP_ECHO && icmp[1] == 0)
        return echo_reply(core, network, address->tenant, f);
    if (icmp[0] == ICMP_UNREACHABLE || icmp[0] == ICMP_TIME_EXCEEDED || icmp[0] == ICMP_PARAMETER) {
        const u8 *quoted = icmp + ICMP_MIN;
        u32 left = len - ICMP_MIN;
        if (left >= IPV4_MIN && quoted[0] >> 4 == 4 && ipv4_header(quoted) >= IPV4_MIN &&
            left >= ipv4_header(quoted) + 4 && cham_load32(quoted + IPV4_SRC) == (u32)address->at) {
            const struct cham_binding *b =
                demux_protocol(core, network, (u32)address->at, quoted[IPV4_PROTOCOL],
                               cham_be16(cham_load16(quoted + ipv4_header(quoted))));
            if (b) {
                core->counters->icmp_handled++;
                return cham_punt(core, core->instances[b->instance], f, CHAM_RX);
            }
        }
    }
    cham_drop(core, 0, address->tenant, f, CHAM_DROP_ICMP);
}
