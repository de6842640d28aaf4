/* An rpc server that answers with what it was asked: rpc_echo SOCKET-PATH PORT. Ends when its agent goes and none takes its place. */
#include <stdio.h>
#include <stdlib.h>

#include "rpc_app.h"

#define SPINS 2000

int main(int argc, char **argv)
{
    static struct rpc_app app;
    static uint8_t message[RPC_MESSAGE_MAX];
    struct rpc_event e;
    if (argc != 3) {
        fprintf(stderr, "usage: %s SOCKET-PATH PORT\n", argv[0]);
        return 2;
    }
    if (rpc_app_open(&app, argv[1]) || rpc_app_serve(&app, (unsigned)atoi(argv[2])) < 0) {
        fprintf(stderr, "rpc_echo: %s\n", app.context.error);
        return 1;
    }
    printf("ready\n");
    fflush(stdout);
    for (unsigned idle = 0;; idle++) {
        while (rpc_app_next(&app, &e)) {
            idle = 0;
            if (e.kind != RPC_REQUEST)
                continue;
            rpc_app_read(&app, &e, message);
            while (!rpc_app_reply(&app, &e, message, e.len))
                if (!rpc_app_alive(&app))
                    return 0;
        }
        if (idle > SPINS) {
            cham_context_wait(&app.context, 100);
            if (!rpc_app_alive(&app))
                return 0;
            idle = 0;
        }
        __builtin_ia32_pause();
    }
}
