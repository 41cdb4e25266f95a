"""How many events a second one process publishes, one by one and 100 per commit."""

from benchmarks.measurement import Measurement, Row, Sample
from benchmarks.stage import Stage

WARM = 500
EVENTS = 10_000


def run_round(stage: Stage) -> dict[str, Sample]:
    sides = ("raw_publish", "our_publish", "our_commits")
    raw, ours, commits = (stage.run(side, warm=WARM, events=EVENTS)["per_second"] for side in sides)
    return {"publish": Sample(ours=ours, raw=raw), "commit": Sample(ours=commits, raw=raw)}


PUBLISH = Measurement(
    name="publish",
    rows=(
        Row(name="publish", what="publish() ÷ publish(json.dumps(…))", unit="events/s", at_least=1.0),
        Row(name="commit", what="100 publish() in one commit ÷ the same, one by one", unit="events/s", at_least=3.0),
    ),
    run_round=run_round,
)
