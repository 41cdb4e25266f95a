"""How many events a second one listener process takes from a pub/sub channel."""

from benchmarks.measurement import Measurement, Row, Sample
from benchmarks.stage import OUR_LISTENER, RAW_LISTENER, Stage

WARM = 2_000
EVENTS = 60_000


def events_per_second(stage: Stage, listener: tuple[str, ...]) -> float:
    with stage.listening(listener, warm=WARM, events=EVENTS) as side:
        stage.run("blast", events=WARM + EVENTS)
        return side.result()["per_second"]


def run_round(stage: Stage) -> dict[str, Sample]:
    raw = events_per_second(stage, RAW_LISTENER)
    return {"listener": Sample(ours=events_per_second(stage, OUR_LISTENER), raw=raw)}


LISTENER = Measurement(
    name="listener",
    rows=(Row(name="listener", what="pub/sub listener ÷ get_message + json.loads", unit="events/s", at_least=3.0),),
    run_round=run_round,
)
