"""Sourcing: the thread that runs one source, brings it up again when it breaks, and numbers its items."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from skerry.run.progress import Progress
from skerry.run.wording import told
from skerry.spec.errors import SkerryError, SourceError, SourceLostError, SourceUnavailableError
from skerry.spec.pipeline import Endpoint
from skerry.spec.ports import Context, Fields, Source, Stop
from skerry.spec.record import Record

Offer = Callable[[Record, bool], bool]
"""Takes a record (and whether it may wait for room); tells whether it was accepted."""

_FIRST_PAUSE_S = 0.1  # before a source is brought up again; doubled each time it breaks soon after
_LONGEST_PAUSE_S = 30.0
_STABLE_S = 10.0  # a source that ran this long starts again with the shortest pause
_clock = time.monotonic_ns


class Door(Protocol):
    """What every item has to pass where there is a quota or a duty cycle."""

    def admit(self, wait: bool) -> bool:
        """Tell whether an item may come in; with ``wait``, it may have to wait for that."""

    def entered(self) -> None:
        """Note that an admitted item came in."""

    def turned_away(self) -> None:
        """Note that an admitted item was refused after all."""


class SourceHost(Protocol):
    """What a source's thread needs of the engine around it."""

    @property
    def stopping(self) -> Stop:
        """Set when the run is to end."""

    def fail(self, error: BaseException) -> None:
        """End the whole run with an error."""

    def door(self) -> Door | None:
        """Return what every item has to pass, or ``None`` where all may come in."""


class SourceWorker:
    """Runs one source until it has no more, the run ends, or it cannot be brought up again."""

    def __init__(
        self,
        name: str,
        source: Source,
        settings: Endpoint,
        context: Context,
        progress: Progress,
        host: SourceHost,
        deadline_ns: int,
    ) -> None:
        self.id = name
        self.issued = 0
        self.refused = 0
        self.restarts = 0
        self.came_up = False
        self.state = "waiting"
        self.error: SkerryError | None = None
        self._source = source
        self._settings = settings
        self._context = context
        self._progress = progress
        self._host = host
        self._deadline_ns = deadline_ns
        self._position = progress.position()
        self._is_open = False
        self._has_begun = False
        self._lock = threading.Lock()

    @property
    def accepted(self) -> int:
        """How many items came in."""
        refused = self.refused  # first, so that items that are refused meanwhile are not taken off too early
        return self.issued - refused

    def run(self, offer: Offer) -> None:
        """Feed ``offer`` with the source's items."""
        stop = self._host.stopping
        begin, pause = time.monotonic(), _FIRST_PAUSE_S
        emit = self._emitter(offer)
        while not stop.is_set():
            came_up = time.monotonic()
            error = self._once(emit)
            if error is None or stop.is_set():
                break
            self.error = error
            self.state = "waiting"
            if self._is_over(error, begin):
                self.state = "failed"
                error.where = error.where or self.id
                self._host.fail(error)
                return
            if time.monotonic() - came_up > _STABLE_S:
                pause = _FIRST_PAUSE_S
            self._context.log.warning("%s, trying again in %.1f s: %s", self.id, pause, error)
            self.restarts += 1
            stop.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)
        self.state = "done"

    def _once(self, emit: Callable[..., bool]) -> SkerryError | None:
        """Open and run the source once; return what broke it. One that ended well stays open: it may have to ack."""
        error: SkerryError | None = None
        try:
            self._source.open(self._context, self._position)
            self.came_up, self._is_open, self.state, self.error = True, True, "running", None
            self._source.run(emit, self._host.stopping)
        except SkerryError as ours:
            error = ours
        except BaseException as theirs:  # noqa: BLE001 -- a source may be a third party's; it is brought up again
            error = SourceError(f"the source broke: {told(theirs)}", where=self.id)
        if error is not None:
            try:
                self.close()
            except BaseException as theirs:  # noqa: BLE001 -- what is broken may break once more
                self._context.log.warning("%s could not be closed: %s", self.id, told(theirs))
        return error

    def close(self) -> None:
        """Close the source; called by the engine when everything that it read is settled."""
        self._is_open = False
        self._source.close()

    def _is_over(self, error: SkerryError, begin: float) -> bool:
        """Tell whether to give the source up: it is wrong as written, or it had its time or number of tries."""
        if not isinstance(error, SourceError) or isinstance(error, SourceLostError):
            return True
        within, limit = self._settings.within, self._settings.restarts
        if not self.came_up and within is not None and time.monotonic() - begin > float(within):
            return True
        return limit is not None and self.restarts >= limit

    def _emitter(self, offer: Offer) -> Callable[..., bool]:
        """Return the function that the source calls for each item."""
        name, deadline, lock, door = self.id, self._deadline_ns, self._lock, self._host.door()
        is_stopping = self._host.stopping.is_set

        def emit(fields: Fields, /, *, size: int = 0, position: Any = None, wait: bool = True) -> bool:
            if is_stopping() or (door is not None and not door.admit(wait)):
                return False
            now = _clock()
            with lock:
                self.issued = number = self.issued + 1
                if position is None:
                    position = self._position  # it has to be settled before the source moves on
                elif not self._has_begun:
                    self._begin(number)
            record = Record(fields, name, number, now, now + deadline if deadline else 0, size, position)
            if offer(record, wait):
                if position is not None:
                    self._position = position
                if door is not None:
                    door.entered()
                return True
            with lock:
                self.refused += 1
            if position is not None:
                self._progress.settle(number, None)  # its number is not used again
            if door is not None:
                door.turned_away()
            return False

        return emit

    def _begin(self, number: int) -> None:
        """Note the first item with a position; those before it, which had none to resume at, are not waited for."""
        self._has_begun = True
        if self._position is None:
            self._progress.begin(number)

    def commit(self, position: Any) -> bool:
        """Tell the source up to where everything is settled; ``False`` when it is closed and has to be told later."""
        if not self._is_open:
            return False
        try:
            self._source.commit(position)
        except Exception as error:  # noqa: BLE001 -- a source may be a third party's; its run goes on
            self._context.log.warning("%s could not commit its position: %s", self.id, told(error))
        return True

    def never_came_up(self) -> SourceUnavailableError | None:
        """Return the error of a source that the run ended without."""
        if self.came_up or self.error is None:
            return None
        message = f"the source never came up: {self.error.message}"
        return SourceUnavailableError(message, where=self.id, expected=self.error.expected, hint=self.error.hint)
