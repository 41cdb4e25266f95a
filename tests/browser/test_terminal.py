"""The tasks of `test_tasks.py` from the terminal: the commands can do what the admin can."""

from __future__ import annotations

import json
import re
import signal
import time
from collections import Counter
from typing import Any

import pytest

from tests.browser.test_tasks import documents
from tests.browser.world import World
from tests.servers import wait_for

pytestmark = pytest.mark.slow


class Terminal:
    """Somebody at a shell of the shop: each command is counted, and the seconds it took."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.commands = 0
        self._began = time.monotonic()

    def run(self, *arguments: str) -> str:
        """The output of a command that exits with 0."""
        self.commands += 1
        process = self.world.shop.manage(*arguments)
        assert process.wait(30) == 0, process.output
        return process.output

    def ask(self, *arguments: str) -> Any:
        """What a command answers as JSON; warnings of the checks go before it, to stderr."""
        return json.loads(re.split(r"^(?=[{])", self.run(*arguments, "--format", "json"), flags=re.M)[-1])

    def report(self) -> int:
        """Print what it took; returns the commands."""
        print(f"\n{self.name}, in the terminal: {self.commands} commands, {time.monotonic() - self._began:.1f} s")
        return self.commands


def test_which_group_is_behind_takes_one_command(world: World) -> None:
    terminal = Terminal(world, "which group is behind")
    (found,) = [each for each in terminal.ask("inspect_events", "groups")["groups"] if each["service"] == "search"]
    assert found["lag"] > 0
    assert found["behind_since"]
    assert found["is_served"] is False
    assert terminal.report() == 1


def test_an_event_is_found_by_an_order_number_inside_its_data_with_one_command(world: World) -> None:
    world.publish("steady.work", [{"id": "t-1", "order": {"number": "A-815"}}], type="steady.told")
    terminal = Terminal(world, "find an event by an order number in its data")
    (found,) = terminal.ask("inspect_events", "events", "--find", "A-815")["events"]
    assert found["type"] == "steady.told"
    assert terminal.report() == 1


def test_all_dead_letters_of_one_error_are_replayed_with_two_commands(world: World) -> None:
    lost, torn = documents("lost", 5, error="lost"), documents("torn", 3, error="torn")
    world.publish("trial.typed", lost + torn, type="trial.typed")
    wait_for(lambda: world.held("dead", type="trial.typed") == 8, timeout=20, what="8 dead letters")
    terminal = Terminal(world, "replay all dead letters of one error")
    groups = terminal.ask("inspect_events", "dead", "--channel", "trial.typed")["dead"]
    (group,) = [each for each in groups if each["exception"] == "LookupError" and each["channel"] == "trial.typed"]
    told = terminal.ask("replay_events", "--fingerprint", group["fingerprint"])
    wait_for(lambda: len(world.runs("trial.typed")) >= 8 + 5, timeout=20, what="5 more runs")
    runs = Counter(world.runs("trial.typed"))
    assert told["replayed"] >= 5
    assert {key for key, times in runs.items() if times == 2} == {each["id"] for each in lost}
    assert {key for key, times in runs.items() if times == 1} == {each["id"] for each in torn}
    assert terminal.report() == 2


def test_the_live_feed_is_stopped_by_the_terminal_and_nothing_is_lost(world: World) -> None:
    tail = world.shop.manage("tail_events", "steady.work", "--filter", "steady.tailed", "--limit", "23")
    began = time.monotonic()
    wait_for(lambda: _heard(world, tail), timeout=20, what="the tail to have begun")
    tail.terminate(signal.SIGSTOP)
    world.publish("steady.work", documents("while", 20), type="steady.tailed")
    tail.terminate(signal.SIGCONT)
    wait_for(lambda: all(tail.find(rf"\bwhile-{number}\b") for number in range(20)), timeout=20, what="20 lines")
    keys = [found[0] for line in tail.lines if (found := re.search(r"while-\d+", line))]
    assert set(Counter(keys)) == {each["id"] for each in documents("while", 20)}
    assert len(keys) == 20
    tail.kill()
    print(f"\nwatch, stop, 20 events arrive, go on, in the terminal: 1 command, {time.monotonic() - began:.1f} s")


def _heard(world: World, tail: Any) -> bool:
    world.publish("steady.work", [{"id": "first"}], type="steady.tailed")
    return tail.find("first") is not None


def test_a_dead_consumers_entries_are_claimed_with_two_commands(world: World) -> None:
    (world.shop.folder / "hang").touch()
    world.publish("hanging.work", documents("typed", 3), type="hanging.typed")
    victim = world.listen(world.shop, "hanging.work")
    wait_for(lambda: world.runs("hanging.typed"), timeout=10, what="a run that hangs")
    victim.kill()
    terminal = Terminal(world, "claim a dead consumer's entries")
    wait_for(lambda: _is_gone(terminal, victim.pid), timeout=20, what="its heartbeat to end")
    terminal.commands = 1
    assert "3 done" in terminal.run("inspect_events", "groups", "--claim", "hanging.work", "shop", "--yes")
    (world.shop.folder / "hang").unlink()
    heir = world.listen(world.shop, "hanging.work")
    wait_for(lambda: len(set(world.runs("hanging.typed"))) == 3, timeout=20, what="all three runs")
    heir.terminate()
    heir.wait()
    assert terminal.report() == 2


def _is_gone(terminal: Terminal, pid: int) -> bool:
    found = terminal.ask("inspect_events", "consumers", "--channel", "hanging.work")["consumers"]
    return any(f":{pid}:" in str(each) and "False" in str(each) for each in found)


def test_a_receiver_is_paused_on_both_its_listeners_and_resumed_with_two_commands(world: World) -> None:
    terminal = Terminal(world, "pause a receiver that two listeners run, and resume it")
    terminal.run("inspect_events", "receivers", "--pause", "shop.receivers.work", "--yes")
    world.until_listeners_know()
    world.publish("steady.work", documents("typed", 10), type="steady.held")
    wait_for(lambda: world.held("parked", type="steady.held") == 10, timeout=20, what="10 parked runs")
    assert world.runs("steady.held") == []
    terminal.run("inspect_events", "receivers", "--resume", "shop.receivers.work", "--yes")
    wait_for(lambda: len(world.runs("steady.held")) >= 10, timeout=20, what="10 runs")
    assert Counter(world.runs("steady.held")) == {each["id"]: 1 for each in documents("typed", 10)}
    assert terminal.report() == 2
