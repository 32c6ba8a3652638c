"""Later: hard records that could not be asked for wait durably, and come back as revisions."""

from __future__ import annotations

import contextlib
import queue
import secrets
import threading
import time
from collections.abc import Sequence
from typing import Any

from skerry.run.outbox.item import Item, plain
from skerry.run.outbox.options import OutboxOptions
from skerry.run.outbox.outbox import Outbox
from skerry.run.route.route import Route
from skerry.spec.errors import OutboxError, WireError
from skerry.spec.ports import Context
from skerry.spec.record import Record
from skerry.spec.units import Size

ID, REVISION = "answer_id", "revision"
"""The fields by which an answer and its revision are told to belong together: the same id, and 0 or 1."""
_SETTLE_AFTER_S = 5.0
"""Seconds from sending a revision on until it is forgotten here: sinks make durable what they wrote every half second.
A run that ends in between sends it once more, with the same id and revision."""
_AT_ONCE = 16
_LINGER_S, _GLANCE_S = 2.0, 0.02
"""At the end of a run: how long one waits for the next better answer, and how often one looks."""
_MOST_AT_END = 1000  # then the run ends, whatever still comes: it is there for the next one
_LOOK_EVERY_S = 1.0
_STORE = "later.db"


class Later:
    """Keeps what waits in an outbox of its own, and asks for it in a thread when the cloud can be asked again."""

    def __init__(self, route: Route, context: Context) -> None:
        cloud = route.plan.cloud
        most = max(float(cloud.keep), 1e5)
        limits = OutboxOptions(
            max_size=Size(most), max_record=Size(min(1e6, most)), ballast=Size(0), reserve=Size(0)
        )  # fmt: skip
        self._route, self._context = route, context
        self._keep_s = float(cloud.keep_for)
        with contextlib.suppress(OSError):  # a file system without modes
            context.state.chmod(0o700)  # whole records lie there, personal fields too
        self._outbox = Outbox(context.state / _STORE, device=context.name, options=limits)
        self._ready: queue.SimpleQueue[tuple[int, Record]] = queue.SimpleQueue()
        self._sent: list[tuple[float, int]] = []
        self._left: int | None = None
        self._busy: set[int] = set()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        route.waiting = self.count
        self._thread = threading.Thread(target=self._work, name=f"{context.name}-later", daemon=True)
        self._thread.start()

    def count(self) -> int:
        """Return how many records wait for a better answer."""
        if self._left is not None:
            return self._left
        try:
            return max(0, self._outbox.status().pending - len(self._sent))
        except OutboxError:  # it is being closed
            return 0

    def keep(self, records: Sequence[Record], waiting: Sequence[tuple[Record, str]]) -> None:
        """Mark all of some answered records as first answers, and keep those that wait; what cannot be is counted."""
        for record in records:
            record.fields[ID], record.fields[REVISION] = None, 0
        if not waiting:
            return
        items = []
        for record, _ in waiting:
            record.fields[ID] = secrets.token_hex(8)
            payload = {"fields": _storable(record.fields)}
            items.append(Item(stream=self._context.name, fields=payload, ttl_s=self._keep_s))
        try:
            self._outbox.put(items)
        except OutboxError as error:  # the first answer is there: it must not be lost for want of room for a second
            self._route.tally.fault("store", len(items))
            self._context.log.warning("a better answer cannot be waited for: %s", error)

    def revised(self) -> list[Record]:
        """Return the revisions that are ready, and forget those that were sent on a while ago."""
        now = time.monotonic()
        found: list[Record] = []
        while True:
            try:
                seq, record = self._ready.get_nowait()
            except queue.Empty:
                break
            found.append(record)
            self._sent.append((now, seq))
        self._settle(now - _SETTLE_AFTER_S)
        return found

    def last(self) -> list[Record]:
        """Return what still comes at the end of a run, waiting a moment for it while answers do come."""
        found = self.revised()
        moment = min(float(self._route.plan.cloud.timeout), _LINGER_S)
        ends = time.monotonic() + moment
        while self._route.may_answer and self.count() and time.monotonic() < ends:
            time.sleep(_GLANCE_S)
            more = self.revised()
            found += more
            if more and len(found) <= _MOST_AT_END:
                ends = time.monotonic() + moment
        return found

    def _settle(self, before_s: float) -> None:
        done = [seq for sent_s, seq in self._sent if sent_s <= before_s]
        if done:
            try:
                self._outbox.settle([(seq, seq) for seq in done])
            except OutboxError as error:  # tried again at the next tick; until then they are not asked for either
                self._context.log.warning("revisions that were sent on cannot be forgotten: %s", error)
                return
            self._sent = [(sent_s, seq) for sent_s, seq in self._sent if sent_s > before_s]
            with self._lock:
                self._busy.difference_update(done)

    # -- in the thread -----------------------------------------------------------------------------------------------

    def _work(self) -> None:
        """Ask for what waits, whenever the circuit, the budgets and the link allow it."""
        while not self._stop.is_set():
            try:
                answered = self._ask_some()
            except OutboxError as error:
                answered = False
                if not self._stop.is_set():
                    self._context.log.warning("what waits for a better answer cannot be used: %s", error)
            self._stop.wait(0.0 if answered else _LOOK_EVERY_S)

    def _ask_some(self) -> bool:
        """Ask for one record, and for more at once if it passed; tell whether answers came."""
        with self._lock:
            taken = [(seq, seq) for seq in sorted(self._busy)]
        waiting = self._outbox.pending(limit=_AT_ONCE, excluding=taken)
        passed: list[tuple[int, Record, str]] = []
        for waits in waiting:
            fields = waits.fields.get("fields")
            # What may leave is decided anew: rules may have become stricter while it waited.
            text = self._route.sendable(fields) if isinstance(fields, dict) else None
            if not isinstance(fields, dict) or text is None:
                self._outbox.bury(waits.seq, "it may not leave" if isinstance(fields, dict) else "no record of a route")
            elif self._route.may_consult(text, joins=bool(passed)):
                passed.append((waits.seq, Record(dict(fields)), text))
            else:
                break
        return bool(passed) and self._consult(passed)

    def _consult(self, passed: Sequence[tuple[int, Record, str]]) -> bool:
        timeout = float(self._route.plan.cloud.timeout)
        answers = self._route.consult([text for _, _, text in passed], timeout)
        if answers is None:
            return False
        for (seq, record, _), answer in zip(passed, answers, strict=True):
            if self._route.revise(record, answer):
                record.fields[REVISION] = 1
                with self._lock:
                    self._busy.add(seq)
                self._ready.put((seq, record))
            else:
                self._outbox.bury(seq, "the cloud's answer does not fit")
        return True

    def close(self) -> None:
        """Stop asking and close the store; safe to call twice."""
        self._stop.set()
        if self._left is None:
            self._left = self.count()
        self._thread.join(float(self._route.plan.cloud.timeout) + 1)
        self._outbox.close()


def _storable(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that are JSON: a frame or a vector does not wait."""
    kept: dict[str, Any] = {}
    for name, value in fields.items():
        try:
            kept |= plain({name: value})
        except (ValueError, WireError):
            continue
    return kept
