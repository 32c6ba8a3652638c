"""The contract that every source keeps, as a suite to subclass, and the means to drive a source without an engine."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from skerry.spec.address import parse_address
from skerry.spec.errors import SkerryError, SourceUnavailableError
from skerry.spec.plugins import load_plugin
from skerry.spec.ports import Context, Fields, Options, Source
from skerry.spec.units import decode_unit

PATIENCE_S = 20.0
"""Seconds after which a source that does not do what it should is said to hang; far more than any of them needs."""


class Item(msgspec.Struct, frozen=True):
    """What a source emitted: the fields, the size in bytes and the position."""

    fields: Fields
    size: int
    position: Any


class Collector:
    """An ``emit`` that keeps what it takes.

    Parameters
    ----------
    limit:
        How many items it takes; ``enough`` is then set. Each further one is refused, as an engine that ends does.
    refuse:
        Tells by the number of the offer (0, 1, …) whether to refuse it, as an engine with full queues does.
    """

    def __init__(self, limit: int | None = None, refuse: Callable[[int], bool] = lambda offer: False) -> None:
        self.items: list[Item] = []
        self.offers = 0
        self.enough = threading.Event()
        self._limit = limit
        self._refuse = refuse
        self._lock = threading.Lock()
        self._note_limit()

    def __call__(self, fields: Fields, /, *, size: int = 0, position: Any = None, wait: bool = True) -> bool:
        """Take an item, or refuse it."""
        with self._lock:
            self.offers += 1
            if self.enough.is_set() or self._refuse(self.offers - 1):
                return False
            self.items.append(Item(dict(fields), size, position))
            self._note_limit()
            return True

    def _note_limit(self) -> None:
        if self._limit is not None and len(self.items) >= self._limit:
            self.enough.set()


class Run:
    """A source running in a thread of its own; ``with`` stops it and waits for its end."""

    def __init__(self, source: Source, emit: Collector) -> None:
        self.source = source
        self.emit = emit
        self.stop = threading.Event()
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def wait(self, count: int) -> list[Item]:
        """Wait until ``count`` items have come, and return all; raises ``AssertionError`` when they do not come."""
        limit_s = time.monotonic() + PATIENCE_S
        while len(self.emit.items) < count and time.monotonic() < limit_s and self._thread.is_alive():
            self.stop.wait(0.005)
        if self.error is not None:
            raise self.error
        assert len(self.emit.items) >= count, f"{len(self.emit.items)} items came, not {count}"
        return self.emit.items

    def join(self) -> list[Item]:
        """Wait for the end of the run and return all items; raises what the source raised."""
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), "the source did not end"
        if self.error is not None:
            raise self.error
        return self.emit.items

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *reason: object) -> None:
        self.stop.set()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), "the source did not stop"

    def _run(self) -> None:
        try:
            self.source.run(self.emit, self.stop)
        except BaseException as error:  # noqa: BLE001 - handed to the test, whatever it is
            self.error = error


def build_source(uri: str, **options: Any) -> Source:
    """Make a source from its URI and further options, as an engine does; raises ``msgspec.ValidationError``."""
    address, query = parse_address(uri)
    kind = load_plugin("skerry.sources", address.scheme)
    values = msgspec.convert({**query, **options}, kind.Options, strict=False, dec_hook=decode_unit)
    source: Source = kind(address, values)
    return source


def make_context(folder: Path, *, name: str = "source", insecure: bool = False) -> Context:
    """Return a context whose files are under ``folder``."""
    state = folder / "state" / name
    state.mkdir(parents=True, exist_ok=True)
    return Context(
        name=name, home=folder, state=state, stop=threading.Event(), log=logging.getLogger(name), insecure=insecure
    )


class SourceContract:
    """What holds for every source: subclass it in a test module, say how yours is fed, and pytest runs the rest.

    Tests whose means a source lacks (``unavailable``, ``resumable``) return at once.
    """

    resumable = True
    """Whether a second run at a position goes on after it, within the source's own memory or file."""

    def source(self, folder: Path) -> Source:
        """Return a new source; ``folder`` is the same for all calls within a test."""
        raise NotImplementedError

    def feed(self, folder: Path, source: Source, first: int, count: int) -> None:
        """Make ``count`` items come, numbered from ``first``; called before the run when ``feeds_first``, or during."""
        raise NotImplementedError

    feeds_first = True
    """Whether items are there before the run (a file) or have to come while it runs (a socket)."""

    def number(self, fields: Fields) -> int:
        """Return the number of an item from its fields."""
        raise NotImplementedError

    def unavailable(self, folder: Path) -> Source | None:
        """Return a source that cannot come up, where there is such a thing."""
        return None

    def begin(self, folder: Path) -> None:
        """Make what has to be there before ``open``."""

    def _collect(self, folder: Path, emit: Collector, count: int) -> list[Item]:
        """Feed ``count`` items to a new source and return them."""
        source = self.source(folder)
        if self.feeds_first:
            self.feed(folder, source, 0, count)
        source.open(make_context(folder), None)
        try:
            with Run(source, emit) as run:
                if not self.feeds_first:
                    self.feed(folder, source, 0, count)
                run.wait(count)
                for item in emit.items:
                    if item.position is not None:
                        source.commit(item.position)
            return emit.items
        finally:
            source.close()

    def test_it_declares_its_options_and_kind(self, tmp_path: Path) -> None:
        """Options are frozen and strict, and ``live`` is said."""
        self.begin(tmp_path)
        kind = type(self.source(tmp_path))
        assert issubclass(kind.Options, Options)
        assert isinstance(kind.live, bool)
        assert kind.Options.__struct_config__.frozen
        try:
            msgspec.convert({"no_such_option": "1"}, kind.Options, strict=False, dec_hook=decode_unit)
        except msgspec.ValidationError:
            return
        raise AssertionError("an unknown option was taken")

    def test_it_opens_and_closes_twice(self, tmp_path: Path) -> None:
        """Opening again after closing works, and so does closing twice, or without opening."""
        self.begin(tmp_path)
        source = self.source(tmp_path)
        source.close()
        for _ in range(2):
            source.open(make_context(tmp_path), None)
            source.close()
            source.close()

    def test_what_cannot_come_up_says_so(self, tmp_path: Path) -> None:
        """A source that cannot come up raises ``SourceUnavailableError``, can be closed, and may be tried again."""
        source = self.unavailable(tmp_path)
        if source is None:
            return
        for _ in range(2):
            try:
                source.open(make_context(tmp_path), None)
            except SourceUnavailableError as error:
                assert error.message, "the error says nothing"
                source.close()
                source.close()
                continue
            except SkerryError as error:
                raise AssertionError(f"{type(error).__name__} was raised, not SourceUnavailableError") from error
            raise AssertionError("it came up")

    def test_the_position_of_another_kind_of_source_is_a_fresh_start(self, tmp_path: Path) -> None:
        """A user may change the kind of a source and keep its name."""
        self.begin(tmp_path)
        source = self.source(tmp_path)
        for position in ({"of": "another"}, ["source"], 3):
            source.open(make_context(tmp_path), position)
            source.commit(position)
            source.close()

    def test_stop_ends_the_run(self, tmp_path: Path) -> None:
        """A run that nobody feeds ends soon after it is told to."""
        self.begin(tmp_path)
        source = self.source(tmp_path)
        source.open(make_context(tmp_path), None)
        try:
            with Run(source, Collector()):
                pass
        finally:
            source.close()

    def test_every_item_comes_once_and_in_order(self, tmp_path: Path) -> None:
        """What is fed comes out, once, in order, with fields whose names are text."""
        self.begin(tmp_path)
        items = self._collect(tmp_path, Collector(5), 5)
        assert [self.number(item.fields) for item in items] == list(range(5))
        assert all(isinstance(name, str) for item in items for name in item.fields)
        assert all(item.size >= 0 for item in items)

    def test_refused_items_are_offered_again(self, tmp_path: Path) -> None:
        """A full queue loses nothing and doubles nothing."""
        self.begin(tmp_path)
        emit = Collector(5, refuse=lambda offer: offer % 2 == 0)
        items = self._collect(tmp_path, emit, 5)
        assert [self.number(item.fields) for item in items] == list(range(5))

    def test_positions_are_plain_json(self, tmp_path: Path) -> None:
        """Positions survive being written as JSON and are never changed afterwards."""
        self.begin(tmp_path)
        emit = Collector(5)
        items = self._collect(tmp_path, emit, 5)
        written = [json.dumps(item.position) for item in items]
        assert [json.loads(text) for text in written] == [item.position for item in items]
        if self.resumable:
            assert len(set(written)) == len(written), "two items have the same position"

    def test_a_second_run_goes_on_at_the_position(self, tmp_path: Path) -> None:
        """Resuming after any item neither loses nor repeats one."""
        if not self.resumable:
            return
        self.begin(tmp_path)
        first = self._collect(tmp_path, Collector(6), 6)
        for done in (1, 3, 5):
            source = self.source(tmp_path)
            source.open(make_context(tmp_path), json.loads(json.dumps(first[done - 1].position)))
            with Run(source, Collector(6 - done)) as run:
                again = run.wait(6 - done)
            source.close()
            assert [self.number(item.fields) for item in again] == list(range(done, 6))
