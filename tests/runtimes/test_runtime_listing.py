"""``skerry runtimes`` lists what is there, and survives plugins that are broken."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from skerry.cli import runtimes as command
from skerry.runtimes.listing import survey
from skerry.spec import plugins


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path into which a test can install modules and entry points."""
    monkeypatch.syspath_prepend(str(tmp_path))
    plugins.plugins.cache_clear()
    yield tmp_path
    plugins.plugins.cache_clear()


def _install(folder: Path, name: str, module: str, target: str = "Runtime") -> None:
    module_name = f"{name}_{uuid.uuid4().hex}"  # its own, so that no test finds another's in sys.modules
    (folder / f"{module_name}.py").write_text(module)
    info = folder / f"third_{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: third-{name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[skerry.runtimes]\n{name} = {module_name}:{target}\n")


def _parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.register(parser.add_subparsers())
    return parser.parse_args(["runtimes", *words])


def test_the_built_in_runtimes_are_listed() -> None:
    reports = {report.name: report for report in survey()}
    assert reports["null"].usable
    assert reports["null"].devices == ("cpu",)
    pytest.importorskip("onnxruntime")
    assert reports["onnxruntime"].usable
    assert reports["onnxruntime"].suffixes == (".onnx", ".ort")
    assert "azure" not in " ".join(reports["onnxruntime"].devices)


def test_providers_that_a_wheel_lacks_are_named_with_what_they_take(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime")
    report = next(report for report in survey() if report.name == "onnxruntime")
    asked = {"xnnpack", "openvino", "cuda", "tensorrt", "qnn", "coreml", "armnn", "cpu"}
    assert asked <= {*report.devices, *report.lacks}
    assert not set(report.devices) & set(report.lacks) and all(report.lacks.values())
    command.run(_parsed())
    told = capsys.readouterr().out
    assert all(device in told for device in report.lacks)


@pytest.mark.parametrize(
    ("module", "target", "reason"),
    [
        ("import no_such_engine", "Runtime", "no_such_engine"),
        ("raise RuntimeError('the driver is gone')", "Runtime", "the driver is gone"),
        ("this is no Python", "Runtime", "SyntaxError"),
        ("", "Runtime", "Runtime"),
        ("class Runtime: pass", "Runtime", "availability"),
    ],
)
def test_a_broken_plugin_is_listed_with_its_reason(installed: Path, module: str, target: str, reason: str) -> None:
    _install(installed, "broken", module, target)
    reports = {report.name: report for report in survey()}
    assert not reports["broken"].usable
    assert reason in reports["broken"].reason
    assert reports["null"].usable


def test_a_third_party_runtime_is_listed_with_its_package(installed: Path) -> None:
    _install(installed, "other", "from skerry.runtimes.null import NullRuntime as Runtime")
    report = next(report for report in survey() if report.name == "other")
    assert report.usable
    assert report.package == "third-other"


def test_an_engine_without_a_runtime_is_named_and_not_imported(installed: Path) -> None:
    (installed / "llama_cpp").mkdir()
    (installed / "llama_cpp" / "__init__.py").write_text("raise RuntimeError('imported')")
    report = next(report for report in survey() if report.name == "llamacpp")
    assert not report.usable
    assert "not built yet in this version" in report.reason
    assert "llama_cpp" not in sys.modules


def test_an_engine_with_a_plugin_is_listed_once(installed: Path) -> None:
    (installed / "llama_cpp").mkdir()
    (installed / "llama_cpp" / "__init__.py").write_text("")
    _install(installed, "llamacpp", "from skerry.runtimes.null import NullRuntime as Runtime")
    assert [report.usable for report in survey() if report.name == "llamacpp"] == [True]


def test_the_command_prints_text(installed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _install(installed, "broken", "import no_such_engine")
    assert command.run(_parsed()) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("null") and "devices: cpu" in line for line in lines)
    assert any(line.startswith("broken") and "not usable" in line and "no_such_engine" in line for line in lines)


def test_the_command_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run(_parsed("--json")) == 0
    reports = json.loads(capsys.readouterr().out)
    assert {"name", "package", "usable", "version", "devices", "suffixes", "reason", "hint", "lacks"} == set(reports[0])


@pytest.mark.parametrize(
    ("name", "module"), [("onnxruntime", "onnxruntime"), ("openvino", "openvino"), ("litert", "ai_edge_litert")]
)
def test_a_missing_engine_is_told_with_what_to_install(name: str, module: str) -> None:
    """In a fresh process in which the package cannot be found."""
    code = f"""
import sys
sys.modules["{module}"] = None
from skerry.runtimes.listing import survey
report = next(report for report in survey() if report.name == "{name}")
assert not report.usable and "skerry[{name}]" in report.hint, report
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_importing_the_room_imports_no_engine() -> None:
    code = """
import sys
import skerry.spec.ports, skerry.spec.plugins
before = {"numpy", "onnxruntime"} & sys.modules.keys()
import skerry.runtimes.null, skerry.runtimes.onnxruntime, skerry.runtimes.listing, skerry.runtimes.tensors
import skerry.runtimes.litert, skerry.runtimes.openvino
import skerry.cli.runtimes, skerry.testing.runtimes
assert {"numpy", "onnxruntime"} & sys.modules.keys() == before
assert not {"onnxruntime", "openvino", "ai_edge_litert"} & sys.modules.keys()
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
