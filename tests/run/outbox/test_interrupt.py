"""An interrupt (Ctrl-C) in the midst of anything: memory and file agree afterwards, and no number is given twice."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from skerry.run.outbox import Outbox
from skerry.run.outbox.store import Store
from skerry.spec.errors import OutboxError
from tests.run.outbox.parts import item, numbers, opened


def interrupted_once(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let a method of the store be interrupted at its begin, the first time."""
    method = getattr(Store, name)

    def interrupt(store: Store, *args: object) -> object:
        monkeypatch.setattr(Store, name, method)
        raise KeyboardInterrupt

    monkeypatch.setattr(Store, name, interrupt)


def test_a_number_is_not_given_twice_after_an_interrupt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(tmp_path) as outbox:
        interrupted_once(monkeypatch, "remember")  # the commit is done, and not yet counted
        with pytest.raises(KeyboardInterrupt):
            outbox.put([item(1), item(2)])
        assert outbox.put([item(3, "high")]) == [3]
        assert outbox.put([item(4)]) == [4]
        assert numbers(outbox) == [3, 1, 2, 4]
        assert outbox.status().pending == 4


def test_settling_is_counted_once_after_an_interrupt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(tmp_path) as outbox:
        outbox.put([item(1), item(2)])
        interrupted_once(monkeypatch, "forget")
        with pytest.raises(KeyboardInterrupt):
            outbox.settle([(1, 1)])
        assert outbox.audit()[0] == 1
        assert outbox.settle([(1, 2)]) == 1
        assert outbox.audit()[0] == 2
        assert outbox.status().pending == 0


def test_those_who_share_a_commit_that_is_interrupted_learn_what_became_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path) as outbox:
        found: dict[int, list[int] | BaseException] = {}

        def put(number: int) -> None:
            try:
                found[number] = outbox.put([item(number)])
            except BaseException as error:  # noqa: BLE001 - whatever it is, it is looked at
                found[number] = error

        outbox._turn.acquire()  # the first leads and hangs, the others share the next commit
        threads = []
        for number in range(4):
            threads.append(threading.Thread(target=put, args=(number,)))
            threads[-1].start()
            ends = time.monotonic() + 20
            while len(outbox._group._queue) < number and time.monotonic() < ends:
                time.sleep(0.001)
        real, calls = Store.remember, []

        def remember(store: Store, records: list[object]) -> None:
            calls.append(len(records))
            if len(records) == 3:
                raise KeyboardInterrupt
            real(store, records)  # type: ignore[arg-type]

        monkeypatch.setattr(Store, "remember", remember)
        outbox._turn.release()
        for thread in threads:
            thread.join(20)
        assert calls == [1, 3]
        kinds = [type(found[number]) for number in range(4)]
        assert kinds.count(KeyboardInterrupt) == 1, "the one who did the work"
        told = [found[number] for number in range(4) if isinstance(found[number], list)]
        assert len(told) == 3
        assert sorted(numbers(outbox)) == [0, 1, 2, 3]


def test_a_forked_process_cannot_use_its_parents_outbox(tmp_path: Path) -> None:
    with opened(tmp_path) as outbox:
        outbox.put([item(1)])
        answer, ours = os.pipe()
        child = os.fork()
        if child == 0:
            text = b"nothing was raised"
            try:
                outbox.put([item(2)])
            except OutboxError as error:
                text = error.message.encode()
            try:
                with Outbox(tmp_path, device="pump-7", options=outbox._options) as own:
                    own.put([item(3)])
                    text += b" | " + own.path.name.encode()
                outbox.close()
            finally:
                os.write(ours, text)
                os._exit(0)
        os.waitpid(child, 0)
        told = os.read(answer, 1000).decode()
        assert "the process that opened it" in told
        assert told.endswith("| outbox-1.db")
        assert outbox.put([item(4)]) == [2]
        assert numbers(outbox) == [1, 4]


def test_a_child_that_outlives_its_parent_does_not_keep_the_store(tmp_path: Path) -> None:
    ready, go = os.pipe()
    parent = os.fork()
    if parent == 0:
        outbox = opened(tmp_path)
        outbox.put([item(1)])
        if os.fork() == 0:
            os.read(ready, 1)
            os._exit(0)
        os._exit(0)
    os.waitpid(parent, 0)
    try:
        with opened(tmp_path) as heir:
            assert heir.path.name == "outbox.db"
            assert numbers(heir) == [1]
    finally:
        os.write(go, b"x")
