"""``skerry models`` as a command."""

from __future__ import annotations

import json
import subprocess
import sys

import msgspec
import pytest

from skerry.build.catalogue import ModelEntry, catalogue
from skerry.cli.main import main
from skerry.spec.errors import DeviceError, ModelMissingError, UsageError

HEAVY = ("numpy", "torch", "transformers", "onnxruntime", "onnx", "tokenizers", "rich", "psutil", "ruamel", "urllib3")


def test_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["name", *catalogue()]
    assert main(["models", "list", "--task", "detection", "--json"]) == 0
    found = msgspec.json.decode(capsys.readouterr().out, type=list[ModelEntry])
    assert [model.name for model in found] == [m.name for m in catalogue().values() if "detection" in m.tasks]


def test_one_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "show", "gemma-3-270m", "--device", "raspberry-pi-5"]) == 0
    text = capsys.readouterr().out
    for words in ("LicenseRef-Gemma", "table of words (63%)", "predicted, not measured", "one token after 512", "int4"):
        assert words in text
    assert main(["models", "show", "google/gemma-3-270m", "--json", "--runtime", "litert"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["model"]["name"] == "gemma-3-270m"
    assert [one["precision"] for one in found["predicted"]] == ["fp32", "fp16", "int8", "int4"]


def test_the_example_of_the_issue(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "suggest", "--task", "embedding", "--memory", "80MB"]) == 0
    text = capsys.readouterr().out
    assert "predicted from the shape, not measured" in text
    assert "all-minilm-l6-v2" in text.partition("near misses")[0]
    assert "times the limit" in text.partition("near misses")[2]


def test_every_limit_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    words = "--task embedding --memory 80MB --size 25MB --latency 20ms --device raspberry-pi-5 --licence permissive"
    assert main(["models", "suggest", *words.split(), "--language", "EN", "--near", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["measured"] is False
    assert found["device"].startswith("Raspberry Pi 5")
    assert len(found["near"]) == 2
    for one in found["fits"]:
        assert one["predicted"]["memory_bytes"] <= 80e6 and one["predicted"]["latency_s"] <= 0.02
        assert one["breaks"] == []


def test_nothing_fits_is_an_answer(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--task", "transcription", "--memory", "1kB", "--language", "de", "--near", "1"]
    assert main(["models", "suggest", *words]) == 0
    text = capsys.readouterr().out
    assert text.startswith("0 fit") and "near misses (1 of 3)" in text and "left out: 4 for its language" in text


@pytest.mark.parametrize(
    ("words", "code", "hint"),
    [
        (["suggest", "--task", "embeding"], UsageError.exit_code, "'embedding'"),
        (["suggest"], UsageError.exit_code, "--task"),
        (["suggest", "--task", "embedding", "--memory", "80"], UsageError.exit_code, "a size with a unit"),
        (["suggest", "--task", "embedding", "--latency", "80MB"], UsageError.exit_code, "a time with a unit"),
        (["suggest", "--task", "embedding", "--size", "-3MB"], UsageError.exit_code, "--size"),
        (["suggest", "--task", "embedding", "--licence", "permisive"], UsageError.exit_code, "'permissive'"),
        (["suggest", "--task", "embedding", "--runtime", "litter"], UsageError.exit_code, "'litert'"),
        (["suggest", "--task", "embedding", "--tokens", "0"], UsageError.exit_code, "--tokens"),
        (["suggest", "--task", "embedding", "--near", "-1"], UsageError.exit_code, "--near"),
        (["suggest", "--task", "embedding", "--device", "rasberry-pi-5"], DeviceError.exit_code, "raspberry-pi-5"),
        (["show", "all-minlm-l6-v2"], ModelMissingError.exit_code, "'all-minilm-l6-v2'"),
        (["list", "--task", "nothing"], UsageError.exit_code, "embedding"),
        (["list", "--frobnicate"], UsageError.exit_code, "--frobnicate"),
        (["frobnicate"], UsageError.exit_code, "suggest"),
        ([], UsageError.exit_code, "ACTION"),
    ],
)
def test_wrong_words(capsys: pytest.CaptureFixture[str], words: list[str], code: int, hint: str) -> None:
    assert main(["models", *words]) == code
    said = capsys.readouterr().err
    assert said.startswith("skerry: ") and hint in said
    assert "Traceback" not in said


@pytest.mark.parametrize("action", ["list", "show", "suggest"])
def test_every_action_has_help(action: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", action, "--help"]) == 0
    assert "--json" in capsys.readouterr().out


def test_nothing_heavy_is_imported_and_no_network_is_used() -> None:
    code = (
        "import socket, sys\n"
        "def refused(*_, **__): raise AssertionError('the network was asked')\n"
        "socket.socket.connect = refused\n"
        "from skerry.cli.main import main\n"
        "words = 'models suggest --task embedding --memory 80MB --latency 20ms --device raspberry-pi-5'\n"
        "code = main(words.split())\n"
        f"print(sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr)\n"
        "sys.exit(code)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip() == "[]"
