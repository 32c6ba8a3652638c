"""Phoning home is off: the wheels of ONNX Runtime and OpenVINO report usage by default, Skerry's use does not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path

import pytest

from skerry.runtimes.onnxruntime import TELEMETRY_VARIABLE
from skerry.testing import network_guard

CONTROL_TIMEOUT_S = 20
"""The reporting thread of ONNX Runtime 1.32 was seen to look up its server after 5 to 10 seconds."""

_LOAD = """
from pathlib import Path
from skerry.runtimes.onnxruntime import OnnxRuntime
session = OnnxRuntime().load(Path(sys.argv[1]), threads=2)
session.warm_up()
"""
_BARE_LOAD = """
import onnxruntime, numpy
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
ones = numpy.ones((1, 2), dtype="int64")
session.run(None, {"input_ids": ones, "attention_mask": ones})
"""
_LOAD_OPENVINO = """
from pathlib import Path
from skerry.runtimes.openvino import OpenVinoRuntime, import_openvino
session = OpenVinoRuntime().load(Path(sys.argv[1]), threads=2)
session.warm_up()
import_openvino().convert_model(sys.argv[1])
"""
_BARE_OPENVINO = """
import openvino
openvino.convert_model(sys.argv[1])
"""
_LOAD_LITERT = """
from pathlib import Path
from skerry.runtimes.litert import LiteRtRuntime
for engine in ("interpreter", "compiled"):
    session = LiteRtRuntime().load(Path(sys.argv[1]), threads=2, options={"engine": engine})
    session.warm_up()
"""
_LOADING = {
    "onnxruntime": ("onnxruntime", _LOAD, "onnx_model"),
    "openvino": ("openvino", _LOAD_OPENVINO, "onnx_model"),
    "litert": ("ai_edge_litert", _LOAD_LITERT, "litert_model"),
}
"""For each engine: its module, what to do with it, and the fixture of a model."""
_GUARDED = "import sys\nfrom skerry.testing import network_guard\nnetwork_guard.install()\n"
_UNTIL_TOLD = "print('running', flush=True)\nsys.stdin.read()\n"


@pytest.fixture
def quiet_machine() -> None:
    if network_guard.why_not():
        pytest.skip(network_guard.why_not())


def _environment(home: Path) -> dict[str, str]:
    """An environment in which nobody turned telemetry off, and a home of its own for what may be left behind."""
    home.mkdir()
    dropped = (TELEMETRY_VARIABLE, "XDG_CACHE_HOME", "CI", "GITHUB_ACTIONS", "TF_BUILD", "JENKINS_URL")
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    return {**kept, "HOME": str(home)}


def _start(code: str, model: Path, home: Path, *before: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [*before, sys.executable, "-c", code, str(model)],
        env=_environment(home), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    line = process.stdout.readline()
    if line != "running\n":
        pytest.fail(f"the child did not start: {process.communicate()[1]}")
    return process


def test_the_guard_kills_native_code_that_opens_an_internet_socket(quiet_machine: None) -> None:
    code = "import ctypes, sys; ctypes.CDLL(None).socket(int(sys.argv[1]), 2, 0)"
    for family, expected in (("1", 0), ("2", network_guard.KILLED), ("10", network_guard.KILLED)):
        child = subprocess.run([sys.executable, "-c", _GUARDED + code, family], check=False, timeout=30)
        assert child.returncode == expected


def test_nothing_is_sent_for_as_long_as_the_bare_library_needs_to_phone_home(
    quiet_machine: None, onnx_model: Path, tmp_path: Path
) -> None:
    """Both run side by side under the guard, until the bare library is killed for opening a socket."""
    pytest.importorskip("onnxruntime")
    ours_home, bare_home = tmp_path / "ours", tmp_path / "bare"
    with (
        _start(_GUARDED + _LOAD + _UNTIL_TOLD, onnx_model, ours_home) as ours,
        _start(_GUARDED + _BARE_LOAD + _UNTIL_TOLD, onnx_model, bare_home) as bare,
    ):
        try:
            bare_code = bare.wait(CONTROL_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            bare.communicate("")
            bare_code = 0
        errors = ours.communicate("", timeout=30)[1]
    assert ours.returncode == 0, errors
    assert list(ours_home.rglob("*")) == []
    if bare_code != network_guard.KILLED:
        pytest.skip("this onnxruntime did not phone home by itself, so that there was nothing to turn off")


def test_openvino_takes_no_identity(quiet_machine: None, onnx_model: Path, tmp_path: Path) -> None:
    """Loading, running and converting leaves nothing in the home, where the bare library's import leaves an identity.

    It reports from a child process, which the guard kills without a trace in the parent: strace sees that below.
    """
    _require_openvino_telemetry()
    left = {}
    for name, code in (("ours", _LOAD_OPENVINO), ("bare", _BARE_OPENVINO)):
        command = [sys.executable, "-c", _GUARDED + code, str(onnx_model)]
        environment = _environment(tmp_path / name)
        done = subprocess.run(command, env=environment, capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        left[name] = {path.name for path in (tmp_path / name).rglob("*")}
    assert left["ours"] == set()
    if not left["bare"]:
        pytest.skip("this openvino took no identity by itself, so that there was nothing to turn off")


def test_no_identity_is_left_in_the_home(onnx_model: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    child = _start("import sys\n" + _LOAD + _UNTIL_TOLD, onnx_model, tmp_path / "home")
    child.communicate("", timeout=30)
    assert child.returncode == 0
    assert list((tmp_path / "home").rglob("*")) == []


def test_the_variable_is_set_before_the_library_is_imported(onnx_model: Path, tmp_path: Path) -> None:
    """Read from C, as the library does, at the moment when Python begins to import it."""
    watch = """
import ctypes, sys
getenv = ctypes.CDLL(None).getenv
getenv.restype = ctypes.c_char_p
class Watch:
    def find_spec(self, name, *rest):
        if name == "onnxruntime":
            assert getenv(b"ORT_DISABLE_TELEMETRY") == b"1", "imported with telemetry on"
sys.meta_path.insert(0, Watch())
"""
    pytest.importorskip("onnxruntime")
    child = _start(watch + _LOAD + _UNTIL_TOLD, onnx_model, tmp_path / "home")
    child.communicate("", timeout=30)
    assert child.returncode == 0


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "litert"])
def test_strace_sees_no_internet_socket(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Of the process or any child of it."""
    _require_strace()
    package, code, fixture = _LOADING[name]
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed: pip install 'skerry[{name}]'")
    model = request.getfixturevalue(fixture)
    assert "AF_INET" not in _traced("import sys\n" + code + _UNTIL_TOLD, model, tmp_path)


def test_strace_sees_the_sockets_of_the_bare_openvino(onnx_model: Path, tmp_path: Path) -> None:
    """So the silence of ours is no accident."""
    _require_strace()
    _require_openvino_telemetry()
    if "AF_INET" not in _traced("import sys\n" + _BARE_OPENVINO + _UNTIL_TOLD, onnx_model, tmp_path):
        pytest.skip("this openvino did not phone home by itself, so that there was nothing to turn off")


def _traced(code: str, model: Path, folder: Path) -> str:
    """Run code to its end and return its network calls, those of its children included."""
    traced = folder / "calls.txt"
    before = ("strace", "-f", "-qq", "-e", "trace=network", "-o", str(traced))
    child = _start(code, model, folder / "home", *before)
    child.communicate("", timeout=60)
    assert child.returncode == 0
    return traced.read_text()


def _require_strace() -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed: make system-deps")
    if subprocess.run(["strace", "-o", os.devnull, "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("strace may not trace here")


def _require_openvino_telemetry() -> None:
    if not {"openvino", "openvino-telemetry"} <= {found.name for found in distributions()}:
        pytest.skip("openvino and its telemetry are not installed: pip install 'skerry[openvino]'")
