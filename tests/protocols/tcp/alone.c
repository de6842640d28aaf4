/* A C application that talks to itself: both ends of every connection in one context, one thread, the core's rounds in between.
 *
 *     alone SETUP PATCHES stream BYTES PIECE EVENTS   bytes there and back, written PIECE at a time, EVENTS handled between rounds
 *     alone SETUP PATCHES crowd CONNECTIONS MESSAGES  more messages of a byte than the ring takes, then all connections closed at once
 *
 * Prints "ok" and some figures when every byte was what it should be.
 */
#include <stdio.h>
#include <stdlib.h>

#include "tcp_rig.h"

#define ROUND_NS 5000
#define IDLE_ROUNDS 200000 /* a second: longer than any timer that could still help */
#define TAG 42
#define CROWD_MAX 64

static struct tcp_app app;
static u8 there[1 << 20], back[1 << 16];
static u32 idle;

static u8 pattern(u64 i) { return (u8)(i * 2654435761u >> 13); }

static void check(const u8 *bytes, u32 n, u64 from)
{
    for (u32 i = 0; i < n; i++)
        if (bytes[i] != pattern(from + i))
            die("a byte is not what was sent");
}

static void begin(char **argv)
{
    rig_build(argv[1]);
    rig_patch(argv[2]);
    core.ns_per_cycle = 0;
    tcp_rig_application(&app);
    tcp_rig_listen(2 * CROWD_MAX);
}

/* A round; the core has done nothing for long: nothing will happen any more. */
static void round_(void)
{
    core.ns_base += ROUND_NS;
    idle = cham_round(&core) ? 0 : idle + 1;
    if (idle > IDLE_ROUNDS)
        die("nothing happens any more");
}

static void stream(u64 total, u32 piece, u32 events)
{
    u32 client = TCP_CONNECTIONS, server = TCP_CONNECTIONS, closed = 0, done = 0, rounds = 0;
    u64 sent = 0, served = 0, received = 0;
    struct tcp_event e;
    tcp_app_connect(&app, setup.more[5], (u16)setup.more[7], TAG);
    for (; !done || !closed; rounds++) {
        for (u32 i = 0; i < events && tcp_app_next(&app, &e); i++) {
            if (e.kind == TCP_ENDED)
                die("a connection has ended");
            if (e.kind == TCP_ACCEPTED)
                server = e.conn;
            if (e.kind == TCP_CONNECTED && e.tag == TAG)
                client = e.conn;
        }
        for (u32 n = 1; client < TCP_CONNECTIONS && sent < total && n; sent += n) {
            u32 wanted = total - sent < piece ? (u32)(total - sent) : piece;
            for (u32 i = 0; i < wanted; i++)
                there[i] = pattern(sent + i);
            n = tcp_app_write(&app, client, there, wanted);
        }
        if (client < TCP_CONNECTIONS && sent == total)
            tcp_app_shut(&app, client);
        for (u32 n; client < TCP_CONNECTIONS && (n = tcp_app_read(&app, client, back, sizeof back)); received += n)
            check(back, n, received);
        for (u32 n, ready; server < TCP_CONNECTIONS && (ready = tcp_app_readable(&app, server)); served += n) {
            n = tcp_app_room(&app, server, ready < sizeof back ? ready : sizeof back);
            if (!n)
                break;
            if (rounds % 2) {
                n = tcp_app_read(&app, server, back, n);
            } else {
                struct tcp_app_bytes b;
                tcp_app_peek(&app, server, &b);
                n = b.len < n ? b.len : n;
                memcpy(back, b.at, n);
                if (!tcp_app_consume(&app, server, &b, n))
                    die("bytes have moved, and nobody could have moved them");
            }
            check(back, n, served);
            if (tcp_app_write(&app, server, back, n) != n)
                die("there was room for more");
        }
        if (!closed && server < TCP_CONNECTIONS && app.conns[server].state & TCP_APP_FIN && served == total) {
            tcp_app_close(&app, server);
            closed = 1;
        }
        done = received == total && app.conns[client].state & TCP_APP_FIN;
        round_();
    }
    printf("ok bytes %llu rounds %u send buffer %u\n", received, rounds, app.conns[client].tx_mask + 1);
    tcp_app_close(&app, client);
}

static void crowd(u32 connections, u32 messages)
{
    static u32 got[TCP_CONNECTIONS];
    u32 clients[CROWD_MAX], opened = 0, accepted = 0, finished = 0;
    u64 sent = 0, received = 0;
    struct tcp_event e;
    for (u32 i = 0; i < connections; i++)
        tcp_app_connect(&app, setup.more[5], (u16)setup.more[7], TAG);
    while (opened < connections || accepted < connections) {
        while (tcp_app_next(&app, &e)) {
            if (e.kind == TCP_CONNECTED)
                clients[opened++] = e.conn;
            accepted += e.kind == TCP_ACCEPTED;
        }
        round_();
    }
    for (u32 m = 0; m < messages; m++)
        for (u32 i = 0; i < connections; i++, sent++) {
            u8 byte = pattern(m);
            if (tcp_app_write(&app, clients[i], &byte, 1) != 1)
                die("a byte does not fit");
        }
    if (app.waiting == TCP_CONNECTIONS)
        die("the ring took it all");
    for (u32 i = 0; i < connections; i++)
        tcp_app_close(&app, clients[i]);
    while (finished < connections) {
        while (tcp_app_next(&app, &e)) {
            u32 n = tcp_app_read(&app, e.conn, back, sizeof back);
            check(back, n, got[e.conn]);
            got[e.conn] += n;
            received += n;
            if (e.kind == TCP_FIN) {
                tcp_app_close(&app, e.conn);
                finished++;
            }
        }
        round_();
    }
    if (received != sent)
        die("bytes are missing");
    printf("ok bytes %llu\n", received);
}

int main(int argc, char **argv)
{
    if (argc == 7 && !strcmp(argv[3], "stream")) {
        begin(argv);
        stream((u64)atoll(argv[4]), (u32)atoi(argv[5]), (u32)atoi(argv[6]));
    } else if (argc == 6 && !strcmp(argv[3], "crowd")) {
        begin(argv);
        crowd((u32)atoi(argv[4]), (u32)atoi(argv[5]));
    } else {
        die("usage: see above");
    }
    return 0;
}
