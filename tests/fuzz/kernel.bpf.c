/* What the loader meets in objects for the kernel: legacy maps, maps of maps, CO-RE, kernel functions, callbacks, strings. */
typedef unsigned int u32;
typedef unsigned long long u64;

#define SEC(name) __attribute__((section(name), used))

struct bpf_map_def {
    u32 type, key_size, value_size, max_entries, map_flags;
};
struct bpf_map_def SEC("maps") first = {2, 4, 8, 16, 0}, second = {1, 8, 16, 4, 1};

struct inner {
    int (*type)[2];
    int (*max_entries)[4];
    u32 *key;
    u64 *value;
} inner SEC(".maps");

struct {
    int (*type)[12];
    int (*max_entries)[4];
    int (*key_size)[4];
    struct inner *values[];
} outer SEC(".maps") = {.values = {[1] = &inner}};

struct xdp_md {
    u32 data, data_end;
};

struct task {
    int pid;
    struct task *parent;
} __attribute__((preserve_access_index));

extern int kernel_function(int x) SEC(".ksyms");
static void *(*const lookup)(void *map, const void *key) = (void *)1;
static long (*const loop)(u32 turns, void *callback, void *context, u64 flags) = (void *)181;
static long (*const print)(const char *format, u32 size, ...) = (void *)6;

u64 counted;
const volatile u32 limit = 9;
static const char words[] = "seen %d";

static long turn(u32 index, u64 *sum)
{
    *sum += index;
    return *sum > limit;
}

__attribute__((noinline)) static u64 sum_of(u32 turns)
{
    u64 sum = 0;
    loop(turns, turn, &sum, 0);
    return sum;
}

SEC("xdp") int frames(struct xdp_md *ctx)
{
    unsigned char *data = (void *)(u64)ctx->data, *end = (void *)(u64)ctx->data_end;
    u32 key = 1;
    u64 *value = lookup(&first, &key);
    void *map = lookup(&outer, &key);
    if (!value || !map || data + 14 > end)
        return 1;
    counted += *value + sum_of(data[12]);
    print(words, sizeof words, counted);
    return 2;
}

SEC("tc") int foreign(struct task *task)
{
    return task->parent->pid + kernel_function(3) + (lookup(&second, &counted) != 0);
}

char licence[] SEC("license") = "GPL";
