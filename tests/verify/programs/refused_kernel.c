/* Safe programs for the kernel's hooks that the verifier refuses: what it cannot see yet. */
#include "kernel.h"

PROGRAM_OF(tc, whole_socket_released_in_its_place)
{
    struct bpf_sock_tuple tuple = {};
    struct bpf_sock *sk = bpf_sk_lookup_tcp(ctx, &tuple, sizeof tuple, -1, 0);
    if (!sk)
        return TC_OK;
    struct bpf_sock *whole = bpf_sk_fullsock(sk);
    if (whole) {
        bpf_sk_release(whole);
        return TC_SHOT;
    }
    bpf_sk_release(sk);
    return TC_OK;
}

PROGRAM_OF(xdp, compared_with_the_end_for_equality)
{
    u8 *p = DATA, *end = DATA_END;
    u32 sum = 0;
    for (u8 *q = p; q < end; q++) {
        sum += *q;
        if (q - p > 20)
            break;
    }
    return sum & 1 ? XDP_DROP : XDP_PASS;
}
