"""Sinking: the thread that writes records to one sink, in batches, and settles them once they are durable."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

from skerry.run.chain import LETTERED
from skerry.run.channel import Channel
from skerry.run.histogram import bin_of
from skerry.run.tally import NodeTally, SinkLedger
from skerry.run.wording import told
from skerry.spec.errors import DependencyError, SinkError, SinkFullError, SinkUnavailableError, SkerryError, SpecError
from skerry.spec.pipeline import Endpoint
from skerry.spec.ports import Context, Log, Sink, Stop
from skerry.spec.record import Fate, Record

_BATCH = 256  # records written at once at the most: a flush then costs little per record
_FIRST_PAUSE_S = 0.05  # before a sink that is down is tried again; doubled each time
_LONGEST_PAUSE_S = 5.0
_GLANCE_S = 0.05  # how often the queue of a sink that is down is looked at
_TOO_LATE = "sink down at the end"
_DOWN = "sink down"
_clock = time.monotonic_ns


class SinkHost(Protocol):
    """What a sink's thread needs of the engine around it."""

    @property
    def aborting(self) -> Stop:
        """Set when the run is to end at once."""

    def fail(self, error: BaseException) -> None:
        """End the whole run with an error."""

    def dead_letter(self, record: Record, node: str, error: BaseException) -> Record:
        """Hand a failed record to the dead letter sink; return the record that is to be counted as failed."""


class SinkWorker:
    """Writes to one sink; a sink that fails loses as little as possible, and holds up nobody for long.

    While a sink is down its records wait in its queue, and it is tried again with growing pauses. Only when the queue
    is full does the oldest batch fail, so that the pipeline goes on. An error that is not the sink's own (see
    ``_is_down``) is taken to be one record's fault: the batch is then written record by record.
    """

    def __init__(
        self,
        name: str,
        sink: Sink,
        settings: Endpoint,
        channel: Channel,
        ledger: SinkLedger,
        host: SinkHost,
        context: Context,
        sync_s: float,
        drain_s: float,
    ) -> None:
        self.id = name
        self.tally = NodeTally()
        self.restarts = 0
        self.written = 0
        self.state = "waiting"
        self._sink = sink
        self._settings = settings
        self._channel = channel
        self._ledger = ledger
        self._host = host
        self._context = context
        self._log: Log = context.log
        self._sync_s = sync_s
        self._drain_s = drain_s
        self._unwritten: list[Record] = []
        self._unsynced: list[Record] = []
        self._flush_at = 0.0
        self._is_open = False
        self._tries = 0
        self._give_up_at: float | None = None
        self._pause = 0.0
        self._probe_at = 0.0

    def run(self) -> None:
        """Write until the channel is closed and empty, then make everything durable."""
        self._open()
        while True:
            if not self._unwritten:
                batch = self._channel.take(_BATCH, self._patience())
                if batch is None:
                    break
                self._unwritten = [record for record in batch if not self._expired(record)]
            if self._unwritten:
                self._work()
            if self._unsynced and time.monotonic() >= self._flush_at:
                self._flush()
        self._flush()
        while self._unwritten:
            self._work()
            self._flush()
        self._close()
        self.state = "done"

    def _close(self) -> None:
        try:
            self._sink.close()
        except BaseException as error:  # noqa: BLE001 -- everything that was written is durable already
            self._log.warning("%s could not be closed: %s", self.id, told(error))

    def _patience(self) -> float | None:
        """How long to wait for more records before what is written must be made durable."""
        return max(0.0, self._flush_at - time.monotonic()) if self._unsynced else None

    def _expired(self, record: Record) -> bool:
        if record.deadline_ns and _clock() > record.deadline_ns:
            self._lose(record, Fate.EXPIRED, "deadline")
            return True
        return False

    def _work(self) -> None:
        """Write what is in hand, or wait for a sink that is down."""
        if self.state == "waiting" and not self._up():
            self._sit_out()
            return
        records = self._unwritten
        begin = _clock()
        error = self._attempt(records)
        if error is None:
            self.tally.bins[bin_of((_clock() - begin) // len(records))] += len(records)
            self._keep(records)
            self._unwritten = []
        elif _is_down(error):
            self._down(error)
        else:
            self._unwritten = []
            self._write_each(records)

    def _open(self) -> bool:
        try:
            self._sink.open(self._context)
        except BaseException as error:  # noqa: BLE001 -- a sink may be a third party's; the run goes on without it
            self._close()
            self._down(error)
            if isinstance(error, SpecError | DependencyError):
                self._give_up_at = time.monotonic()  # no waiting will mend it
                self._host.fail(error)
            return False
        self._is_open, self.state = True, "running"
        return True

    def _up(self) -> bool:
        """Try a sink that is down, when its pause is over; tell whether it may be written to."""
        if time.monotonic() < self._probe_at:
            return False
        limit = self._settings.restarts
        if limit is not None and self.restarts >= limit:
            return False
        self.restarts += 1
        if self._is_open:
            self.state = "running"
            return True
        return self._open()

    def _down(self, error: BaseException) -> None:
        """Note that the sink as a whole does not work, and when to try again."""
        if not self._tries:
            self._log.warning("%s is down, its records wait in its queue: %s", self.id, told(error))
        self.state = "waiting"
        self._tries += 1
        self._pause = min(2 * self._pause or _FIRST_PAUSE_S, _LONGEST_PAUSE_S)
        self._probe_at = time.monotonic() + self._pause
        if self._settings.on_error == "stop":
            self._host.fail(self._ours(error))

    def _ours(self, error: BaseException) -> SkerryError:
        """Return an error that a run may end with."""
        if isinstance(error, SkerryError):
            return error
        return SinkError(f"the sink failed: {told(error)}", where=self.id)

    def _sit_out(self) -> None:
        """Let records wait for a sink that is down, or fail where they cannot."""
        used_up = self._settings.on_error != "retry" or (
            self._settings.retries is not None and self._tries > self._settings.retries
        )
        given_up = self._settings.restarts is not None and self.restarts >= self._settings.restarts
        if used_up or given_up or self._is_too_late() or self._channel.is_full():
            failing, self._unwritten = self._unwritten, []
            reason = _TOO_LATE if self._is_too_late() else _DOWN
            self._fail(failing, reason, SinkUnavailableError("the sink is down", where=self.id))
        else:
            self._host.aborting.wait(min(_GLANCE_S, self._pause))

    def _is_too_late(self) -> bool:
        """Tell whether the run ends and a sink that is down had its time to come back."""
        if self._host.aborting.is_set():
            return True
        if self._give_up_at is None and self._channel.is_closed():
            self._give_up_at = time.monotonic() + self._drain_s
        return self._give_up_at is not None and time.monotonic() >= self._give_up_at

    def _write_each(self, records: Sequence[Record]) -> None:
        """Write the records of a batch that failed one at a time, so that only the bad ones fail."""
        for index, record in enumerate(records):
            error = self._attempt([record])
            if error is None:
                self._keep([record])
            elif _is_down(error):
                self._down(error)
                self._unwritten = list(records[index:])
                return
            else:
                self._fail([record], type(error).__name__, error)

    def _attempt(self, records: Sequence[Record]) -> BaseException | None:
        chosen = self._settings.fields
        if chosen is not None:
            records = [
                record.with_fields({name: record.fields[name] for name in chosen if name in record.fields})
                for record in records
            ]
        try:
            self._sink.write(records)
        except BaseException as error:  # noqa: BLE001 -- a sink may be a third party's; the policy decides
            return error
        return None

    def _keep(self, records: Sequence[Record]) -> None:
        """Note records that are written but not durable yet."""
        self._ledger.arrived(records)
        if not self._unsynced:
            self._flush_at = time.monotonic() + self._sync_s
        self._unsynced += records

    def _flush(self) -> None:
        """Make what was written durable and settle it; what cannot be made durable is written again."""
        if not self._unsynced:
            return
        written, self._unsynced = self._unsynced, []
        try:
            self._sink.flush()
        except BaseException as error:  # noqa: BLE001 -- a sink may be a third party's; the policy decides
            self._unwritten = written + self._unwritten
            self._down(error)
            return
        self._tries, self._pause = 0, 0.0  # a sink that takes records and keeps none of them is down still
        self.written += len(written)
        for record in written:
            self._ledger.settle_out(record)

    def _fail(self, records: Sequence[Record], reason: str, error: BaseException) -> None:
        for record in records:
            if self._settings.on_error in LETTERED and reason != _TOO_LATE:  # then it is read again in the next run
                record = self._host.dead_letter(record, self.id, error)  # noqa: PLW2901 -- a copy of the same one
            self._lose(record, Fate.FAILED, reason)
        if self._settings.on_error == "stop":
            self._host.fail(self._ours(error))

    def _lose(self, record: Record, fate: Fate, reason: str) -> None:
        """Count a record's end; it is read again where the end of the run, or a sink that stopped it, is to blame."""
        self.tally.lose(fate, reason)
        again = reason == _TOO_LATE or (reason == _DOWN and self._settings.on_error == "stop")
        (self._ledger.abandon if again else self._ledger.settle)(record, fate)


def _is_down(error: BaseException) -> bool:
    """Tell whether an error speaks of the sink as a whole, not of one record."""
    return isinstance(error, SinkUnavailableError | SinkFullError | OSError)
