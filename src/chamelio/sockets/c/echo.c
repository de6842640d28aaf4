/* A UDP echo server: echo SOCKET-PATH PORT. Polls while there is work, sleeps when there is none; ends when its agent goes. */
#include <stdio.h>
#include <stdlib.h>

#include "chamelio_app.h"

#define SPINS 2000

int main(int argc, char **argv)
{
    static struct cham_app app;
    static struct cham_app_datagram d;
    if (argc != 3) {
        fprintf(stderr, "usage: %s SOCKET-PATH PORT\n", argv[0]);
        return 2;
    }
    if (cham_app_open(&app, argv[1]) || cham_app_bind(&app, (unsigned)atoi(argv[2]), 0, 0) < 0) {
        fprintf(stderr, "echo: %s\n", app.context.error);
        return 1;
    }
    printf("ready\n");
    fflush(stdout);
    for (unsigned idle = 0;; idle++) {
        while (cham_app_receive(&app, &d)) {
            while (!cham_app_send(&app, (int)d.socket, d.address, d.port, d.payload, d.len))
                if (!cham_app_alive(&app))
                    return 0;
            cham_app_done(&app, &d);
            idle = 0;
        }
        if (idle > SPINS) {
            cham_app_wait(&app, 100);
            if (!cham_app_alive(&app))
                return 0;
            idle = 0;
        }
        __builtin_ia32_pause();
    }
}
