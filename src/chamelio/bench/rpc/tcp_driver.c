/* TCP: a peer on a shared-memory wire asks on many connections, an application answers with what it was asked.
 *
 *     driver SETUP PATCHES FLOWS BATCH BATCHES OFFLOAD
 *
 * Prints a line per batch: cycles per request that the core spends in its rounds, and those that the application spends. The last line
 * is "segments PER-REQUEST acks PER-REQUEST".
 *
 * A batch is BATCH requests on as many connections, in an order that is as good as random: a round takes them in, the application reads
 * and answers, a round sends the answers. Connections are opened by handshakes on the wire. The clock is the driver's, REQUEST_NS
 * for each request: what timers cost counts, and is the same every time.
 *
 * Whoever counts instructions counts inside `measured_round` and `measured_application`: they are called only when it counts.
 */
#include <stdio.h>
#include <stdlib.h>

#include "tcp_peer.h"
#include "tcp_rig.h"

#define REQUEST_NS 400
#define ROUND_NS 2000 /* while connections are opened */
#define OPENING 64    /* handshakes at a time */
#define PASSES 2      /* over all connections, before it counts; */
#define WARM_UP 200   /* batches, at least */
#define SPREAD_NS 48000000 /* before them one that takes so long: from then on timers run out all the time, not all at once */
#define ROUNDS 16     /* for a batch, at most */

static struct tcp_app app;
static u8 message[CHAM_IP_MAX];
static u32 n_flows, order[PEER_FLOWS_MAX], next_turn, accepted;
static u64 request_ns = REQUEST_NS;

/* ---- the application -------------------------------------------------------------------------------------------------------------- */

static void answer_all(void)
{
    struct tcp_event e;
    while (tcp_app_next(&app, &e)) {
        if (e.kind == TCP_DATA) {
            u32 n = tcp_app_read(&app, e.conn, message, sizeof message);
            if (tcp_app_write(&app, e.conn, message, n) != n)
                die("there is no room for an answer");
        } else if (e.kind == TCP_ACCEPTED) {
            accepted++;
        } else {
            die("a connection has ended");
        }
    }
}

__attribute__((noinline)) static u64 measured_application(void)
{
    u64 start = __builtin_readcyclecounter();
    answer_all();
    return __builtin_readcyclecounter() - start;
}

static u64 plain_round(void)
{
    cham_round(&core);
    return 0;
}

static u64 plain_application(void)
{
    answer_all();
    return 0;
}

/* ---- rounds ------------------------------------------------------------------------------------------------------------------------- */

static void open_flows(void)
{
    for (u32 first = 0; first < n_flows; first += OPENING) {
        u32 end = first + OPENING < n_flows ? first + OPENING : n_flows;
        for (u32 flow = first; flow < end; flow++)
            peer_syn(flow);
        for (u32 round = 0; accepted < end && round < ROUNDS; round++) {
            core.ns_base += ROUND_NS;
            cham_round(&core);
            peer_receive();
            answer_all();
        }
        if (accepted != end)
            die("not every connection was opened");
    }
}

/* A random order (Fisher and Yates), the same every time. */
static void shuffle(void)
{
    u64 random = 1;
    for (u32 i = 0; i < n_flows; i++) {
        random = random * 6364136223846793005ull + 1442695040888963407ull;
        u32 k = (u32)(random >> 33) % (i + 1);
        order[i] = order[k];
        order[k] = i;
    }
}

static void batch(u32 requests, u64 (*round)(void), u64 (*application)(void), u64 cycles[2])
{
    u32 answers = 0;
    for (u32 i = 0; i < requests; i++) {
        peer_ask(order[next_turn]);
        next_turn = next_turn + 1 < n_flows ? next_turn + 1 : 0;
    }
    cycles[0] = cycles[1] = 0;
    for (u32 k = 0; k < ROUNDS; k++) {
        core.ns_base += requests * request_ns / 2;
        cycles[0] += round();
        answers += peer_receive();
        if (answers == requests)
            return;
        cycles[1] += application();
    }
    die("not every request was answered");
}

int main(int argc, char **argv)
{
    if (argc != 7)
        die("usage: driver SETUP PATCHES FLOWS BATCH BATCHES OFFLOAD");
    rig_build(argv[1]);
    rig_patch(argv[2]);
    core.ns_per_cycle = 0;
    n_flows = (u32)atoi(argv[3]);
    u32 requests = (u32)atoi(argv[4]), batches = (u32)atoi(argv[5]);
    if (!n_flows || n_flows > PEER_FLOWS_MAX || !requests || requests > n_flows || requests > CHAM_BURST)
        die("so many connections or requests are not possible");
    tcp_rig_application(&app);
    peer_plug_in((u32)atoi(argv[6]));
    tcp_rig_listen(4 * OPENING);
    open_flows();
    shuffle();
    u64 cycles[2];
    request_ns = SPREAD_NS / n_flows;
    for (u32 i = 0; i * requests < n_flows; i++)
        batch(requests, plain_round, plain_application, cycles);
    request_ns = REQUEST_NS;
    for (u32 i = 0; i < WARM_UP || i * requests < PASSES * n_flows; i++)
        batch(requests, plain_round, plain_application, cycles);
    u64 before = peer_segments();
    peer_acks = 0;
    for (u32 i = 0; i < batches; i++) {
        batch(requests, measured_round, measured_application, cycles);
        printf("%.2f %.2f\n", (double)cycles[0] / requests, (double)cycles[1] / requests);
    }
    tcp_rig_check();
    double asked = (double)batches * requests;
    printf("segments %.4f acks %.4f\n", (double)(peer_segments() - before) / asked, (double)peer_acks / asked);
    return 0;
}
