"""The conductor: which records a lane sends now, and what follows from the answer. Knows no network and no thread.

It takes the time, the store and random numbers from outside and is called by the lanes in any order; every method is
one step under its lock.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence

import msgspec

from skerry.run.uplink import circuit as circuits
from skerry.run.uplink import pace as paces
from skerry.run.uplink.audit import Holding, fault_of
from skerry.run.uplink.backoff import Draw
from skerry.run.uplink.circuit import Circuit
from skerry.run.uplink.decision import AFTER_EVENT_S, Send, Situation, Wait, decide
from skerry.run.uplink.faults import impostor_told, mismatch_taken_told, mismatch_told, refusal_told, unbelieved_told
from skerry.run.uplink.hours import local_minute, quiet_for, read_hours
from skerry.run.uplink.job import Clock, Job, Shelf, Store
from skerry.run.uplink.judgement import Judgement, judge
from skerry.run.uplink.options import UplinkOptions
from skerry.run.uplink.pace import Pace
from skerry.run.uplink.packing import Packed, Packer
from skerry.run.uplink.purse import Book, BookInMemory, Purse
from skerry.run.uplink.status import State, UplinkStatus
from skerry.run.uplink.transport import Answer
from skerry.spec.errors import OutboxError, WireError
from skerry.spec.ports import Signer
from skerry.wire.ranges import from_numbers, merge, total
from skerry.wire.receipt import Receipt, decode_receipt
from skerry.wire.record import WireRecord, record_digest

_CRITICAL = 3
_MOST_STORED = 4 << 20  # bytes of records as stored that one batch holds: far below what the wire takes
_SHORTEST_TOLD_S = 0.5  # a hub that wants to be asked again at once is asked after our own pauses
_TRIES_ALONE = 3  # how often a record is offered alone to a hub that takes no other one either
_REFUSED_PAUSE_S = 30.0  # the first pause when the hub does not take us: people have to mend that


class Conductor:
    """Decides for all lanes of an uplink.

    Parameters
    ----------
    store:
        The outbox.
    options:
        What is allowed.
    device:
        The device's name.
    signer:
        Returns who vouches for the batches now; ``None`` for nobody.
    clock, now, draw, minute:
        The device's clocks, seconds of a monotonic clock, random numbers of [0, 1), and the local minute of the day.
    overhead, opening:
        Bytes that an exchange and a new connection cost beyond the batch.
    book:
        Where the day's budget is kept.
    """

    def __init__(
        self,
        store: Store,
        options: UplinkOptions,
        *,
        device: str,
        signer: Callable[[], Signer] | None,
        clock: Clock,
        now: Callable[[], float] = time.monotonic,
        draw: Draw = random.random,
        minute: Callable[[], float] | None = None,
        overhead: int = 600,
        opening: int = 6000,
        book: Book | None = None,
        log: logging.Logger | None = None,
    ) -> None:
        self._options = options
        self._shelves = [Shelf(store)]
        self._clock, self._now, self._draw = clock, now, draw
        self._minute = minute or local_minute
        self._spans = read_hours(options.quiet_hours)
        self._overhead, self._opening = overhead, opening
        self._log = log or logging.getLogger("skerry.uplink")
        self._lock = threading.RLock()
        self._jobs: list[Job] = []
        self._circuit = Circuit()
        self._pace = Pace(target_s=options.batch_time, most=options.most_records)
        self._purse = Purse(options.budgets, book or BookInMemory(), clock)
        self._link: str = options.link or "unknown"
        self._status = UplinkStatus(link=self._link)
        self._told: dict[str, str] = {}
        self._has_taken = False
        self._packer = Packer(device, signer, clock, self._bury_if_alone)

    def next(self) -> Job | Wait:
        """Return the next batch, or for how long to wait and why."""
        with self._lock:
            self._purse.roll()
            hoped = decide(self._situation(pending=1 << 40, has_critical=True, waited_s=float("inf")))
            if isinstance(hoped, Wait):  # whatever there is: the stores need not be asked
                return self._waiting(hoped)
            waits: list[Wait] = []
            for shelf in reversed(self._shelves):  # what others left behind is older than what is our own
                found = self._from(shelf)
                if isinstance(found, Job):
                    return found
                waits.append(found)
            return self._waiting(min(waits, key=lambda wait: wait.seconds))

    def _from(self, shelf: Shelf) -> Job | Wait:
        """Return the next batch of one store."""
        shelf.follow()
        under_way = merge(*(job.ranges for job in self._jobs if job.shelf is shelf))
        records = shelf.pending(self._pace.limit(), _MOST_STORED, under_way)
        if shelf.fork is not None and not records:
            if under_way:
                return Wait(AFTER_EVENT_S, "lanes")
            self._fork(shelf, shelf.fork.reason)
            return Wait(0.0, "lanes")
        shelf.follow()  # reading may have found damage
        critical = [record for record in records if record.priority >= _CRITICAL]
        at = self._situation(pending=len(records), has_critical=bool(critical), waited_s=self._oldest_s(records))
        verdict = decide(at)
        if isinstance(verdict, Wait):
            return verdict
        return self._job(shelf, verdict, critical if verdict.only_critical else records)

    def _fork(self, shelf: Shelf, reason: str) -> None:
        """Take a new epoch, now that nothing is in doubt under the old one; a hub that always wants one gets pauses."""
        epoch = shelf.take_fork()
        self._failed(self._now())
        self._count(forks=1)
        self._log.warning("%s: what is unsent goes on in the new epoch %s", reason, epoch)

    def add(self, store: Store) -> None:
        """Send another store too: one that a process left behind."""
        with self._lock:
            self._shelves.append(Shelf(store))

    def emptied(self) -> list[Store]:
        """Return the stores of others that have nothing left to send, and forget them."""
        with self._lock:
            busy = {id(job.shelf) for job in self._jobs}
            idle = [shelf for shelf in self._shelves[1:] if id(shelf) not in busy and not shelf.store.pending(1, 1)]
            self._shelves = [shelf for shelf in self._shelves if shelf not in idle]
            return [shelf.store for shelf in idle]

    def _situation(self, *, pending: int, has_critical: bool, waited_s: float) -> Situation:
        options = self._options
        return Situation(
            now=self._now(),
            pending=pending,
            full_at=self._pace.limit(),
            waited_s=waited_s,
            has_critical=has_critical,
            in_flight=len(self._jobs),
            most_in_flight=options.in_flight,
            circuit=self._circuit,
            quiet_s=60.0 * quiet_for(self._spans, self._minute()) if self._spans else 0.0,
            budget=self._budget(),
            day_left_s=self._purse.left_s,
            linger_s=options.linger,
            critical_in_quiet_hours=options.critical_in_quiet_hours,
            critical_over_budget=options.critical_over_budget,
        )

    def _budget(self) -> int | None:
        """Return the bytes that a new exchange may take of today's budget, ``None`` for no limit."""
        free = self._purse.free(self._link)
        return None if free is None else max(0, free - self._opening)

    def _oldest_s(self, records: Sequence[WireRecord]) -> float:
        """Return for how long the first of the records waits; for ever when it is from another boot."""
        boot, now = self._clock.boot(), self._clock.mono_us()
        if any(record.moment.boot != boot for record in records):
            return float("inf")
        return max(((now - record.mono_us) / 1e6 for record in records), default=0.0)

    def _job(self, shelf: Shelf, verdict: Send, records: Sequence[WireRecord]) -> Job | Wait:
        most = None if verdict.most_bytes is None else verdict.most_bytes - self._overhead
        packed = self._packer.pack(shelf, records, most)
        if packed == "too dear":
            return self._waiting(Wait(self._purse.left_s, "budget"))
        if packed == "nothing":
            return Wait(0.0, "idle")
        return self._begin(shelf, packed, was_full=len(records) >= self._pace.limit())

    def _begin(self, shelf: Shelf, packed: Packed, *, was_full: bool) -> Job:
        job = Job(
            shelf=shelf,
            batch=packed.batch,
            losses=packed.header.losses,
            epoch=packed.header.epoch,
            ranges=from_numbers(record.seq for record in packed.records),
            digests={record.seq: record_digest(record) for record in packed.records},
            base=Holding(*shelf.store.audit()),
            begun=self._now(),
            set_aside=len(packed.batch) + self._overhead + self._opening,
            link=self._link,
            was_full=was_full,
            in_flight=len(self._jobs) + 1,
        )
        self._jobs.append(job)
        self._purse.set_aside(job.link, job.set_aside)
        self._count(batches=1, records=len(packed.records))
        self._state("sending", "")
        return job

    def answered(self, job: Job, answer: Answer, traffic: int) -> None:
        """Fold in an answer, with the bytes on the wire that the exchange took."""
        with self._lock:
            self._end(job, traffic)
            if not answer.is_hub or 300 <= answer.status < 400:
                self._impostor(job, answer)
                return
            if answer.retry_after_s is not None:
                self._circuit = circuits.put_off(self._circuit, self._now(), answer.retry_after_s)
            if answer.status == 200:
                self._receipt(job, answer)
            elif answer.status in {408, 425, 429, 503}:
                self._put_off(job, answer)
            elif answer.status in {400, 413, 422}:
                self._batch_refused(job, answer)
            else:
                self._refused(job, answer)

    def broke(self, job: Job, reason: str, traffic: int, *, timed_out: bool = False) -> None:
        """Fold in an exchange that ended without an answer."""
        with self._lock:
            self._end(job, traffic)
            self._count(lost=1)
            if timed_out:
                self._pace = paces.lost(self._pace)
            self._failed(job.begun)
            self._state("waiting", reason)

    def _end(self, job: Job, traffic: int) -> None:
        self._jobs.remove(job)
        self._purse.roll()
        self._purse.spend(job.link, traffic, set_aside=job.set_aside)
        self._count(bytes=traffic)

    def _receipt(self, job: Job, answer: Answer) -> None:
        """Settle what the hub holds, when the receipt is sound and the hub's books agree with ours."""
        try:
            receipt = decode_receipt(answer.body)
        except WireError as error:
            self._impostor(job, answer, error.message)
            return
        judgement = judge(receipt, job.epoch, job.ranges)
        if judgement.fault:
            self._distrust(job, unbelieved_told(judgement.fault))
            return
        fault = self._audit_fault(job, receipt, judgement)
        if fault and self._options.mismatch == "stop":
            self._distrust(job, mismatch_told(fault))
            return
        if fault:
            self._count(distrusted=1)
            self._tell("distrusted", mismatch_taken_told(fault))
            job.shelf.want_new_books(job.epoch)
        try:
            self._settle(job, judgement)
        except OutboxError as error:  # a full disk, say: the records stay, are sent again, and are duplicates there
            self._failed(job.begun)
            self._state("waiting", error.message)
            return
        self._succeeded(job, total(judgement.committed), moved=not judgement.forked or bool(judgement.committed))

    def _settle(self, job: Job, judgement: Judgement) -> None:
        shelf, settled = job.shelf, total(judgement.committed)
        shelf.store.settle(judgement.committed, epoch=job.epoch, told=job.losses)
        self._count(acknowledged=settled, dead=len(judgement.dead), unanswered=judgement.unanswered)
        if shelf.store.epoch != job.epoch:
            return  # the store was found damaged meanwhile: these numbers are other records' now
        for seq, reason in judgement.dead:
            shelf.store.bury(seq, reason)
        shelf.suspects.cleared(job.digests)
        if judgement.forked:
            reason = f"the hub holds other records under {total(judgement.forked)} of our numbers"
            shelf.want_fork(reason, judgement.forked)
        if judgement.unanswered and not settled:
            self._failed(job.begun)  # else the same records would be sent again and again without a pause

    def _audit_fault(self, job: Job, receipt: Receipt, judgement: Judgement) -> str:
        numbers = [seq for first, last in judgement.committed for seq in range(first, last + 1)]
        now = Holding(len(numbers), sum(job.digests[seq] for seq in numbers) % (1 << 64))
        return fault_of(job.base.plus(now), Holding(receipt.count, receipt.checksum))

    def _succeeded(self, job: Job, records: int, *, moved: bool) -> None:
        """Fold in a receipt; one that ``moved`` nothing but numbers to a new epoch does not end the pauses."""
        elapsed_s = self._now() - job.begun
        if moved:
            self._circuit = circuits.succeeded(self._circuit, job.begun)
        self._pace = paces.acknowledged(
            self._pace, len(job.digests), len(job.batch), elapsed_s, job.in_flight, was_full=job.was_full
        )
        if records:
            self._has_taken = True
            self._told.clear()
        self._state("sending" if self._jobs else "idle", "")

    def _put_off(self, job: Job, answer: Answer) -> None:
        self._count(put_off=1)
        if (answer.retry_after_s or 0.0) < _SHORTEST_TOLD_S:
            self._failed(job.begun)
        self._state("waiting", f"the hub is busy ({answer.status})")

    def _batch_refused(self, job: Job, answer: Answer) -> None:
        """Halve a batch that the hub cannot read or finds too large, until the record that is to blame stands alone."""
        self._count(refused=1)
        if answer.status == 413:
            self._pace = paces.too_large(self._pace, len(job.batch))
        if self._has_taken:
            self._circuit = circuits.succeeded(self._circuit, job.begun)
        reason = f"the hub refuses it ({answer.status}): {answer.excerpt()}"
        if not self._has_taken and len(job.digests) == 1 and job.shelf.suspects.tries(*job.digests) < _TRIES_ALONE:
            # A hub that takes nothing at all is broken: it must not turn everything into dead letters.
            self._failed(job.begun, slow=True)
            self._state("refused", reason)
        elif job.shelf.store.epoch == job.epoch:
            self._has_taken = False
            self._bury_if_alone(job.shelf, list(job.digests), reason)

    def _bury_if_alone(self, shelf: Shelf, seqs: Sequence[int], reason: str) -> None:
        seq = shelf.suspects.refused(seqs)
        if seq is not None:
            shelf.store.bury(seq, reason[:300])
            self._count(dead=1)
            self._log.warning("record %s is a dead letter: %s", seq, reason[:300])

    def _refused(self, job: Job, answer: Answer) -> None:
        self._count(refused=1)
        why = refusal_told(answer)
        self._failed(job.begun, slow=answer.status < 500)
        self._state("refused", why)
        self._tell("refused", why)

    def _impostor(self, job: Job, answer: Answer, what: str = "") -> None:
        self._count(impostors=1)
        why = impostor_told(answer, what)
        self._failed(job.begun)
        self._state("impostor", why)
        self._tell("impostor", why)

    def _distrust(self, job: Job, why: str) -> None:
        self._count(distrusted=1)
        self._failed(job.begun, slow=True)
        self._state("distrusted", why)
        self._tell("distrusted", why)

    def _failed(self, begun: float, *, slow: bool = False) -> None:
        first_s = max(self._options.first_pause, _REFUSED_PAUSE_S) if slow else self._options.first_pause
        longest_s = max(first_s, self._options.longest_pause)
        self._circuit = circuits.failed(
            self._circuit, begun, self._now(), first_s=first_s, longest_s=longest_s, draw=self._draw
        )

    def link_is(self, kind: str, *, came_up: bool = False) -> None:
        """Take note of the class of the link in use; when it just came up, the hub is tried soon."""
        with self._lock:
            self._link = kind
            self._status = msgspec.structs.replace(self._status, link=kind)
            if came_up:
                self.hasten()

    def hasten(self) -> None:
        """Take note that what stood in the way is gone: the hub is tried soon."""
        with self._lock:
            first_s = self._options.first_pause
            self._circuit = circuits.nudged(self._circuit, self._now(), first_s=first_s, draw=self._draw)

    def charge(self, traffic: int) -> None:
        """Take bytes that went over the wire for something else (blobs, a new certificate) from the budget."""
        with self._lock:
            self._purse.spend(self._link, traffic)
            self._count(bytes=traffic)

    def wait_beside(self, size: int) -> float:
        """Return for how long something of ``size`` bytes beside the records has to wait; 0 when it may go now."""
        with self._lock:
            self._purse.roll()
            at = self._situation(pending=1, has_critical=False, waited_s=float("inf"))
            verdict = decide(msgspec.structs.replace(at, in_flight=0))
            if isinstance(verdict, Wait):
                return max(verdict.seconds, 0.05)
            is_over = verdict.most_bytes is not None and size > verdict.most_bytes
            return max(self._purse.left_s, 0.05) if is_over else 0.0

    def told_to_wait(self, seconds: float) -> None:
        """Fold in that the hub wants to be left alone, said to something beside the records."""
        with self._lock:
            self._circuit = circuits.put_off(self._circuit, self._now(), seconds)

    def beside(self, begun: float, *, answered: bool) -> None:
        """Fold in whether something beside the records, begun at ``begun``, got an answer of the hub."""
        with self._lock:
            if answered:
                self._circuit = circuits.succeeded(self._circuit, begun)
            else:
                self._failed(begun)

    def close(self) -> None:
        """Write down what was spent."""
        with self._lock:
            self._purse.close()
            self._state("closed", "")

    def note(self, **counts: int) -> None:
        """Add to counts of the status that are not the conductor's own."""
        with self._lock:
            self._count(**counts)

    def status(self) -> UplinkStatus:
        """Return the status."""
        with self._lock:
            return msgspec.structs.replace(
                self._status,
                in_flight=len(self._jobs),
                batch_records=self._pace.limit(),
                spent=self._purse.spent,
            )

    def _waiting(self, wait: Wait) -> Wait:
        if wait.why == "idle" and not self._jobs and self._circuit.is_closed:
            self._state("idle", "")
        elif wait.why in {"quiet hours", "budget"}:
            self._state("waiting", f"{wait.why}, for {wait.seconds:.0f} s more")
        return wait

    def _state(self, state: State, why: str) -> None:
        self._status = msgspec.structs.replace(self._status, state=state, why=why)

    def _count(self, **counts: int) -> None:
        now = {name: getattr(self._status, name) + number for name, number in counts.items()}
        self._status = msgspec.structs.replace(self._status, **now)

    def _tell(self, kind: str, text: str) -> None:
        """Say something once, until it changes or records get through again."""
        if self._told.get(kind) != text:
            self._told[kind] = text
            self._log.warning("%s", text)
