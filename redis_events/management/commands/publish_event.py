"""``manage.py publish_event``: publish one event by hand."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from collections.abc import Mapping
from socket import gaierror
from typing import Any

from django.core.management.base import CommandError
from django.utils.translation import gettext as _

from ...departing import only_alias
from ...events import Event
from ...exceptions import PublishError, Refused, TransportError
from ...models import OutboxEvent
from ...process import Exit
from ...publishing import publish
from ...routing import BUILT_IN, has_rows, is_memory, sender_for
from ...sender import Sender
from ..base import EventsCommand, add_format
from ..tables import document

NEVER_THERE = (ConnectionRefusedError, FileNotFoundError, PermissionError, gaierror)
"""What connecting fails with where there is no server."""


class Command(EventsCommand):
    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.description = _("Publish one event.")
        parser.add_argument("channel", help=_("The channel, without PREFIX."))
        parser.add_argument("data", nargs="?", help=_("JSON with --type, else text as it is; - reads standard input."))
        parser.add_argument("--type", default="", metavar="T", help=_("What happened, as shop.order.paid."))
        parser.add_argument("--key", metavar="K", help=_("Which thing it happened to; needs --type."))
        add_format(parser, "text", "json")

    def run(self, options: dict[str, Any]) -> Exit:
        if is_memory():
            raise CommandError(_("memory:// would keep it in this process, where nobody is."), returncode=Exit.USAGE)
        channel, type = options["channel"], options["type"]
        data = _data(options["data"], is_json=bool(type))
        try:
            event = publish(channel, data, type=type, key=options["key"], strict=True)
        except TransportError as error:
            text = _("The event is lost, or perhaps sent: %s") if _may_have_it(error) else _("The event is lost: %s")
            raise CommandError(text % error, returncode=Exit.UNREACHABLE) from error
        facts = _facts(event)
        self.stdout.write(document(facts) if options["format"] == "json" else _sentence(facts))
        return Exit.OK


def _data(given: str | None, *, is_json: bool) -> Any:
    """What to publish. Raises PublishError for what is no JSON, where that was to be."""
    text = _standard_input() if given == "-" else given
    if not is_json:
        if text is None:
            raise PublishError(_("Without --type there has to be some text to publish."))
        return text
    try:
        return None if text is None else json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PublishError(_("The data is no JSON: %(error)s.") % {"error": error}) from error


def _may_have_it(error: TransportError) -> bool:
    """Whether a server may have taken an event all the same: there was one, and what it said was not heard."""
    chain: list[BaseException] = [error]
    while inner := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(inner)
    is_answer = isinstance(error, Refused) or len(chain) == 1
    return not is_answer and not any(isinstance(each, NEVER_THERE) for each in chain)


def _standard_input() -> str:
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise PublishError(_("Standard input is not UTF-8: %(error)s.") % {"error": error}) from error


def _facts(event: Event[Any]) -> dict[str, Any]:
    outbox = only_alias() if has_rows(event.channel) else None
    return {
        "id": event.id if event.type else None,
        "channel": event.channel,
        "transport": "stream" if outbox else _transport(event.channel),
        "outbox": outbox,
    }


def _waits(facts: Mapping[str, Any]) -> bool:
    """Whether its row is unsent: the server is away, or another process has taken it in hand."""
    rows = OutboxEvent.objects.using(facts["outbox"]).filter(channel=facts["channel"], event_id=facts["id"])
    return rows.filter(sent_ms=None).exists()


def _transport(channel: str) -> str:
    """The name of what carried it, as CHANNELS has it."""
    sender = sender_for(channel)
    assert isinstance(sender, Sender)  # it has just been published by
    kind = type(sender.transport)
    path = f"{kind.__module__}.{kind.__qualname__}"
    return next((name for name, ours in BUILT_IN.items() if ours == path), path)


def _sentence(facts: dict[str, Any]) -> str:
    id = facts["id"] or _("Text without an id")
    if facts["outbox"]:
        text = _("%(id)s → %(channel)s (%(transport)s), by the outbox of %(outbox)s")
        if _waits(facts):
            text = _("%(id)s → %(channel)s (%(transport)s), in the outbox of %(outbox)s: a relay sends it")
        return text % facts
    return _("%(id)s → %(channel)s (%(transport)s)") % {**facts, "id": id}
