"""The admin: renders what ``redis_events.inspection`` says, and hands what people decide back to it.

Registered on ``django.contrib.admin.site`` unless ``REDIS_EVENTS["ADMIN"]`` is False. For an AdminSite of your own::

    from redis_events.admin import register

    register(my_site)
"""

from __future__ import annotations

from django.contrib import admin

from ..conf import conf, problems
from ..models import (
    Channel,
    ConsumerGroup,
    DeadLetter,
    EffectiveSetting,
    HeldDelivery,
    InboxEntry,
    ListenerStatus,
    LiveFeed,
    LoggedEvent,
    OutboxEvent,
    Overview,
    ReceiverStatus,
)
from .channels import ChannelPage
from .events import EventPage
from .feed import FeedPage
from .groups import GroupPage
from .letters import LetterPage
from .listeners import ListenerPage
from .overview import OverviewPage
from .receivers import ReceiverPage
from .state import StatePage
from .tables import HeldTable, InboxTable, OutboxTable

PAGES = {
    Overview: OverviewPage,
    Channel: ChannelPage,
    ReceiverStatus: ReceiverPage,
    LoggedEvent: EventPage,
    LiveFeed: FeedPage,
    ConsumerGroup: GroupPage,
    DeadLetter: LetterPage,
    ListenerStatus: ListenerPage,
    OutboxEvent: OutboxTable,
    EffectiveSetting: StatePage,
    HeldDelivery: HeldTable,
    InboxEntry: InboxTable,
}


def register(site: admin.AdminSite) -> None:
    """Register all pages on an AdminSite. Raises AlreadyRegistered where one of them is there already."""
    for model, page in PAGES.items():
        site.register(model, page)


# With broken settings nothing is registered: `check` says what is wrong, an exception here would keep it from doing so.
if not any(problems()) and conf.ADMIN:
    register(admin.site)
