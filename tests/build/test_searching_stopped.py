"""A search that is stopped half-way, by Ctrl-C or by a full disk: nothing half-written, and it goes on from there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from skerry.build.cache import Cache
from skerry.build.model_search import Wish
from skerry.build.progress import Progress
from skerry.build.searching import search_project
from skerry.spec.errors import DeviceError
from skerry.spec.reading import read_project
from tests.build.tensor_models import pixels, write_cnn
from tests.build.test_searching_tensors import short_rungs, write_pipeline

__all__ = ["short_rungs"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    write_cnn(tmp_path / "cnn.onnx")
    np.savez(tmp_path / "data.npz", pixels=pixels(80))
    return write_pipeline(tmp_path)


def made_by(cache: Path) -> list[Path]:
    """Return the finished entries of a cache."""
    return sorted(cache.glob("steps/*/*/entry.json"))


def test_ctrl_c_leaves_no_release_and_no_process_and_the_next_search_goes_on(project: Path) -> None:
    cache = project / "cache"
    command = [sys.executable, "-m", "skerry", "build", str(project), "--time", "8s"]
    environment = {**os.environ, "SKERRY_CACHE": str(cache)}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while len(made_by(cache)) < 6 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
    assert not (project / ".skerry").exists()
    finished = made_by(cache)
    assert len(finished) >= 6
    before = {path: path.stat().st_mtime_ns for path in finished}
    again = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert again.returncode == 0, again.stderr
    assert (project / ".skerry" / "small" / "manifest.json").is_file()
    assert {path: path.stat().st_mtime_ns for path in finished} == before
    assert not list((cache / "work").iterdir())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 96 kB in memory."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", str(place)]
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=10)
    except OSError as error:
        pytest.skip(f"nothing can be mounted here: {error}")
    if done.returncode:
        pytest.skip(f"nothing may be mounted here: {done.stderr.decode().strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=False, timeout=10)


def test_a_full_disk_is_told_and_a_larger_one_goes_on(project: Path, small_disk: Path) -> None:
    wish = Wish(seconds=8.0, toolchains=False)

    def search() -> object:
        return search_project(read_project(project), Cache(small_disk), Progress(None), wish)

    with pytest.raises(DeviceError, match="No space left on device") as caught:
        search()
    assert caught.value.where == str(small_disk)
    assert "SKERRY_CACHE" in caught.value.hint
    assert not (project / ".skerry").exists()
    assert not list((small_disk / "work").iterdir())
    finished = made_by(small_disk)
    before = {path: path.stat().st_mtime_ns for path in finished}
    assert before
    subprocess.run(["mount", "-o", "remount,size=32m", str(small_disk)], check=True, timeout=10)
    search()
    assert (project / ".skerry" / "small" / "manifest.json").is_file()
    assert {path: path.stat().st_mtime_ns for path in finished} == before


def test_a_full_disk_at_the_end_leaves_the_old_release(project: Path, small_disk: Path) -> None:
    wish = Wish(seconds=8.0, toolchains=False)
    cache = Cache(project / "cache")
    search_project(read_project(project), cache, Progress(None), wish)
    release = project / ".skerry"
    files = {path.relative_to(release): path for path in release.rglob("*") if path.is_file()}
    total = sum(path.stat().st_size for path in files.values())
    assert total > 96_000 / 2, "the release and its reports fill the disk"
    (small_disk / "filler").write_bytes(bytes(80_000))
    release.rename(project / "kept")
    release.symlink_to(small_disk)
    with pytest.raises(DeviceError, match="cannot be written: No space left"):
        search_project(read_project(project), cache, Progress(None), wish)
    assert not list(small_disk.rglob("*.new"))
    assert not list(small_disk.rglob(".writing-*"))
