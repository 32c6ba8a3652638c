"""A trial: a candidate beside the baseline, each in a process of its own and under limits, and the figures it gives.

Both children are pinned to the same cores and never work at once: the baseline answers a few texts, then the candidate
answers the same ones, and so on, until the interval of their ratio is tight or the rung's runs are used up. A candidate
that crashes, runs out of memory or hangs is a result (:class:`~skerry.build.contender.Failure`). ``docs/measuring.md``
tells the method.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import msgspec

from skerry.build import quality
from skerry.build.artifact import Artifact
from skerry.build.contender import Contender, ContenderError, Failure, confined, described
from skerry.build.exchange import Answer, Answers, Asked, Batch, Reply, Request, Times, Turn, asked
from skerry.build.figures import Estimate, Figures
from skerry.build.halving import Rung
from skerry.build.items import Item
from skerry.build.limits import Limits, MemoryBy, choose_cores
from skerry.build.rows import TOKENS
from skerry.build.turns import LengthFigures, Turns
from skerry.device.energy import EnergyMeter
from skerry.run.tokens import HashedTokens, Tokens, VocabularyTokens, sound_text
from skerry.spec.errors import ModelError, SpecError
from skerry.spec.ports import Array

VERSION = 2
"""Counts changes of what is measured, so that cached figures of older ones are not used."""

R = TypeVar("R", bound=Reply)


class Pace(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a trial goes about it.

    Parameters
    ----------
    items, lead:
        Texts of a turn whose times count, and texts before them whose times do not: after the other process has
        worked, the caches hold nothing of this one.
    warm_up:
        Texts answered before the first turn.
    least_turns, least_share:
        At least so many turns, and this share of the rung's runs, come before an interval may end the measuring: the
        99th percentile and the lengths need more texts than the ratio does.
    tightness:
        How far the interval of the speedup may reach to either side, as a share of it.
    batch:
        Texts at once for the throughput.
    load_s:
        Seconds that loading may take: a large model from a slow card takes one minute.
    patience, patience_s:
        A candidate that takes so many times as long as the baseline is hopeless, but it has at least so many seconds.
    """

    items: int = 4
    lead: int = 1
    warm_up: int = 8
    least_turns: int = 8
    least_share: float = 1 / 3
    tightness: float = 0.03
    batch: int = 16
    load_s: float = 120.0
    patience: float = 100.0
    patience_s: float = 10.0


class Measured(Figures, frozen=True, kw_only=True):
    """The figures of a candidate, and how they were come by.

    Parameters
    ----------
    lengths:
        Latency and speedup by the length of the texts.
    cpu_speedup:
        The baseline's processor time divided by this one's: what to look at where ``preempted`` is high.
    preempted:
        The share of turns in which another process took a core away, 0 to 1.
    threads, cores, memory_by:
        What the candidate used, the processors it was pinned to, and what limited its memory.
    turns:
        How many were measured.
    loads_ms:
        Every load that ``load_ms`` is the median of.
    notes:
        What did not work or is over a limit, in sentences.
    """

    lengths: tuple[LengthFigures, ...] = ()
    cpu_speedup: Estimate = Estimate(1.0, 1.0, 1.0)
    preempted: float = 0.0
    threads: int = 1
    cores: tuple[int, ...] = ()
    memory_by: MemoryBy = "none"
    turns: int = 0
    loads_ms: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()


class Trials:
    """Trials of many candidates against one baseline, which stays loaded; a context manager.

    The children live no longer than the thread that opened them, and end with the context, on Ctrl-C too.

    Parameters
    ----------
    baseline:
        The model as it was given; it is not limited in memory.
    texts:
        What both answer, texts or rows of arrays; the times are of those drawn from all, the quality of the first ones.
    limits:
        What a candidate may use.
    threads:
        Threads of the baseline.
    metrics:
        Names of metrics (:mod:`skerry.build.quality`) that the quality is measured by.
    truth:
        The right answer to each text, for metrics that need one; or by metric, where they need different ones.
    output:
        For rows of arrays, the place of the output that is judged among those of the model.
    seed:
        Decides which texts come when, and the drawings of the intervals.

    Raises
    ------
    SpecError
        There are no texts, or a metric is unknown.
    """

    def __init__(
        self,
        baseline: Artifact,
        texts: Sequence[Item],
        *,
        limits: Limits | None = None,
        threads: int = 1,
        metrics: Sequence[str] = ("agreement@10", "cosine"),
        truth: Sequence[Any] | Mapping[str, Sequence[Any] | None] | None = None,
        output: int = 0,
        seed: int = 0,
        pace: Pace | None = None,
    ) -> None:
        if not texts:
            raise SpecError("there is no text to measure on")
        self._truth = dict(truth) if isinstance(truth, Mapping) else dict.fromkeys(metrics, truth)
        for name in metrics:
            quality.require_metric(name, truth=self._truth.get(name))
        self._artifact, self._threads, self._output = baseline, threads, output
        self._texts = [sound_text(text) if isinstance(text, str) else text for text in texts]
        self._limits = limits or Limits()
        self._metrics = tuple(metrics)
        self._seed, self._pace = seed, pace or Pace()
        self._cores = choose_cores(self._limits.cores)
        self._order = list(range(len(texts)))
        random.Random(seed).shuffle(self._order)
        self._meter = EnergyMeter()
        self._baseline: Contender | None = None
        self._baseline_item_s = 0.0
        self._reference: list[Array] = []
        self._tokens: list[int] = []

    def __enter__(self) -> Trials:
        self._open_baseline()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the baseline's process; safe to call twice."""
        if self._baseline is not None:
            self._baseline.close()
            self._baseline = None

    def run(self, candidate: Artifact, rung: Rung, *, threads: int = 1, starts: int = 1) -> Measured | Failure:
        """Measure a candidate.

        Parameters
        ----------
        candidate:
            What to measure.
        rung:
            On how many texts, and how long.
        threads:
            How many the candidate may use.
        starts:
            How often it is loaded, each time in a new process; 3 give a median for the load time.

        Raises
        ------
        ModelError
            The baseline itself fails, twice, or no runtime runs the candidate's form.
        SpecError
            A metric cannot be computed on so few texts.
        """
        return self._tried(candidate, self._limits, rung, threads, starts)

    def baseline(self, rung: Rung, *, starts: int = 1) -> Measured | Failure:
        """Measure the baseline against itself, without a limit of memory; see :meth:`run`."""
        limits = msgspec.structs.replace(self._limits, memory_bytes=None)
        return self._tried(self._artifact, limits, rung, self._threads, starts)

    def _tried(self, candidate: Artifact, limits: Limits, rung: Rung, threads: int, starts: int) -> Measured | Failure:
        try:
            with confined(candidate, threads, self._cores, limits) as contender:
                found = self._measured(contender, candidate, rung, threads)
            loads = [*found.loads_ms, *(self._load_again(candidate, limits, threads) for _ in range(starts - 1))]
        except ContenderError as error:
            return error.failure
        notes = (*found.notes, *_over(found.peak_bytes, limits))
        return msgspec.structs.replace(found, load_ms=statistics.median(loads), loads_ms=tuple(loads), notes=notes)

    def _measured(self, contender: Contender, candidate: Artifact, rung: Rung, threads: int) -> Measured:
        loaded = contender.load(self._texts[0], self._pace.load_s, output=self._output)
        self._ask(contender, Turn(lead=[], items=self._warm_up_items()), Times)
        turns, joules = self._turns(contender, rung)
        figures, peak_bytes = self._quality(contender, rung)
        items_per_s, notes = self._throughput(contender, rung)
        answered = len(turns) * (self._pace.items + self._pace.lead)
        return Measured(
            quality=figures, latency_p50_ms=turns.latency(50, seed=self._seed),
            latency_p99_ms=turns.latency(99, seed=self._seed), speedup=turns.speedup(seed=self._seed),
            cpu_speedup=turns.cpu_speedup(seed=self._seed), preempted=turns.preempted, cpu_ms=turns.cpu_ms / answered,
            items_per_s=items_per_s, load_ms=loaded.load_ms, loads_ms=(loaded.load_ms,), peak_bytes=peak_bytes,
            size_bytes=candidate.size_with_tokenizer,
            energy_j=None if joules is None else joules / answered, texts=min(rung.texts, len(self._texts)),
            repeats=len(turns) * self._pace.items, turns=len(turns),
            lengths=turns.lengths(self._lengths(), seed=self._seed), threads=threads, cores=self._cores,
            memory_by=contender.memory_by, notes=tuple(notes),
        )  # fmt: skip

    def _turns(self, contender: Contender, rung: Rung) -> tuple[Turns, float | None]:
        """Take turns; return them and the joules that the machine used during the candidate's, leads included."""
        turns, joules = Turns(), 0.0
        give_up = time.monotonic() + rung.seconds
        for places, request in self._requests(rung):
            baseline = self._ask_baseline(request, Times)
            before = self._meter.joules()
            times = self._ask(contender, request, Times)
            joules += (self._meter.joules() or 0.0) - (before or 0.0)
            turns.add(places, baseline, times)
            if self._is_enough(turns, rung, late=time.monotonic() > give_up):
                break
        return turns, joules if self._meter.counters else None

    def _requests(self, rung: Rung) -> Iterator[tuple[list[int], Turn]]:
        """Yield the turns of a rung: the same texts in the same order for every candidate."""
        order, items = self._order, self._pace.items
        for turn in range(max(self._pace.least_turns, -(-rung.runs // items))):
            start = turn * items
            places = [order[(start + step) % len(order)] for step in range(items)]
            lead = [order[(start - 1 - step) % len(order)] for step in range(self._pace.lead)]
            yield places, Turn(lead=self._at(lead), items=self._at(places))

    def _is_enough(self, turns: Turns, rung: Rung, *, late: bool) -> bool:
        if len(turns) < self._pace.least_turns:
            return False
        done = len(turns) * self._pace.items >= self._pace.least_share * rung.runs
        return late or (done and len(turns) % 4 == 0 and turns.is_tight(self._pace.tightness, seed=self._seed))

    def _quality(self, contender: Contender, rung: Rung) -> tuple[dict[str, Estimate], int]:
        """Return the candidate's quality by metric, and the peak of a process that answers one item at a time."""
        count = min(rung.texts, len(self._texts))
        if not self._is_reference_needless():
            self._reference += self._answers(range(len(self._reference), count), None)[0]
        answers, peak_bytes = self._answers(range(count), contender)
        reference = _stacked(self._reference[:count]) if self._reference else None
        try:
            found = {
                name: quality.evaluate(name, reference, _stacked(answers), self._truth_of(name, count), seed=self._seed)
                for name in self._metrics
            }
        except ModelError as error:  # such as vectors of another dimension, which have no cosine
            raise ContenderError(Failure(kind="error", reason=error.message), str(self._artifact.path)) from error
        return found, peak_bytes

    def _is_reference_needless(self) -> bool:
        """Tell whether the original's answers are not looked at, and need not be kept: they may be large."""
        return set(self._metrics) == {"perplexity"}

    def _truth_of(self, metric: str, count: int) -> Sequence[Any] | None:
        truth = self._truth.get(metric)
        return None if truth is None else truth[:count]

    def _answers(self, places: Sequence[int], contender: Contender | None) -> tuple[list[Array], int]:
        """Return the answers to items, by a contender or the baseline, and the peak of its process in bytes."""
        found: list[Array] = []
        peak_bytes = 0
        batch = self._pace.batch if isinstance(self._texts[0], str) else 1  # an answer may be large
        for start in range(0, len(places), batch):
            chosen = places[start : start + batch]
            request = Answer(items=self._at(chosen))
            told = self._ask_baseline(request, Answers) if contender is None else self._ask(contender, request, Answers)
            try:
                found += [self._condensed(tensor.array(), at) for at, tensor in zip(chosen, told.arrays, strict=True)]
            except ContenderError as error:
                if contender is None:
                    raise _baseline_error(error) from error
                raise
            peak_bytes = told.peak_bytes
        return found, peak_bytes

    def _condensed(self, answer: Array, place: int) -> Array:
        """Return as much of an answer as the metrics need; raises ``ContenderError`` for one that is no answer."""
        import numpy as np

        if answer.dtype.kind == "f" and not np.isfinite(answer).all():
            reason = "the model answers with numbers that are none (NaN or infinity)"
            raise ContenderError(Failure(kind="error", reason=reason), str(self._artifact.path))
        truth = self._truth.get(self._metrics[0]) if self._metrics else None
        try:
            return quality.condensed(self._metrics, answer, None if truth is None else truth[place])
        except ModelError as error:
            raise ContenderError(Failure(kind="error", reason=error.message), str(self._artifact.path)) from error

    def _throughput(self, contender: Contender, rung: Rung) -> tuple[float, list[str]]:
        """Return texts per second in batches, and what went wrong: a batch may need more memory than one text does."""
        most, batch = max(2, min(8, rung.runs // 40)), self._pace.batch
        give_up = time.monotonic() + rung.seconds / 4
        times: list[float] = []
        try:
            for number in range(most + 1):
                places = [self._order[(number * batch + step) % len(self._order)] for step in range(batch)]
                times += self._ask(contender, Batch(items=self._at(places)), Times).milliseconds
                if len(times) > 1 and time.monotonic() > give_up:
                    break
        except ContenderError as error:
            return 0.0, [f"batches of {batch} do not work: {error.failure.reason}"]
        counted = times[1:]  # the first batch is the warm-up
        return batch * len(counted) / max(sum(counted), 1e-6) * 1e3, []

    def _load_again(self, candidate: Artifact, limits: Limits, threads: int) -> float:
        with confined(candidate, threads, self._cores, limits) as contender:
            return contender.load(self._texts[0], self._pace.load_s, output=self._output).load_ms

    def _ask(self, contender: Contender, request: Request, kind: type[R]) -> R:
        return contender.ask(request, kind, self._patience(_items_of(request)))

    def _ask_baseline(self, request: Request, kind: type[R]) -> R:
        """Ask the baseline; when its process has died it is started once more. Raises ``ModelError`` at the second."""
        for attempt in (1, 2):
            try:
                if self._baseline is None:
                    self._open_baseline()
                assert self._baseline is not None
                return self._ask(self._baseline, request, kind)
            except ContenderError as error:
                self.close()
                if attempt == 2:
                    raise _baseline_error(error) from error
        raise AssertionError("unreachable")

    def _open_baseline(self) -> None:
        self.close()
        limits = msgspec.structs.replace(self._limits, memory_bytes=None)
        self._baseline = confined(self._artifact, self._threads, self._cores, limits)
        try:
            self._baseline.load(self._texts[0], self._pace.load_s, output=self._output)
            warm = self._baseline.ask(Turn(lead=[], items=self._warm_up_items()), Times, self._pace.load_s)
            self._baseline_item_s = statistics.median(warm.milliseconds) / 1e3
        except ContenderError as error:
            self.close()
            raise _baseline_error(error) from error
        except BaseException:
            self.close()
            raise

    def _patience(self, texts: int) -> float:
        return max(self._pace.patience_s, self._pace.patience * self._baseline_item_s * texts)

    def _warm_up_items(self) -> list[Asked]:
        return self._at(self._order[: self._pace.warm_up])

    def _at(self, places: Sequence[int]) -> list[Asked]:
        return [asked(self._texts[place]) for place in places]

    def _lengths(self) -> list[int]:
        """Return the tokens of each text, by the baseline's tokenizer; of rows, those that they hold, if any."""
        texts = [text for text in self._texts if isinstance(text, str)]
        if not texts:
            return [row[TOKENS].size if TOKENS in row else 0 for row in self._texts if not isinstance(row, str)]
        if not self._tokens:
            manifest, _ = described(self._artifact, self._threads)
            tokens: Tokens = HashedTokens(manifest.max_tokens)
            if manifest.tokenizer is not None:
                tokens = VocabularyTokens(Path(manifest.tokenizer), manifest.max_tokens)
            self._tokens = [len(ids) for ids in tokens.many(texts)]
        return self._tokens


def trial(
    baseline: Artifact, candidate: Artifact, rung: Rung, texts: Sequence[Item], *, threads: int = 1, **options: Any
) -> Measured | Failure:
    """Measure one candidate against a baseline; ``options`` are those of :class:`Trials`, ``threads`` are both's."""
    with Trials(baseline, texts, threads=threads, **options) as trials:
        return trials.run(candidate, rung, threads=threads)


def _stacked(answers: list[Array]) -> Any:
    """Return answers that are vectors of one length as one array, of shape (items, dimension); others as they are."""
    import numpy as np

    if answers and answers[0].ndim == 1 and len({answer.shape for answer in answers}) == 1:
        return np.stack(answers)
    return answers


def _over(peak_bytes: int, limits: Limits) -> Iterator[str]:
    """Yield a note on a process that held more than it may and lived: the verdict on the budget is its peak's.

    A control group does not count the pages of a library that another process has brought in, and ``RLIMIT_DATA``
    leaves room for what is only asked for.
    """
    most = limits.memory_bytes
    if most is not None and peak_bytes > most:
        yield f"the process held {peak_bytes / 1e6:.1f} MB at its peak, of {most / 1e6:.1f} MB allowed"


def _items_of(request: Request) -> int:
    match request:
        case Turn():
            return len(request.lead) + len(request.items)
        case Answer() | Batch():
            return len(request.items)
        case _:
            return 1


def _baseline_error(error: ContenderError) -> ModelError:
    hint = "name a model that a runtime here takes whole: `skerry runtimes` lists them"
    if error.failure.kind == "out-of-memory":
        hint = "give it more memory, or another source"
    return ModelError(f"the baseline cannot be measured: {error.failure.reason}", where=error.where, hint=hint)
