"""The cache: entries appear whole or not at all."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.build.cache import Cache, default_folder
from skerry.build.measure import agreement_at
from skerry.build.texts import own_texts, read_texts
from skerry.spec.errors import DeviceError


def write(folder: Path) -> dict[str, int]:
    (folder / "file").write_text("content")
    return {"fact": 1}


def test_an_entry_is_made_once(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    made = [cache.entry({"a": 1, "b": [2]}, write) for _ in range(2)]
    other = cache.entry({"a": 2}, write)
    assert [entry.fresh for entry in (*made, other)] == [True, False, True]
    assert made[1].file("file").read_text() == "content"
    assert made[1].note.facts == {"fact": 1}
    assert made[1].digest("file").startswith("sha256:")


def test_a_damaged_entry_is_made_again(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    entry = cache.entry({"a": 1}, write)
    for name, content in (("file", "other"), ("entry.json", "{")):
        entry.file(name).write_text(content)
        again = cache.entry({"a": 1}, write)
        assert again.fresh
        assert again.file("file").read_text() == "content"
    entry.file("file").unlink()
    assert cache.entry({"a": 1}, write).fresh


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, SystemExit])
def test_a_failed_step_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    def fail(folder: Path) -> None:
        write(folder)
        raise error

    with pytest.raises(error):
        Cache(tmp_path).entry({"a": 1}, fail)
    assert not [path for path in tmp_path.glob("**/*") if path.is_file()]


def test_builds_side_by_side_share_it(tmp_path: Path) -> None:
    barrier = threading.Barrier(4)
    found: list[str] = []

    def slow(folder: Path) -> dict[str, int]:
        barrier.wait(10)
        return write(folder)

    def work() -> None:
        found.append(Cache(tmp_path).entry({"a": 1}, slow).file("file").read_text())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert found == ["content"] * 4
    assert not list((tmp_path / "work").iterdir())


def test_what_a_killed_build_left_is_removed_after_a_day(tmp_path: Path) -> None:
    for name, age_s in (("old", 90_000), ("new", 60)):
        folder = tmp_path / "work" / name
        folder.mkdir(parents=True)
        os.utime(folder, (time.time() - age_s,) * 2)
    Cache(tmp_path).entry({"a": 1}, write)
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["new"]


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    def full(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(DeviceError, match="No space left"):
        Cache(tmp_path).entry({"a": 1}, full)


def test_the_folder_can_be_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SKERRY_CACHE", str(tmp_path))
    assert default_folder() == tmp_path
    monkeypatch.delenv("SKERRY_CACHE")
    assert default_folder() == Path.home() / ".cache" / "skerry"


class TestTexts:
    def test_own_texts_are_many_and_different(self) -> None:
        texts = own_texts()
        assert len(texts.lines) == len(set(texts.lines)) == 500
        assert texts.digest == own_texts().digest

    def test_at_even_distances(self, tmp_path: Path) -> None:
        (tmp_path / "t.txt").write_text("\n".join(f"line {number // 2}" for number in range(2000)))
        texts = read_texts(tmp_path / "t.txt", most=100)
        assert texts.lines[:2] == ("line 0", "line 10")
        assert len(texts.lines) == 100


@given(st.integers(0, 1000), st.integers(12, 40))
def test_agreement_is_a_share_and_whole_with_itself(seed: int, count: int) -> None:
    generator = np.random.default_rng(seed)
    one, other = generator.normal(size=(2, count, 5))
    assert agreement_at(one, one) == 1.0
    assert 0.0 <= agreement_at(one, other) <= 1.0
    assert agreement_at(one, other) == agreement_at(other, one)
