"""chameliod, the control plane: tenants, admission, policy, and an API on a Unix socket.

daemon.py      puts it together, starts and stops
api.py         connections, limits, who asks; one request, one reply
verbs.py       what can be asked
tenants.py     tenants, their protocols and units: the state, and every change of it
agents.py      who serves a protocol's slow path, and what happens when they die
link.py        the engine process: started, adopted, watched, restored
statistics.py  the counters file as plain values
exposition.py  the OpenMetrics endpoint
"""
