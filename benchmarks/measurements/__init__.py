"""Everything that `python -m benchmarks` measures, in the order of the table.

A new measurement is one module and one name here.
"""

from benchmarks.measurements.latency import LATENCY
from benchmarks.measurements.listener import LISTENER
from benchmarks.measurements.memory import MEMORY
from benchmarks.measurements.publish import PUBLISH
from benchmarks.measurements.saves import SAVES
from benchmarks.measurements.unpublished import UNPUBLISHED

MEASUREMENTS = {each.name: each for each in (LISTENER, PUBLISH, SAVES, UNPUBLISHED, LATENCY, MEMORY)}
