"""What a page is made of: tables, cards, lists of facts, text, a chart. Each knows the template that draws it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from django.utils.text import slugify

FOLDER = "admin/redis_events"
MANY_LINES = "textarea"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """What to write, and the command to run, so that an empty page fills."""

    text: str
    lines: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Button:
    """Leads to the confirmation of an act. In a form it takes what is selected along."""

    label: str
    url: str
    is_dangerous: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The cells of a row; ``value`` is what its checkbox selects, in a table that has them."""

    cells: Sequence[object]
    value: str = ""
    label: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows under headings. ``rows`` None says that nobody knows; empty shows the lesson or ``empty``."""

    template: ClassVar[str] = f"{FOLDER}/table.html"
    title: str
    headings: Sequence[str]
    rows: Sequence[Row] | None
    empty: str = ""
    lesson: Lesson | None = None
    note: object = ""
    more: object = ""
    """Where the table goes on: a link."""
    buttons: Sequence[Button] = ()
    """Acts on what is selected: with them the rows get checkboxes."""
    back: str = ""
    """Where an act leads back to."""

    @property
    def anchor(self) -> str:
        return slugify(self.title, allow_unicode=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One number of the overview."""

    label: str
    value: object
    note: object = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cards:
    template: ClassVar[str] = f"{FOLDER}/cards.html"
    title: str
    cards: Sequence[Card]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Names and values; ``is_line``: beside one another."""

    template: ClassVar[str] = f"{FOLDER}/facts.html"
    title: str
    facts: Sequence[tuple[str, object]]
    is_line: bool = False
    buttons: Sequence[Button] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """Text as it is, in a box of its own; ``more`` is a link to the rest of it."""

    template: ClassVar[str] = f"{FOLDER}/text.html"
    title: str
    text: str
    more: object = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A sentence between the blocks."""

    template: ClassVar[str] = f"{FOLDER}/note.html"
    text: object


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of a chart: its points as SVG wants them."""

    name: str
    style: str
    points: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """Lines over time, and the table that says the same."""

    template: ClassVar[str] = f"{FOLDER}/chart.html"
    title: str
    lines: Sequence[Line]
    most: object
    table: Table
    width: int
    height: int


Block = Table | Cards | Facts | Text | Note | Chart


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field of a form. ``kind`` is the type of its input, or MANY_LINES."""

    name: str
    label: str
    value: str = ""
    kind: str = "search"
    is_disabled: bool = False
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A page: its title, its blocks, and the filter above them. ``subtitle`` makes it one of the page's items."""

    blocks: Iterable[Block]
    subtitle: str = ""
    fields: Sequence[Field] = ()
    feed: object = None
