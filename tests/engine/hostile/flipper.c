/* What a thread of a hostile tenant does to memory that the engine reads: each place gets its two values in turn, until told to stop.
 * Returns how often each was changed. */
unsigned long flip(const volatile int *stop, unsigned int *const *places, const unsigned int (*values)[2], unsigned long n)
{
    unsigned long rounds = 0;
    for (; !__atomic_load_n(stop, __ATOMIC_RELAXED); rounds++)
        for (unsigned long i = 0; i < n; i++)
            __atomic_store_n(places[i], values[i][(rounds >> (i & 3)) & 1], __ATOMIC_RELAXED);
    return rounds;
}
