"""What is wrong with event classes and publishers, and with files nobody reads."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from django.apps import AppConfig, apps
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register

from ..codec import type_name
from ..conf import NAME, RESERVED
from ..events import EventType
from ..registry import event_types, publishers
from .messages import ELSEWHERE, message
from .shapes import is_data_class, obstacle


@register("redis_events")
def check_event_classes(**_: Any) -> list[CheckMessage]:
    """E011: an event class that no JSON can be made of or read into."""
    found = []
    for data_type in event_types:
        why_not = obstacle(data_type) if is_data_class(data_type) else "it is a plain class"
        if why_not:
            text = f"{type_name(data_type)} cannot be the shape of an event: {why_not}."
            hint = "Make it a dataclass (below @event), msgspec.Struct or attrs class, of such and of builtins."
            found.append(message(Error, "E011", text, hint, data_type))
    return found


@register("redis_events")
def check_event_names(**_: Any) -> list[CheckMessage]:
    """E012: an event class with a type or channel that is no name, or a key_field that is no field."""
    found = []
    for declared in event_types.values():
        for problem, hint in _wrong_names(declared):
            text = f"{type_name(declared.data_type)} cannot be published: {problem}."
            found.append(message(Error, "E012", text, hint, declared.data_type))
    return found


def _wrong_names(declared: EventType) -> Iterator[tuple[str, str]]:
    for argument, name in (("type", declared.type), ("channel", declared.channel)):
        if not isinstance(name, str) or not NAME.fullmatch(name):
            yield f"{argument} {name!r} is no name", "Use up to 128 letters, digits and ._:- only, no patterns."
        elif argument == "channel" and name.startswith(RESERVED):
            yield f"channel {name!r} is reserved", ELSEWHERE
    if declared.key_field and not _has_attribute(declared.data_type, declared.key_field):
        yield (
            f"it has no field {declared.key_field!r}",
            "Name one of its fields or properties in key_field, or leave it out.",
        )


def _has_attribute(data_type: type, name: str) -> bool:
    annotated = {each for base in data_type.__mro__ for each in vars(base).get("__annotations__", ())}
    return name in annotated or hasattr(data_type, str(name))


@register("redis_events")
def check_publishers(**_: Any) -> list[CheckMessage]:
    """W004: a published field whose values may have no JSON form."""
    found = []
    for model, declared in publishers.items():
        for publisher in declared:
            for field in _unknown_fields(publisher):
                text = f"{publisher.__qualname__}: values of {model._meta.label}.{field.name} may have no JSON form."
                hint = f"Leave it out, or override data(): nobody here knows its class, {type(field).__qualname__}."
                found.append(message(Warning, "W004", text, hint, publisher))
    return found


def _unknown_fields(publisher: Any) -> list[Any]:
    snapshot = getattr(publisher, "_snapshot", None)
    return snapshot.unknown_fields() if snapshot else []


@register("redis_events")
def check_strays(app_configs: Sequence[AppConfig] | None = None, **_: Any) -> list[CheckMessage]:
    """W003: an events.py or receivers.py beside an installed app that nobody imports."""
    installed = {Path(app.path) for app in apps.get_app_configs()}
    found = []
    for path in sorted(_project_packages(installed)):
        for name in ("events.py", "receivers.py"):
            if (path / name).is_file() and _mentions_us(path / name):
                text = f"{path / name} is never imported: {_dotted(path)} is not in INSTALLED_APPS."
                found.append(
                    message(Warning, "W003", text, f'Add "{_dotted(path)}" to INSTALLED_APPS, or move it into an app.')
                )
    return found


def _project_packages(installed: set[Path]) -> set[Path]:
    """Packages beside the project's own apps and settings that are no apps."""
    settings_module = sys.modules.get(getattr(settings, "SETTINGS_MODULE", None) or "")
    own = [Path(settings_module.__file__).parent] if settings_module and settings_module.__file__ else []
    roots = {path.parent for path in (*own, *installed) if "site-packages" not in path.parts} | set(own)
    packages = {init.parent for root in roots for init in root.glob("*/__init__.py")} | set(own)
    return packages - installed


def _dotted(package: Path) -> str:
    """A package's name as it is imported: ``demo_project.billing``."""
    parent = package.parent
    return f"{_dotted(parent)}.{package.name}" if (parent / "__init__.py").is_file() else package.name


def _mentions_us(path: Path) -> bool:
    return "redis_events" in path.read_text(errors="replace")
