"""The chart of the last hour, drawn here: lines as SVG wants them, and the same in numbers."""

from __future__ import annotations

from collections.abc import Sequence

from django.utils.translation import gettext as _

from ..inspection import Minute
from . import show
from .blocks import Chart, Line, Note, Row, Table

WIDTH, HEIGHT = 600, 120


def throughput(minutes: Sequence[Minute]) -> Chart | Note:
    """What was published, settled and given up, by the minute."""
    if all(value is None for minute in minutes for value in _values(minute)):
        return Note(text=_("— No figures for the last hour: listeners note them every few seconds while they run."))
    series = [
        (_("published"), "published", [minute.published for minute in minutes]),
        (_("settled"), "settled", [minute.settled for minute in minutes]),
        (_("dead"), "dead", [minute.dead for minute in minutes]),
    ]
    most = max((value for _name, _style, values in series for value in values if value), default=0)
    lines = [Line(name=name, style=style, points=_points(values, most=most or 1)) for name, style, values in series]
    title = _("The last %s minutes") % len(minutes)
    return Chart(title=title, lines=lines, most=show.number(most), table=_table(minutes), width=WIDTH, height=HEIGHT)


def _points(values: Sequence[int | None], *, most: int) -> str:
    """Where a value is unknown the line goes on at the next one: no point is drawn at 0 for it."""
    step = WIDTH / max(1, len(values) - 1)
    known = ((at * step, HEIGHT - value / most * HEIGHT) for at, value in enumerate(values) if value is not None)
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in known)


def _table(minutes: Sequence[Minute]) -> Table:
    return Table(
        title=_("By the minute"),
        headings=[_("Minute"), _("Published"), _("Settled"), _("Done"), _("Retried"), _("Dead")],
        rows=[Row(cells=[show.moment(minute.start), *map(show.number, _values(minute))]) for minute in minutes],
    )


def _values(minute: Minute) -> tuple[int | None, ...]:
    return minute.published, minute.settled, minute.done, minute.retried, minute.dead
