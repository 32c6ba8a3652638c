"""The parts of bench-build that decide who is compared with whom, and what is told of those who failed."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from bench.build_rows import compared, objective, peers, searched, unseen
from bench.build_rows.compared import FP32, Found
from bench.build_rows.field import Entrant, Race
from bench.build_rows.material import forms, project, texts_of
from bench.build_rows.objective import Standing
from bench.build_rows.searched import Candidates
from bench.environments import PEERS
from bench.measuring import Samples
from bench.peers.olive_optimize import reason
from bench.report import Report, table
from scripts import benchmarks_page
from skerry.build.artifact import Artifact, Step
from skerry.build.figures import Estimate, Figures
from skerry.build.findings import Candidate, Failed, Measured, outcome_of
from skerry.run.tokens import HashedTokens
from skerry.spec.budget import Budget, Quality
from skerry.spec.reading import read_project

TURNS = 40


def standing(name: str, quality: float, milliseconds: float, *, wobble: float = 0.01) -> Standing:
    taken = tuple(milliseconds * (1 + wobble * (turn % 3 - 1)) for turn in range(TURNS))
    return Standing(name, quality, Samples(taken))


def test_only_those_of_no_lower_quality_are_compared() -> None:
    mine = standing("mine", 0.970, 2.0)
    others = [standing("worse", 0.969, 1.0), standing("as good", 0.970, 3.0), standing("better", 0.98, 2.5)]
    found = objective.compared(mine, others)
    assert found is not None
    assert set(found.against) == {"as good", "better"}
    assert found.hardest == "better"
    assert found.speed.median == pytest.approx(1.25, rel=0.01)
    assert 1.2 < found.lower <= found.speed.median


def test_nobody_as_good_is_told_apart_from_a_defeat() -> None:
    assert objective.compared(standing("mine", 0.99, 2.0), [standing("worse", 0.9, 1.0)]) is None


def test_the_lower_bound_is_what_noise_leaves() -> None:
    chance = random.Random(0)
    bounds = [
        objective.lower_bound(Samples(tuple(1.0 + wobble * chance.uniform(-1, 1) for _ in range(TURNS))))
        for wobble in (0.001, 0.2)
    ]
    assert bounds[1] < 0.99 < bounds[0] < 1.001


def test_a_tie_counts_as_beaten_and_a_faster_or_better_peer_does_not() -> None:
    mine = [standing("keep", 0.97, 2.0), standing("small", 0.85, 1.0)]
    others = [
        standing("tie", 0.97, 2.0), standing("slow", 0.99, 4.0), standing("fast and poor", 0.8, 1.5),
        standing("fast and good", 0.96, 1.5),
    ]  # fmt: skip
    assert objective.unbeaten(mine, others) == ["slow", "fast and good"]


def test_turns_that_do_not_pair_are_no_comparison() -> None:
    with pytest.raises(ValueError, match="cannot be paired"):
        standing("mine", 1.0, 1.0).speed(Standing("other", 1.0, Samples((1.0,))))


def found_of(standings: list[Standing], missing: dict[str, str] | None = None) -> Found:
    race = Race({one.name: one.taken for one in standings}, {one.name: one.taken for one in standings})
    lengths = ("12 tokens", "32 tokens", compared.MIXED)
    exact = {one.name: {"agreement@10": Estimate.exact(one.quality), "cosine": Estimate.exact(0.99)}
             for one in standings}  # fmt: skip
    twenty = {one.name: 20.0 for one in standings}
    return Found(dict.fromkeys(lengths, race), exact, twenty, twenty, twenty, missing or {})


def rows_of(found: Found, kept: Candidates, little: Candidates) -> Report:
    report = Report("build")
    compared.rows(report, found, kept, little)
    return report


def entrants(*names: str) -> list[Entrant]:
    artifact = Artifact(form="onnx", folder=Path(), file="model.onnx", files=(), source="")
    return [Entrant(name, artifact) for name in names]


def test_the_rows_of_the_issue_are_all_there_and_a_failed_peer_says_why() -> None:
    standings = [standing(FP32, 1.0, 8.0), standing("skerry keep", 0.975, 2.0), standing("ORT dynamic int8", 0.8, 3.0)]
    found = found_of(standings, {"Olive optimize": "ModuleNotFoundError: no module"})
    report = rows_of(found, Candidates(entrants("skerry keep"), {"skerry keep": "litert-int8"}, cached_s=2.0),
                     Candidates([], {}, "no release with a distilled form"))  # fmt: skip
    rows = {row.figure: row for row in report.rows}
    speed = rows["keep quality (litert-int8): speed against ORT fp32, 32 tokens"]
    assert speed.value == pytest.approx(4.0)
    assert speed.holds
    assert speed.peers["ORT dynamic int8"] == pytest.approx(8 / 3)
    assert speed.peers["Olive optimize"] == "ModuleNotFoundError: no module"
    assert rows["keep quality: r@10, held out"].holds
    small = [row for row in report.rows if row.figure.startswith("small")]
    assert {row.must for row in small} == {">= 8", ">= 0.85", "<= 15", "<= 50"}
    assert {row.reason for row in small} == {"no release with a distilled form"}
    assert all(row.holds is None for row in small)
    assert next(row for name, row in rows.items() if name.startswith("12 tokens")).value == pytest.approx(1.5)
    beside = next(row for name, row in rows.items() if name.startswith("skerry keep, 32 tokens"))
    assert beside.must == ">= 0.98"
    assert set(beside.peers) == {FP32}  # the other one answers worse
    assert rows["second, cached run of the search, with the start of Python"].holds
    assert "peer missing: Olive optimize: ModuleNotFoundError: no module" in table(report.rows)


def test_a_search_that_failed_and_a_form_that_crashed_are_rows_with_reasons() -> None:
    crashed = found_of([standing(FP32, 1.0, 8.0)], {"skerry keep": "crash: the process crashed with SIGSEGV"})
    report = rows_of(crashed, Candidates(entrants("skerry keep"), {}, cached_s=1.0), Candidates([], {}, "none"))
    kept = [row for row in report.rows if row.figure.startswith("keep")]
    assert {row.reason for row in kept} == {"crash: the process crashed with SIGSEGV"}
    failed = rows_of(crashed, Candidates([], {}, "skerry build failed: no such model"), Candidates([], {}, "none"))
    assert failed.rows[0].reason == "skerry build failed: no such model"
    assert failed.broken() == []


def test_peers_are_named_once_and_have_their_scripts_and_pins() -> None:
    made = [name for peer in peers.ALL for name in peer.makes]
    assert len(made) == len(set(made))
    for peer in peers.ALL:
        assert (PEERS / peer.script).is_file()
        assert not peer.program or (PEERS / peer.program).is_file()
        own = [name for name in (peer.environment, peer.runs_in) if name and name != "own" and ":" not in name]
        assert all((PEERS / f"{name}.txt").is_file() for name in own)


def a_peer(script: str, makes: tuple[str, ...] = ("one", "two")) -> peers.Peer:
    return peers.Peer("odd", script, "own", makes, ("numpy",))


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(peers, "PEERS", tmp_path)
    monkeypatch.setattr(peers, "HOME", tmp_path / "home")
    return tmp_path


def material(folder: Path) -> Any:
    (folder / "model.onnx").write_bytes(b"onnx")
    artifact = Artifact(form="onnx", folder=folder, file="model.onnx", files=("model.onnx",), source="s")
    from bench.build_rows.material import Material

    return Material(folder, artifact)


def test_what_a_script_makes_is_kept_until_the_script_changes(scripts: Path) -> None:
    script = scripts / "odd.py"
    products = [{"name": "one", "form": "onnx", "file": "one.onnx"}, {"name": "two", "failure": "it would not"}]
    script.write_text(
        "import json, pathlib, sys\n"
        "request = json.load(sys.stdin)\n"
        "pathlib.Path(request['target'], 'one.onnx').write_bytes(b'12345')\n"
        f"print('noise')\nprint({json.dumps(products)!r})\n"
    )
    said: list[str] = []
    for _ in range(2):
        lineup = peers.line_up(material(scripts), said.append, peers=[a_peer("odd.py")])
        assert [entrant.name for entrant in lineup.entrants] == ["one"]
        assert lineup.entrants[0].artifact.size == 5
        assert lineup.missing == {"two": "it would not"}
        assert "numpy" in lineup.versions
    assert said == ["odd: make one, two"]
    script.write_text("raise SystemExit('ERROR: out of ideas')\n")
    lineup = peers.line_up(material(scripts), said.append, peers=[a_peer("odd.py")])
    assert lineup.missing == {"one": "ERROR: out of ideas", "two": "ERROR: out of ideas"}
    assert len(said) == 2


def test_an_environment_that_cannot_be_had_is_asked_for_again_the_next_time(scripts: Path) -> None:
    (scripts / "odd.py").write_text("")
    peer = a_peer("odd.py")._replace(environment="nobody")
    said: list[str] = []
    for _ in range(2):
        lineup = peers.line_up(material(scripts), said.append, peers=[peer])
        assert lineup.missing["one"].startswith("no pins for nobody")
    assert len(said) == 2


def test_an_error_is_found_in_what_a_tool_says() -> None:
    said = "INFO: all is well\nModuleNotFoundError: No module named 'x'\nPlease check the log for details.\n"
    assert reason(said) == "ModuleNotFoundError: No module named 'x'"
    assert reason("goodbye\n") == "goodbye"
    assert reason("") == "it said nothing"


def test_texts_have_the_very_length() -> None:
    tokens = HashedTokens(64)
    lines = [" ".join(f"word{number}-{place}" for place in range(number)) for number in range(3, 30)]
    texts = texts_of(tokens, 12, lines)
    assert texts
    assert {len(tokens.one(text)) for text in texts} == {12}
    assert len(set(texts)) == len(texts)


def test_pipelines_that_are_written_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.build_rows.material.HOME", tmp_path)
    for settings in (searched.KEEP, searched.SMALL, unseen.SETTINGS):
        read = read_project(project("unseen/some-model", "pkg://nothing", settings))
        assert read.pipeline.models["model"].budget.quality is not None
    assert read.pipeline.models["model"].data.calibrate == unseen.LINES


def test_the_search_gets_none_of_the_lines_that_are_kept_for_the_end(tmp_path: Path) -> None:
    lines = [f"this is the line of {chr(97 + number % 26)}{chr(97 + number // 26)}" for number in range(200)]
    (tmp_path / "text.txt").write_text("\n".join(lines))
    held_out = unseen.keep_apart(tmp_path / "text.txt", tmp_path / "lines.txt")
    given = (tmp_path / "lines.txt").read_text().splitlines()
    assert len(held_out) == 50
    assert set(held_out) | set(given) == set(lines)
    assert not set(held_out) & set(given)


def test_without_a_distilled_release_the_reason_tells_how_to_make_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.build_rows.material.HOME", tmp_path)
    found = searched.small("pkg://nothing", None)
    assert found.entrants == []
    assert "--prune" in found.missing
    assert "--small FOLDER" in found.missing


def test_the_variants_of_a_release_become_artifacts(tmp_path: Path) -> None:
    models = tmp_path / "models" / "m"
    models.mkdir(parents=True)
    for name in ("best-1.xml", "best-1.bin", "rung1-2.tflite", "tokenizer-3.json"):
        (models / name).write_bytes(b"1234")
    variants = [
        {"name": "best", "runtime": "openvino", "file": "models/m/best-1.xml", "technique": "openvino"},
        {"name": "rung1", "runtime": "litert", "file": "models/m/rung1-2.tflite"},
    ]
    model = {"source": "s", "task": "embedding", "tokenizer": "models/m/tokenizer-3.json", "dimension": 8,
             "variants": variants}  # fmt: skip
    manifest = {"skerry": 1, "name": "n", "release": "sha256:0", "models": {"m": model}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    best, rung = forms(tmp_path)
    assert best.artifact.form == "openvino"
    assert best.artifact.size_with_tokenizer == 12
    assert rung.artifact.form == "litert"
    assert best.technique == "openvino"


def candidate(name: str, techniques: list[str], quality: float, speed: float) -> Candidate:
    exact = Estimate.exact
    figures = Figures(
        quality={"agreement@10": exact(quality)}, latency_p50_ms=exact(1.0), latency_p99_ms=exact(1.0),
        speedup=exact(speed),
    )  # fmt: skip
    steps = tuple(Step(technique=each, version=1) for each in techniques)
    return Candidate(name=name, runtime="any", steps=steps, outcome=outcome_of(figures, BUDGET, rung=1))


BUDGET = Budget(quality=Quality(min=0.95))
KINDS: Any = {"export-onnx": "convert", "convert-litert": "convert", "onnx-dynamic": "quantize",
              "onnx-fp16": "quantize", "litert-int8": "quantize", "prune-ffn": "prune"}  # fmt: skip


def test_one_technique_is_told_from_several() -> None:
    candidates = [
        candidate("plain", ["export-onnx"], 1.0, 1.0),
        candidate("dynamic", ["export-onnx", "onnx-dynamic"], 0.96, 2.0),
        candidate("half", ["export-onnx", "onnx-fp16"], 1.0, 1.1),
        candidate("converted", ["convert-litert"], 1.0, 1.2),
        candidate("converted, int8", ["convert-litert", "litert-int8"], 0.97, 3.0),
        candidate("all", ["prune-ffn", "convert-litert", "litert-int8"], 0.96, 4.0),
        candidate("too much", ["prune-ffn", "export-onnx", "onnx-dynamic"], 0.5, 9.0),
        Candidate(name="broken", runtime="any", outcome=Failed(kind="crashed", reason="why")),
    ]
    assert isinstance(candidates[0].outcome, Measured)
    chosen = unseen.choose(candidates, BUDGET, KINDS)
    assert chosen.composed == ["all"]
    assert chosen.singles == ["dynamic", "converted", "half"]
    assert chosen.compressed == ["converted, int8"]


def test_a_single_technique_of_too_low_quality_is_no_rival() -> None:
    report = Report("build-unseen")
    standings = {one.name: one for one in (standing(FP32, 1.0, 4.0), standing("all", 0.96, 1.0),
                                           standing("poor", 0.9, 0.5), standing("good", 0.97, 2.0))}  # fmt: skip
    unseen._add_rows(report, "figure", standings, unseen.Chosen(["all"], ["poor", "good"], ["all"]))
    row = next(row for row in report.rows if row.figure.startswith("figure (all beside good)"))
    assert row.value == pytest.approx(2.0)
    assert row.holds
    assert set(row.peers) == {FP32, "good"}


def test_many_peers_have_a_table_of_their_own_on_the_page() -> None:
    report = Report("build")
    report.add("speed", 4.0, "×", peers={f"peer {number}": float(number) for number in range(5)} | {"Olive": "crashed"})
    report.add("size", 20.0, "MB", peers={"peer 1": 30.0})
    page = benchmarks_page.section("build", report.rows)
    assert "6 peers, below" in page
    assert "| figure | value | peer 0 | peer 1 | peer 2 | peer 3 | peer 4 | Olive |" in page
    assert "| speed | **4** | 0 | 1 | 2 | 3 | 4 | – |" in page
    assert "peer 1 30" in page
    assert "- peer missing: Olive: crashed" in page
