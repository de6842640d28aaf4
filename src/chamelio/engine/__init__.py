"""The engine: threads, generations, ports and counters around the fast path's C."""
