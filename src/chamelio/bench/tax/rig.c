/* The core, its instances and the ends of rings, from a set-up file. */
#include "rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#define FRAMES 2048

void cham_unit_init(struct cham_unit *unit);
void cham_core_init(struct cham_core *core, struct cham_frame *frames, u32 *free, u32 total);
void cham_instance_init(struct cham_instance *inst, u32 ring_start);

struct cham_core core;
struct setup setup;
u8 *regions[MAX_INSTANCES];

static struct cham_counters counters;
static struct cham_frame frames[FRAMES];
static u32 free_frames[FRAMES];
static struct cham_unit unit;

void die(const char *what)
{
    fprintf(stderr, "driver: %s\n", what);
    exit(1);
}

void command(u32 op, u64 a, u64 b, u64 c, u64 d, u64 e, u64 f)
{
    core.command = (struct cham_command){op, 0, {a, b, c, d, e, f, 0}};
    cham_command(&core);
    if (core.command.status)
        die("a command was refused");
}

static void must_read(void *to, size_t size, FILE *f)
{
    if (size && fread(to, size, 1, f) != 1)
        die("the set-up file is too short");
}

static void build_instance(u32 index, const struct cham_map *maps, FILE *f)
{
    struct instance_setup about;
    must_read(&about, sizeof about, f);
    u64 size = setup.private_bytes + setup.region_bytes;
    u8 *base = mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (base == MAP_FAILED)
        die("no memory");
    struct cham_instance *inst = (struct cham_instance *)base;
    memcpy(inst->secret, about.secret, sizeof inst->secret);
    memcpy(inst->cookie_secret, about.cookie_secret, sizeof inst->cookie_secret);
    inst->random = about.random;
    inst->index = inst->tenant = index;
    inst->address = about.address;
    inst->protocol = setup.ip_protocol;
    inst->maps = maps;
    inst->n_maps = setup.n_maps;
    inst->raw_rings = setup.private_bytes + setup.raw_rings;
    cham_instance_init(inst, 0);
    must_read(base + CHAM_INSTANCE_BYTES, setup.private_used - CHAM_INSTANCE_BYTES, f);
    must_read(base + setup.private_bytes, setup.region_bytes, f);
    regions[index] = base + setup.private_bytes;
    command(CHAM_OP_ADD_TENANT, index, 1, FRAMES, 0, 0, 0);
    command(CHAM_OP_BIND, 0, about.address, index, CHAM_NONE, 0, 65535);
    command(CHAM_OP_ADD_INSTANCE, (u64)inst, 0, 0, 0, 0, 0);
    command(CHAM_OP_BIND, 0, about.address, index, index, setup.ip_protocol, 65535);
    command(CHAM_OP_ATTACH, index, 0, 0, 0, 0, 0);
    command(CHAM_OP_ATTACH, index, 1, 0, 0, 0, 0);
}

void rig_build(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        die("the set-up file cannot be opened");
    must_read(&setup, sizeof setup, f);
    struct cham_map *maps = calloc(setup.n_maps, sizeof *maps);
    if (!maps || setup.n_instances > MAX_INSTANCES)
        die("no memory");
    must_read(maps, setup.n_maps * sizeof *maps, f);
    core.counters = &counters;
    core.n_cores = 1;
    core.quantum = 1ull << 40; /* a simulator is slow: nobody gets into debt */
    core.max_debt = 1ll << 40;
    core.ns_per_cycle = 1ull << 31;
    core.ns_base = setup.now; /* what was set to be due is due */
    cham_core_init(&core, frames, free_frames, FRAMES);
    cham_unit_init(&unit);
    memcpy(unit.cold, setup.cold, sizeof unit.cold);
    command(CHAM_OP_SET_UNIT, 0, (u64)&unit, 0, 0, 0, 0);
    for (u32 i = 0; i < setup.n_instances; i++)
        build_instance(i, maps, f);
    fclose(f);
}

static struct cham_app_ring ring(u8 *region, const struct ring_place *p)
{
    u8 *at = region + p->at;
    return (struct cham_app_ring){(void *)at, (void *)(at + 64), (void *)(at + 68), at + 128, p->stride, p->slots, 0};
}

void rig_context(struct cham_context *c, u32 instance)
{
    memset(c, 0, sizeof *c);
    c->bell = c->fd = c->core[0].wake = -1;
    c->number = c->cores = 1;
    c->region = regions[instance];
    c->region_bytes = setup.region_bytes;
    c->core[0].out = ring(regions[instance], &setup.out);
    c->core[0].in = ring(regions[instance], &setup.in);
}

u64 measured_round(void)
{
    u64 start = __builtin_readcyclecounter();
    cham_round(&core);
    return __builtin_readcyclecounter() - start;
}
