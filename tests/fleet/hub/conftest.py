"""Stores and hubs for tests: SQLite, a PostgreSQL of our own, and a hub on loopback."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from skerry.fleet.hub.server import Hub, HubSetup
from skerry.fleet.hub.store import Store
from skerry.testing.postgresql import Cluster, running_cluster

MEMORY = Path("/dev/shm")


def in_memory() -> Path | None:
    """Return a folder in memory with room, where a sync costs nothing: no test here cuts the power."""
    try:
        return MEMORY if shutil.disk_usage(MEMORY).free > 1e9 and os.access(MEMORY, os.W_OK) else None
    except OSError:
        return None


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    """Return the test's folder, in memory where that can be had."""
    memory = in_memory()
    if memory is None:
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory, prefix="skerry-") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def _cluster() -> Iterator[Cluster]:
    with running_cluster(in_memory()) as made:
        yield made


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
