"""The writer: the one thread that changes a hub's store, many jobs in one commit."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from skerry.fleet.hub.store import Store, Transaction
from skerry.spec.errors import HubError, SkerryError

Answer = TypeVar("Answer")
Job = Callable[[Transaction], Any]
_log = logging.getLogger("skerry.hub")


class Writer:
    """Takes jobs from any thread, and commits those that wait together: a commit costs the same for one and for 64.

    A job's future is settled only after the commit, so whoever reads its result knows that it is durable. A job that
    raises an error of the tree is undone alone; any other trouble undoes the group, and each job is tried by itself.

    Parameters
    ----------
    store:
        Where to write.
    group:
        The most jobs of one commit.
    committed:
        Called after each commit, in the writer's thread: there may be new records.
    """

    def __init__(self, store: Store, *, group: int, committed: Callable[[], None] = lambda: None) -> None:
        self._store, self._group, self._committed = store, group, committed
        self._jobs: deque[tuple[Job, Future[Any]]] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self.commits = 0
        """How many commits there were."""
        self._thread = threading.Thread(target=self._work, name="skerry-hub-writer", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many jobs wait."""
        return len(self._jobs)

    def submit(self, job: Callable[[Transaction], Answer]) -> Future[Answer]:
        """Hand over a job; its future holds the result once it is durable. Raises ``HubError`` when closed."""
        future: Future[Answer] = Future()
        with self._changed:
            if self._closing:
                raise HubError("the hub is ending")
            self._jobs.append((job, future))
            self._changed.notify()
        return future

    def close(self) -> None:
        """Do what waits, then end; safe to call twice."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._jobs and not self._closing:
                    self._changed.wait()
                if not self._jobs:
                    return
                taken = [self._jobs.popleft() for _ in range(min(self._group, len(self._jobs)))]
            # Whoever waited may have left; a job that nobody waits for need not be done, and must not end the writer.
            self._write([pair for pair in taken if pair[1].set_running_or_notify_cancel()])

    def _write(self, taken: list[tuple[Job, Future[Any]]]) -> None:
        """Do jobs in one transaction; where it fails as a whole, each in one of its own."""
        if not taken:
            return
        try:
            done = self._transact(taken)
        except Exception as error:  # noqa: BLE001 - whatever a job or the database does, the writer has to live on
            if len(taken) > 1 and self._store_works():
                for pair in taken:
                    self._write([pair])
                return
            _log.warning("a write failed: %s", error, exc_info=not isinstance(error, SkerryError))
            told = error if isinstance(error, SkerryError) else HubError(f"a write failed: {error}")
            for _, future in taken:
                future.set_exception(told)
            return
        self.commits += 1
        for future, result, trouble in done:
            if trouble is None:
                future.set_result(result)
            else:
                future.set_exception(trouble)
        self._committed()

    def _store_works(self) -> bool:
        """Tell whether a transaction can be opened: where none can, trying each job would only take longer."""
        try:
            with self._store.begin():
                return True
        except HubError:
            return False

    def _transact(self, taken: list[tuple[Job, Future[Any]]]) -> list[tuple[Future[Any], Any, SkerryError | None]]:
        done: list[tuple[Future[Any], Any, SkerryError | None]] = []
        with self._store.begin() as transaction:
            for job, future in taken:
                try:
                    with transaction.savepoint():
                        result = job(transaction)
                except HubError:
                    raise
                except SkerryError as error:
                    done.append((future, None, error))
                else:
                    done.append((future, result, None))
        return done
