"""A trial: candidates beside a baseline, under limits, and the ways in which they fail."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import psutil
import pytest

from skerry.build import limits as limits_module
from skerry.build.artifact import RUNTIMES, Artifact
from skerry.build.contender import Failure
from skerry.build.halving import Rung
from skerry.build.limits import Limits
from skerry.build.trial import Measured, Pace, Trials, trial
from skerry.runtimes.null import NullModel, write_null_model
from skerry.spec.errors import ModelError, SpecError
from skerry.spec.units import Duration

from .conftest import write_tokenizer

SHORT = Rung(texts=20, runs=8, seconds=5.0)
QUICK = Pace(warm_up=2, least_turns=2, items=4)
TEXTS = [f"{'word ' * (1 + number % 40)}number {number}" for number in range(40)]

# A runtime of a third party, whose model file says how it misbehaves.
UNRULY = """
import ctypes, os, subprocess, sys, time
import numpy as np
from skerry.spec.ports import SessionInfo, TensorSpec

class Session:
    def __init__(self, deed, path, threads):
        self.deed, self.path, self.threads, self.runs, self.held = deed, path, threads, 0, []
    def describe(self):
        axes = ("batch", "tokens")
        return SessionInfo(
            runtime="unruly", version="1", path=str(self.path), inputs=(TensorSpec("input_ids", "int64", axes),),
            outputs=(TensorSpec("last_hidden_state", "float32", (*axes, 4)),), threads=self.threads, device="cpu",
            memory_bytes=0)
    def warm_up(self):
        pass
    def close(self):
        pass
    def run(self, inputs):
        self.runs += 1
        ids = inputs["input_ids"]
        if self.runs > 6:
            getattr(self, "do_" + self.deed)(ids)
        answer = np.sin(np.arange(1, 5) * ids[..., None]).astype("float32")
        return {"last_hidden_state": np.full_like(answer, np.nan) if self.deed == "nan" and self.runs > 6 else answer}
    def do_abort(self, ids): os.abort()
    def do_segfault(self, ids): ctypes.string_at(0)
    def do_exit(self, ids):
        print("I leave", file=sys.stderr, flush=True); os._exit(7)
    def do_raise(self, ids): raise ValueError("this operator is unknown")
    def do_hang(self, ids): time.sleep(3600)
    def do_spawn(self, ids):
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)", "left-by-" + str(os.getppid())])
        os.abort()
    def do_nan(self, ids): pass
    def do_chat(self, ids): print("chatter " * 100, flush=True); os.write(1, b"\\xff" * 64)
    def do_hog(self, ids):
        self.held.append(np.ones(64 << 20, dtype="uint8"))
    def do_batches(self, ids):
        if len(ids) > 1: os.abort()
    def do_pinned(self, ids):
        if len(os.sched_getaffinity(0)) != 1 or os.nice(0) != 3: raise RuntimeError(str(os.sched_getaffinity(0)))

class UnrulyRuntime:
    name, suffixes = "unruly", (".unruly",)
    def load(self, path, *, threads=1, device="cpu", options=None):
        return Session(path.read_text(), path, threads)
"""

Make = Callable[..., Artifact]


@pytest.fixture(autouse=True)
def forms(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The forms of the null and the unruly runtime; the latter is installed on the path of child processes."""
    monkeypatch.setitem(RUNTIMES, "null", "null")  # type: ignore[misc]
    monkeypatch.setitem(RUNTIMES, "unruly", "unruly")  # type: ignore[misc]
    site = tmp_path / "site"
    facts = site / "unruly-1.dist-info"
    facts.mkdir(parents=True)
    (site / "unruly_runtime.py").write_text(UNRULY)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: unruly\nVersion: 1\n")
    (facts / "entry_points.txt").write_text("[skerry.runtimes]\nunruly = unruly_runtime:UnrulyRuntime\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]))


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """No child outlives its trial."""
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    yield
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= before
    running = [one.info["cmdline"] or [] for one in psutil.process_iter(["cmdline"])]
    assert not [command for command in running if f"left-by-{os.getpid()}" in command]


def artifact(form: str, path: Path, dimension: int) -> Artifact:
    return Artifact(
        form=form,  # type: ignore[arg-type]
        folder=path.parent, file=path.name, files=(path.name,), source="sha256:0",
        tokenizer=path.parent / "tokenizer.json", dimension=dimension, max_tokens=64,
    )  # fmt: skip


@pytest.fixture
def null(tmp_path: Path) -> Make:
    def make(delay_ms: float = 0.0, dimension: int = 8) -> Artifact:
        path = tmp_path / f"m{delay_ms}-{dimension}.null.json"
        write_null_model(path, NullModel(delay=Duration(delay_ms / 1e3), dimension=dimension))
        return artifact("null", path, dimension)

    return make


@pytest.fixture
def unruly(tmp_path: Path) -> Make:
    def make(deed: str) -> Artifact:
        path = tmp_path / f"{deed}.unruly"
        path.write_text(deed)
        write_tokenizer(tmp_path)
        return artifact("unruly", path, 4)

    return make


def measured(result: Measured | Failure) -> Measured:
    assert isinstance(result, Measured), result
    return result


def failed(result: Measured | Failure) -> Failure:
    assert isinstance(result, Failure), result
    return result


def test_a_faster_candidate_with_the_same_answers(null: Make) -> None:
    found = measured(trial(null(20), null(1), Rung(texts=20, runs=32, seconds=9), TEXTS, pace=Pace(tightness=0)))
    assert 4 < found.speedup.value < 20.1
    assert found.speedup.low <= found.speedup.value <= found.speedup.high
    assert found.latency_p50_ms.value >= 1
    assert found.latency_p99_ms.value >= found.latency_p50_ms.value
    assert found.quality["agreement@10"].value == 1
    assert found.quality["cosine"].value == pytest.approx(1)
    assert found.texts == 20
    assert found.repeats == 32
    assert found.items_per_s > 0
    assert found.load_ms > 0
    assert 10e6 < found.peak_bytes < 500e6
    assert found.size_bytes == null(1).size
    assert found.cpu_ms is not None
    assert found.cpu_ms < 20
    assert {one.tokens for one in found.lengths} <= {8, 16, 32, 64}
    assert all(one.items >= 5 and one.speedup.value > 4 for one in found.lengths)
    assert found.lengths


def test_many_candidates_beside_one_loaded_baseline(null: Make) -> None:
    before = set(psutil.Process().children())
    with Trials(null(5), TEXTS, metrics=("agreement@5",), pace=QUICK) as trials:
        itself = measured(trials.baseline(SHORT))
        other = measured(trials.run(null(5, dimension=16), SHORT, starts=3))
        assert len(set(psutil.Process().children()) - before) == 1
    assert itself.speedup.value == pytest.approx(1, rel=0.5)
    assert itself.quality["agreement@5"].value == 1
    assert other.quality["agreement@5"].value < 1
    assert len(other.loads_ms) == 3
    assert other.load_ms == sorted(other.loads_ms)[1]


def test_quality_is_the_same_in_every_run(null: Make) -> None:
    results = [
        measured(trial(null(), null(dimension=9), SHORT, TEXTS, metrics=("agreement@3",), seed=4, pace=QUICK))
        for _ in range(2)
    ]
    assert results[0].quality == results[1].quality


def test_a_tight_interval_ends_the_measuring(null: Make) -> None:
    pace = Pace(warm_up=1, least_turns=4, least_share=0.0, tightness=0.9)
    found = measured(trial(null(4), null(2), Rung(texts=12, runs=400, seconds=60), TEXTS, pace=pace))
    assert found.turns < 100
    assert found.turns % 4 == 0


def test_the_seconds_of_a_rung_end_the_measuring(null: Make) -> None:
    pace = Pace(warm_up=1, least_turns=3, tightness=0.0)
    found = measured(trial(null(4), null(4), Rung(texts=12, runs=4000, seconds=0.05), TEXTS, pace=pace))
    assert 3 <= found.turns < 1000


def test_vectors_of_another_dimension_have_no_cosine(null: Make) -> None:
    assert failed(trial(null(), null(dimension=9), SHORT, TEXTS, pace=QUICK)).kind == "error"


@pytest.mark.parametrize(
    ("deed", "kind", "said"),
    [
        ("abort", "crash", "SIGABRT"),
        ("segfault", "crash", "SIGSEGV"),
        ("spawn", "crash", "SIGABRT"),
        ("exit", "crash", "code 7: I leave"),
        ("raise", "error", "this operator is unknown"),
        ("nan", "error", "NaN"),
    ],
)
def test_a_candidate_that_fails_is_a_result_and_not_the_end(
    null: Make, unruly: Make, deed: str, kind: str, said: str
) -> None:
    with Trials(null(), TEXTS, metrics=("agreement@10",), pace=QUICK) as trials:
        failure = failed(trials.run(unruly(deed), SHORT))
        assert failure.kind == kind
        assert said in failure.reason
        measured(trials.run(null(), SHORT))


def test_a_candidate_that_hangs_is_given_up(null: Make, unruly: Make) -> None:
    pace = Pace(warm_up=2, least_turns=2, patience_s=0.5, patience=1)
    failure = failed(trial(null(), unruly("hang"), SHORT, TEXTS, pace=pace))
    assert failure.kind == "timeout"


def test_what_a_library_prints_is_no_answer(null: Make, unruly: Make) -> None:
    measured(trial(null(), unruly("chat"), SHORT, TEXTS, metrics=("agreement@10",), pace=QUICK))


def test_batches_that_do_not_work_are_noted(null: Make, unruly: Make) -> None:
    found = measured(trial(null(), unruly("batches"), SHORT, TEXTS, metrics=("agreement@10",), pace=QUICK))
    assert found.items_per_s == 0
    assert "SIGABRT" in found.notes[0]


def test_both_are_pinned_and_may_be_nice(null: Make, unruly: Make) -> None:
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system cannot pin a process")
    limits = Limits(cores=1, niceness=3 - os.nice(0)) if os.nice(0) <= 3 else Limits(cores=1)
    found = measured(
        trial(null(), unruly("pinned"), SHORT, TEXTS, metrics=("agreement@10",), limits=limits, pace=QUICK)
    )
    assert len(found.cores) == 1


def test_a_hog_is_ended_by_the_limit_and_the_baseline_goes_on(null: Make, unruly: Make) -> None:
    limits = Limits(memory_bytes=300 << 20)
    with Trials(null(), TEXTS, metrics=("agreement@10",), limits=limits, pace=QUICK) as trials:
        assert failed(trials.run(unruly("hog"), SHORT)).kind == "out-of-memory"
        assert measured(trials.run(null(), SHORT)).memory_by != "none"


def test_a_hog_is_ended_where_no_control_group_may_be_made(
    null: Make, unruly: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sys.platform != "linux":
        pytest.skip("only Linux limits what a process asks for")
    monkeypatch.setattr("skerry.build.contender.open_memory_group", lambda memory_bytes: None)
    limits = Limits(memory_bytes=300 << 20)
    with Trials(null(), TEXTS, metrics=("agreement@10",), limits=limits, pace=QUICK) as trials:
        assert failed(trials.run(unruly("hog"), SHORT)).kind == "out-of-memory"
        assert measured(trials.run(null(), SHORT)).memory_by == "rlimit"


def test_holding_more_than_allowed_is_noted(null: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skerry.build.contender.open_memory_group", lambda memory_bytes: None)
    monkeypatch.setattr(limits_module, "LEAST_MEMORY", 1)
    found = measured(trial(null(), null(), SHORT, TEXTS, limits=Limits(memory_bytes=8 << 20), pace=QUICK))
    assert "of 8.4 MB allowed" in found.notes[0]


def test_a_baseline_that_was_killed_is_started_again(null: Make) -> None:
    before = set(psutil.Process().children())
    with Trials(null(), TEXTS, pace=QUICK) as trials:
        (child,) = set(psutil.Process().children()) - before
        child.kill()
        measured(trials.run(null(), SHORT))


def test_a_baseline_that_fails_is_an_error(null: Make, unruly: Make) -> None:
    with pytest.raises(ModelError, match="baseline"), Trials(unruly("abort"), TEXTS, pace=QUICK) as trials:
        trials.run(null(), SHORT)


def test_a_missing_model_is_an_error_of_the_candidate(null: Make) -> None:
    gone = msgspec.structs.replace(null(), file="gone.null.json", files=())
    assert failed(trial(null(), gone, SHORT, TEXTS, pace=QUICK)).kind == "error"


def test_a_form_without_a_runtime_is_refused(null: Make) -> None:
    folder = msgspec.structs.replace(null(), form="transformer")
    with pytest.raises(ModelError, match="no runtime"):
        trial(null(), folder, SHORT, TEXTS, pace=QUICK)


def test_wrong_settings_are_refused(null: Make) -> None:
    with pytest.raises(SpecError, match="no text"):
        Trials(null(), [])
    with pytest.raises(SpecError, match="unknown metric"):
        Trials(null(), TEXTS, metrics=("agreemint@10",))
    with pytest.raises(SpecError, match="right answers"):
        Trials(null(), TEXTS, metrics=("accuracy",))
    for wrong in ({"cores": 0}, {"memory_bytes": 1000}, {"niceness": -5}):
        with pytest.raises(SpecError):
            Limits(**wrong)


ENDLESS = """
import sys
from pathlib import Path
from skerry.build.artifact import RUNTIMES, Artifact
from skerry.build.halving import Rung
from skerry.build.trial import Pace, Trials
RUNTIMES["null"] = "null"
path = Path(sys.argv[1])
model = Artifact(
    form="null", folder=path.parent, file=path.name, files=(path.name,), source="s", tokenizer=path, dimension=8
)
try:
    with Trials(model, ["a text"] * 20, pace=Pace(tightness=0.0)) as trials:
        print("ready", flush=True)
        trials.run(model, Rung(texts=20, runs=10**6, seconds=1e6))
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_the_children_end_with_their_parent(null: Make, sent: signal.Signals) -> None:
    if sent == signal.SIGKILL and sys.platform != "linux":
        pytest.skip("only Linux ends the children of a process that was killed")
    model = null(2)
    process = subprocess.Popen([sys.executable, "-c", ENDLESS, str(model.path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process:
        assert process.stdout.readline() == "ready\n"
        watched = psutil.Process(process.pid)
        _until(lambda: len(watched.children()) == 2)
        children = watched.children()
        process.send_signal(sent)
        said = process.stdout.read()
    assert said == ("interrupted\n" if sent == signal.SIGINT else "")
    _until(lambda: not any(child.is_running() and child.status() != "zombie" for child in children))


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_classifier_is_judged_by_the_right_answers(null: Make) -> None:
    truth = [number % 8 for number in range(len(TEXTS))]
    found = measured(
        trial(null(), null(), SHORT, TEXTS, metrics=("exact", "accuracy", "macro-f1"), truth=truth, pace=QUICK)
    )
    assert found.quality["exact"].value == 1
    assert 0 <= found.quality["accuracy"].value < 1


def test_vectors_come_back_in_the_order_of_the_texts(null: Make) -> None:
    """The baseline's vectors are kept from rung to rung, and only what is new is asked for."""
    with Trials(null(), TEXTS, metrics=("cosine-min",), pace=QUICK) as trials:
        for texts in (12, 30, 20):
            found = measured(trials.run(null(), Rung(texts=texts, runs=4, seconds=5)))
            assert np.isclose(found.quality["cosine-min"].value, 1)
