"""The servers other tests stand on: private, restartable, gone with their parent."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.processes import Process, Project
from tests.servers import Postgres, Server, black_hole, find_server, needs, wait_for


def test_a_server_answers_on_its_socket_and_its_port(server: Server) -> None:
    with server.client() as by_socket, redis.Redis.from_url(server.url) as by_port:
        by_socket.set("servers:both", "ways")
        assert by_port.get("servers:both") == b"ways"
    with redis.Redis.from_url(server.unix_url) as by_url:
        assert by_url.ping()


def test_a_server_is_reached_from_this_machine_only(server: Server) -> None:
    with server.client() as client:
        assert client.config_get("bind")["bind"] == "127.0.0.1"


def test_the_server_of_the_tests_is_never_the_one_in_redis_url() -> None:
    assert "REDIS_URL" not in os.environ


def test_test_server_names_the_program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "my-server"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("TEST_SERVER", str(program))
    assert find_server() == str(program)
    program.unlink()
    with pytest.raises(FileNotFoundError, match="my-server is not a program"):
        find_server()


def test_a_server_comes_back_on_the_same_port_without_its_data() -> None:
    with Server() as server, server.client() as client:
        port = server.port
        client.set("key", "value")
        server.kill()
        with pytest.raises(redis.ConnectionError):
            client.ping()
        server.start()
        assert server.port == port
        assert client.get("key") is None


def test_an_append_only_server_keeps_what_it_confirmed_through_a_kill() -> None:
    with Server(aof=True) as server, server.client() as client:
        client.set("key", "value")
        server.kill()
        server.start()
        assert client.get("key") == b"value"


def test_a_password_is_asked_for_and_is_in_the_url() -> None:
    with Server(password="s3cret") as server:
        never_again = Retry(NoBackoff(), 0)
        with redis.Redis(port=server.port, retry=never_again) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()
        with redis.Redis.from_url(server.url) as known, server.client() as ours:
            assert known.ping()
            assert ours.ping()


def test_extra_options_reach_the_server() -> None:
    with Server(extra=("--maxmemory", "64mb")) as server, server.client() as client:
        assert client.config_get("maxmemory")["maxmemory"] == str(64 << 20)


def test_an_option_it_refuses_is_reported_with_its_own_words() -> None:
    with pytest.raises(RuntimeError, match="nonsense"):
        Server(extra=("--nonsense", "yes"))


def test_a_frozen_server_holds_its_connections_and_is_silent() -> None:
    with Server() as server, socket.create_connection(("127.0.0.1", server.port), timeout=10) as raw:
        server.freeze()
        raw.sendall(b"PING\r\n")
        raw.settimeout(0.2)
        with pytest.raises(TimeoutError):
            raw.recv(64)
        server.thaw()
        raw.settimeout(10)
        assert raw.recv(64) == b"+PONG\r\n"


def test_stopping_a_frozen_server_ends_it() -> None:
    with Server() as server:
        server.freeze()
        server.stop()
        assert server.process is not None
        assert server.process.returncode == 0, "asked, not killed"


def test_closing_leaves_no_folder() -> None:
    with Server() as server:
        folder = server.dir
        assert folder.is_dir()
    assert not folder.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a watching process does it within a second")
def test_a_server_dies_with_a_killed_parent() -> None:
    code = "from tests.servers import Server\nserver = Server()\nprint(server.pid, server.dir, flush=True)\ninput()"
    parent = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with parent:
        assert parent.stdout is not None
        pid, folder = parent.stdout.readline().split()
        parent.kill()
    wait_for(lambda: not _is_running(int(pid)), what="the server to be gone")
    shutil.rmtree(folder)


def _is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


def test_the_second_lane_is_debians_redis(redis7: Server) -> None:
    with redis7.client() as client:
        assert "valkey_version" not in client.info("server")


def test_what_is_missing_skips_on_a_laptop_and_fails_in_ci(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "redis-server"  # as a shim of a version manager is, for what is not installed
    broken.write_text("#!/bin/sh\nexit 127\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="apt-get install redis-server"):
        needs("redis7")
    monkeypatch.setenv("CI", "1")
    with pytest.raises(pytest.fail.Exception, match="apt-get install redis-server"):
        needs("redis7")


def test_postgres_answers_and_comes_back_with_its_data() -> None:
    with Postgres(durable=True) as postgres:
        database = postgres.create("shop")["NAME"]
        with closing(postgres.connect(database)) as connection:
            connection.execute("CREATE TABLE kept (n int)")
        postgres.kill()
        postgres.start()
        with closing(postgres.connect(database)) as connection:
            assert connection.execute("SELECT count(*) FROM kept").fetchone() == (0,)


def test_a_black_hole_takes_the_connection_and_answers_nothing() -> None:
    with black_hole() as port, socket.create_connection(("127.0.0.1", port), timeout=0.2) as client:
        client.sendall(b"PING\r\n")
        with pytest.raises(TimeoutError):
            client.recv(1)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse instead of leaving the caller waiting")
def test_a_full_black_hole_does_not_even_take_the_connection() -> None:
    with black_hole(full=True) as port, pytest.raises(TimeoutError):
        socket.create_connection(("127.0.0.1", port), timeout=0.2)


def test_a_client_in_a_black_hole_runs_into_its_own_timeout() -> None:
    never_again = Retry(NoBackoff(), 0)
    with black_hole() as port, redis.Redis(port=port, socket_timeout=0.1, retry=never_again) as client:
        with pytest.raises(redis.TimeoutError):
            client.ping()


def test_waiting_gives_up_and_says_what_was_awaited() -> None:
    with pytest.raises(AssertionError, match="for a miracle"):
        wait_for(lambda: False, timeout=0.02, what="a miracle")


def test_a_process_is_watched_line_by_line_and_stopped(tmp_path: Path) -> None:
    code = "import signal\nprint('ready 42', flush=True)\nsignal.pause()"
    process = Process([sys.executable, "-c", code], cwd=tmp_path, env=dict(os.environ))
    assert process.wait_for_line(r"ready (\d+)").group(1) == "42"
    assert process.returncode is None
    process.terminate()
    assert process.wait() == -signal.SIGTERM
    assert process.lines == ["ready 42"]


def test_a_line_that_never_comes_fails_with_all_that_was_said(tmp_path: Path) -> None:
    process = Process([sys.executable, "-c", "print('something else')"], cwd=tmp_path, env=dict(os.environ))
    with pytest.raises(AssertionError, match="something else"):
        process.wait_for_line("Listening", timeout=10)
    process.wait()


def test_a_project_runs_commands_with_its_own_database_and_settings(project: Project, prefix: str) -> None:
    project.write("models.py", "")
    code = "from django.conf import settings as s; print(s.REDIS_EVENTS['PREFIX'], s.DATABASES['default']['NAME'])"
    assert project.shell(code) == f"{prefix} {project.folder / 'db.sqlite3'}"
    check = project.manage("check")
    assert check.wait() == 0, check.output


def test_a_project_can_stand_on_postgres(project: Project, postgres: Postgres, prefix: str) -> None:
    project.database(postgres.create(prefix))
    project.migrate()
    code = "from tests.testapp.models import Order; Order.objects.create(); print(Order.objects.count())"
    assert project.shell(code) == "1"
