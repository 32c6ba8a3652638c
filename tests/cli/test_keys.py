"""``skerry keys`` and ``skerry enroll`` as commands."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from skerry.cli.main import main
from skerry.spec.errors import EnrolmentRefusedError, IdentityMissingError, TrustError, UsageError
from skerry.trust.authority import Authority
from tests.trust.small_hub import SmallHub

HUB = "https://127.0.0.1:8443"


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKERRY_AUTHORITY", str(tmp_path / "authority"))
    monkeypatch.setenv("SKERRY_IDENTITY", str(tmp_path / "identity"))


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[SmallHub]:
    assert main(["keys", "init", "--hub", HUB, "--fleet", "fleet.test"]) == 0
    authority = Authority(tmp_path / "authority")
    served = SmallHub(authority)
    yield served
    served.close()
    authority.close()


def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def token_of(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    assert main(["keys", "token", *words]) == 0
    return capsys.readouterr().out.strip()


def test_the_whole_way(hub: SmallHub, capsys: pytest.CaptureFixture[str]) -> None:
    token = token_of(capsys, "pump-7")
    assert main(["keys", "list", "--json"]) == 0
    assert [(member["name"], member["state"]) for member in printed(capsys)] == [("pump-7", "waiting")]
    assert main(["enroll", token, "--hub", hub.url]) == 0
    said = capsys.readouterr()
    assert "device             pump-7" in said.out and "next: " in said.err
    assert main(["enroll", "--json"]) == 0
    assert printed(capsys)["fleet"] == "fleet.test"
    first = hub.authority.members(time.time())[0].serial
    assert main(["enroll", "--renew"]) == 0
    assert hub.authority.members(time.time())[0].serial != first
    assert main(["keys", "revoke", "pump-7"]) == 0
    assert "pump-7 is out: 2 certificates revoked" in capsys.readouterr().out
    assert main(["keys", "list"]) == 0
    assert "revoked" in capsys.readouterr().out


def test_every_step_names_the_next(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "init", "--hub", HUB]) == 0
    said = capsys.readouterr()
    assert "next: start the hub: skerry hub --listen 0.0.0.0:8443" in said.err
    assert "skerry keys token pump-7" in said.err and "Keep a copy" in said.out
    assert main(["keys", "list"]) == 0
    assert "nobody is in this fleet yet" in capsys.readouterr().out
    assert main(["keys", "token", "pump-7"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("skerry1.") and said.out.count("\n") == 1  # TOKEN=$(skerry keys token pump-7)
    assert "skerry enroll TOKEN" in said.err


def test_a_token_from_stdin_and_one_that_was_wrapped(
    hub: SmallHub, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    token = token_of(capsys, "pump-7")
    command = [sys.executable, "-m", "skerry", "enroll", "-", "--hub", hub.url, "--json"]
    done = subprocess.run(command, input=f"{token}\n", capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout)["device"] == "pump-7"
    token = token_of(capsys, "valve-1")
    words = [f"{token[:40]}\n  {token[40:]}", "--hub", hub.url, "--identity", str(tmp_path / "other")]
    assert main(["enroll", *words]) == 0


def test_a_device_is_not_enrolled_twice_by_mistake(hub: SmallHub, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["enroll", token_of(capsys, "pump-7"), "--hub", hub.url]) == 0
    assert main(["keys", "token", "pump-7"]) == 0
    assert "the one there is now is out" in capsys.readouterr().err
    again = token_of(capsys, "pump-8")
    assert main(["enroll", again, "--hub", hub.url]) == TrustError.exit_code
    assert "--again" in capsys.readouterr().err
    assert main(["enroll", again, "--hub", hub.url, "--again"]) == 0


def test_an_operator_gets_in_as_one(hub: SmallHub, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["enroll", token_of(capsys, "ann", "--operator"), "--hub", hub.url, "--json"]) == 0
    assert printed(capsys)["operator"] == "ann"
    assert main(["keys", "revoke", "--operator", "ann", "--json"]) == 0
    assert printed(capsys) == {"operator": "ann", "certificates": 1}


def test_rotation(hub: SmallHub, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["enroll", token_of(capsys, "pump-7"), "--hub", hub.url]) == 0
    assert main(["keys", "rotate"]) == 0
    assert main(["keys", "rotate"]) == TrustError.exit_code
    assert main(["keys", "rotate", "--finish"]) == TrustError.exit_code
    assert "1 have not renewed since the rotation began: pump-7" in capsys.readouterr().err
    assert main(["enroll", "--renew"]) == 0
    capsys.readouterr()
    assert main(["keys", "rotate", "--finish", "--json"]) == 0
    assert printed(capsys)["left_behind"] == []


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["keys"], UsageError.exit_code),
        (["keys", "list"], IdentityMissingError.exit_code),
        (["keys", "init", "--hub", "hub.example.org"], TrustError.exit_code),
        (["keys", "init", "--hub", "http://hub.example.org"], TrustError.exit_code),
        (["keys", "init", "--hub", "https://hub:port"], TrustError.exit_code),
        (["keys", "init", "--hub", HUB, "--fleet", "My Fleet"], TrustError.exit_code),
        (["keys", "token", "pump-7", "--lasts", "soon"], UsageError.exit_code),
        (["keys", "revoke"], UsageError.exit_code),
        (["keys", "rotate", "--force"], UsageError.exit_code),
        (["enroll"], IdentityMissingError.exit_code),
        (["enroll", "--renew"], IdentityMissingError.exit_code),
        (["enroll", "--again"], UsageError.exit_code),
        (["enroll", "rubbish"], EnrolmentRefusedError.exit_code),
        (["enroll", "rubbish", "--renew"], UsageError.exit_code),
    ],
)
def test_wrong_words(words: list[str], code: int) -> None:
    assert main(words) == code


@pytest.mark.parametrize(
    "words",
    [
        ["init", "--hub", HUB],  # there is one already
        ["token", "Pump_7"],
        ["token", "pump-7", "--lasts", "40d"],
        ["revoke", "pump-7"],
        ["revoke", "--serial", "abcdef"],
        ["rotate", "--finish"],
    ],
)
def test_what_an_authority_refuses(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "init", "--hub", HUB]) == 0
    capsys.readouterr()
    assert main(["keys", *words, "--json"]) == TrustError.exit_code
    assert printed(capsys)["kind"] == "TrustError"


def test_help_imports_no_cryptography() -> None:
    code = (
        "import sys; from skerry.cli.main import main; main(['--help']); main(['keys', '--help']);"
        "main(['enroll', '--help']); sys.exit('cryptography' in sys.modules or 'sqlite3' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False).returncode == 0
