"""Environments of peers, without a network."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.__main__ import benchmarks
from bench.environments import EnvironmentMissingError, clean_variables, last_error_line, provide


def test_a_peer_without_pins_is_missing_with_a_reason(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentMissingError, match="no pins for nobody"):
        provide("nobody", root=tmp_path, peers=tmp_path)


def test_an_environment_is_made_once_and_made_again_when_its_pins_change(tmp_path: Path) -> None:
    pins = tmp_path / "empty.txt"
    pins.write_text("# needs nothing\n")
    environment = provide("empty", root=tmp_path / "venvs", peers=tmp_path)
    assert "pip" in environment.versions
    assert environment.run(["-c", "print(6 * 7)"], timeout_s=60).stdout == "42\n"
    trace = environment.python.parent.parent / "trace"
    trace.touch()
    provide("empty", root=tmp_path / "venvs", peers=tmp_path)
    assert trace.exists()
    pins.write_text("# needs nothing, but differently\n")
    provide("empty", root=tmp_path / "venvs", peers=tmp_path)
    assert not trace.exists()


def test_an_install_that_fails_leaves_a_reason_and_no_stamp(tmp_path: Path) -> None:
    (tmp_path / "broken.txt").write_text(f"{tmp_path / 'no-such-file.whl'}\n")
    with pytest.raises(EnvironmentMissingError, match="install failed: "):
        provide("broken", root=tmp_path / "venvs", peers=tmp_path)
    assert not (tmp_path / "venvs" / "broken" / "pins.sha256").exists()


def test_the_line_that_says_most_is_kept() -> None:
    assert last_error_line("warning\nERROR: no match\nnotice\n") == "ERROR: no match"
    assert last_error_line("one\ntwo\n\n") == "two"
    assert last_error_line("") == "it said nothing"


def test_our_own_packages_stay_out_of_a_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    assert "PYTHONPATH" not in clean_variables()


def test_a_benchmark_is_a_module_with_a_main(tmp_path: Path) -> None:
    (tmp_path / "fast.py").write_text("def main() -> int:\n    return 0\n")
    (tmp_path / "form.py").write_text("VALUE = 1\n")
    assert benchmarks(tmp_path) == ["fast"]
