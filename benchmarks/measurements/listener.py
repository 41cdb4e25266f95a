"""How many events a second one listener process takes from a pub/sub channel."""

from benchmarks.measurement import Measurement, Row, Sample
from benchmarks.stage import OUR_LISTENER, RAW_LISTENER, Stage

WARM = 2_000
EVENTS = 60_000


def measured(stage: Stage, listener: tuple[str, ...]) -> dict[str, float]:
    with stage.listening(listener, warm=WARM, events=EVENTS) as side:
        stage.run("blast", events=WARM + EVENTS)
        return side.result()


def run_round(stage: Stage) -> dict[str, Sample]:
    raw, ours = measured(stage, RAW_LISTENER), measured(stage, OUR_LISTENER)
    return {
        "listener": Sample(ours=ours["per_second"], raw=raw["per_second"]),
        "listener-cpu": Sample(ours=ours["cpu_us"], raw=raw["cpu_us"]),
    }


LISTENER = Measurement(
    name="listener",
    rows=(
        Row(name="listener", what="pub/sub listener ÷ get_message + json.loads", unit="events/s", at_least=3.0),
        # Says the same where nothing else runs, and keeps saying it where the machine is busy with other things.
        Row(name="listener-cpu", what="… CPU per event ÷ the same loop's", unit="µs", at_most=0.33),
    ),
    run_round=run_round,
)
