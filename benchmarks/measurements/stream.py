"""How many events a second one listener process takes from a stream, and how long one takes when they come slowly."""

from benchmarks.measurement import Measurement, Row, Sample
from benchmarks.stage import OUR_LISTENER, RAW_STREAM_LISTENER, Stage

WARM = 2_000
EVENTS = 40_000
SLOWLY_WARM = 50
SLOWLY = 300
RATE = 200


def drained(stage: Stage, listener: tuple[str, ...]) -> dict[str, float]:
    """A backlog is worked off: each side has a group of its own, so both read the same entries."""
    with stage.start(listener, warm=WARM, events=EVENTS) as side:
        return side.result()


def throughput_round(stage: Stage) -> dict[str, Sample]:
    stage.run("fill", events=WARM + EVENTS)
    raw, ours = drained(stage, RAW_STREAM_LISTENER), drained(stage, OUR_LISTENER)
    return {
        "stream-listener": Sample(ours=ours["per_second"], raw=raw["per_second"]),
        "stream-listener-cpu": Sample(ours=ours["cpu_us"], raw=raw["cpu_us"]),
    }


def slowly(stage: Stage, listener: tuple[str, ...]) -> dict[str, float]:
    stage.run("skip")
    with stage.listening(listener, warm=SLOWLY_WARM, events=SLOWLY) as side:
        stage.run("pace", events=SLOWLY_WARM + SLOWLY, rate=RATE, stream=1)
        return side.result()


def latency_round(stage: Stage) -> dict[str, Sample]:
    raw, ours = slowly(stage, RAW_STREAM_LISTENER), slowly(stage, OUR_LISTENER)
    return {f"stream-{point}": Sample(ours=ours[f"{point}_ms"], raw=raw[f"{point}_ms"]) for point in ("p50", "p99")}


STREAM_LISTENER = Measurement(
    name="stream",
    rows=(
        Row(name="stream-listener", what="stream listener ÷ xreadgroup + json.loads", unit="events/s", at_least=1.5),
        Row(name="stream-listener-cpu", what="… CPU per event ÷ the same loop's", unit="µs", at_most=0.67),
    ),
    run_round=throughput_round,
)
STREAM_LATENCY = Measurement(
    name="stream-latency",
    rows=(
        Row(name="stream-p50", what="stream latency at 200/s, p50 ÷ xreadgroup loop", unit="ms", at_most=1.0),
        Row(name="stream-p99", what="stream latency at 200/s, p99 ÷ xreadgroup loop", unit="ms"),
    ),
    run_round=latency_round,
)
