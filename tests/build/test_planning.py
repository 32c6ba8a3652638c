"""Planning for a device that is not here: how its times are reckoned, and what is said of them."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.build.cache import Cache
from skerry.build.card import render as card
from skerry.build.figures import Estimate, Figures
from skerry.build.findings import Measured, read_json, write_json
from skerry.build.latency.here import plan_for
from skerry.build.latency.planning import ARCHITECTURES, PREDICTED, Plan, Speed, speed_of
from skerry.build.latency.rates import Parts
from skerry.build.model_search import Wish
from skerry.build.page import render as page
from skerry.build.progress import Progress
from skerry.build.searching import search_project
from skerry.build.table import render as table
from skerry.cli.main import main
from skerry.device.catalogue import catalogue, load_device
from skerry.spec.budget import Budget
from skerry.spec.errors import DeviceError, UsageError
from skerry.spec.reading import read_project
from skerry.spec.units import Duration
from tests.build.sample_findings import sample
from tests.build.test_searching import project

__all__ = ["project"]  # a fixture

HERE = Speed(integers=8e11, floats=2e11, bandwidth=4e10, single=1.2e10)


def plan(name: str = "raspberry-pi-5") -> Plan:
    profile = load_device(name)
    there = speed_of(profile)
    assert there is not None
    return Plan(name=name, profile=profile, here=HERE, there=there)


def figures(ms: float) -> Figures:
    return Figures(
        quality={"agreement@10": Estimate(0.97, 0.96, 0.98)}, latency_p50_ms=Estimate(ms, 0.9 * ms, 1.1 * ms),
        latency_p99_ms=Estimate.exact(2 * ms), speedup=Estimate.exact(2.0), items_per_s=100.0, load_ms=50.0,
        peak_bytes=90_000_000, size_bytes=23_000_000, cpu_ms=ms, energy_j=0.1,
    )  # fmt: skip


def test_the_speed_of_every_device_of_the_catalogue_is_known() -> None:
    for name in catalogue():
        assert speed_of(load_device(name)) is not None, name


def test_each_part_grows_by_what_decides_it() -> None:
    pi = plan()
    assert pi.slower(Parts(integers=1.0)) == pytest.approx(HERE.integers / pi.there.integers)
    assert pi.slower(Parts(floats=2.0)) == pytest.approx(HERE.floats / pi.there.floats)
    assert pi.slower(Parts(moving=1.0)) == pytest.approx(HERE.bandwidth / pi.there.bandwidth)
    assert pi.slower(Parts(overhead=1.0)) == pytest.approx(HERE.single / pi.there.single)


@given(st.lists(st.floats(0, 10), min_size=4, max_size=4))
def test_a_mixture_lies_between_its_parts(each: list[float]) -> None:
    pi, parts = plan(), Parts(integers=each[0], floats=each[1], moving=each[2], overhead=each[3])
    alone = [pi.slower(Parts(**{name: 1.0})) for name in Parts.__struct_fields__]
    assert min(alone) * (1 - 1e-9) <= pi.slower(parts) <= max(alone) * (1 + 1e-9)


def test_times_are_reckoned_with_their_uncertainty_and_the_rest_stays_measured() -> None:
    pi, before = plan(), figures(4.0)
    after = pi.reckoned(before, Parts(integers=1.0), Parts(floats=1.0))
    slower = HERE.integers / pi.there.integers
    assert after.latency_p50_ms.value == pytest.approx(4.0 * slower)
    assert after.latency_p50_ms.high == pytest.approx(4.4 * slower * pi.off)
    assert after.latency_p50_ms.low == pytest.approx(3.6 * slower / pi.off)
    assert after.speedup.value == pytest.approx(2.0 * (HERE.floats / pi.there.floats) / slower)
    assert (after.quality, after.peak_bytes, after.size_bytes) == (
        before.quality, before.peak_bytes, before.size_bytes
    )  # fmt: skip
    assert after.energy_j is None
    assert pi.off > 2  # the catalogue estimates how fast a Raspberry Pi multiplies


def test_a_device_like_this_machine_is_as_fast() -> None:
    same = msgspec.structs.replace(plan(), there=HERE)
    after = same.reckoned(figures(4.0), Parts(integers=1.0, overhead=2.0), Parts(floats=1.0))
    assert after.latency_p50_ms.value == pytest.approx(4.0)
    assert after.speedup.value == pytest.approx(2.0)


def test_a_runtime_that_the_device_lacks_is_told() -> None:
    assert "NVIDIA" in plan().lacks("tensorrt")
    assert plan("jetson-orin-nano").lacks("tensorrt") == ""
    assert all(plan().lacks(runtime) == "" for runtime in ARCHITECTURES if runtime != "tensorrt")
    old = msgspec.structs.replace(
        plan().profile, cpu=msgspec.structs.replace(plan().profile.cpu, architecture="armv6l")
    )
    assert "no package for armv6l" in msgspec.structs.replace(plan(), profile=old).lacks("onnxruntime")


def test_an_unknown_device_has_a_hint(tmp_path: Path) -> None:
    with pytest.raises(DeviceError) as caught:
        plan_for("raspbery-pi-5", Cache(tmp_path))
    assert "raspberry-pi-5" in caught.value.hint


def test_a_device_needs_a_search(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", ".", "--device", "raspberry-pi-5"]) == 2
    assert "--time" in capsys.readouterr().err


def test_every_document_says_what_is_predicted_and_how_well() -> None:
    budget = Budget(latency_p50=Duration.parse("40ms"))
    findings = sample(budget, device="Raspberry Pi 5 (8 GB)", predicted=PREDICTED)
    environment = msgspec.structs.replace(findings.environment, predicted_within=2.1)
    baseline = msgspec.structs.replace(findings.baseline, predicted=PREDICTED)
    told = msgspec.structs.replace(findings, environment=environment, baseline=baseline)
    assert read_json(write_json(told)) == told
    for document in (table(told), card(told).decode(), page(told).decode()):
        assert "Raspberry Pi 5" in document
        assert "factor of 2.1" in document
        assert "measured here" in document
        assert "≈" in document
    line = next(line for line in table(told).splitlines() if "(baseline)" in line)
    assert line.count("≈") == 2  # latency and speed-up; quality, memory and size were measured


def test_a_search_for_a_device_predicts_its_times_and_measures_the_rest(project: Path) -> None:
    wish = Wish(seconds=3.0, toolchains=False, device="raspberry-pi-5")
    findings = search_project(read_project(project), Cache(project / "cache"), Progress(None), wish).models["tiny"]
    assert findings.environment.device == load_device("raspberry-pi-5").name
    assert findings.environment.predicted_within is not None
    assert "--device raspberry-pi-5" in findings.environment.commands[0]
    assert findings.baseline.predicted == PREDICTED
    measured = [each.outcome for each in findings.candidates if isinstance(each.outcome, Measured)]
    assert measured
    assert all(outcome.predicted == PREDICTED for outcome in measured)
    assert all(outcome.figures.peak_bytes and outcome.figures.energy_j is None for outcome in measured)
    wide = measured[0].figures.latency_p50_ms
    assert wide.high / wide.low > 3  # a factor of two to either side


def test_more_threads_than_the_device_has_cores_are_refused(project: Path) -> None:
    wish = Wish(seconds=1.0, threads=(8,), toolchains=False, device="raspberry-pi-5")
    with pytest.raises(UsageError, match="has 4 cores"):
        search_project(read_project(project), Cache(project / "cache"), Progress(None), wish)
