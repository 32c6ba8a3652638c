"""The uplink: threads that carry what an outbox holds to the hub, for as long as the process lives."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from skerry.run.uplink.conductor import Conductor
from skerry.run.uplink.couriers import BlobQueue, Courier
from skerry.run.uplink.decision import Wait
from skerry.run.uplink.downloads import download_blob
from skerry.run.uplink.faults import told_plainly
from skerry.run.uplink.http import HttpTransport
from skerry.run.uplink.job import Clock, Job, Store
from skerry.run.uplink.keeper import Keeper, Renew
from skerry.run.uplink.options import UplinkOptions, check_options
from skerry.run.uplink.purse import BookOnDisk
from skerry.run.uplink.status import UplinkStatus
from skerry.run.uplink.transport import Lane, Transport
from skerry.run.uplink.trouble import TroubleNote
from skerry.spec.errors import HubError, SkerryError
from skerry.spec.ports import Signer

_GLANCE_S = 5.0  # the longest sleep: whoever puts something into the store rings, this is for those who forget
_STORE_PAUSE_S = 1.0  # after the store failed: a full disk does not get free any faster
_FAULT_PAUSE_S = 5.0


class Uplink:
    """Sends everything that an outbox holds, and blobs beside it.

    Parameters
    ----------
    store:
        The outbox.
    transport:
        What reaches the hub.
    options:
        What is allowed.
    device, signer:
        Whose records they are, and what returns who vouches for them now.
    state:
        A folder for what must survive a restart: today's budget, the blobs that wait, and trouble.
    clock:
        The device's clocks.
    host:
        The hub's host, by which the link in use is found; empty where that makes no sense.
    renew:
        Renews the certificate when that is due and tells whether it did; ``None`` where there is none.
    retire:
        Takes back stores of :meth:`add` once they have nothing left to send.
    """

    def __init__(
        self,
        store: Store,
        transport: Transport,
        options: UplinkOptions | None = None,
        *,
        device: str,
        state: Path,
        clock: Clock,
        signer: Callable[[], Signer] | None = None,
        host: str = "",
        renew: Renew | None = None,
        retire: Callable[[Store], None] | None = None,
        log: logging.Logger | None = None,
    ) -> None:
        self._options = options or UplinkOptions()
        check_options(self._options)
        self._transport, self._store = transport, store
        self._log = log or logging.getLogger("skerry.uplink")
        self._conductor = Conductor(
            store,
            self._options,
            device=device,
            signer=signer,
            clock=clock,
            overhead=transport.overhead,
            opening=transport.opening,
            book=BookOnDisk(state / "uplink-budget.json"),
            log=self._log,
        )
        self._stop = threading.Event()
        self._bell = threading.Condition()
        self._rung = 0
        self._told = ""
        self._lanes: list[Lane] = []
        self._threads: list[threading.Thread] = []
        self._keeper = Keeper(
            self._conductor,
            transport,
            self._options,
            clock=clock,
            host=host,
            renew=renew,
            ring=self._wake_all,
            retire=retire,
            note=TroubleNote(state),
            log=self._log,
        )
        self._blobs = BlobQueue(state / "blobs")
        self._courier: Courier | None = None
        if isinstance(transport, HttpTransport):
            self._courier = Courier(
                self._blobs, transport.lane(), self._conductor, self._options, self._stop, self._log
            )

    def start(self) -> None:
        """Start the threads; nothing of the network is waited for."""
        if self._threads:
            return
        for number in range(self._options.in_flight):
            lane = self._transport.lane()
            self._lanes.append(lane)
            self._thread(f"uplink-{number + 1}", lambda lane=lane: self._run(lane))  # type: ignore[misc]
        self._thread("uplink-keeper", lambda: self._keeper.run(self._stop))
        if self._courier is not None:
            self._thread("uplink-blobs", self._courier.run)

    def _thread(self, name: str, body: Callable[[], None]) -> None:
        thread = threading.Thread(target=body, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def wake(self) -> None:
        """Say that there is something new in the store."""
        with self._bell:
            self._rung += 1
            self._bell.notify()  # one lane looks; when it finds more than one batch, it wakes the next

    def _wake_all(self) -> None:
        with self._bell:
            self._rung += 1
            self._bell.notify_all()

    def status(self) -> UplinkStatus:
        """Return what it did so far and what it waits for."""
        return self._conductor.status()

    def add(self, store: Store) -> None:
        """Send another store too: one that a process left behind."""
        self._conductor.add(store)
        self.wake()

    def wait_until_sent(self, timeout_s: float, *, while_healthy: bool = False) -> bool:
        """Wait until nothing is pending; tell whether that came about in time.

        With ``while_healthy`` the wait ends as soon as something goes wrong: nobody waits for a link that is down.
        """
        limit = time.monotonic() + timeout_s
        while True:
            status = self._conductor.status()
            if not status.in_flight and not self._store.pending(1, 1):
                return True
            healthy = status.state in {"idle", "sending"}
            if (while_healthy and not healthy) or time.monotonic() >= limit or self._stop.wait(0.01):
                return False

    def send_blob(self, path: Path, *, kind: str = "application/octet-stream", name: str = "") -> str:
        """Queue a file to be sent, and return its digest (``sha256:…``). It has to stay there until it is sent.

        The queue survives restarts; the upload goes on where the hub has it, whatever was cut, killed or restarted.

        Raises
        ------
        OSError
            The file cannot be read, or the queue not written.
        HubError
            The transport carries no blobs: only HTTP does.
        """
        if self._courier is None:
            raise HubError("only HTTP carries blobs", expected="a hub by https")
        entry = self._blobs.add(path, kind=kind, name=name)
        self._courier.wake()
        return entry.digest

    def fetch_blob(self, digest: str, target: Path, *, most_bytes: int) -> Path:
        """Fetch a blob of the hub's by its digest, in the caller's thread; return ``target``, whole and checked.

        Raises ``HubRefusedError`` when the hub has no such blob or gives something else, ``HubUnreachableError`` when
        it cannot be reached (what came is kept for the next time), ``HubError`` where the transport carries no blobs.
        """
        if not isinstance(self._transport, HttpTransport):
            raise HubError("only HTTP carries blobs", expected="a hub by https")
        with contextlib.closing(self._transport.lane()) as lane:
            try:
                return download_blob(
                    lane, digest, target, most_bytes=most_bytes, timeout_s=self._options.timeout, sleep=self._stop.wait
                )
            finally:
                self._conductor.charge(lane.traffic())

    def blobs_waiting(self) -> int:
        """Return how many blobs are not sent yet."""
        return len(self._blobs)

    def close(self, timeout_s: float = 2.0) -> None:
        """Stop; what is on its way is given up and sent again next time. Safe to call twice."""
        if self._stop.is_set():
            return
        self._stop.set()
        self._wake_all()
        self._keeper.wake()
        limit = time.monotonic() + timeout_s
        if self._courier is not None:
            self._courier.wake()
        for lane in self._lanes:
            lane.cancel()
        for thread in self._threads:  # one that looks up a name cannot be woken: it ends with the process
            thread.join(max(0.05, limit - time.monotonic()))
        self._conductor.close()
        self._transport.close()

    # ------------------------------------------------------------------ a lane

    def _run(self, lane: Lane) -> None:
        while not self._stop.is_set():
            ticket = self._rung
            try:
                verdict = self._conductor.next()
                if isinstance(verdict, Wait):
                    self._sleep(verdict.seconds, ticket)
                else:
                    self._exchange(lane, verdict)
                self._told = ""
            except SkerryError as error:
                if self._told != str(error):
                    self._told = str(error)
                    self._log.warning("the outbox cannot be read or written: %s", error.message)
                self._stop.wait(_STORE_PAUSE_S)
            except Exception:  # noqa: BLE001 -- a lane that ends would end the sync of a device for good
                self._log.exception("the uplink failed; it goes on")
                self._stop.wait(_FAULT_PAUSE_S)
        with contextlib.suppress(OSError):
            lane.close()

    def _sleep(self, seconds: float, ticket: int) -> None:
        """Sleep until the time is over, or somebody rings."""
        with self._bell:
            self._bell.wait_for(lambda: self._rung != ticket or self._stop.is_set(), min(seconds, _GLANCE_S))

    def _exchange(self, lane: Lane, job: Job) -> None:
        if job.was_full:
            self.wake()  # there is more than one batch: the other lanes may take it
        try:
            answer = lane.exchange(job.batch, self._options.timeout)
        except (OSError, SkerryError) as error:
            reason = told_plainly(error, self._transport.name) if isinstance(error, OSError) else error.message
            timed_out = isinstance(error, TimeoutError)
            self._conductor.broke(job, reason, lane.traffic(), timed_out=timed_out)
            self._keeper.broke(error)
        except BaseException:
            self._conductor.broke(job, "a fault of our own", lane.traffic())
            raise
        else:
            self._conductor.answered(job, answer, lane.traffic())
            if answer.is_hub and answer.status in {401, 403}:
                self._keeper.refused()
        finally:
            self._wake_all()  # a lane is free, and the circuit may have closed
