/* rpc: the application of one tenant asks that of another, both on this core. Prints cycles per request, one line per batch.
 *
 *     driver SETUP BATCHES BATCH
 *
 * A request is a message there and a message back: both tenants' handlers, and the switch between them.
 */
#include <stdio.h>
#include <stdlib.h>

#include "rig.h"
#include "rpc_app.h"

#define WARM_UP 200
#define ROUNDS 64 /* for a batch, at most */
#define CLIENT 0
#define SERVER 1

static struct rpc_app apps[2];
static u32 sessions[2];
static u8 message[RPC_MESSAGE_MAX];
static struct rpc_event e;

static void open_application(u32 which)
{
    struct rpc_app *a = apps + which;
    rig_context(&a->context, which);
    a->rx = regions[which] + setup.rx;
    a->tx = regions[which] + setup.tx;
    sessions[which] = setup.more[2 * which];
    a->sessions[sessions[which]].open = 1;
    a->sessions[sessions[which]].generation = setup.more[2 * which + 1];
    a->sessions[sessions[which]].slots = setup.more[4];
}

static void serve(void)
{
    while (rpc_app_next(apps + SERVER, &e)) {
        if (e.kind != RPC_REQUEST)
            die("the server's session has ended");
        rpc_app_read(apps + SERVER, &e, message);
        if (!rpc_app_reply(apps + SERVER, &e, message, e.len))
            die("no room for an answer");
    }
}

static u32 collect(void)
{
    u32 answers = 0;
    while (rpc_app_next(apps + CLIENT, &e)) {
        if (e.kind != RPC_RESPONSE || e.len != setup.bytes)
            die("a request has failed");
        rpc_app_read(apps + CLIENT, &e, message);
        answers++;
    }
    return answers;
}

int main(int argc, char **argv)
{
    if (argc != 4)
        die("usage: driver SETUP BATCHES BATCH");
    rig_build(argv[1]);
    open_application(CLIENT);
    open_application(SERVER);
    u32 batch = (u32)atoi(argv[3]);
    s64 batches = atoi(argv[2]);
    if (batch > setup.more[4])
        die("a session has not so many slots");
    for (s64 i = -WARM_UP; i < batches; i++) {
        for (u32 slot = 0; slot < batch; slot++)
            if (!rpc_app_call(apps + CLIENT, (int)sessions[CLIENT], slot, message, setup.bytes))
                die("a request cannot be sent");
        u64 cycles = 0;
        u32 answers = 0;
        for (u32 round = 0; answers < batch && round < ROUNDS; round++) {
            cycles += measured_round();
            serve();
            answers += collect();
        }
        if (answers != batch)
            die("not every request was answered");
        if (i >= 0)
            printf("%.2f\n", (double)cycles / batch);
    }
    return 0;
}
