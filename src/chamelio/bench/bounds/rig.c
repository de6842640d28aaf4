/* One run of one handler or helper, timed: from the same state, over and over, with nothing in the caches or with everything.
 *
 * What is measured begins before the call and ends when the handler's stores have left the core. Cold: all that the handler can reach
 * but its context and stack, and its code, is flushed from every cache, and the address translations are pushed out. Warm: the
 * run before touched the same, and nothing was touched since but what it had changed, which is put back.
 */
#include <x86intrin.h>

#include "core.h"

struct bounds_span { /* `from` NULL: is not put back, only flushed */
    u8 *at;
    const u8 *from;
    u64 bytes;
};

/* A handler takes the turn alone; a helper, what its number says. */
typedef u64 bounds_code(struct cham_turn *turn, u64 a, u64 b, u64 c, u64 d, u64 e);

struct bounds_job {
    bounds_code *code; /* NULL: nothing is called */
    u64 arguments[5];
    struct cham_core *core;
    struct cham_instance *inst;
    struct cham_frame *frame; /* NULL: a hook without a packet */
    u8 *packet, *entry;       /* NULL: there is none */
    u64 packet_bytes, entry_bytes;
    u64 now;
    u32 id, hash, csum_ok;
    u32 cold;        /* bits: 1, data; 2, code; 4, address translations */
    u32 repetitions;
    u32 n_spans;
    struct bounds_span *spans;
    u8 *text;
    u64 text_bytes;
    u8 *pages; /* memory of nobody's, one line of each of its pages is read */
    u64 n_pages;
    u8 *near; /* NULL, or what was just used, as a stack is */
    u64 verdict; /* of the last run */
    u64 emitted;
    u64 best;    /* cycles of the fastest run */
};

#define BOUNDS_DATA 1
#define BOUNDS_CODE 2
#define BOUNDS_PAGES 4

static void flush(const u8 *at, u64 bytes)
{
    const u8 *end = at + bytes;
    for (at = (const u8 *)((u64)at & ~63ull); at < end; at += 64)
        _mm_clflush(at);
}

#define MAX_CHANGED 8192
static struct {
    u8 *at;
    const u8 *from;
    u64 bytes;
} changed[MAX_CHANGED]; /* lines, by the run that was looked at */
static u32 n_changed;

static u64 until_line(const struct bounds_span *s, u64 at)
{
    u64 left = 64 - (u64)(s->at + at) % 64;
    return left < s->bytes - at ? left : s->bytes - at;
}

/* What a run has changed, line by line. */
static void look(const struct bounds_job *job)
{
    n_changed = 0;
    for (u32 i = 0; i < job->n_spans; i++) {
        const struct bounds_span *s = job->spans + i;
        for (u64 at = 0, n; s->from && at < s->bytes; at += n) {
            n = until_line(s, at);
            if (!__builtin_memcmp(s->at + at, s->from + at, n))
                continue;
            if (n_changed < MAX_CHANGED) {
                changed[n_changed].at = s->at + at;
                changed[n_changed].from = s->from + at;
                changed[n_changed].bytes = n;
            }
            n_changed++;
        }
    }
}

static void put_back(const struct bounds_job *job, u32 all)
{
    if (all || n_changed > MAX_CHANGED) {
        for (u32 i = 0; i < job->n_spans; i++)
            if (job->spans[i].from)
                __builtin_memcpy(job->spans[i].at, job->spans[i].from, job->spans[i].bytes);
        return;
    }
    for (u32 k = 0; k < n_changed; k++)
        __builtin_memcpy(changed[k].at, changed[k].from, changed[k].bytes);
}

static u64 nothing(struct cham_turn *turn, u64 a, u64 b, u64 c, u64 d, u64 e)
{
    __asm__ volatile("" : : "r"(turn) : "memory");
    return a + b + c + d + e;
}

CHAM_INLINE u64 begin_timing(void)
{
    _mm_mfence();
    _mm_lfence();
    u64 start = __rdtsc();
    _mm_lfence();
    return start;
}

CHAM_INLINE u64 end_timing(u64 start)
{
    u32 aux;
    _mm_mfence();
    u64 end = __rdtscp(&aux);
    _mm_lfence();
    return end - start;
}

static __attribute__((noinline)) u64 timed(bounds_code *code, struct cham_turn *t, const u64 *a, u64 *verdict)
{
    u64 start = begin_timing();
    *verdict = code(t, a[0], a[1], a[2], a[3], a[4]);
    return end_timing(start);
}

void bounds_measure(struct bounds_job *job)
{
    struct cham_turn t;
    struct cham_outcome o;
    u64 sum = 0;
    job->best = ~0ull;
    __builtin_memset(&o, 0, sizeof o);
    for (u32 k = 0; k <= job->repetitions; k++) { /* the first run shows what is changed, and is not counted */
        put_back(job, !k);
        for (u64 i = 0; i < job->n_pages && job->cold & BOUNDS_PAGES; i++)
            sum += *(volatile u8 *)(job->pages + i * 4096 + i * 64 % 4096);
        for (u32 i = 0; i < job->n_spans && job->cold & BOUNDS_DATA; i++)
            flush(job->spans[i].at, job->spans[i].bytes);
        if (job->cold & BOUNDS_CODE)
            flush(job->text, job->text_bytes);
        o.n_out = 0;
        t = (struct cham_turn){.outcome = &o, .core = job->core, .inst = job->inst, .frame = job->frame, .emits = CHAM_EMITS};
        t.ctx.now = job->now;
        t.ctx.id = job->id;
        t.ctx.hash = job->hash;
        t.ctx.csum_ok = job->csum_ok;
        t.ctx.entry = job->entry;
        t.ctx.entry_end = job->entry + job->entry_bytes;
        t.ctx.data = job->packet;
        t.ctx.data_end = job->packet + job->packet_bytes;
        sum += job->near ? *(volatile u8 *)job->near : 0;
        u64 cycles = timed(job->code ? job->code : nothing, &t, job->arguments, &job->verdict);
        if (!k)
            look(job);
        else if (cycles < job->best)
            job->best = cycles;
    }
    job->emitted = o.n_out;
    __asm__ volatile("" : : "r"(sum));
}

/* ---- single instructions: chains in which each waits for the one before ----------------------------------------- */

enum bounds_class { SIMPLE, MULTIPLY, DIVIDE, LOAD, ATOMIC, BRANCH, CALL, COPY, MISPREDICT, MISS, STORE };

#define CHAIN 64 /* of the unrolled ones */
#define EIGHT(x) x x x x x x x x
#define LONG(x) EIGHT(EIGHT(x))

u64 bounds_now(void) { return __rdtsc(); }

static __attribute__((noinline)) u64 called(u64 x)
{
    __asm__ volatile("" : "+r"(x));
    return x;
}

/* Cycles of `n` turns of CHAIN instructions of a class, from `at`: a chain of addresses (LOAD, MISS), or random bits. */
u64 bounds_chain(u32 class, u64 n, void *at)
{
    u64 x = 0x123456789abcdef1ull, y = 3, high;
    u64 *word = at;
    u64 start = begin_timing();
    for (u64 i = 0; i < n; i++) {
        switch (class) {
        case SIMPLE:
            LONG(__asm__ volatile("add %1, %0" : "+r"(x) : "r"(y));)
            break;
        case MULTIPLY:
            LONG(__asm__ volatile("imul %1, %0" : "+r"(x) : "r"(y));)
            break;
        case DIVIDE:
            LONG(__asm__ volatile("xor %%edx, %%edx\n\tdiv %2\n\tor %3, %0" : "+a"(x), "=&d"(high) : "r"(y), "r"(1ull << 63) : "cc");)
            break;
        case LOAD:
        case MISS:
            LONG(__asm__ volatile("mov (%0), %0" : "+r"(at));)
            break;
        case STORE:
            LONG(__asm__ volatile("mov %0, %1" : : "r"(x), "m"(word[1]) : "memory");)
            break;
        case ATOMIC:
            LONG(__asm__ volatile("lock xadd %0, %1" : "+r"(x), "+m"(word[1]));)
            break;
        case BRANCH:
            LONG(__asm__ volatile("test %0, %0\n\tjz 1f\n1:" : : "r"(x) : "cc");)
            break;
        case CALL:
            LONG(x = called(x);)
            break;
        case COPY: /* a line, out of the first-level cache and into it */
            LONG(__builtin_memcpy(word + 8, word + 16, 64); __asm__ volatile("" : : : "memory");)
            break;
        case MISPREDICT: /* each bit of random words decides one branch */
            for (u32 k = 0; k < CHAIN; k++)
                __asm__ volatile("bt %1, %0\n\tjnc 1f\n\tadd $3, %2\n1:" : : "r"(word[i]), "r"((u64)k), "r"(y) : "cc");
            break;
        }
    }
    return end_timing(start);
}
