"""Every word that people see can be translated: extracted into a catalogue, put in brackets, and looked at."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from django.utils.translation import override

import redis_events
from redis_events import inspection
from redis_events.conf import READERS
from tests.pages import World, build_world, logged_in, user
from tests.servers import Server, needs

WITH_ROWS = {"helddelivery", "outboxevent", "inboxentry"}
"""Django's own lists: most of what they say is Django's."""
DATA = re.compile(r"<(bdi|pre|time|code|script|svg|title)\b.*?</\1>", re.DOTALL)
TAG = re.compile(r"<[^>]+>")
BRACKETS = re.compile(r"⟦[^⟦⟧]*⟧")
NAMES = {
    "B",
    "KiB",
    "MiB",
    "GiB",
    "s",
    "stream",
    "pubsub",
    "Valkey",
    "Redis",
    "master",
    "noeviction",
    "XINFO",
    "STREAM",
}
NAMES |= set(READERS)
"""What is called so in every language: units, transports, servers, commands, settings."""


@pytest.fixture(scope="session")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package's catalogue as makemessages extracts it, for a language of no one here."""
    needs("gettext")
    copy = tmp_path_factory.mktemp("translations") / "redis_events"
    shutil.copytree(Path(redis_events.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "locale").mkdir()
    command = [sys.executable, "-m", "django", "makemessages", "-l", "eo", "--no-location"]
    extracted = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False, env=_environment())
    assert extracted.returncode == 0, extracted.stderr
    assert "warning" not in extracted.stdout + extracted.stderr
    return copy / "locale" / "eo" / "LC_MESSAGES" / "django.po"


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}


def test_the_catalogue_extracts_and_holds_what_pages_and_commands_say(catalogue: Path) -> None:
    text = catalogue.read_text()
    for said in ("Consumer groups", "Dead letters", "Publish one event.", "Name entries, or a consumer."):
        assert f'msgid "{said}"' in text or f'msgid "{said.lower()}"' in text, said
    checked = subprocess.run(["msgfmt", "--check", "-o", os.devnull, str(catalogue)], capture_output=True, check=False)
    assert checked.returncode == 0, checked.stderr


@pytest.fixture
def in_brackets(catalogue: Path, settings: Any, tmp_path: Path) -> None:
    """A language in which every text of ours stands in brackets."""
    folder = tmp_path / "eo" / "LC_MESSAGES"
    folder.mkdir(parents=True)
    (folder / "django.po").write_text("".join(_bracketed(catalogue.read_text())))
    command = ["msgfmt", "-o", str(folder / "django.mo"), str(folder / "django.po")]
    subprocess.run(command, check=True, capture_output=True)
    settings.LOCALE_PATHS = [str(tmp_path)]
    settings.LANGUAGE_CODE = "eo"


def _bracketed(text: str) -> Iterator[str]:
    """Each entry with its own text as the translation."""
    header, *entries = text.split("\n\n")
    yield header + "\n\n"
    for entry in entries:
        singular = re.search(r'^msgid ((?:".*"\n?)+)', entry, re.MULTILINE)
        plural = re.search(r'^msgid_plural ((?:".*"\n?)+)', entry, re.MULTILINE)
        assert singular
        flags = "".join(re.findall(r"^#,.*\n", entry, re.MULTILINE))
        context = "".join(re.findall(r"^msgctxt .*\n", entry, re.MULTILINE))
        one = f"msgid {singular[1].rstrip()}\n"
        if plural:
            each = "".join(f'msgstr[{n}] "⟦"\n{of[1].rstrip()}\n"⟧"\n' for n, of in enumerate((singular, plural)))
            yield f"{flags}{context}{one}msgid_plural {plural[1].rstrip()}\n{each}\n"
        else:
            yield f'{flags}{context}{one}msgstr "⟦"\n{singular[1].rstrip()}\n"⟧"\n\n'


@pytest.fixture
def world(settings: Any, events_settings: dict[str, Any], server: Server, declared: None, db: None) -> Iterator[World]:
    settings.REDIS_EVENTS = {**events_settings, "SERVICE": "shop", "CHANNELS": {"shop.*": {"TRANSPORT": "stream"}}}
    with server.client() as client:
        yield from build_world(client)


@pytest.mark.django_db(databases=["default", "other"])
def test_every_word_on_every_page_is_translated(world: World, in_brackets: None) -> None:
    client = logged_in(user("root", is_superuser=True))
    untranslated = {}
    for model, view, address in world.addresses():
        if model in WITH_ROWS:
            continue
        answer = client.get(address)
        if answer.status_code == 200 and "<main" in (html := answer.content.decode()):
            found = words_outside_brackets(html.split("<main")[1])
            untranslated |= {f"{model} {view}": found} if found else {}
    assert not untranslated, "\n".join(f"{page}: {words}" for page, words in untranslated.items())


@pytest.mark.django_db(databases=["default", "other"])
def test_why_a_replay_left_something_is_translated(world: World, in_brackets: None) -> None:
    world.letter.receiver = "gone.away"
    world.letter.save()
    with override("eo"):
        assert inspection.replay(receiver="gone.away").left == {"⟦no receiver of that name here⟧": 1}


def words_outside_brackets(html: str) -> list[str]:
    """Texts of a page that are neither in brackets nor somebody's data."""
    content = html.partition('id="content"')[2]
    shown = DATA.sub(" ", content.partition("</main>")[0].partition(">")[2])
    parts = [unescape(part) for part in TAG.split(shown)]
    return [left for part in parts if (left := _left(part))]


def _left(part: str) -> str:
    while BRACKETS.search(part):
        part = BRACKETS.sub(" ", part)
    words = [word for word in part.split() if any(letter.isalpha() for letter in word) and word not in NAMES]
    return " ".join(words)


def test_a_word_without_brackets_is_seen() -> None:
    html = 'x id="content"><h1>⟦Lag⟧ 3</h1><p>Oops ⟦of ⟦two⟧⟧ <bdi>shop.orders</bdi></p></main>'
    assert words_outside_brackets(html) == ["Oops"]
