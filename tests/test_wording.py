"""How log lines speak: one printable line each, whatever came over the wire."""

from __future__ import annotations

import json

import pytest

from redis_events.wording import counted, one_line, short_id, where


@pytest.mark.parametrize(
    "nasty", ["a\nb", "a\r\nb", "a\x1b[31mb", "a\x00b", "a\u2028b", "a\u202eb", "a\x9bb", "a\ud800b"]
)
def test_one_line_is_one_printable_line(nasty: str) -> None:
    line = one_line(ValueError(f"a{nasty}b"))
    assert line.isprintable()
    assert line.isascii()


def test_a_line_is_not_endless() -> None:
    assert len(one_line("x" * 10_000)) == 200


def test_what_cannot_be_shown_is_named_by_its_class() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("not even that")

    assert "Mute that cannot be shown" in one_line(Mute())


@pytest.mark.parametrize(("number", "text"), [(0, "0 runs"), (1, "1 run"), (2, "2 runs"), (2000, "2,000 runs")])
def test_one_run_is_not_one_runs(number: int, text: str) -> None:
    assert counted(number, "run") == text


@pytest.mark.parametrize(("id", "text"), [("7", "7"), ("01a20575-1111-7222-8333-44445555bf00", "01a20575…bf00")])
def test_a_long_id_is_shown_by_its_ends(id: str, text: str) -> None:
    assert short_id(id) == text


def test_the_place_of_an_error_is_in_the_projects_own_code_not_in_a_library() -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # any will do
        _in_a_library()
    assert where(caught.value.__traceback__) == f"test_wording.py:{_in_a_library.__code__.co_firstlineno + 1}"
    assert where(None) == ""


def _in_a_library() -> None:
    json.loads("no JSON")
