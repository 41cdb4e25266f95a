"""What people can do on a page: a confirmation that says exactly what and how many, then that and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from django.contrib import messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.admin.utils import unquote
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import PermissionDenied
from django.core.signing import BadSignature, Signer
from django.db import Error
from django.http import HttpRequest, HttpResponseNotAllowed, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from ..exceptions import ActError, PublishError, RedisEventsError
from ..inspection import Done, Server
from . import show
from .blocks import FOLDER, MANY_LINES, Field

if TYPE_CHECKING:
    from django.contrib.admin import AdminSite
    from django.db.models import Model

    from .look import Look

SELECTED = "select"
IDS = "ids"
BOUND = "until"
MOST = 10_000
"""Things that one confirmation may touch: their ids travel through its form."""
MOST_NAMED = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What an act would touch. ``ids`` or ``until`` go through the form, so that these are touched and no others.

    ``typed`` is what must be typed first. ``run`` gets what was entered in ``fields``, by name; a mistake in it, which
    it raises as ActError or PublishError, is said above the form, and what was entered stays there.
    """

    title: str
    question: str
    button: str
    count: int
    run: Callable[[Mapping[str, str]], Done | None]
    object_id: str
    object_repr: str
    ids: Sequence[str] = ()
    until: datetime | None = None
    using: str = ""
    """The database in which they were counted."""
    items: Sequence[str] = ()
    warning: str = ""
    typed: str = ""
    fields: Sequence[Field] = ()
    flag: int = CHANGE
    is_dangerous: bool = False

    @property
    def named(self) -> Sequence[str]:
        return self.items[:MOST_NAMED]

    @property
    def unnamed(self) -> int:
        return max(0, self.count - len(self.named)) if self.items else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """Something a page can do: who may, and how it finds what it would touch."""

    permission: str
    plan: Callable[[Any, Look, str], Plan | None]
    """From the page, the look and the item's id. None: there is nothing to do. Raises as acting does."""
    is_on_item: bool = True
    needs_server: bool = True


class Acts:
    """The part of a page that acts."""

    acts: Mapping[str, Act] = {}

    if TYPE_CHECKING:
        admin_site: AdminSite
        model: type[Model]

        def look(self, request: HttpRequest, *, server: Server) -> Look: ...
        def chrome(self, look: Look, *, title: str) -> dict[str, Any]: ...

    def act_views(self) -> list[tuple[str, Callable[..., HttpResponseBase], str]]:
        """Route, view and name of each act."""
        return [
            (f"<path:object_id>/{name}/" if act.is_on_item else f"{name}/", self._view(act), name)
            for name, act in self.acts.items()
        ]

    def _view(self, act: Act) -> Callable[..., HttpResponseBase]:
        def view(request: HttpRequest, object_id: str = "") -> HttpResponseBase:
            if not request.user.has_perm(f"redis_events.{act.permission}"):
                raise PermissionDenied
            if request.method not in ("GET", "HEAD", "POST"):
                return HttpResponseNotAllowed(["GET", "HEAD", "POST"])
            with Server() as server:
                return self._answer(self.look(request, server=server), act, unquote(object_id))

        return view

    def _answer(self, look: Look, act: Act, id: str) -> HttpResponseBase:
        try:
            plan = act.plan(self, look, id)
        except (RedisEventsError, Error) as error:
            return _sent_back(look, messages.ERROR, str(error))
        if act.needs_server and look.server.trouble:
            return _sent_back(look, messages.ERROR, f"{look.server.trouble.message}. {look.server.trouble.advice}")
        if plan is None:
            return _sent_back(look, messages.WARNING, _("There is nothing left to do: nothing was changed."))
        if look.request.method != "POST":
            return self._confirmation(look, plan)
        if plan.typed and look.entered("typed") != plan.typed:
            return self._confirmation(look, plan, complaint=_("Type exactly “%s” to go on.") % plan.typed)
        return self._carry_out(look, plan)

    def _confirmation(self, look: Look, plan: Plan, *, complaint: str = "") -> HttpResponseBase:
        fields = [replace(field, value=look.request.POST.get(field.name, field.value)) for field in plan.fields]
        until = _seal(look, plan.using).sign(plan.until.isoformat()) if plan.until else ""
        context = {"plan": plan, "fields_to_fill": fields, "complaint": complaint, "back": look.back, "until": until}
        context = {**self.chrome(look, title=plan.title), **context}
        return TemplateResponse(look.request, f"{FOLDER}/confirm.html", context)

    def _carry_out(self, look: Look, plan: Plan) -> HttpResponseBase:
        entered = {field.name: look.entered(field.name) for field in plan.fields}
        try:
            done = plan.run(entered)
        except (PublishError, ActError) as error:
            if plan.fields:
                return self._confirmation(look, plan, complaint=str(error))
            return _sent_back(look, messages.ERROR, _("Failed: %s") % error)
        except (RedisEventsError, Error) as error:
            self._log(look, plan, _("%(title)s: failed, %(error)s") % {"title": plan.title, "error": error})
            return _sent_back(look, messages.ERROR, _("Failed: %s") % error)
        told = _told(plan, done)
        self._log(look, plan, " ".join([f"{plan.title}: {told}", *_to_log(plan, entered)]))
        level = messages.WARNING if done and done.left else messages.SUCCESS
        return _sent_back(look, level, told)

    def _log(self, look: Look, plan: Plan, message: str) -> None:
        """Made here and not by the manager: its method has another name in each version of Django."""
        LogEntry.objects.create(
            user_id=str(look.request.user.pk),
            content_type_id=ContentType.objects.get_for_model(self.model, for_concrete_model=False).pk,
            object_id=plan.object_id,
            object_repr=plan.object_repr[:200],
            action_flag=plan.flag,
            change_message=message,
        )


def _told(plan: Plan, done: Done | None) -> str:
    """How many are done, and how many are not, and why."""
    if done is None:
        return _("Done.")
    skipped = sum(done.left.values())
    told = ngettext("%(count)s done", "%(count)s done", done.done) % {"count": show.number(done.done)}
    if not skipped:
        return f"{told}."
    left = ngettext("%(count)s left alone", "%(count)s left alone", skipped) % {"count": show.number(skipped)}
    return f"{told}, {left} ({show.left(done.left)})."


def _to_log(plan: Plan, entered: Mapping[str, str]) -> list[str]:
    """What was entered, but for the data of an event: the log has readers of its own."""
    logged = [field for field in plan.fields if field.kind != MANY_LINES and entered[field.name]]
    return [f"{field.label}: {entered[field.name]}." for field in logged]


def _sent_back(look: Look, level: int, message: str) -> HttpResponseRedirect:
    messages.add_message(look.request, level, message, fail_silently=True)
    return HttpResponseRedirect(look.back)


def chosen(look: Look) -> list[str]:
    """The ids that an act is about: those its confirmation named, or before that those that were selected."""
    if look.request.method == "POST":
        return [id for id in look.request.POST.get(IDS, "").split(",") if id][:MOST]
    return look.request.GET.getlist(SELECTED)[:MOST]


def bound(look: Look, *, using: str) -> datetime:
    """When the latest of those that a confirmation counted had died. Raises ActError where none of this address did."""
    try:
        return datetime.fromisoformat(_seal(look, using).unsign(look.request.POST.get(BOUND, "")))
    except BadSignature:
        raise ActError(_("This is not what was confirmed: nothing was changed. Look at it again.")) from None


def _seal(look: Look, using: str) -> Signer:
    """For what a form brings back unchanged: a later moment, or that of another database, would touch others."""
    return Signer(salt=f"{using} {look.here}")
