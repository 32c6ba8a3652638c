"""A routed stage: answers locally, then lets the cloud answer what it is not sure of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from skerry.run.route.later import Later
from skerry.run.route.route import Route
from skerry.spec.ports import Context, Options
from skerry.spec.record import Emission, Outcome, Record

_TICK_S = 0.2


class RoutedStage:
    """A stage of a model with a cloud beside it.

    Parameters
    ----------
    local:
        The stage itself, made with the options of the route's subject.
    route:
        Shared by all workers of the stage.
    """

    Options: ClassVar[type[Options]] = Options

    def __init__(self, local: Any, route: Route) -> None:
        self.local, self.route = local, route
        self.max_batch: int = local.max_batch

    def open(self, context: Context) -> None:
        """Open the route, which refuses without a calibration, then the stage; raises what either raises."""
        self.route.open(context)
        self.local.open(context)

    def process(self, record: Record) -> Outcome:
        """Answer for one record."""
        outcome: Outcome = self.local.process(record)
        self._routed([record])
        return outcome

    def process_batch(self, records: Sequence[Record]) -> Sequence[Outcome | Exception]:
        """Answer for several records, asking the cloud at most once for all of them together."""
        answers: Sequence[Outcome | Exception] = self.local.process_batch(records)
        self._routed([answer for answer in answers if isinstance(answer, Record)])
        return answers

    def _routed(self, records: Sequence[Record]) -> None:
        self.route.answer(records)

    def close(self) -> None:
        """Close both; safe to call twice."""
        self.local.close()
        self.route.close()


class RevisingStage(RoutedStage):
    """A routed stage that keeps the hard records it could not ask for, and sends better answers on later."""

    tick_s = _TICK_S
    remembers = "records that wait for a better answer"

    def __init__(self, local: Any, route: Route) -> None:
        super().__init__(local, route)
        self._later: Later | None = None

    def open(self, context: Context) -> None:
        """Open the store of what waits, too; raises ``OutboxError`` where it cannot be used."""
        super().open(context)
        self._later = Later(self.route, context)

    def _routed(self, records: Sequence[Record]) -> None:
        assert self._later is not None
        self._later.keep(records, self.route.answer(records))

    def tick(self, now_ns: int) -> Sequence[Emission]:
        """Return the better answers that came meanwhile."""
        return self._later.revised() if self._later is not None else ()

    def flush(self) -> Sequence[Emission]:
        """Return those that still come; what waits beyond a moment is there for the next run."""
        return self._later.last() if self._later is not None else ()

    def close(self) -> None:
        """Stop asking, and close the store."""
        if self._later is not None:
            self._later.close()
        super().close()
