"""The store: one database with what it holds in memory counted, used by one thread at a time."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from skerry.run.outbox import tables
from skerry.run.outbox.ballast import Ballast
from skerry.run.outbox.clock import Clock
from skerry.run.outbox.database import DamagedError, DiskFullError, load_apsw, one_row, open_database, translated
from skerry.run.outbox.item import OVERHEAD_BYTES, Packed
from skerry.run.outbox.life import Life
from skerry.run.outbox.options import PRIORITIES, OutboxOptions
from skerry.run.outbox.room import make_room
from skerry.run.outbox.squeeze import EMPTY, FILL, PAGE_BYTES, Squeeze
from skerry.spec.errors import OutboxError, OutboxFullError
from skerry.wire.ranges import Range

Answer = TypeVar("Answer")
_LOG_PAGES = 1000  # pages of the write-ahead log after which it is brought in, without a reserve: SQLite's own default
_FRAME_BYTES = PAGE_BYTES + 24  # of a page in the log
_LOG_SHARE = 0.9  # of the reserve, so that a commit of some pages does not make the log grow
_NO_ROOM_NEEDED: tuple[list[int], list[int], str] = ([], [], "caps")
_CRITICAL = len(PRIORITIES) - 1
_CHECKED_BYTES = 32_000_000  # a store up to this size is looked through when it is opened: a second on a slow card
_TIMES_FREE = 4  # of the reserve: log and database take it once each, and as much is left to others
_SLACK_SHARE = 64  # of the cap, which is freed in one go, so that a full outbox does not delete for every record
_MOST_SLACK = 1_000_000


def fresh_epoch() -> str:
    """Return 16 hex digits that no store had before."""
    return secrets.token_hex(8)


class Store:
    """One open store file. Not safe for threads: the outbox gives it to one at a time.

    Raises what :func:`skerry.run.outbox.database.open_database` raises.
    """

    def __init__(
        self, path: Path, *, device: str, options: OutboxOptions, clock: Clock, synchronous: str, vfs: str | None
    ) -> None:
        self.path = path
        self._options = options
        self._caps = [options.cap_of(number) for number in range(len(PRIORITIES))]
        self._cap = int(options.max_size)
        self._caps_alike = not options.class_sizes
        self._slack = min(self._cap // _SLACK_SHARE, _MOST_SLACK)
        self._error = (load_apsw().Error, UnicodeDecodeError)  # the latter for a damaged text
        self.ballast = Ballast(path, int(options.ballast))
        reserved = int(options.log_bytes * _LOG_SHARE / _FRAME_BYTES)
        self._log_limit = max(reserved, 50) if options.log_bytes else _LOG_PAGES
        self.squeeze = Squeeze(self, int(options.ballast), self._log_limit * PAGE_BYTES // 2)
        self.connection = open_database(path, synchronous=synchronous, vfs=vfs)
        self.log_pages = 0
        self.connection.set_wal_hook(self._note_log)
        self.unwritten: dict[str, int] = {}
        """Losses that could not be written down yet, because nothing could."""
        self.under_way: list[Range] = []
        self.swept = 0  # up to which number it was looked for records that are too old
        """Numbers that may be on their way to the hub: they are given up last, or they would be lost and delivered."""
        self.in_doubt = False
        """Whether memory and file may differ, because an interrupt came between a commit and its counting."""
        with self._closing_on_error():
            self._read(device, clock)

    @contextmanager
    def _closing_on_error(self) -> Iterator[None]:
        try:
            yield
        except self._error as error:
            self.connection.close(True)
            raise translated(error, self.path) from error
        except (LookupError, TypeError, ValueError) as error:  # values that were never written like that
            self.connection.close(True)
            raise DamagedError(f"the store is damaged: {error!r}", where=str(self.path)) from error
        except BaseException:
            self.connection.close(True)
            raise

    def _read(self, device: str, clock: Clock) -> None:
        self.connection.execute(EMPTY)
        values = tables.read_values(self.connection)
        mark = tables.read_mark(values)
        self._clock = clock
        self.life = Life(clock, mark, tables.newest_birth(self.connection))
        if "epoch" not in values:
            self._reserve()
            values = {"device": device, "epoch": fresh_epoch(), "settled": 0, "checksum": 0, "forks": 0}
            values |= tables.mark_values(self.life.mark())
            self.within(lambda: tables.write_values(self.connection, values))
            self.checkpoint()  # or the file itself would not yet tell what it is
        self._read_values(values)
        if mark is None or mark.boot != self.life.boot:
            # Before anything is born in this boot: by the mark alone the next opening knows what that is counted from.
            with contextlib.suppress(DiskFullError):
                self.transaction(self._write_down)
        if self.path.stat().st_size <= _CHECKED_BYTES:
            tables.check(self.connection)
        self._count_held()
        if self.device != device:
            self.fork(f"this store was {self.device}'s", device=device)
        self.ballast.take()

    def _count_held(self) -> None:
        self.last_seq = tables.last_seq(self.connection)
        self.sizes, self.counts, self.mortal = tables.held(self.connection)

    def _read_values(self, values: dict[str, Any]) -> None:
        self.device, self.epoch = str(values["device"]), str(values["epoch"])
        self.settled, self.checksum = int(values["settled"]), int(values["checksum"]) % 2**64
        self.forks = int(values["forks"])

    def clear_doubt(self) -> None:
        """Read again what is kept in memory, after an interrupt: a number must not be given twice."""
        self._roll_back()
        try:
            self._read_values(tables.read_values(self.connection))
            self._count_held()
        except self._error as error:
            raise translated(error, self.path) from error
        self.in_doubt = False

    def _reserve(self) -> None:
        """Write the log, and through it the database, out to their size."""
        size = self._options.log_bytes
        if size and self.ballast.free_bytes() >= _TIMES_FREE * size:
            with contextlib.suppress(DiskFullError):  # a disk that is full already has nothing to reserve
                self.within(lambda: self.connection.execute(FILL, (size,)))
                self.within(lambda: self.connection.execute(EMPTY))

    def _note_log(self, connection: Any, name: str, pages: int) -> int:
        self.log_pages = pages
        return 0

    @property
    def log_is_long(self) -> bool:
        """Whether the write-ahead log should be brought into the database."""
        return self.log_pages >= self._log_limit

    def close(self) -> None:
        """Write down how long the store has lived, bring the log into the database, and close it."""
        with contextlib.suppress(OutboxError):
            self.transaction(self._write_down)
        with contextlib.suppress(OutboxError):
            self.is_whole = self.checkpoint()
        with contextlib.suppress(*self._error):
            # With a limit, the log would be cut to nothing now; a full disk may not give the space back.
            self.connection.execute("PRAGMA journal_size_limit = -1").fetchall()
            self.connection.close()

    abandoned = False
    """Whether it was found damaged, and has no successor yet."""

    is_whole = False
    """Whether everything was in the database itself, not in its log, when it was closed."""

    def abandon(self) -> None:
        """Close it as it is; it is of no use any more."""
        self.abandoned = True
        with contextlib.suppress(*self._error):
            self.connection.close(True)

    # -- transactions ------------------------------------------------------------------------------------------------

    def transaction(self, work: Callable[[], Answer]) -> Answer:
        """Run ``work`` and make it durable, or leave all as it was.

        On a full disk the ballast is given up, and the work tried again. Raises ``DiskFullError``, ``DamagedError``
        or another ``OutboxError``.
        """
        try:
            return self.within(work)
        except DiskFullError:
            self.squeeze.find_space()
            return self.within(work)

    def within(self, work: Callable[[], Answer]) -> Answer:
        """Run ``work`` and make it durable, or leave all as it was; once only."""
        try:
            self.connection.execute("BEGIN IMMEDIATE")
            answer = work()
            self.connection.execute("COMMIT")
        except self._error as error:
            self._roll_back()
            raise translated(error, self.path) from error
        except BaseException:
            self._roll_back()
            raise
        return answer

    def _roll_back(self) -> None:
        if self.connection.in_transaction:
            with contextlib.suppress(*self._error):
                self.connection.execute("ROLLBACK")

    def read(self, work: Callable[[], Answer]) -> Answer:
        """Run what only reads."""
        try:
            return work()
        except self._error as error:
            raise translated(error, self.path) from error

    def checkpoint(self) -> bool:
        """Bring the log into the database, so that it can be written from its begin; tell whether all of it went."""
        try:
            return bool(self._checkpoint())
        except self._error as error:
            if isinstance(translated(error, self.path), DiskFullError):
                return False
            raise translated(error, self.path) from error

    def _checkpoint(self) -> bool:
        apsw = load_apsw()
        pages, done = self.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        self.log_pages = 0 if pages == done else self.log_pages
        return bool(pages == done)

    # -- records -----------------------------------------------------------------------------------------------------

    def add(self, records: Sequence[Packed]) -> list[int]:
        """Store records durably and return their numbers; 0 for one that a full disk has no room for, counted.

        Raises
        ------
        OutboxFullError
            There is no room for a critical record; nothing of the call was stored.
        """
        try:
            return self._add(records, self._needed(records))
        except DiskFullError:
            squeezed = self.squeeze.on
            self.squeeze.find_space()
        if not (squeezed and self.squeeze.on):
            with contextlib.suppress(DiskFullError):
                return self._add(records, self._needed(records))
        return self._add_on_full_disk(records)

    def _needed(self, records: Sequence[Packed]) -> tuple[list[int], list[int], str]:
        total = sum([len(record[-1]) for record in records]) + OVERHEAD_BYTES * len(records)
        low, normal, high, critical = self.sizes
        if low + normal + high + critical + total <= self._cap and (
            self._caps_alike or all(held + total <= cap for held, cap in zip(self.sizes, self._caps, strict=True))
        ):
            return _NO_ROOM_NEEDED
        arriving = [(record.priority, record.size) for record in records]
        room = make_room(self.sizes, arriving, self._caps, self._cap, self._slack)
        return room.evict, room.dropped, "caps"

    def _add(self, records: Sequence[Packed], needed: tuple[list[int], list[int], str]) -> list[int]:
        evicting, dropped, cause = needed
        first = self.last_seq + 1
        if needed is _NO_ROOM_NEEDED and not self.unwritten:
            statements = tables.inserts(first, records)
            if len(statements) == 1:  # one statement is a transaction of its own
                self._execute(*statements[0])
                self.remember(records)
                return list(range(first, first + len(records)))
        kept: list[Packed | None] = list(records)
        for place in dropped:
            kept[place] = None
        statements = tables.inserts(first, kept)
        losses = dict(self.unwritten)
        for place in dropped:
            _count(losses, f"evicted.{PRIORITIES[records[place].priority]}.{cause}")
        freed = self.within(lambda: self._write(statements, evicting, losses, cause))
        self.unwritten = {}
        self.remember(kept)
        for priority, (size, count) in enumerate(freed):
            self.forget(priority, size, count)
        return list(range(first, first + len(records)))

    def remember(self, records: Sequence[Packed | None]) -> None:
        """Count records as stored, under the next numbers; ``None`` has only used its number up."""
        self.last_seq += len(records)
        sizes, counts = self.sizes, self.counts
        for record in records:
            if record is not None:
                priority, _, _, _, ttl_ms, payload = record
                sizes[priority] += len(payload) + OVERHEAD_BYTES
                counts[priority] += 1
                if ttl_ms is not None:
                    self.mortal = True

    def _execute(self, text: str, values: list[Any]) -> None:
        try:
            self.connection.execute(text, values)
        except self._error as error:
            self._roll_back()
            raise translated(error, self.path) from error

    def _write(
        self, statements: list[tuple[str, list[Any]]], evicting: list[int], losses: dict[str, int], cause: str
    ) -> list[tuple[int, int]]:
        freed = []
        for priority, need in enumerate(evicting or [0] * len(PRIORITIES)):
            size, count = tables.evict(self.connection, priority, need, self.under_way) if need else (0, 0)
            if count:
                _count(losses, f"evicted.{PRIORITIES[priority]}.{cause}", count)
                tables.keep_last_seq(self.connection, self.last_seq)
            freed.append((size, count))
        for text, values in statements:
            self.connection.execute(text, values)
        if losses:
            tables.count_losses(self.connection, losses)
        return freed

    def _add_on_full_disk(self, records: Sequence[Packed]) -> list[int]:
        """Put new records in the place of old ones that matter less, then only what matters most."""
        for least in (0, _CRITICAL):
            chosen = [record for record in records if record.priority >= least]
            need = 2 * sum(record.size for record in chosen) + 16 * PAGE_BYTES
            evicting = make_room(self.sizes, [], [2**62] * len(PRIORITIES), max(sum(self.sizes) - need, 0)).evict
            # A critical record is never given up for room on the disk: whoever brings the next one is told instead.
            highest = min(max((record.priority for record in chosen), default=0), _CRITICAL - 1)
            evicting = [size if priority <= highest else 0 for priority, size in enumerate(evicting)]
            if not chosen:
                break
            with contextlib.suppress(DiskFullError):
                numbers = iter(self._add(chosen, (evicting, [], "disk")))
                return [next(numbers) if record.priority >= least else self._refused(record) for record in records]
        for record in records:
            if record.priority == _CRITICAL:
                raise OutboxFullError(
                    "the disk is full, and nothing in the outbox may be given up for what comes now",
                    where=str(self.path),
                    hint="free some space: the outbox goes on by itself",
                )
        return [self._refused(record) for record in records]

    def _refused(self, record: Packed) -> int:
        _count(self.unwritten, f"refused.{PRIORITIES[record.priority]}.disk")
        return 0

    def forget(self, priority: int, size: int, count: int) -> None:
        """Count records of a class as gone."""
        self.sizes[priority] -= size
        self.counts[priority] -= count

    def settle(self, ranges: Iterable[Range], told: dict[str, int]) -> int:
        """Delete what the hub has, and count it into the audit; return how many records that were."""

        def work() -> tuple[list[int], list[int], int, int]:
            gone = tables.take_out(self.connection, ranges)
            self._write_audit(self.settled + gone[2], (self.checksum + gone[3]) % 2**64)
            if told:
                tables.tell_losses(self.connection, told)
            return gone

        sizes, counts, number, checksum = self.transaction(work)
        self.settled, self.checksum = self.settled + number, (self.checksum + checksum) % 2**64
        for priority, (size, count) in enumerate(zip(sizes, counts, strict=True)):
            self.forget(priority, size, count)
        return number

    def _write_audit(self, settled: int, checksum: int) -> None:
        values = {"settled": settled, "checksum": tables.signed(checksum), "last_seq": self.last_seq}
        tables.write_values(self.connection, values)

    def waiting(self, gaps: Sequence[Range]) -> Iterator[tables.Row]:
        """Yield the rows within ranges of numbers, the highest class first, within it the oldest."""
        try:
            yield from tables.waiting(self.connection, self.counts, gaps, self.now() if self.mortal else None)
        except self._error as error:
            raise translated(error, self.path) from error

    def discard(self, spoiled: Sequence[int]) -> None:
        """Delete records whose content is not what was stored, counted as damaged."""

        def work() -> tuple[list[int], list[int]]:
            sizes, counts, _, _ = tables.take_out(self.connection, [(seq, seq) for seq in spoiled])
            losses = {f"damaged.{PRIORITIES[number]}": count for number, count in enumerate(counts) if count}
            tables.count_losses(self.connection, losses)
            tables.keep_last_seq(self.connection, self.last_seq)
            return sizes, counts

        for priority, (size, count) in enumerate(zip(*self.transaction(work), strict=True)):
            self.forget(priority, size, count)

    def now(self) -> tables.Now:
        """Return what decides which records are too old."""
        return tables.Now(self.life.now_ms(), self.life.base_ms, self.life.wall_ms())

    def fork(self, reason: str, *, device: str | None = None) -> str:
        """Begin a new epoch, in which all that waits is sent under new identities."""
        epoch, name = fresh_epoch(), device or self.device

        def work() -> None:
            tables.carry_losses(self.connection)
            values = {"device": name, "epoch": epoch, "settled": 0, "checksum": 0, "forks": self.forks + 1}
            tables.write_values(self.connection, {**values, "fork_reason": reason})

        self.transaction(work)
        self.device, self.epoch, self.settled, self.checksum, self.forks = name, epoch, 0, 0, self.forks + 1
        return epoch

    def adopt_mark(self) -> None:
        """Go on with the life that is written down, another store's."""
        self.life = Life(self._clock, tables.read_mark(tables.read_values(self.connection)))

    def write_down(self) -> None:
        """Write down how long the store has lived, and losses that only memory knows."""
        self.transaction(self._write_down)
        self.unwritten = {}

    def _write_down(self) -> None:
        tables.write_values(self.connection, tables.mark_values(self.life.mark()))
        if self.unwritten:
            tables.count_losses(self.connection, self.unwritten)

    def owes(self) -> bool:
        """Tell whether there are dead letters, or losses that the hub was not told of."""
        query = "SELECT EXISTS (SELECT 1 FROM dead) OR EXISTS (SELECT 1 FROM loss WHERE count > told)"
        return bool(self.unwritten) or bool(self.read(lambda: one_row(self.connection, query)[0]))

    def losses(self) -> dict[str, int]:
        """Return the losses of this epoch, those that only memory knows included."""
        found = self.read(lambda: tables.read_losses(self.connection))
        for name, count in self.unwritten.items():
            _count(found, name, count)
        return found


def _count(losses: dict[str, int], name: str, more: int = 1) -> None:
    losses[name] = losses.get(name, 0) + more
