/* A TCP server that sends back what it receives: tcp_echo SOCKET-PATH PORT [PORTS] (so many from PORT on). A connection is closed when
 * its peer has said all, or, with --first, by us, as soon as something was sent back. Ends when its agent goes and none takes its
 * place. */
#include <stdio.h>
#include <stdlib.h>

#include "tcp_app.h"

#define SPINS 2000
#define BACKLOG 1024

static struct tcp_app app;

/* Send back as much as there is room for; what is left stays where it is until there is more. */
static uint32_t send_back(uint32_t conn)
{
    static uint8_t bytes[16384];
    uint32_t sent = 0, ready;
    while ((ready = tcp_app_readable(&app, conn))) {
        uint32_t n = tcp_app_room(&app, conn, ready < sizeof bytes ? ready : sizeof bytes);
        if (!n)
            break;
        n = tcp_app_read(&app, conn, bytes, n);
        sent += tcp_app_write(&app, conn, bytes, n);
    }
    return sent;
}

static void serve(const struct tcp_event *e, int close_first)
{
    uint32_t sent = 0;
    if (e->kind == TCP_ENDED) {
        tcp_app_close(&app, e->conn);
        return;
    }
    if (e->kind == TCP_DATA || e->kind == TCP_WRITABLE || e->kind == TCP_FIN)
        sent = send_back(e->conn);
    if (((app.conns[e->conn].state & TCP_APP_FIN) || (close_first && sent)) && !tcp_app_readable(&app, e->conn))
        tcp_app_close(&app, e->conn);
}

int main(int argc, char **argv)
{
    struct tcp_event e;
    int close_first = argc > 1 && !strcmp(argv[argc - 1], "--first");
    argc -= close_first;
    if (argc != 3 && argc != 4) {
        fprintf(stderr, "usage: %s SOCKET-PATH PORT [PORTS] [--first]\n", argv[0]);
        return 2;
    }
    int failed = tcp_app_open(&app, argv[1]);
    for (int i = 0; !failed && i < (argc == 4 ? atoi(argv[3]) : 1); i++)
        failed = tcp_app_listen(&app, (unsigned)(atoi(argv[2]) + i), BACKLOG) < 0;
    if (failed) {
        fprintf(stderr, "tcp_echo: %s\n", app.context.error);
        return 1;
    }
    printf("ready\n");
    fflush(stdout);
    for (unsigned idle = 0;; idle++) {
        while (tcp_app_next(&app, &e)) {
            idle = 0;
            serve(&e, close_first);
        }
        if (idle > SPINS) {
            tcp_app_wait(&app, 100);
            if (!tcp_app_alive(&app))
                return 0;
            idle = 0;
        }
        __builtin_ia32_pause();
    }
}
