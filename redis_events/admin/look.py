"""One request's look: the server asked once for everything, and what went wrong said on top of the page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar
from urllib.parse import urlencode

from django.contrib.admin import AdminSite
from django.contrib.admin.utils import quote
from django.db import Error
from django.db.models import Model
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext as _

from .. import inspection
from ..inspection import Server
from . import show
from .blocks import Row

T = TypeVar("T")
Query = Mapping[str, object]
EMPTY: Query = {}
FRAGMENT = "_fragment"
BACK = "_back"


@dataclass(frozen=True, slots=True, kw_only=True)
class Banner:
    """What is wrong, since when, and what to do. ``level`` is error or warning."""

    level: str
    what: str
    advice: str = ""
    since: datetime | None = None

    @property
    def moment(self) -> str:
        return show.moment(self.since)


class Look:
    """A request of one page, with the server that answers its questions."""

    def __init__(self, request: HttpRequest, *, server: Server, site: AdminSite, model: type[Model]) -> None:
        self.request = request
        self.server = server
        self._site = site
        self._model = model
        self._away: list[Banner] = []

    # -------------------------------------------------------------- questions

    def rows(self, question: Callable[[], T]) -> T | None:
        """The answer of a function that reads tables; None, and a banner, where they cannot be read."""
        try:
            return question()
        except Error as error:
            self._away = [_database_banner(error)]
            return None

    @property
    def is_blind(self) -> bool:
        """Whether the server left questions unanswered: what is not found may be there all the same."""
        return self.server.trouble is not None or bool(self.server.refusals)

    def drawn(self, found: Sequence[T], draw: Callable[[T], Row]) -> list[Row] | None:
        """What was found, as rows; None where nothing was, and nobody can say that there is nothing."""
        return None if self.is_blind and not found else [draw(each) for each in found]

    def banners(self) -> list[Banner]:
        """What is wrong, as far as the questions so far have shown."""
        return [*self._of_server(), *self._away]

    def _of_server(self) -> Iterator[Banner]:
        condition = inspection.condition(inspection.server_facts(server=self.server))
        for trouble in (self.server.trouble, condition):
            if trouble:
                yield Banner(level="error", what=trouble.message, advice=trouble.advice, since=trouble.since)
        for command, answer in self.server.refusals.items():
            what = _("The Redis user may not run %(command)s: %(answer)s") % {"command": command, "answer": answer}
            advice = _("Numbers that need it are missing. Allow it with ACL SETUSER, or do without them.")
            yield Banner(level="warning", what=what, advice=advice)

    # -------------------------------------------------------------- the request

    def may(self, permission: str) -> bool:
        """Whether the user has a permission of redis_events, by its code name."""
        return self.request.user.has_perm(f"redis_events.{permission}")

    def asked(self, name: str) -> str:
        """What the address asks for; ``""`` where it says nothing."""
        return _plain(self.request.GET.get(name, ""))

    def entered(self, name: str) -> str:
        """What the form brings; ``""`` where it says nothing."""
        return _plain(self.request.POST.get(name, ""))

    @property
    def who(self) -> str:
        return str(self.request.user.get_username())

    @property
    def here(self) -> str:
        """This page as it is filtered now, to come back to."""
        query = self.request.GET.copy()
        query.pop(FRAGMENT, None)
        return f"{self.request.path}?{query.urlencode()}" if query else self.request.path

    @property
    def back(self) -> str:
        """The page that an act was begun on, as it was filtered; never an address that is none of ours."""
        asked, first = self.request.GET.get(BACK, ""), self.url(self._model)
        pages = reverse("admin:app_list", args=[self._model._meta.app_label], current_app=self._site.name)
        hosts = {self.request.get_host()}
        is_ours = asked.startswith(pages) and ".." not in asked
        is_safe = is_ours and url_has_allowed_host_and_scheme(asked, hosts, require_https=self.request.is_secure())
        return asked if is_safe else first

    # -------------------------------------------------------------- links

    def url(self, model: type[Model], *, to: str = "", view: str = "", query: Query = EMPTY) -> str:
        """The address of a page, of one of its items (``to``), or of another of its views."""
        name = view or ("change" if to else "changelist")
        path = reverse(
            f"admin:{model._meta.app_label}_{model._meta.model_name}_{name}",
            args=[quote(to)] if to else [],
            current_app=self._site.name,
        )
        asked = urlencode({key: value for key, value in query.items() if value not in ("", None)}, doseq=True)
        return f"{path}?{asked}" if asked else path

    def act_url(self, model: type[Model], view: str, *, to: str = "", query: Query = EMPTY) -> str:
        """The address of the confirmation of an act, which leads back here."""
        return self.url(model, to=to, view=view, query={BACK: self.here, **query})

    def link(self, model: type[Model], label: object, *, to: str = "", query: Query = EMPTY) -> str:
        """A link to a page; only its text where the user may not see the page, or it is not registered."""
        shown = show.data(label)
        is_open = self._site.is_registered(model) and self.may(f"view_{model._meta.model_name}")
        return format_html('<a href="{}">{}</a>', self.url(model, to=to, query=query), shown) if is_open else shown


def _plain(text: str) -> str:
    """Without NUL, which PostgreSQL takes in no text."""
    return text.replace("\0", "").strip()


def _database_banner(error: Any) -> Banner:
    return Banner(
        level="error",
        what=_("The database does not answer: %s") % str(error).partition("\n")[0],
        advice=_("Run `manage.py migrate` if a table is missing; else look whether the database is up."),
        since=timezone.now(),
    )
