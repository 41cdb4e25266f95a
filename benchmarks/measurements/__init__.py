"""Everything that `python -m benchmarks` measures, in the order of the table.

A new measurement is one module and one name here.
"""

from benchmarks.measurements.backlog import BACKLOG
from benchmarks.measurements.dispatch import DISPATCH
from benchmarks.measurements.latency import LATENCY
from benchmarks.measurements.listener import LISTENER
from benchmarks.measurements.memory import MEMORY, STREAM_MEMORY
from benchmarks.measurements.once import ONCE
from benchmarks.measurements.outage import OUTAGE
from benchmarks.measurements.outbox import OUTBOX
from benchmarks.measurements.publish import PUBLISH
from benchmarks.measurements.saves import SAVES
from benchmarks.measurements.stream import STREAM_LATENCY, STREAM_LISTENER
from benchmarks.measurements.unpublished import UNPUBLISHED

USUAL = (
    LISTENER,
    STREAM_LISTENER,
    PUBLISH,
    SAVES,
    UNPUBLISHED,
    LATENCY,
    STREAM_LATENCY,
    OUTBOX,
    ONCE,
    MEMORY,
    DISPATCH,
)
# Minutes each: only when asked for by name.
LONG = (BACKLOG, STREAM_MEMORY, OUTAGE)
MEASUREMENTS = {each.name: each for each in USUAL + LONG}
