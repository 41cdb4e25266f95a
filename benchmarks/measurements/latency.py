"""How long an event takes from PUBLISH to the receiver when 200 come in a second."""

from benchmarks.measurement import Measurement, Row, Sample
from benchmarks.stage import OUR_LISTENER, RAW_LISTENER, Stage

RATE = 200
WARM = 50
EVENTS = 300


def latencies(stage: Stage, listener: tuple[str, ...]) -> dict[str, float]:
    with stage.listening(listener, warm=WARM, events=EVENTS) as side:
        stage.run("pace", events=WARM + EVENTS, rate=RATE)
        return side.result()


def run_round(stage: Stage) -> dict[str, Sample]:
    raw, ours = latencies(stage, RAW_LISTENER), latencies(stage, OUR_LISTENER)
    return {f"latency-{point}": Sample(ours=ours[f"{point}_ms"], raw=raw[f"{point}_ms"]) for point in ("p50", "p99")}


LATENCY = Measurement(
    name="latency",
    rows=(
        Row(name="latency-p50", what="latency at 200/s, p50 ÷ get_message loop", unit="ms", at_most=1.0),
        Row(name="latency-p99", what="latency at 200/s, p99 ÷ get_message loop", unit="ms"),
    ),
    run_round=run_round,
)
