"""Stores and hubs for tests: SQLite, a PostgreSQL of our own, and a hub on loopback."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from skerry.fleet.hub.server import Hub, HubSetup
from skerry.fleet.hub.store import Store

BINARIES = (*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True), Path("/usr/local/bin"), Path("/usr/bin"))


class Cluster:
    """A PostgreSQL on a Unix socket in a folder of its own, run by an ordinary user: it refuses root."""

    def __init__(self, folder: Path, binaries: Path, user: str | None) -> None:
        self._folder, self._binaries, self._user = folder, binaries, user
        self._data = folder / "data"
        self._run("initdb", "-D", str(self._data), "-U", "hub", "-A", "trust", "--no-sync")
        self.start()

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._binaries / program), *arguments]
        done = subprocess.run(
            command, user=self._user, group=None if self._user is None else pwd.getpwnam(self._user).pw_gid,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=self._folder, check=False,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout.decode()

    def start(self) -> None:
        """Start it."""
        options = f"-k {self._folder} -c listen_addresses='' -c shared_buffers=16MB"
        log = str(self._folder / "log")
        self._run("pg_ctl", "-D", str(self._data), "-o", options, "-l", log, "-w", "start")

    def stop(self, mode: str = "immediate") -> None:
        """End it, by default without a chance to tidy up."""
        self._run("pg_ctl", "-D", str(self._data), "-m", mode, "-w", "stop")

    @property
    def url(self) -> str:
        """Return the address of its database."""
        return f"postgresql://hub@/postgres?host={self._folder}"

    def clean(self) -> None:
        """Forget all tables."""
        import psycopg

        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("DROP SCHEMA public CASCADE")
            connection.execute("CREATE SCHEMA public")


@pytest.fixture(scope="session")
def _cluster() -> Iterator[Cluster]:
    binaries = next((folder for folder in BINARIES if (folder / "initdb").exists()), None)
    if binaries is None:
        pytest.skip("PostgreSQL is not installed: make system-deps")
    user = None if os.geteuid() else "postgres"
    if user is not None:
        try:
            pwd.getpwnam(user)
        except KeyError:
            pytest.skip("PostgreSQL is not installed: make system-deps")
    folder = Path(tempfile.mkdtemp(prefix="skerry-pg-"))  # short: the path of a socket has 107 bytes
    if user is not None:
        shutil.chown(folder, user)
    try:
        cluster = Cluster(folder, binaries, user)
        yield cluster
        cluster.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def cluster(_cluster: Cluster) -> Cluster:
    """Return an empty PostgreSQL."""
    _cluster.clean()
    return _cluster


@pytest.fixture(params=["sqlite", "postgresql"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Store]]:
    """Return what opens the test's store, again after it was closed; once for each database."""
    if request.param == "sqlite":
        from skerry.fleet.hub.sqlite_store import SqliteStore

        make: Callable[[], Store] = lambda: SqliteStore(tmp_path / "hub.db")  # noqa: E731 - two of a kind
    else:
        cluster: Cluster = request.getfixturevalue("cluster")
        from skerry.fleet.hub.postgresql_store import PostgresqlStore

        make = lambda: PostgresqlStore(cluster.url)  # noqa: E731
    with contextlib.ExitStack() as stack:

        def opened() -> Store:
            store = make()
            stack.callback(store.close)
            return store

        yield opened


@pytest.fixture
def store(open_store: Callable[[], Store]) -> Store:
    """Return an empty store."""
    return open_store()


@pytest.fixture
def start_hub(tmp_path: Path) -> Iterator[Callable[..., Hub]]:
    """Return what starts a hub on a free port; all end with the test."""
    with contextlib.ExitStack() as stack:

        def start(*, effects: Any = (), clock: Any = None, **settings: Any) -> Hub:
            setup = HubSetup(**{"data": tmp_path / "hub", "port": 0, **settings})
            hub = Hub(setup, effects=effects, **({"clock": clock} if clock else {}))
            hub.start()
            stack.callback(hub.close)
            return hub

        yield start
