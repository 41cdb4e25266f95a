"""What installing redis_events does to a project: nothing before setup, discovery in it, clear words when it fails."""

from __future__ import annotations

import pytest

from tests.processes import Project


def run(project: Project, code: str) -> str:
    process = project.python("-c", code)
    assert process.wait(20) == 0, process.output
    return process.output


# ------------------------------------------------------------------ before setup


def test_importing_it_in_settings_imports_no_django(project: Project) -> None:
    code = "import sys, redis_events; redis_events.__version__; print('django' in sys.modules, dir(redis_events))"
    output = run(project, code)
    assert output.startswith("False")
    assert "ModelPublisher" in output


def test_every_public_name_can_be_imported_before_setup(project: Project) -> None:
    assert run(project, "from redis_events import *; print(publish, receives, Event, subscribe)").count("redis_events")


def test_retry_can_be_used_in_settings(project: Project) -> None:
    (project.folder / "with_retry.py").write_text(
        "from tests.settings import *\nfrom redis_events import Retry\nREDIS_EVENTS |= {'RETRY': Retry(attempts=3)}\n"
    )
    project.env["DJANGO_SETTINGS_MODULE"] = "with_retry"
    assert project.shell("from redis_events.retry import default_retry; print(default_retry().attempts)") == "3"


# ------------------------------------------------------------------ discovery

RECEIVERS = """
from redis_events import receives
print("receivers imported")

@receives("c")
def receiver(event): ...
"""
PUBLISHERS = """
from redis_events import ModelPublisher, publishes
from tests.testapp.models import Order
print("events imported")

@publishes(Order)
class OrderPublisher(ModelPublisher):
    channel = "shop.orders"
    fields = ("id",)
"""


def test_events_and_receivers_of_every_app_are_imported_once(project: Project) -> None:
    project.write("receivers.py", RECEIVERS)
    project.write("events.py", PUBLISHERS)
    output = project.shell("from redis_events.registry import all_receivers, publishers; print(len(all_receivers()))")
    assert sorted(output.split("\n")) == ["1", "events imported", "receivers imported"]


def test_a_receiver_that_is_registered_in_a_package_counts(project: Project) -> None:
    (project.folder / "app" / "receivers").mkdir()
    project.write("receivers/__init__.py", "from . import orders")
    project.write("receivers/orders.py", RECEIVERS)
    assert "receivers imported" in project.shell("")


BROKEN = [
    ("receivers.py", "import nonsense", "ModuleNotFoundError: No module named 'nonsense'"),
    ("events.py", "1 / 0", "ZeroDivisionError: division by zero"),
    ("events.py", "def (", "SyntaxError: invalid syntax"),
    ("receivers.py", "from redis_events import recieves", "ImportError: cannot import name 'recieves'"),
    (
        "receivers.py",
        "from redis_events import receives\n@receives\ndef r(event): ...",
        "ConfigurationError: @receives",
    ),
]


@pytest.mark.parametrize(("name", "source", "error"), BROKEN, ids=[source[:20] for _, source, _ in BROKEN])
def test_a_module_that_cannot_be_imported_is_named_with_the_setting(
    project: Project, name: str, source: str, error: str
) -> None:
    project.write(name, source)
    check = project.manage("check")
    assert check.wait() == 1
    place = f'{project.folder}/app/{name}, found through INSTALLED_APPS = [… "app" …]'
    assert place in check.output
    assert error in check.output


def test_a_wrong_setting_is_a_check_not_a_traceback(project: Project) -> None:
    project.write("events.py", PUBLISHERS)
    project.write("receivers.py", RECEIVERS)
    project.settings = {"PREFX": "x"}
    check = project.manage("check")
    assert check.wait() == 1
    assert "redis_events.E001" in check.output
    assert 'Did you mean "PREFIX"?' in check.output
    assert "Traceback" not in check.output


def test_starting_up_opens_no_connection(project: Project) -> None:
    project.write("events.py", PUBLISHERS)
    project.write("receivers.py", RECEIVERS)
    code = (
        "import socket, sqlite3, django\n"
        "def refuse(*_, **__): raise AssertionError('it connects')\n"
        "socket.socket.connect = sqlite3.dbapi2.connect = refuse\n"
        "django.setup()\n"
        "print('quiet')"
    )
    assert run(project, code).endswith("quiet")


def test_an_autoreloaded_module_does_not_publish_twice(project: Project) -> None:
    project.write("events.py", PUBLISHERS)
    output = project.shell(
        "import importlib, app.events\n"
        "importlib.reload(app.events)\n"
        "from redis_events.testing import capture_events\n"
        "from tests.testapp.models import Order\n"
        "with capture_events() as captured: Order.objects.create()\n"
        "print(len(captured))"
    )
    assert output.endswith("1")


def test_it_works_on_the_interpreter_with_warnings_as_errors(project: Project) -> None:
    project.write("events.py", PUBLISHERS)
    project.write("receivers.py", RECEIVERS)
    process = project.python("-W", "error", "-c", "import django; django.setup(); print('fine')")
    assert process.wait(20) == 0, process.output


def test_migrations_are_complete_under_any_auto_field(project: Project) -> None:
    for field in ("AutoField", "BigAutoField", "SmallAutoField"):
        arguments = ("makemigrations", "redis_events", "--check", "--dry-run")
        process = project.manage(*arguments, TEST_AUTO_FIELD=f"django.db.models.{field}")
        assert process.wait(20) == 0, process.output
