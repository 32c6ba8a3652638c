"""A real PostgreSQL on a Unix socket in a folder of its own, for tests: made, stopped, started again, removed."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

_PLACES = (*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True), Path("/usr/local/bin"), Path("/usr/bin"))
_USER = "postgres"
"""Who runs it where we are root, whom it refuses."""


class Cluster:
    """A PostgreSQL server; :func:`running_cluster` makes one."""

    def __init__(self, folder: Path, binaries: Path, user: str | None) -> None:
        self._folder, self._binaries, self._user = folder, binaries, user
        self._run("initdb", "-D", str(self._data), "-U", "hub", "-A", "trust", "--no-sync")
        self.start()

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def _run(self, program: str, *arguments: str) -> None:
        group = None if self._user is None else pwd.getpwnam(self._user).pw_gid
        done = subprocess.run(
            [str(self._binaries / program), *arguments], user=self._user, group=group, cwd=self._folder, check=False,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{program}: {done.stdout.decode(errors='replace')}")

    def start(self) -> None:
        """Start it."""
        options = f"-k {self._folder} -c listen_addresses='' -c shared_buffers=16MB"
        self._run("pg_ctl", "-D", str(self._data), "-o", options, "-l", str(self._folder / "log"), "-w", "start")

    def stop(self, mode: str = "immediate") -> None:
        """End it, by default without a chance to tidy up."""
        self._run("pg_ctl", "-D", str(self._data), "-m", mode, "-w", "stop")

    @property
    def url(self) -> str:
        """The address of its database."""
        return f"postgresql://hub@/postgres?host={self._folder}"

    def clean(self) -> None:
        """Forget all tables."""
        import psycopg

        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("DROP SCHEMA public CASCADE")
            connection.execute("CREATE SCHEMA public")


def binaries() -> Path | None:
    """Return the folder of PostgreSQL's programs, or ``None`` where they, or who may run them, are missing."""
    found = next((folder for folder in _PLACES if (folder / "initdb").exists()), None)
    if os.geteuid() == 0:
        try:
            pwd.getpwnam(_USER)
        except KeyError:
            return None
    return found


@contextlib.contextmanager
def running_cluster(place: Path | None = None) -> Iterator[Cluster]:
    """Make a server in a folder below ``place``, and remove it at the end; the test is skipped where there is none."""
    programs = binaries()
    if programs is None:
        import pytest

        pytest.skip("PostgreSQL is not installed: make system-deps")
    user = None if os.geteuid() else _USER
    folder = Path(tempfile.mkdtemp(prefix="skerry-pg-", dir=place))  # short: the path of a socket has 107 bytes
    if user is not None:
        shutil.chown(folder, user)
    try:
        cluster = Cluster(folder, programs, user)
        try:
            yield cluster
        finally:
            cluster.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
