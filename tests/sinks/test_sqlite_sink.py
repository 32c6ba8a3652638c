"""The sqlite sink: columns that follow the fields, limits, locks and a full disk."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.run.encoding import Encoder
from skerry.run.sinks.sqlite import SqliteOptions, SqliteSink
from skerry.spec.address import parse_address
from skerry.spec.errors import SinkError, SinkFullError, SinkUnavailableError, SpecError
from skerry.spec.record import Record
from skerry.spec.units import Duration, Size
from skerry.testing.sinks import SinkCase, SinkContract, a_context, some_records


def sqlite_sink(address: str = "sqlite:///state.db", **options: Any) -> SqliteSink:
    options = {"timeout": Duration(0.05), **options}
    return SqliteSink(parse_address(address)[0], SqliteOptions(**options))


def rows(path: Path, table: str = "events") -> list[dict[str, Any]]:
    if not path.exists():
        return []
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(f"SELECT * FROM {table} ORDER BY rowid")]


def plain_rows(path: Path) -> list[dict[str, Any]]:
    encoder = Encoder()
    return [encoder.plain(row) for row in rows(path)]


def write(home: Path, *fields: dict[str, Any], **options: Any) -> list[dict[str, Any]]:
    sink = sqlite_sink(**options)
    sink.open(a_context(home))
    try:
        for content in fields:
            sink.write([Record(content)])
        return rows(home / "state.db")
    finally:
        sink.close()


class TestContract(SinkContract):
    @pytest.fixture
    def case(self, tmp_path: Path) -> Iterator[SinkCase]:
        holder = sqlite3.connect(tmp_path / "state.db", isolation_level=None, check_same_thread=False)
        holder.execute("PRAGMA journal_mode=WAL")
        yield SinkCase(
            make=sqlite_sink,
            read=lambda: plain_rows(tmp_path / "state.db") if has_table(tmp_path / "state.db") else [],
            home=tmp_path,
            break_=lambda: holder.execute("BEGIN IMMEDIATE") and None,
            mend=lambda: holder.execute("ROLLBACK") and None,
        )
        holder.close()


def has_table(path: Path) -> bool:
    with closing(sqlite3.connect(path)) as connection:
        return bool(connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'events'").fetchall())


def test_a_path_follows_the_slashes(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    for address in ("sqlite:///a.db", f"sqlite:///{tmp_path}/b.db", "sqlite://c.db"):
        sink = sqlite_sink(address)
        sink.open(a_context(tmp_path / "home"))
        sink.close()
    assert (tmp_path / "home" / "a.db").exists()
    assert (tmp_path / "b.db").exists()
    assert (tmp_path / "home" / "c.db").exists()


def test_columns_are_typed_and_added(tmp_path: Path) -> None:
    found = write(tmp_path, {"label": "ok", "n": 1}, {"score": 0.5, "raw": b"\x00", "tags": ["a"], "label": None})
    assert [(row["label"], row["n"], row["score"], row["raw"], row["tags"]) for row in found] == [
        ("ok", 1, None, None, None),
        (None, None, 0.5, b"\x00", '["a"]'),
    ]
    with closing(sqlite3.connect(tmp_path / "state.db")) as connection:
        kinds = {row[1]: row[2] for row in connection.execute("PRAGMA table_info(events)")}
    assert {name: kinds[name] for name in ("label", "n", "score", "raw", "tags")} == {
        "label": "TEXT", "n": "INTEGER", "score": "REAL", "raw": "BLOB", "tags": "TEXT",
    }  # fmt: skip


def test_what_does_not_fit_is_kept_beside(tmp_path: Path) -> None:
    found = write(
        tmp_path, {"code": 7, "x": 0.5}, {"code": "007"}, {"x": 2**60 + 1}, {"Code": 8, "skerry_id": 1, "": 2}
    )
    assert [row["code"] for row in found] == [7, None, None, None]
    rest = [json.loads(row["skerry_rest"] or "{}") for row in found]
    assert rest == [{}, {"code": "007"}, {"x": 2**60 + 1}, {"Code": 8, "skerry_id": 1, "": 2}]


def test_made_up_field_names_do_not_wear_out_the_table(tmp_path: Path) -> None:
    found = write(tmp_path, {f"field{number}": number for number in range(150)}, max_columns=100)
    assert len(found[0]) == 105
    assert len(json.loads(found[0]["skerry_rest"])) == 50


_VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(), st.binary()
)


@given(values=st.lists(_VALUES, min_size=1, max_size=6))
def test_no_value_is_changed_by_those_before_it(tmp_path_factory: pytest.TempPathFactory, values: list[Any]) -> None:
    found = write(tmp_path_factory.mktemp("values"), *({"value": value} for value in values))
    encoder = Encoder()
    for row, value in zip(found, values, strict=True):
        stored, expected = row.get("value"), value
        if stored is None and row["skerry_rest"] is not None:
            stored, expected = json.loads(row["skerry_rest"])["value"], encoder.plain(value)
        if isinstance(value, int) and not -(2**63) < value < 2**63:
            stored = int(stored)
        assert stored == expected


def test_only_so_many_rows_stay(tmp_path: Path) -> None:
    sink = sqlite_sink(max_rows=10)
    sink.open(a_context(tmp_path))
    sink.write(some_records(7))
    sink.write(some_records(8, start=8))
    sink.close()
    assert [row["n"] for row in rows(tmp_path / "state.db")] == list(range(6, 16))
    assert sink.evicted == 5


def test_the_size_stays_within_its_limit(tmp_path: Path) -> None:
    sink = sqlite_sink(max_size=Size(100_000))
    sink.open(a_context(tmp_path))
    for start in range(1, 401, 10):
        sink.write([Record({"n": number, "text": "x" * 1000}) for number in range(start, start + 10)])
    sink.close()
    found = [row["n"] for row in rows(tmp_path / "state.db")]
    assert found == list(range(401 - len(found), 401))
    assert (tmp_path / "state.db").stat().st_size < 150_000
    assert sink.evicted == 400 - len(found)


def test_a_lock_is_told(tmp_path: Path) -> None:
    sink = sqlite_sink()
    sink.open(a_context(tmp_path))
    with closing(sqlite3.connect(tmp_path / "state.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(SinkUnavailableError, match="locked"):
            sink.write(some_records(1))
    sink.close()


def test_a_full_disk_takes_nothing(tmp_path: Path, tiny_disk: Callable[[str], Path]) -> None:
    disk = tiny_disk("512k")
    sink = sqlite_sink(f"sqlite:///{disk}/state.db")
    sink.open(a_context(tmp_path))
    sink.write(some_records(2))
    with pytest.raises(SinkFullError, match="full"):
        sink.write([Record({"n": 3, "text": "x" * 1_000_000})])
    sink.write(some_records(1, start=3))
    assert [row["n"] for row in rows(disk / "state.db")] == [1, 2, 3]
    sink.close()


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "state.db").write_bytes(b"binary garbage" * 1000)
    with pytest.raises(SinkError, match="not a database"):
        sqlite_sink().open(a_context(tmp_path))


def test_a_database_that_was_deleted_is_begun_anew(tmp_path: Path) -> None:
    sink = sqlite_sink()
    sink.open(a_context(tmp_path))
    sink.write(some_records(1))
    for name in ("state.db", "state.db-wal", "state.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    sink.write(some_records(1, start=2))
    sink.close()
    assert [row["n"] for row in rows(tmp_path / "state.db")] == [2]


def test_another_thread_may_write(tmp_path: Path) -> None:
    sink = sqlite_sink()
    sink.open(a_context(tmp_path))
    thread = threading.Thread(target=sink.write, args=(some_records(3),))
    thread.start()
    thread.join()
    sink.close()
    assert len(rows(tmp_path / "state.db")) == 3


def test_a_table_of_somebody_else_gets_what_it_lacks(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "state.db")) as connection:
        connection.execute("CREATE TABLE events (label VARCHAR(10), n DECIMAL)")
        connection.commit()
    found = write(tmp_path, {"label": "ok", "n": 5}, {"label": 5, "n": "05"})
    assert [(row["label"], row["n"]) for row in found] == [("ok", 5), (None, None)]
    assert json.loads(found[1]["skerry_rest"]) == {"label": 5, "n": "05"}


@pytest.mark.parametrize("table", ["", "1st", "a b", 'x"; DROP TABLE y', "sqlite_master", "x" * 64])
def test_a_table_name_is_checked(table: str) -> None:
    with pytest.raises(SpecError, match="table name"):
        sqlite_sink(table=table)


def test_an_address_without_a_file() -> None:
    with pytest.raises(SpecError, match="names no file"):
        sqlite_sink("sqlite://")
