"""The file source: formats, compression, bad rows, and places elsewhere."""

from __future__ import annotations

import bz2
import gzip
import http.server
import json
import logging
import lzma
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.spec.errors import SourceError, SourceUnavailableError, SpecError
from skerry.testing.sources import Collector, Item, build_source, make_context


def read(folder: Path, uri: str, position: Any = None, **options: Any) -> list[Item]:
    source = build_source(uri, **options)
    source.open(make_context(folder), position)
    emit = Collector()
    try:
        source.run(emit, threading.Event())
    finally:
        source.close()
    return emit.items


def rows(items: list[Item]) -> list[dict[str, Any]]:
    return [item.fields for item in items]


JSONL = b'{"a": 1}\n{"a": 2}\n{"a": 3}\n'
THREE = [{"a": 1}, {"a": 2}, {"a": 3}]


class TestFormats:
    def test_csv_cells_are_text_unless_numbers_are_asked_for(self, tmp_path: Path) -> None:
        (tmp_path / "x.csv").write_bytes(b"\xef\xbb\xbfid,name,value\r\n007,n\xc3\xa9,1.5\r\n8,inf,-2e3\r\n")
        assert rows(read(tmp_path, "file://x.csv")) == [
            {"id": "007", "name": "né", "value": "1.5"},
            {"id": "8", "name": "inf", "value": "-2e3"},
        ]
        assert rows(read(tmp_path, "file://x.csv?numbers=true")) == [
            {"id": 7, "name": "né", "value": 1.5},
            {"id": 8, "name": "inf", "value": -2000.0},
        ]

    def test_a_delimiter_and_a_format_can_be_given(self, tmp_path: Path) -> None:
        (tmp_path / "x.data").write_text("a;b\n1;2\n")
        assert rows(read(tmp_path, "file://x.data", format="csv", delimiter=";")) == [{"a": "1", "b": "2"}]

    def test_text_lines(self, tmp_path: Path) -> None:
        (tmp_path / "x.txt").write_bytes(b"one\r\n\ntw\xff")
        assert rows(read(tmp_path, "file://x.txt")) == [{"text": "one"}, {"text": ""}, {"text": "tw\ufffd"}]

    @pytest.mark.parametrize("suffix", ["", ".gz", ".bz2", ".xz", ".zst"])
    def test_compression_goes_by_the_ending(self, tmp_path: Path, suffix: str) -> None:
        path = tmp_path / f"x.jsonl{suffix}"
        match suffix:
            case ".gz":
                path.write_bytes(gzip.compress(JSONL))
            case ".bz2":
                path.write_bytes(bz2.compress(JSONL))
            case ".xz":
                path.write_bytes(lzma.compress(JSONL))
            case ".zst":
                path.write_bytes(pytest.importorskip("pyarrow").compress(JSONL, "zstd", asbytes=True))
            case _:
                path.write_bytes(JSONL)
        items = read(tmp_path, f"file://{path.name}")
        assert rows(items) == THREE
        assert rows(read(tmp_path, f"file://{path.name}", items[0].position)) == THREE[1:]

    def test_parquet_is_read_lazily_and_resumed_within_a_row_group(self, tmp_path: Path) -> None:
        pyarrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        table = pyarrow.table({"n": list(range(5000)), "t": [f"text {number}" for number in range(5000)]})
        parquet.write_table(table, tmp_path / "x.parquet", row_group_size=700)
        items = read(tmp_path, "file://x.parquet")
        assert rows(items) == table.to_pylist()
        assert rows(read(tmp_path, "file://x.parquet", items[3210].position)) == table.to_pylist()[3211:]

    @given(st.lists(st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=3), min_size=1), max_size=8))
    def test_any_objects_come_back_and_resume_anywhere(
        self, tmp_path_factory: pytest.TempPathFactory, objects: list[dict[str, Any]]
    ) -> None:
        folder = tmp_path_factory.mktemp("any")
        (folder / "x.jsonl").write_text("\n\n".join(json.dumps(entry, ensure_ascii=False) for entry in objects))
        items = read(folder, "file://x.jsonl")
        assert rows(items) == json.loads(json.dumps(objects))
        for done, item in enumerate(items, 1):
            assert rows(read(folder, "file://x.jsonl", item.position)) == rows(items)[done:]


class TestBadInput:
    def test_bad_rows_are_skipped_and_logged(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        (tmp_path / "x.jsonl").write_bytes(b'{"a": 1}\nnot json\n[1]\n{"a": 2}\n\x00\xff\n{"a": 3}\n')
        with caplog.at_level(logging.WARNING):
            assert rows(read(tmp_path, "file://x.jsonl")) == THREE
        assert len([record for record in caplog.records if "bad row skipped" in record.getMessage()]) == 3
        assert "row 3" in caplog.text

    def test_a_bad_row_can_stop_the_source(self, tmp_path: Path) -> None:
        (tmp_path / "x.jsonl").write_text('{"a": 1}\nnot json\n')
        with pytest.raises(SourceError, match="row 2: a bad row"):
            read(tmp_path, "file://x.jsonl?bad_rows=stop")

    def test_a_csv_row_of_another_length_is_bad(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        (tmp_path / "x.csv").write_text("a,b\n1\n1,2\n1,2,3\n\n3,4\n")
        assert rows(read(tmp_path, "file://x.csv")) == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]
        assert "it has 1 cells, and the header 2" in caplog.text

    def test_a_quote_that_never_ends_costs_bounded_memory(self, tmp_path: Path) -> None:
        (tmp_path / "x.csv").write_text('a,b\n1,2\n3,"' + "x,y\n" * 100_000)
        assert rows(read(tmp_path, "file://x.csv"))[0] == {"a": "1", "b": "2"}

    @pytest.mark.parametrize("name", ["x.jsonl", "x.txt", "x.csv"])
    def test_a_row_of_ten_megabytes_is_bad_where_the_limit_says_so(self, tmp_path: Path, name: str) -> None:
        first = b"a\n" if name.endswith("csv") else b""
        (tmp_path / name).write_bytes(first + b'{"a":"' + b"y" * 10_000_000 + b'"}\n{"a": 2}\n')
        items = read(tmp_path, f"file://{name}?max_row=1MiB")
        assert len(items) == 1
        assert items[0].size == len(b'{"a": 2}\n')

    def test_deep_nesting_is_a_bad_row(self, tmp_path: Path) -> None:
        (tmp_path / "x.jsonl").write_text("[" * 200_000 + '\n{"a": 1}\n')
        assert rows(read(tmp_path, "file://x.jsonl")) == [{"a": 1}]

    @pytest.mark.parametrize("name", ["x.parquet", "x.jsonl.gz", "x.jsonl.bz2", "x.jsonl.xz", "x.jsonl.zst"])
    def test_damaged_files_are_named(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).write_bytes(b"\x1f\x8bgarbage that is no such file")
        with pytest.raises(SourceError, match=name):
            read(tmp_path, f"file://{name}")

    def test_a_compressed_file_that_ends_early_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(JSONL * 1000)[:-20])
        with pytest.raises(SourceError, match=r"x\.jsonl\.gz cannot be read"):
            read(tmp_path, "file://x.jsonl.gz")

    def test_missing_files_are_named(self, tmp_path: Path) -> None:
        with pytest.raises(SourceUnavailableError, match=r"no file matches data/\*\.jsonl"):
            read(tmp_path, "file://data/*.jsonl")

    def test_an_unknown_ending_is_explained(self, tmp_path: Path) -> None:
        (tmp_path / "x.bin").touch()
        with pytest.raises(SpecError, match="does not tell its format"):
            read(tmp_path, "file://x.bin")

    @pytest.mark.parametrize("uri", ["file:", "file://x.jsonl?url=memory://x.jsonl"])
    def test_either_a_path_or_a_url(self, uri: str) -> None:
        with pytest.raises(SpecError, match="either a path or the option url"):
            build_source(uri)


class TestMemorySystem:
    @pytest.fixture
    def system(self) -> Iterator[Any]:
        system = pytest.importorskip("fsspec").filesystem("memory")
        yield system
        system.store.clear()

    def test_a_glob_is_read_and_resumed(self, system: Any, tmp_path: Path) -> None:
        system.pipe("/bucket/1.jsonl", JSONL)
        system.pipe("/bucket/2.jsonl.gz", gzip.compress(JSONL))
        items = read(tmp_path, "file:", url="memory://bucket/*")
        assert rows(items) == THREE * 2
        assert rows(read(tmp_path, "file:", items[3].position, url="memory://bucket/*")) == THREE[1:]

    def test_parquet(self, system: Any, tmp_path: Path) -> None:
        pyarrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        with system.open("/x.parquet", "wb") as file:
            parquet.write_table(pyarrow.table({"a": [1, 2, 3]}), file)
        assert rows(read(tmp_path, "file:?url=memory://x.parquet")) == THREE

    def test_what_is_missing_or_unknown(self, system: Any, tmp_path: Path) -> None:
        with pytest.raises(SourceUnavailableError, match="no file matches"):
            read(tmp_path, "file:?url=memory://none.jsonl")
        with pytest.raises(SpecError, match="no place that fsspec knows"):
            read(tmp_path, "file:?url=nosuch://none.jsonl")
        with pytest.raises(SpecError, match="plain text"):
            read(tmp_path, "file:?url=ftp://example.org/none.jsonl")


class _Web(http.server.BaseHTTPRequestHandler):
    files: dict[str, bytes]

    def do_GET(self) -> None:
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "http://192.0.2.1/x.jsonl")
            self.end_headers()
            return
        body = self.files.get(self.path.removeprefix("/cut"))
        if body is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if self.path.startswith("/cut") else body)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def web() -> Iterator[str]:
    _Web.files = {"/x.jsonl": JSONL, "/x.jsonl.gz": gzip.compress(JSONL)}
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Web)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


class TestWeb:
    @pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz"])
    def test_a_file_is_read_and_resumed(self, web: str, tmp_path: Path, name: str) -> None:
        items = read(tmp_path, "file:", url=f"{web}/{name}")
        assert rows(items) == THREE
        assert rows(read(tmp_path, "file:", items[1].position, url=f"{web}/{name}")) == THREE[2:]

    def test_parquet_is_fetched_whole_first(self, web: str, tmp_path: Path) -> None:
        pyarrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pyarrow.table({"a": [1, 2, 3]}), tmp_path / "x")
        _Web.files["/x.parquet"] = (tmp_path / "x").read_bytes()
        assert rows(read(tmp_path, "file:", url=f"{web}/x.parquet")) == THREE
        with pytest.raises(SourceError, match="left out the last"):
            read(tmp_path, "file:", url=f"{web}/cut/x.parquet")

    def test_a_body_that_is_cut_off_is_no_end_of_file(self, web: str, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match="left out the last"):
            read(tmp_path, "file:", url=f"{web}/cut/x.jsonl")

    def test_what_is_not_there(self, web: str, tmp_path: Path) -> None:
        with pytest.raises(SourceUnavailableError, match="404"):
            read(tmp_path, "file:", url=f"{web}/none.jsonl")

    def test_plain_text_beyond_loopback_is_refused_also_behind_a_redirect(self, web: str, tmp_path: Path) -> None:
        with pytest.raises(SpecError, match="plain text"):
            read(tmp_path, "file:", url="http://192.0.2.1/x.jsonl")
        with pytest.raises(SpecError, match="plain text"):
            read(tmp_path, "file:", url=f"{web}/moved", format="jsonl")
