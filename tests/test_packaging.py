"""What a user gets from the package index: a wheel that stands on its own."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.processes import ROOT, Process, Project
from tests.servers import Server

SETTINGS = """
SECRET_KEY = "for this test"
INSTALLED_APPS = ["redis_events", "mine"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"}}
USE_TZ = True
"""
RECEIVERS = """
from redis_events import receives

@receives("hello")
def greet(event):
    print("received", event.data, flush=True)
"""


def run(*command: str, cwd: Path, **env: str) -> str:
    """The output of a program that ends well."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | env
    done = subprocess.run(
        command, cwd=cwd, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built by way of the source distribution, so that one is whole too."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT), cwd=folder)
    assert len(list(folder.glob("django_redis_events-*.tar.gz"))) == 1
    return next(folder.glob("django_redis_events-*-py3-none-any.whl"))


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The interpreter of a fresh environment that holds the wheel and what it asks for."""
    folder = tmp_path_factory.mktemp("clean")
    run(sys.executable, "-m", "venv", "venv", cwd=folder)
    python = str(folder / "venv" / "bin" / "python")
    run(python, "-m", "pip", "install", "--quiet", str(wheel), cwd=folder)
    return python


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A Django project of two files, away from this checkout."""
    (tmp_path / "settings.py").write_text(SETTINGS)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "__init__.py").touch()
    (tmp_path / "mine" / "receivers.py").write_text(RECEIVERS)
    return tmp_path


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"redis_events", "django_redis_events"}
    assert "redis_events/py.typed" in names
    kept = {str(path.relative_to(ROOT)) for path in (ROOT / "redis_events").rglob("*") if _is_source(path)}
    assert {name for name in names if name.startswith("redis_events/")} == kept


def _is_source(path: Path) -> bool:
    return path.is_file() and path.suffix != ".pyc"


@pytest.mark.slow
def test_the_installed_wheel_is_the_one_that_is_used(python: str, folder: Path) -> None:
    where = run(python, "-c", "import redis_events; print(redis_events.__version__, redis_events.__file__)", cwd=folder)
    version, path = where.split()
    assert version in run(python, "-m", "pip", "show", "django-redis-events", cwd=folder)
    assert path.startswith(str(Path(python).parent.parent))


@pytest.mark.slow
def test_the_public_names_can_be_imported_before_django_is_set_up(python: str, folder: Path) -> None:
    run(python, "-W", "error", "-c", "from redis_events import Event, publish, receives, publishes", cwd=folder)


@pytest.mark.slow
def test_a_minimal_project_checks_migrates_and_receives(python: str, folder: Path, server: Server, prefix: str) -> None:
    env = {"DJANGO_SETTINGS_MODULE": "settings", "PYTHONPATH": ".", "REDIS_URL": server.url}
    with (folder / "settings.py").open("a") as settings:
        settings.write(f"REDIS_EVENTS = {{'PREFIX': {prefix!r}}}\n")
    assert "no issues" in run(python, "-m", "django", "check", cwd=folder, **env)
    run(python, "-m", "django", "migrate", cwd=folder, **env)
    listener = Process([python, "-u", "-m", "django", "listen_events"], cwd=folder, env={**os.environ, **env})
    try:
        listener.wait_for_line("Listening on")
        publish = "import django; django.setup()\nfrom redis_events import publish; publish('hello', 'world')"
        run(python, "-c", publish, cwd=folder, **env)
        listener.wait_for_line("received world")
        listener.terminate()
        assert listener.wait() == 0, listener.output
    finally:
        listener.kill()


@pytest.mark.parametrize("auto_field", ["AutoField", "BigAutoField", "SmallAutoField"])
def test_no_migration_is_missing_whatever_the_default_key_is(project: Project, auto_field: str) -> None:
    command = ["makemigrations", "redis_events", "--check", "--dry-run"]
    process = project.manage(*command, TEST_AUTO_FIELD=f"django.db.models.{auto_field}")
    assert process.wait(timeout=30) == 0, process.output
