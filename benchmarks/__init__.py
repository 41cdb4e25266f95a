"""How fast redis_events is, as ratios to redis-py used by hand.

`python -m benchmarks` starts a server of its own, runs both sides of every measurement in turn (A B A B …), each side
as a process of its own, and prints the median of the per-round ratios. Absolute figures are shown only to make the
ratios readable: one machine drifts by a factor of two between minutes.
"""
