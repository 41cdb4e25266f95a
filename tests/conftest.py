"""One server for the whole session, and a corner of it for each test."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from django.db.models.signals import post_delete, post_save, pre_delete

from tests.processes import Project
from tests.servers import Postgres, Server, needs

# Before anything reads it: a server that happens to run is not ours to write to.
os.environ.pop("REDIS_URL", None)


def pytest_report_header() -> str:
    protocol = os.environ.get("TEST_PROTOCOL")
    return f"redis-py {redis.__version__}, URLs {f'with protocol={protocol}' if protocol else 'as they are'}"


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """The session's Valkey (or TEST_SERVER). Shared: keep to your prefix, never flush, stop or freeze this one."""
    with Server() as server:
        yield server


@pytest.fixture(scope="session")
def redis7() -> Iterator[Server]:
    """Debian's Redis, whatever the session's server is."""
    with Server(binary=needs("redis7")) as server:
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """The session's PostgreSQL; `create()` a database of your own."""
    with Postgres() as postgres:
        yield postgres


@pytest.fixture
def prefix() -> str:
    """A PREFIX nobody else uses."""
    return f"t-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def client(server: Server) -> Iterator[redis.Redis]:
    """redis-py at the session's server."""
    with server.client() as client:
        yield client


@pytest.fixture
def wire(events_settings: dict[str, Any]) -> Iterator[Any]:
    """A connection of ours to the session's server."""
    from redis_events.transports.client import Wire

    wire = Wire(events_settings["LOCATION"], timeout=1.0)
    yield wire
    wire.close()


@pytest.fixture
def redis_location(server: Server) -> str:
    """The LOCATION of the session's server."""
    return server.url


@pytest.fixture
def events_settings(settings: Any, redis_location: str, prefix: str) -> dict[str, Any]:
    """REDIS_EVENTS of this process at the session's server under the test's own PREFIX; returns what was set."""
    settings.REDIS_EVENTS = {**settings.REDIS_EVENTS, "LOCATION": redis_location, "PREFIX": prefix}
    return settings.REDIS_EVENTS


@pytest.fixture
def make_project(tmp_path: Path, redis_location: str, prefix: str) -> Iterator[Callable[..., Project]]:
    """Make projects by service name; they share the test's prefix and nothing else."""
    projects: list[Project] = []

    def make(service: str = "shop", *, location: str = redis_location) -> Project:
        project = Project(tmp_path / service, location=location, prefix=prefix, service=service)
        projects.append(project)
        return project

    yield make
    for project in projects:
        project.close()


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project's database after `migrate`, to be copied: migrating takes seconds."""
    project = Project(tmp_path_factory.mktemp("migrated") / "shop", location="memory://")
    project.migrate()
    return project.folder / "db.sqlite3"


@pytest.fixture
def project(make_project: Callable[..., Project], migrated: Path) -> Project:
    """A migrated project of the service `shop` that runs management commands in processes of their own."""
    project = make_project()
    shutil.copy(migrated, project.folder / "db.sqlite3")
    return project


@pytest.fixture(scope="session")
def django_db_modify_db_settings(tmp_path_factory: pytest.TempPathFactory) -> None:
    """SQLite in files: threads of one test can then write to it as they would in production."""
    from django.db import connections

    folder = tmp_path_factory.mktemp("databases")
    for alias in connections:
        connections[alias].settings_dict["TEST"]["NAME"] = str(folder / f"{alias}.sqlite3")


@pytest.fixture
def declared() -> Iterator[None]:
    """Publishers, event classes and receivers that the test declares, and no others; forgotten after it."""
    from django.apps import apps

    from redis_events import registry

    tables: list[dict[Any, Any]] = [registry.publishers, registry.event_types, registry._receivers]
    before = [dict(table) for table in tables]
    for table in tables:
        table.clear()
    yield
    for table, content in zip(tables, before, strict=True):
        table.clear()
        table.update(content)
    for model in apps.get_models():
        for signal in (post_save, pre_delete, post_delete):
            signal.disconnect(sender=model, dispatch_uid="redis_events")


@pytest.fixture(scope="session")
def postgres_entry(postgres: Postgres, django_db_blocker: Any) -> Any:
    """An entry for DATABASES: a PostgreSQL database with all tables."""
    return _with_tables(postgres.create("tests"), django_db_blocker)


@pytest.fixture
def postgres_alias(postgres_entry: Any, django_db_blocker: Any) -> Iterator[str]:
    """The alias `postgres` for this test, its tables empty afterwards; transactions on it are real."""
    with django_db_blocker.unblock(), _alias("postgres", postgres_entry):
        yield "postgres"
        _empty("postgres")


@pytest.fixture(scope="session")
def sqlite_entries(tmp_path_factory: pytest.TempPathFactory, django_db_blocker: Any) -> dict[str, Any]:
    """Entries for DATABASES: two SQLite files with all tables."""
    folder = tmp_path_factory.mktemp("real")
    files = {alias: {"ENGINE": "django.db.backends.sqlite3", "NAME": folder / alias} for alias in ("default", "other")}
    return {alias: _with_tables(entry, django_db_blocker) for alias, entry in files.items()}


@pytest.fixture
def real_transactions(sqlite_entries: dict[str, Any], django_db_blocker: Any) -> Iterator[None]:
    """SQLite as it is outside of tests under `default` and `other`, its tables empty afterwards.

    What `django_db(transaction=True)` does, in a hundredth of the time: its flush makes all permissions anew.
    """
    with django_db_blocker.unblock(), ExitStack() as stack:
        for alias, entry in sqlite_entries.items():
            stack.enter_context(_alias(alias, entry))
        yield
        for alias in sqlite_entries:
            _empty(alias)


def _with_tables(entry: dict[str, Any], blocker: Any) -> Any:
    from django.core.management import call_command
    from django.db import connections

    whole = connections.configure_settings({"default": {}, "new": entry})["new"]
    with blocker.unblock(), _alias("new", whole):
        call_command("migrate", database="new", run_syncdb=True, verbosity=0)
    return whole


def _empty(alias: str) -> None:
    """Empty the tables of the two apps that tests write to; a flush would also make all permissions anew."""
    from django.apps import apps
    from django.core.management.color import no_style
    from django.db import connections

    models = [each for label in ("redis_events", "testapp") for each in apps.get_app_config(label).get_models(True)]
    tables = list(dict.fromkeys(each._meta.db_table for each in models if each._meta.managed))
    operations = connections[alias].ops
    operations.execute_sql_flush(operations.sql_flush(no_style(), tables, allow_cascade=True))


@contextmanager
def _alias(alias: str, entry: Any) -> Iterator[None]:
    """Let an alias mean another database."""
    from django.db import connections

    kept = (connections.settings[alias], connections[alias]) if alias in connections.settings else None
    connections.settings[alias] = entry
    connections[alias] = connections.create_connection(alias)
    try:
        yield
    finally:
        connections[alias].close()
        del connections[alias], connections.settings[alias]
        if kept:
            connections.settings[alias], connections[alias] = kept
