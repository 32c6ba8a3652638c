"""Every built-in source keeps the contract of sources."""

from __future__ import annotations

import json
import socket
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from skerry.run.sources.http import HttpSource
from skerry.run.sources.memory import MemorySource
from skerry.spec.ports import Source
from skerry.testing.broker import Broker
from skerry.testing.sources import SourceContract, build_source


class TestTail(SourceContract):
    def source(self, folder: Path) -> Source:
        return build_source("tail://log.txt?from=start&poll=10ms")

    def begin(self, folder: Path) -> None:
        (folder / "log.txt").touch()

    def feed(self, folder: Path, source: Source, first: int, count: int) -> None:
        with (folder / "log.txt").open("a") as file:
            file.writelines(f"line {number}\n" for number in range(first, first + count))

    def number(self, fields: dict[str, Any]) -> int:
        return int(fields["text"].removeprefix("line "))

    def unavailable(self, folder: Path) -> Source | None:
        return build_source("tail://missing.txt")


class TestTailGlob(TestTail):
    def source(self, folder: Path) -> Source:
        return build_source("tail://*.txt?from=start&poll=10ms&rescan=10ms")

    def unavailable(self, folder: Path) -> Source | None:
        return build_source("tail://*.missing")


class TestFileJsonl(SourceContract):
    uri = "file://data/*.jsonl"
    header = ""
    line = '{{"number": {}}}\n'

    def source(self, folder: Path) -> Source:
        return build_source(self.uri)

    def begin(self, folder: Path) -> None:
        (folder / "data").mkdir()
        self._write(folder, "0", [])

    def _write(self, folder: Path, name: str, numbers: list[int]) -> None:
        path = folder / "data" / f"{name}.{self.uri.rpartition('.')[2]}"
        path.write_text(self.header + "".join(self.line.format(number) for number in numbers))

    def feed(self, folder: Path, source: Source, first: int, count: int) -> None:
        numbers = list(range(first, first + count))
        self._write(folder, "1", numbers[:3])
        self._write(folder, "2", numbers[3:])

    def number(self, fields: dict[str, Any]) -> int:
        return int(fields["number"])

    def unavailable(self, folder: Path) -> Source | None:
        return build_source("file://nothing/*.jsonl")


class TestFileCsv(TestFileJsonl):
    uri = "file://data/*.csv"
    header = "number,note\n"
    line = '{},"two\nlines"\n'


class TestFileText(TestFileJsonl):
    uri = "file://data/*.txt"
    line = "{}\n"

    def number(self, fields: dict[str, Any]) -> int:
        return int(fields["text"])


class TestFileParquet(TestFileJsonl):
    uri = "file://data/*.parquet"

    def _write(self, folder: Path, name: str, numbers: list[int]) -> None:
        pyarrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        table = pyarrow.table({"number": pyarrow.array(numbers, pyarrow.int64())})
        parquet.write_table(table, folder / "data" / f"{name}.parquet", row_group_size=2)


class TestTimer(SourceContract):
    def source(self, folder: Path) -> Source:
        return build_source("timer://1ms")

    def feed(self, folder: Path, source: Source, first: int, count: int) -> None:
        """Time passes by itself."""

    def number(self, fields: dict[str, Any]) -> int:
        return int(fields["tick"]) - 1


class TestSys(SourceContract):
    def source(self, folder: Path) -> Source:
        return build_source("sys:?every=5ms")

    def begin(self, folder: Path) -> None:
        self._numbers: dict[float, int] = {}

    def feed(self, folder: Path, source: Source, first: int, count: int) -> None:
        """Time passes by itself."""

    def number(self, fields: dict[str, Any]) -> int:
        # A reading has no number of its own; they are told apart by their time.
        return self._numbers.setdefault(fields["time"], len(self._numbers))

    def test_a_second_run_goes_on_at_the_position(self, tmp_path: Path) -> None:
        """A reading is of now, so going on means no more than counting on, which test_sys shows."""


class TestMemoryItems(SourceContract):
    def source(self, folder: Path) -> Source:
        return build_source("memory:", items=[{"number": number} for number in range(6)])

    def feed(self, folder: Path, source: Source, first: int, count: int) -> None:
        """The items stand in the options."""

    def number(self, fields: dict[str, Any]) -> int:
        return int(fields["number"])


class TestMemoryChannel(SourceContract):
    feeds_first = False

    def source(self, folder: Path) -> Source:
        return build_source(f"memory:{folder.name}")

    def feed(self, folder: Path, source: Source, first: int, count: int) -> None:
        MemorySource.channel(folder.name).push(*({"number": number} for number in range(first, first + count)))

    def number(self, fields: dict[str, Any]) -> int:
        return int(fields["number"])


class TestHttp(SourceContract):
    feeds_first = False
    resumable = False

    def source(self, folder: Path) -> Source:
        return build_source("http+listen://127.0.0.1:0/in")

    def feed(self, folder: Path, source: Source, first: int, count: int) -> None:
        assert isinstance(source, HttpSource)
        for number in range(first, first + count):
            body = json.dumps({"number": number}).encode()
            request = urllib.request.Request(f"http://127.0.0.1:{source.bound_port}/in", data=body, method="POST")
            request.add_header("Content-Type", "application/json")
            while not self._post(request):
                pass

    def _post(self, request: urllib.request.Request) -> bool:
        """Send once; tell whether it was accepted."""
        try:
            with urllib.request.urlopen(request, timeout=20) as response:
                return bool(response.status == 202)
        except urllib.error.HTTPError as error:
            error.close()
            assert error.code == 503
            return False

    def number(self, fields: dict[str, Any]) -> int:
        return int(fields["number"])

    def unavailable(self, folder: Path) -> Source | None:
        self._taken = socket.create_server(("127.0.0.1", 0))
        return build_source(f"http+listen://127.0.0.1:{self._taken.getsockname()[1]}/in")

    def test_what_cannot_come_up_says_so(self, tmp_path: Path) -> None:
        super().test_what_cannot_come_up_says_so(tmp_path)
        self._taken.close()


class TestMqtt(SourceContract):
    feeds_first = False
    resumable = False

    @pytest.fixture(autouse=True)
    def broker(self, tmp_path: Path) -> Any:
        with Broker.start(tmp_path / "broker") as self._broker:
            yield

    def source(self, folder: Path) -> Source:
        return build_source(f"mqtt://127.0.0.1:{self._broker.port}/a/+?qos=1")

    def feed(self, folder: Path, source: Source, first: int, count: int) -> None:
        self._broker.publish("a/b", *(json.dumps({"number": number}) for number in range(first, first + count)))

    def number(self, fields: dict[str, Any]) -> int:
        return int(fields["number"])

    def unavailable(self, folder: Path) -> Source | None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        return build_source(f"mqtt://127.0.0.1:{port}/a")
