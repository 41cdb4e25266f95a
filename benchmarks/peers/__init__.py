"""How fast redis_events is beside other libraries that carry events over Redis.

`python -m benchmarks.peers` lets every contestant publish its events with its own API and times how fast one process of
its own consumer hands them to a receiver that does nothing: ours, a peer, the next peer … in every round. Each runs in
an environment of its own, `.venvs/peers-<name>`, which `make bench-peers` makes from `requirements/<name>.txt`; a peer
whose environment is not there is left out.
"""
