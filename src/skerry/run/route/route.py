"""A route: decides for records that were answered locally whether the cloud is asked, and asks it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from skerry.run.route import breaker
from skerry.run.route.alarm import ALARM_FILE, Alarm, FileAlarm
from skerry.run.route.allowance import Allowance
from skerry.run.route.client import CloudClient, Traffic
from skerry.run.route.decision import BYTES, HARD, MONEY, SURE, WAITS, Situation, decide
from skerry.run.route.evidence import ALWAYS_ASK, Evidence, read_evidence, require_fresh
from skerry.run.route.foresight import Foresight
from skerry.run.route.identity import digests_in_use
from skerry.run.route.memory import Memory
from skerry.run.route.oracle import Oracle
from skerry.run.route.privacy import Gatekeeper
from skerry.run.route.protocol import Answer, BadAnswerError
from skerry.run.route.senses import Feeling, Senses
from skerry.run.route.subject import Subject
from skerry.run.route.tally import FAILED, RouteTally
from skerry.spec.cloud import Cloud
from skerry.spec.errors import StateUnwritableError
from skerry.spec.pipeline import Privacy
from skerry.spec.ports import Context
from skerry.spec.record import Record
from skerry.spec.summary import RouteState

KEPT_BACK = 0.2
"""Share of the time to a record's deadline that an exchange may not use: the stages after it want some."""
_ALLOWANCE_FILE = "spent.json"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What the pipeline file says of a route, and where its evidence is."""

    stage: str
    cloud: Cloud
    subject: Subject
    privacy: Mapping[str, Privacy]
    folder: Path
    """The build, ``.skerry/<name>``."""
    data: str | None = None
    """The texts to calibrate on, relative to the pipeline file."""
    where: str = ""


class Route:
    """What all workers of a stage share: the threshold, the cloud and all that speaks against asking it.

    ``alarm`` is a door: whoever watches for drift may put another callable there; by default a file
    ``.skerry/<name>/drift`` rings it. ``senses`` likewise.
    """

    def __init__(self, plan: Plan, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.plan = plan
        self.alarm: Alarm = FileAlarm(plan.folder / ALARM_FILE)
        self.senses: Callable[[], Feeling] | None = None
        self.tally = RouteTally()
        self.waiting: Callable[[], int] = lambda: 0
        self._clock, self._wall = clock, time.time
        self._lock = threading.Lock()
        self._users = 0
        self._traffic, self._accounted = Traffic(), Traffic()
        self._circuit = breaker.Circuit()
        self._foresight = Foresight(float(plan.cloud.deadline_certainty))
        self._memory = Memory(plan.cloud.cache)
        self._gate = Gatekeeper(plan.privacy, plan.cloud)
        self._evidence: Evidence | None = None

    def open(self, context: Context) -> None:
        """Read the evidence and get ready; the first worker does it for all.

        Raises ``CalibrationError`` where nobody calibrated, or for something else than what is in use, and
        ``SpecError`` for a URL or a secret that will not do.
        """
        with self._lock:
            self._users += 1
            if self._users > 1:
                return
            try:
                self._open(context)
            except BaseException:
                self._users -= 1
                raise

    def _open(self, context: Context) -> None:
        plan = self.plan
        evidence = read_evidence(plan.folder, plan.stage, where=plan.where)
        digests = digests_in_use(plan.subject, plan.cloud, context, plan.data)
        require_fresh(evidence, plan.cloud, digests, where=plan.where)
        self._evidence, self._log = evidence, context.log
        self._model = context.models(plan.subject.model) if context.models is not None else None
        self._client = client_of(plan, context, self._traffic)
        self._oracle = Oracle(self._client, plan.subject, plan.cloud, context)
        self._allowance = Allowance(
            context.state / _ALLOWANCE_FILE, bytes_per_day=plan.cloud.bytes_per_day,
            money_per_day=plan.cloud.money_per_day,
        )  # fmt: skip
        self._senses = self.senses or Senses(self._client.host)

    @property
    def threshold(self) -> float:
        """From which score on a local answer stands now: the conservative one while anything is not as calibrated."""
        return ALWAYS_ASK if self.is_alarmed or self._evidence is None else self._evidence.threshold

    @property
    def is_alarmed(self) -> bool:
        """Whether the data, the local variant or the model in the cloud are not those of the calibration."""
        if self.alarm() or getattr(self._model, "rung", 0) != 0:
            return True
        calibrated = self._evidence.digests.get("remote", "") if self._evidence is not None else ""
        return bool(self._client.remote and calibrated and self._client.remote != calibrated)

    # -- answering ---------------------------------------------------------------------------------------------------

    def answer(self, records: Sequence[Record]) -> list[tuple[Record, str]]:
        """Let the cloud answer those of some locally answered records for which that pays.

        Returns those that would be better answered later, with what may be sent for each.
        """
        plan, threshold = self.plan, self.threshold
        asked: list[tuple[Record, str]] = []
        later: list[tuple[Record, str]] = []
        for record in records:
            score = plan.subject.score(record.fields, plan.cloud.rank)
            if score >= threshold:  # as the first of the policies says: for most records nothing else is looked at
                record.fields[plan.cloud.by_to] = "local"
                self.tally.stood(SURE)
                continue
            text = self._gate.sent(record.fields, plan.subject.sent)
            known = self._memory.get(text) if text is not None else None
            if known is not None and self._take(record, known, cached=True):
                continue
            record.fields[plan.cloud.by_to] = "local"
            reason = self._reason(record, text, score, threshold, bool(asked))
            if reason == HARD and text is not None:
                asked.append((record, text))
                continue
            self.tally.stood(reason)
            if reason in WAITS and text is not None:
                later.append((record, text))
        if asked:
            later += self._ask(asked)
        return later

    def _reason(self, record: Record, text: str | None, score: float, threshold: float, admitted: bool) -> str:
        """Decide on one record; ``admitted`` tells that one before it in the batch has passed the circuit already."""
        cloud, feeling, now = self.plan.cloud, self._senses(), self._clock()
        left_bytes, left_money = self._allowance.left(self._wall())
        nbytes, money = self._price(text or "")
        with self._lock:
            closed = admitted or breaker.may_pass(self._circuit, now)
            decision = decide(Situation(
                score=score, threshold=threshold, may_leave=text is not None, linked=feeling.linked, closed=closed,
                left_s=_left_s(record), predicted_s=self._foresight.predict(now),
                bytes_needed=nbytes, bytes_left=left_bytes, cost=money, money_left=left_money,
                battery=feeling.battery, least_battery=float(cloud.battery),
                temperature=feeling.temperature, most_temperature=float(cloud.temperature),
            ))  # fmt: skip
            if decision.ask and not admitted:
                self._circuit = breaker.passed(self._circuit)
        if not decision.ask:
            return decision.reason
        try:
            taken = self._allowance.take(nbytes, money, self._wall())
        except StateUnwritableError as error:  # what cannot be written down must not be spent
            self.tally.fault("state")
            self._log.warning("nothing is spent on the cloud: %s", error)
            taken = False
        if taken:
            return HARD
        if not admitted:  # another thread spent the last of it meanwhile
            with self._lock:
                self._circuit = breaker.given_up(self._circuit)
        return MONEY if left_bytes is None else BYTES

    def _price(self, text: str) -> tuple[float, float]:
        cost, nbytes = self.plan.cloud.cost, self._client.bytes_for(text)
        return nbytes, cost.request + cost.megabyte * nbytes / 1e6

    def _ask(self, asked: Sequence[tuple[Record, str]]) -> list[tuple[Record, str]]:
        """Ask for several records at once; return those that got no answer."""
        lefts = [left for record, _ in asked if (left := _left_s(record)) is not None]
        timeout = min([float(self.plan.cloud.timeout), *lefts])
        answers = self.consult([text for _, text in asked], timeout)
        if answers is None:
            self.tally.stood(FAILED, len(asked))
            return list(asked)
        later = []
        for (record, text), answer in zip(asked, answers, strict=True):
            if self._take(record, answer, cached=False):
                self._memory.put(text, answer)
            else:
                self.tally.stood(FAILED)
                later.append((record, text))
        return later

    def consult(self, texts: Sequence[str], timeout_s: float) -> list[Answer] | None:
        """Ask for texts whose price was taken already; ``None`` where no sound answers came, which is counted."""
        begin = self._clock()
        fault = ""
        answers: list[Answer] | None = None
        try:
            answers = self._oracle.ask(texts, timeout_s)
        except BadAnswerError as error:
            fault = error.reason
            self._log.debug("the cloud's answer is none: %s", error)
        except TimeoutError:
            fault = "timeout"
        except OSError as error:
            fault = "timeout" if "imeout" in str(error) else "unreachable"
        now = self._clock()
        if fault in {"", "timeout"}:
            self._foresight.learn(now - begin, now)
        if fault:
            self.tally.fault(fault)
        with self._lock:
            self._circuit = breaker.after(self._circuit, not fault, now, self.plan.cloud.breaker)
            before, self._accounted = self._accounted, msgspec.structs.replace(self._traffic)
            nbytes, asked = self._accounted.bytes - before.bytes, self._accounted.texts - before.texts
        self._settle(texts, nbytes, asked)
        return answers

    def _settle(self, texts: Sequence[str], spent: int, asked: int) -> None:
        """Correct what was taken for an exchange by what it really took, in bytes and in questions."""
        cost = self.plan.cloud.cost
        taken_bytes = sum(self._price(text)[0] for text in texts)
        money = cost.request * asked + cost.megabyte * spent / 1e6
        taken_money = sum(self._price(text)[1] for text in texts)
        self.tally.paid(money)
        try:
            self._allowance.spend(spent - taken_bytes, money - taken_money, self._wall())
        except StateUnwritableError as error:
            self.tally.fault("state")
            self._log.warning("what was spent on the cloud is not written down: %s", error)

    def _take(self, record: Record, answer: Answer, *, cached: bool) -> bool:
        """Write the cloud's answer into a record; where it does not fit, count that and leave the local one."""
        subject, fields = self.plan.subject, record.fields
        local = subject.answer(fields)
        try:
            subject.take(fields, answer)
        except BadAnswerError as error:
            self.tally.fault(error.reason)
            return False
        fields[self.plan.cloud.by_to] = "cache" if cached else "cloud"
        self.tally.offloaded(agreed=subject.loss(local, subject.answer(fields)) < 0.005, cached=cached)
        return True

    # -- later -------------------------------------------------------------------------------------------------------

    def sendable(self, fields: Mapping[str, Any]) -> str | None:
        """Return what may be sent for a record under the rules of now; ``None`` where nothing may."""
        return self._gate.sent(fields, self.plan.subject.sent)

    def may_consult(self, text: str, *, joins: bool = False) -> bool:
        """Tell whether a record that waited may be asked for now, and take its price.

        ``joins`` tells that it would go with one that may already.
        """
        return self._reason(Record({}), text, 0.0, ALWAYS_ASK, joins) == HARD

    @property
    def may_answer(self) -> bool:
        """Whether the cloud may be asked now, as far as link and circuit go."""
        with self._lock:
            return self._senses().linked is not False and self._circuit.opened_s is None

    def revise(self, record: Record, answer: Answer) -> bool:
        """Write a late answer into a record; tell whether it fits."""
        try:
            self.plan.subject.take(record.fields, answer)
        except BadAnswerError as error:
            self.tally.fault(error.reason)
            return False
        record.fields[self.plan.cloud.by_to] = "cloud"
        self.tally.revised()
        return True

    def state(self) -> RouteState | None:
        """Return what was counted so far; ``None`` before it was opened."""
        if self._evidence is None:
            return None
        traffic = self._traffic
        return self.tally.state(
            threshold=self._evidence.threshold, alarmed=self.is_alarmed, waiting=self.waiting(),
            requests=traffic.requests, nbytes=traffic.bytes,
        )  # fmt: skip

    def close(self) -> None:
        """Close the connections when the last worker closes; safe to call twice."""
        with self._lock:
            self._users = max(0, self._users - 1)
            last = self._users == 0 and self._evidence is not None
        if last:
            self._oracle.close()


def client_of(plan: Plan, context: Context, traffic: Traffic | None = None) -> CloudClient:
    """Return a client for the cloud of a plan; raises ``SpecError``, ``LabelsError`` and ``DependencyError``."""
    return CloudClient(
        plan.cloud, plan.subject.labels(context.home), field=plan.subject.sent, home=context.home,
        insecure=context.insecure, where=plan.where, traffic=traffic,
    )  # fmt: skip


def _left_s(record: Record) -> float | None:
    """Return the seconds that an exchange may take before the record expires."""
    if not record.deadline_ns:
        return None
    return (1 - KEPT_BACK) * (record.deadline_ns - time.monotonic_ns()) / 1e9
