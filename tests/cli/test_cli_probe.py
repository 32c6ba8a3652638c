"""``skerry probe`` as a command."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from skerry.cli.main import main
from skerry.device.catalogue import catalogue
from skerry.spec.errors import DeviceError, UsageError
from skerry.spec.profile import DeviceProfile


def test_quick_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["probe", "--quick"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("device ")
    assert any(line.startswith("cores ") for line in lines)
    assert any("--quick reads only" in line for line in lines)


def test_quick_as_json_is_a_profile(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["probe", "--quick", "--json", "--storage", str(tmp_path)]) == 0
    profile = msgspec.json.decode(capsys.readouterr().out, type=DeviceProfile)
    assert profile.quick
    assert profile.storage.path == str(tmp_path)


@pytest.mark.parametrize("name", ["raspberry-pi-5", "phone-snapdragon-8-gen-2"])
def test_a_device_of_the_catalogue(capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert main(["probe", "--device", name]) == 0
    assert "(estimate)" in capsys.readouterr().out
    assert main(["probe", "--device", name, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["origin"] == "catalogue"


def test_the_list_of_devices(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["probe", "--list-devices"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(catalogue())
    assert main(["probe", "--list-devices", "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)) == list(catalogue())


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--device", "rasberry"], DeviceError.exit_code),
        (["--device", ""], DeviceError.exit_code),
        (["--device", "rock-5b", "--quick"], UsageError.exit_code),
        (["--device", "rock-5b", "--list-devices"], UsageError.exit_code),
        (["--measure-link", "gopher://host/"], UsageError.exit_code),
        (["--measure-link", ""], UsageError.exit_code),
        (["--measure-link", "http://127.0.0.1:1/"], DeviceError.exit_code),
        (["--storage", "/nowhere/at/all"], UsageError.exit_code),
        (["--metered", "x", "--unmetered", "x"], UsageError.exit_code),
        (["--frobnicate"], UsageError.exit_code),
    ],
)
def test_wrong_words(capsys: pytest.CaptureFixture[str], words: list[str], code: int) -> None:
    assert main(["probe", *words]) == code
    said = capsys.readouterr()
    assert said.err.startswith("skerry: ")
    assert "Traceback" not in said.err


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["probe", "--help"]) == 0
    assert "--device raspberry-pi-5" in capsys.readouterr().out
