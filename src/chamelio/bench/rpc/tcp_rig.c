/* A context and a listener, without an agent. */
#include "tcp_rig.h"

#include <stdio.h>

void rig_patch(const char *path)
{
    FILE *f = fopen(path, "rb");
    u64 place[2]; /* offset from the instance's base, bytes */
    if (!f)
        die("the patches cannot be opened");
    while (fread(place, sizeof place, 1, f) == 1)
        if (place[1] && fread(regions[0] - setup.private_bytes + place[0], place[1], 1, f) != 1)
            die("the patches are too short");
    fclose(f);
}

void tcp_rig_application(struct tcp_app *app)
{
    rig_context(&app->context, 0);
    app->rows = regions[0] + setup.more[2];
    app->core[0].rx = regions[0] + setup.rx;
    app->core[0].tx = regions[0] + setup.tx;
    app->core[0].rx_places = (const uint64_t *)(regions[0] + setup.more[0]);
    app->core[0].tx_places = (const uint64_t *)(regions[0] + setup.more[1]);
    if (setup.in.stride != TCP_APP_STRIDE(struct tcp_entry) || setup.out.stride != TCP_APP_STRIDE(struct tcp_event))
        die("entries and events are not what the handlers have");
    tcp_app_begin(app);
}

void tcp_rig_listen(u32 backlog)
{
    u8 *ring = regions[0] + setup.more[3];
    struct tcp_entry e = {.kind = TCP_LISTEN, .local_port = (u16)setup.more[7], .value = 1, .mark = backlog};
    memcpy(ring + 128, &e, sizeof e);
    cham_store((volatile u32 *)ring, 1);
    cham_round(&core);
}

void tcp_rig_check(void)
{
    const u8 *ring = regions[0] + setup.more[4];
    const struct tcp_event *e = (const struct tcp_event *)(ring + 128);
    if (!cham_load((const volatile u32 *)ring))
        return;
    fprintf(stderr, "driver: event %u (%u) of connection %u\n", e->kind, e->error, e->conn);
    die("the slow path is told of something");
}
