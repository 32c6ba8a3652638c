"""``skerry outbox`` as a command."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from skerry.cli.main import main
from skerry.run.outbox import Item, Outbox, OutboxOptions
from skerry.run.uplink.status import UplinkStatus
from skerry.run.uplink.trouble import TroubleNote
from skerry.spec.errors import OutboxError, UsageError
from skerry.spec.units import Size

OPTIONS = OutboxOptions(ballast=Size(0), reserve=Size(0))


def opened(project: Path, name: str = "outbox") -> Outbox:
    return Outbox(project / ".skerry" / "watch" / "state" / f"{name}.db", device="pump-7", options=OPTIONS)


def fill(outbox: Outbox) -> None:
    outbox.put([Item(stream="alerts", fields={"n": number, "text": "a " * 80}) for number in range(5)])
    outbox.put([Item(stream="alerts", fields={"n": 9}, priority="critical")])
    outbox.bury(2, "the hub cannot read it")
    outbox.bury(3, "nor this")


def answer(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    assert main(["outbox", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_status_tells_what_waits_and_what_was_lost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with opened(tmp_path) as outbox:
        fill(outbox)
        (found,) = answer(capsys, "status", str(tmp_path))["stores"]
        assert (found["pending"], found["dead"], found["held"]) == (4, 2, True)
        assert found["epoch"] == outbox.epoch
        assert found["losses"] == {"buried.normal": 2}
    assert main(["outbox", "status", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "used by no process" in text
    assert "4 waiting" in text
    assert "buried.normal  2" in text


def test_the_status_tells_why_the_uplink_cannot_send(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with opened(tmp_path) as outbox:
        fill(outbox)
        folder = outbox.path.parent.parent
    note = TroubleNote(folder)
    note.follow(UplinkStatus(state="distrusted", why="it holds 3 of 5 records: write `mismatch: tell` at this sink"))
    (found,) = answer(capsys, "status", str(tmp_path))["troubles"].values()
    assert found["state"] == "distrusted"
    assert main(["outbox", "status", str(tmp_path)]) == 0
    assert "  distrusted: it holds 3 of 5 records: write `mismatch: tell`" in capsys.readouterr().out
    TroubleNote(folder).follow(UplinkStatus(state="sending"))  # a restart alone mends nothing
    assert answer(capsys, "status", str(tmp_path))["troubles"]
    note.follow(UplinkStatus(state="idle", acknowledged=1))
    assert not answer(capsys, "status", str(tmp_path))["troubles"]


def test_peeking_shows_what_would_be_sent_next_and_dead_letters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with opened(tmp_path) as outbox:
        fill(outbox)
    (records,) = answer(capsys, "peek", str(tmp_path), "-n", "2")["stores"].values()
    assert [(record["seq"], record["class"]) for record in records] == [(6, "critical"), (1, "normal")]
    (letters,) = answer(capsys, "peek", str(tmp_path), "--dead")["stores"].values()
    assert [letter["reason"] for letter in letters] == ["the hub cannot read it", "nor this"]
    assert main(["outbox", "peek", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["seq", "class", "stream", "fields"]
    assert lines[3].endswith("…")
    assert main(["outbox", "peek", "--dead", str(tmp_path)]) == 0
    assert "the hub cannot read it" in capsys.readouterr().out


def test_letters_are_replayed_and_dropped_where_nobody_holds_the_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with opened(tmp_path) as outbox:
        fill(outbox)
        epoch = outbox.epoch
    assert answer(capsys, "replay", str(tmp_path), "--id", "1") == {"action": "replay", "letters": 1}
    assert main(["outbox", "drop", str(tmp_path), "--all"]) == 0
    assert capsys.readouterr().out == "1 dead letter dropped\n"
    with opened(tmp_path) as outbox:
        assert outbox.epoch == epoch
        assert [record.fields["n"] for record in outbox.pending()] == [9, 0, 3, 4, 1]
        assert outbox.dead() == []


def test_a_process_that_holds_the_store_does_it_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with opened(tmp_path) as outbox:
        fill(outbox)
        ended = threading.Event()

        def work() -> None:
            while not ended.wait(0.02):
                outbox.pending(1)

        worker = threading.Thread(target=work)
        worker.start()
        try:
            assert answer(capsys, "replay", str(tmp_path), "--all")["letters"] == 2
        finally:
            ended.set()
            worker.join()
        assert outbox.status().pending == 6


def test_a_process_that_does_not_answer_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from skerry.run.outbox import looking

    leave = looking.requests.leave
    monkeypatch.setattr(looking.requests, "leave", lambda path, verb, ids, _: leave(path, verb, ids, 0.1))
    with opened(tmp_path) as outbox:
        fill(outbox)
        assert main(["outbox", "drop", str(tmp_path), "--id", "1"]) == OutboxError.exit_code
        assert "has not answered" in capsys.readouterr().err


def test_what_does_not_exist_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["outbox", "status", str(tmp_path / "nowhere")]) == UsageError.exit_code
    assert main(["outbox", "status", str(tmp_path)]) == UsageError.exit_code
    assert "no store is kept here" in capsys.readouterr().err
    with opened(tmp_path) as outbox:
        fill(outbox)
    assert main(["outbox", "drop", str(tmp_path), "--id", "7"]) == UsageError.exit_code
    assert "no dead letter 7" in capsys.readouterr().err
    assert main(["outbox", "status", str(tmp_path), "--store", "outbox-5"]) == UsageError.exit_code
    assert main(["outbox", "peek", str(tmp_path), "-n", "0"]) == UsageError.exit_code


def test_with_several_stores_one_has_to_be_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with opened(tmp_path) as first, opened(tmp_path) as second:
        fill(first)
        fill(second)
        assert len(answer(capsys, "status", str(tmp_path))["stores"]) == 2
    assert main(["outbox", "drop", str(tmp_path), "--id", "1"]) == UsageError.exit_code
    assert "--store" in capsys.readouterr().err
    assert answer(capsys, "drop", str(tmp_path), "--id", "1", "--store", "outbox-1")["letters"] == 1
    assert answer(capsys, "drop", str(tmp_path), "--all")["letters"] == 3


def test_a_store_that_cannot_be_read_is_an_error_of_the_outbox(tmp_path: Path) -> None:
    with opened(tmp_path) as outbox:
        fill(outbox)
    path = outbox.path
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)
    path.with_name(path.name + "-wal").unlink(missing_ok=True)
    assert main(["outbox", "status", str(tmp_path)]) == OutboxError.exit_code
