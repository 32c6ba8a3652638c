"""The outbox: records are put in by many callers, taken by the uplink, and gone only when the hub has them."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import msgspec

from skerry.run.outbox import folder, heirs, letters, requests
from skerry.run.outbox.clock import Clock, SystemClock
from skerry.run.outbox.database import DamagedError
from skerry.run.outbox.group import GroupCommit, Ticket
from skerry.run.outbox.item import Item, ItemsRefusedError, Packed, Packer, unpack
from skerry.run.outbox.options import OutboxOptions
from skerry.run.outbox.recovery import opened
from skerry.run.outbox.salvage import Known
from skerry.run.outbox.status import DeadLetter, OutboxStatus, status_of
from skerry.run.outbox.store import Store
from skerry.run.outbox.successor import known_of
from skerry.run.outbox.sweep import sweep
from skerry.run.outbox.tables import gaps
from skerry.spec.errors import OutboxError
from skerry.wire.ranges import Range, from_numbers, merge
from skerry.wire.record import WireRecord

Answer = TypeVar("Answer")
_TEND_US = 1_000_000  # how often what is not urgent is looked after
_EXPIRE_US = 10_000_000  # how often records are looked for that are too old
_REST = 50  # times as long as the last such look took, nobody looks again


class Outbox:
    """A durable queue in front of a hub, safe for threads.

    What :meth:`put` has returned survives kills, power cuts and restarts until :meth:`settle` says that the hub has
    it; what has to be given up before (:class:`~skerry.run.outbox.options.OutboxOptions`) is counted in
    :meth:`losses`, and that count survives too.

    A record is identified by ``(device, epoch, seq)``. Each process gets a store file of its own: the first free one
    of ``outbox.db``, ``outbox-1.db``, … in the folder. Files that a process left behind are sent by whoever calls
    :meth:`adopt`, each as an outbox of its own epoch.

    Parameters
    ----------
    path:
        The store file (``….db``) or the folder for it.
    device:
        The name of this device; a store that was another device's begins a new epoch.
    options:
        Limits.
    clock:
        The time.
    synchronous:
        ``FULL``. Anything less loses what was acknowledged when the power fails; it is there to be measured against.
    vfs:
        SQLite's file layer, for tests that cut the power.

    Raises
    ------
    OutboxError
        The folder cannot be written to, or the store was made by a newer Skerry. A damaged store is put aside
        instead, and what it still holds is taken over.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        device: str,
        options: OutboxOptions | None = None,
        clock: Clock | None = None,
        synchronous: str = "FULL",
        vfs: str | None = None,
    ) -> None:
        self._first = folder.first_file(Path(path))
        self._options = options or OutboxOptions()
        self._options.check()
        self._clock = clock or SystemClock()
        self._synchronous, self._vfs = synchronous, vfs
        self._open(folder.claim(self._first), device)

    def _open(self, lock: folder.StoreLock, device: str) -> None:
        self._lock = lock
        self._closed = self._disowned = False
        self._make_locks()
        self._tended_us = self._expired_us = self._clock.mono_us()
        self._expiring_us = 0
        self._packer = Packer(self._options)
        try:
            self._store = self._open_store(device)
        except BaseException:
            lock.release()
            raise
        heirs.enlist(self)

    def _make_locks(self) -> None:
        self._turn = threading.RLock()
        self._arrival = threading.Condition()
        self._waiting = 0
        self._group: GroupCommit[list[Packed]] = GroupCommit(self._commit)

    def disown(self) -> None:
        """In a forked process: leave the store to the parent, who has it."""
        self._make_locks()  # another thread of the parent's may have held them
        if not self._closed:
            self._closed = self._disowned = True
            heirs.never_close(self._store.connection)
            self._lock.release()

    def _open_store(self, device: str, known: Known | None = None) -> Store:
        return opened(
            self._lock.path,
            device=device,
            options=self._options,
            clock=self._clock,
            synchronous=self._synchronous,
            vfs=self._vfs,
            known=known,
        )

    @property
    def path(self) -> Path:
        """The store file that this process got."""
        return self._lock.path

    @property
    def device(self) -> str:
        """The name of the device."""
        return self._store.device

    @property
    def epoch(self) -> str:
        """16 hex digits that tell this store, since its last fork, from any other."""
        return self._store.epoch

    @property
    def last_seq(self) -> int:
        """The highest number that was given to a record."""
        return self._store.last_seq

    # -- producing ---------------------------------------------------------------------------------------------------

    def put(self, items: Sequence[Item], *, all_or_none: bool = False) -> list[int]:
        """Store items and return their numbers once they are durable.

        Callers that come together share one sync of the disk; one alone waits for nobody. The number 0 stands for an
        item below ``critical`` that a full disk had no room for: it is counted as lost.

        Raises
        ------
        ItemsRefusedError
            Some items are no JSON, or too large; the others are stored, or none with ``all_or_none``.
        OutboxFullError
            The disk is full and a critical item finds nothing to take the place of.
        OutboxError
            The store cannot be written to.
        """
        packed, refused = self._packer.pack(self._store.life.instant(), items)
        if refused and all_or_none:
            raise ItemsRefusedError(refused, [0] * len(items))
        seqs: list[int] = self._group.run(packed) if packed else []
        if refused:
            left = iter(seqs)
            raise ItemsRefusedError(refused, [0 if place in refused else next(left) for place in range(len(items))])
        return seqs

    def _commit(self, group: Sequence[Ticket[list[Packed]]]) -> None:
        """Store what several callers brought, in one transaction; alone where one of them spoils it."""
        records = group[0].work if len(group) == 1 else [record for ticket in group for record in ticket.work]
        begun = self._store.last_seq
        try:
            seqs = self._using(lambda store: store.add(records))
        except OutboxError as error:
            if len(group) == 1:
                group[0].error = error
                return
            for ticket in group:
                self._commit([ticket])
            return
        except BaseException:  # Ctrl-C in the one who commits for all: the others want to know what became of theirs
            self._share_out(group, self._numbers_since(begun, len(records)))
            raise
        self._share_out(group, seqs)
        if self._waiting:
            self._announce()

    def _share_out(self, group: Sequence[Ticket[list[Packed]]], seqs: list[int]) -> None:
        start = 0
        for ticket in group if seqs else ():
            ticket.result = seqs[start : start + len(ticket.work)]
            start += len(ticket.work)

    def _numbers_since(self, begun: int, count: int) -> list[int]:
        """Return the numbers of records whose commit was interrupted, or none if they were not stored."""
        with contextlib.suppress(OutboxError):
            reached = self._using(lambda store: store.last_seq)
            return list(range(begun + 1, begun + 1 + count)) if reached >= begun + count else []
        return []

    def _using(self, work: Callable[[Store], Answer]) -> Answer:
        """Run work on the store, in turn; on a damaged one, put it aside and run the work on its successor."""
        with self._turn:
            if self._closed:
                raise self._closed_error()
            try:
                if self._store.abandoned:
                    raise DamagedError("the store has no successor yet")
                answer = self._surely(work)
            except DamagedError:
                self._replace()
                answer = self._surely(work)
            try:
                self._tend()
            except DamagedError:
                self._store.abandon()  # the next caller finds it so
            except OutboxError:
                self._store.in_doubt = False  # what the caller wanted is done; this is tried again
            return answer

    def _closed_error(self) -> OutboxError:
        if not self._disowned:
            return OutboxError("the outbox is closed", where=str(self.path))
        return OutboxError(
            "this outbox belongs to the process that opened it",
            where=str(self.path),
            hint="open one in this process too: it gets a store of its own",
        )

    def _surely(self, work: Callable[[Store], Answer]) -> Answer:
        """Run work on the store; after an interrupt in the midst of it, what memory says is read again first."""
        store = self._store
        if store.in_doubt:
            store.clear_doubt()
        store.in_doubt = True
        try:
            answer = work(store)
        except OutboxError:
            store.in_doubt = False
            raise
        store.in_doubt = False
        return answer

    def _replace(self) -> None:
        damaged = self._store
        damaged.abandon()
        self._store = self._open_store(damaged.device, known=known_of(damaged))
        self._store.under_way = damaged.under_way

    def _tend(self) -> None:
        """Look after what is not urgent: the log, old records, the ballast, and what the command line asked for."""
        store, now = self._store, self._clock.mono_us()
        if store.log_is_long:
            store.checkpoint()
        if now - self._tended_us < _TEND_US:
            return
        self._tended_us = now
        store.in_doubt = True
        self._tend_now(store, now)
        store.in_doubt = False

    def _tend_now(self, store: Store, now: int) -> None:
        if now - self._expired_us >= max(_EXPIRE_US, self._expiring_us * _REST):
            begin = time.monotonic_ns()
            sweep(store)
            store.write_down()
            self._expired_us, self._expiring_us = now, (time.monotonic_ns() - begin) // 1000
        elif store.unwritten:
            store.write_down()
        requests.serve(store)
        if store.ballast.take() or store.ballast.room_to_spare():
            store.squeeze.relax()

    # -- sending -----------------------------------------------------------------------------------------------------

    def pending(
        self, limit: int = 1000, max_bytes: int = 1_000_000, excluding: Iterable[Range] = ()
    ) -> list[WireRecord]:
        """Return records to send: the highest class first, within it the oldest; at least one if there is any.

        Parameters
        ----------
        limit:
            How many records at the most.
        max_bytes:
            How many bytes of stored form at the most, unless the first one is larger.
        excluding:
            Ranges of numbers that are on their way already.
        """
        if limit < 1:
            return []
        taken = merge(excluding)
        return self._using(lambda store: self._read_pending(store, limit, max_bytes, taken))

    def _read_pending(self, store: Store, limit: int, max_bytes: int, taken: list[Range]) -> list[WireRecord]:
        found: list[WireRecord] = []
        spoiled: list[int] = []
        size = 0
        for seq, priority, digest, payload in store.waiting(gaps(taken)):
            size += len(payload)
            if found and size > max_bytes:
                break
            try:
                found.append(unpack(seq, priority, digest, payload))
            except ValueError:
                spoiled.append(seq)
            if len(found) >= limit:
                break
        if spoiled:
            store.discard(spoiled)
        if limit > 1 or taken:  # or somebody only looks whether there is anything
            store.under_way = merge(taken, from_numbers(record.seq for record in found))
        return found

    def settle(self, ranges: Iterable[Range], *, epoch: str | None = None, told: dict[str, int] | None = None) -> int:
        """Delete records that the hub has made durable; return how many those were.

        Parameters
        ----------
        ranges:
            Their numbers; what is not there is passed over.
        epoch:
            The epoch of the receipt: one of an earlier epoch settles nothing. ``None`` for this one.
        told:
            The losses that stood in the header of the batch: the hub knows them, and a fork does not repeat them.
        """
        wanted = merge(ranges)
        return self._using(lambda store: store.settle(wanted, told or {}) if epoch in {None, store.epoch} else 0)

    def bury(self, seq: int, reason: str) -> None:
        """Move a record that cannot be delivered to the dead letters; one that is not there is passed over."""
        self._using(lambda store: letters.bury(store, seq, reason, int(self._options.dead_size)))

    def fork(self, reason: str) -> str:
        """Begin a new epoch and return it: all that waits is sent under new identities from now on.

        For a store whose numbers somebody else has used as well: a restored image of a disk, a copied device.
        """
        return self._using(lambda store: store.fork(reason))

    def losses(self) -> dict[str, int]:
        """Return what was given up in this epoch, cumulative: ``{"evicted.low.caps": 12}``."""
        return self._using(lambda store: store.losses())

    def audit(self) -> tuple[int, int]:
        """Return how many records of this epoch were settled, and the sum of their digests mod 2^64."""
        return self._using(lambda store: (store.settled, store.checksum))

    def wait(self, timeout: float | None = None, beyond: int = 0) -> bool:
        """Wait until records are pending whose number is above ``beyond``; tell whether there are any."""
        with self._arrival:
            self._waiting += 1
            try:
                return self._arrival.wait_for(lambda: self._closed or self._has(beyond), timeout) and not self._closed
            finally:
                self._waiting -= 1

    def _has(self, beyond: int) -> bool:
        return self._store.last_seq > beyond and any(self._store.counts)

    # -- looking after -----------------------------------------------------------------------------------------------

    def dead(self, limit: int = 1000) -> list[DeadLetter]:
        """Return dead letters, the oldest first."""
        return self._using(lambda store: store.read(lambda: letters.listed(store.connection, limit)))

    def replay(self, ids: Iterable[int] | None = None) -> int:
        """Send dead letters again, under new numbers: those of ``ids``, or all; return how many."""
        chosen = None if ids is None else list(ids)
        count = self._using(lambda store: letters.replay(store, chosen))
        self._announce()
        return count

    def drop(self, ids: Iterable[int] | None = None) -> int:
        """Delete dead letters: those of ``ids``, or all; return how many."""
        chosen = None if ids is None else list(ids)
        return self._using(lambda store: letters.drop(store, chosen))

    def status(self) -> OutboxStatus:
        """Return what it holds and has lost."""
        return self._using(self._status)

    def _status(self, store: Store) -> OutboxStatus:
        known = store.read(lambda: status_of(store.connection, self.path, (store.sizes, store.counts)))
        return msgspec.structs.replace(known, held=True, losses=store.losses(), ballast_bytes=store.ballast.held_bytes)

    def adopt(self) -> list[Outbox]:
        """Open the stores of the same folder that no living process holds, each as an outbox of its own epoch.

        They are to be sent as this one is, under their own epochs; :meth:`retire` then removes what is empty.
        """
        found = []
        for path in folder.family(self._first):
            lock = folder.try_lock(path) if path != self.path else None
            if lock is not None:
                with contextlib.suppress(OutboxError):  # of a newer Skerry: left alone, `skerry outbox status` tells
                    found.append(self._sibling(lock))
        return found

    def _sibling(self, lock: folder.StoreLock) -> Outbox:
        other = Outbox.__new__(Outbox)
        other._first, other._options, other._clock = self._first, self._options, self._clock
        other._synchronous, other._vfs = self._synchronous, self._vfs
        other._open(lock, self.device)
        return other

    def retire(self) -> bool:
        """Close the store; remove its files if it is empty and the hub was told of all its losses, and tell whether.

        For an adopted store that has been sent: its epoch ends here.
        """
        with self._turn:
            done = not self._using(lambda store: any(store.counts) or store.owes())
            self._shut()
            if done:
                folder.remove(self.path)
            self._lock.release()
        self._announce()
        return done

    def close(self) -> None:
        """Close the store and let another process have it; safe to call twice."""
        with self._turn:
            self._shut()
            self._lock.release()
        self._announce()

    def _shut(self) -> None:
        if not self._closed:
            self._closed = True
            self._store.close()

    def _announce(self) -> None:
        """Wake whoever waits for records."""
        with self._arrival:
            self._arrival.notify_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
