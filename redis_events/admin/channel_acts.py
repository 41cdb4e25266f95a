"""What can be done on a channel: publish an event by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from django.utils.translation import gettext as _

from .. import inspection
from ..exceptions import PublishError
from ..inspection import Done
from ..publishing import publish as publish_event
from .acts import Plan
from .blocks import MANY_LINES, Field
from .look import Look


def publish(_page: object, look: Look, name: str) -> Plan | None:
    """Publish one event, as this service."""
    channel = inspection.channel(name, server=look.server)
    if channel is None or channel.is_pattern:
        return None
    return Plan(
        title=_("Publish an event"),
        question=_("Publish 1 event on %(channel)s? Every service that receives it will act on it.")
        % {"channel": name},
        button=_("Yes, publish it"),
        count=1,
        fields=_fields(),
        object_id=name,
        object_repr=name,
        run=lambda entered: _publish(name, entered),
    )


def _fields() -> list[Field]:
    return [
        Field(name="type", label=_("Type"), kind="text", hint=_("What happened, as shop.order.paid.")),
        Field(name="key", label=_("Key"), kind="text", hint=_("Which thing it happened to; needs a type.")),
        Field(name="data", label=_("Data"), kind=MANY_LINES, hint=_("JSON with a type, else text as it is.")),
    ]


def _publish(channel: str, entered: Mapping[str, str]) -> Done:
    """Raises PublishError for what is no event, TransportError, django.db.Error."""
    type, key = entered["type"], entered["key"] or None
    data = _json(entered["data"]) if type else entered["data"]
    publish_event(channel, data, type=type, key=key, strict=True)
    return Done(done=1, left={})


def _json(text: str) -> Any:
    try:
        return json.loads(text) if text else None
    except (ValueError, RecursionError) as error:
        raise PublishError(_("The data is no JSON: %s.") % error) from error
