"""Toolchains: environments made once from pins, converters that run in them, and what may go wrong with both."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from skerry.build import toolchain
from skerry.build.conversation import CONVERTERS
from skerry.build.toolchain import TOOLCHAINS, Toolchain
from skerry.spec.errors import (
    DependencyError,
    DeviceError,
    ModelCorruptError,
    ModelError,
    ModelKindError,
    SpecError,
    UsageError,
)

TINY = Toolchain(purpose="tests", packages=("tiny-tool",), modules=("tiny_tool",), size_bytes=1_000_000)
BARE = Toolchain(purpose="tests", packages=(), modules=(), size_bytes=1_000_000)


def write_wheel(folder: Path, code: str = "ANSWER = 42\n") -> None:
    """Write the smallest wheel there is."""
    info = "tiny_tool-1.0.dist-info"
    with zipfile.ZipFile(folder / "tiny_tool-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny_tool.py", code)
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-tool\nVersion: 1.0\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", f"tiny_tool.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pytest.MonkeyPatch]:
    """A toolchain `tiny` of one package, which pip finds in a folder and nowhere else, and an empty cache."""
    folder = tmp_path_factory.mktemp("shelf")
    write_wheel(folder)
    (folder / "tiny.txt").write_text("# pins\ntiny_tool==1.0  # a comment\n")
    (folder / "absent.txt").write_text("no-such-package-of-ours==9.9\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(toolchain, "PINS", folder)
        patch.setattr(toolchain, "SPARE_BYTES", 0)
        patch.setattr(toolchain, "TOOLCHAINS", {"tiny": TINY, "absent": BARE})
        patch.setenv("SKERRY_CACHE", str(folder / "cache"))
        patch.setenv("PIP_NO_INDEX", "1")
        patch.setenv("PIP_FIND_LINKS", str(folder))
        patch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
        yield patch


@pytest.fixture(scope="module")
def tiny(shelf: pytest.MonkeyPatch) -> str:
    """The toolchain `tiny`, installed by two threads at once."""
    said: list[str] = []
    threads = [threading.Thread(target=toolchain.provide, args=("tiny",), kwargs={"say": said.append}) for _ in "12"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(line.startswith("making") for line in said) == 1, "two at once make it once"
    return "tiny"


def write_script(folder: Path, body: str) -> Path:
    """Write a converter; ``body`` is that of ``convert``."""
    path = folder / "script.py"
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    path.write_text(f"def convert(request, talk):\n{lines}\n")
    return path


def test_an_environment_is_made_once_and_tells_what_it_holds(tiny: str) -> None:
    said: list[str] = []
    found = toolchain.provide(tiny, say=said.append)
    assert found.versions["tiny-tool"] == "1.0" and not said
    assert toolchain.python_of(toolchain.place(tiny)).exists() and found.size_bytes > 100_000


def test_other_pins_are_another_environment(tiny: str) -> None:
    pins = toolchain.PINS / "tiny.txt"
    before, text = toolchain.place(tiny), pins.read_text()
    try:
        pins.write_text(text + "# changed\n")
        assert toolchain.place(tiny) != before and toolchain.find(tiny) is None
        state = next(state for state in toolchain.survey() if state.name == tiny)
        assert not state.installed and state.older == 1 and state.older_bytes > 0
    finally:
        pins.write_text(text)
    assert toolchain.find(tiny) is not None


def test_a_converter_answers_reports_and_sees_its_own_packages(tiny: str, tmp_path: Path) -> None:
    script = write_script(
        tmp_path,
        "import os, sys, tiny_tool\nprint('noise of a library')\nos.system('echo noise of native code')\n"
        "talk.say('half way')\n"
        "return {'answer': tiny_tool.ANSWER, 'got': request['text'], 'ours': 'skerry' in sys.modules}",
    )
    said: list[str] = []
    answer = toolchain.run(tiny, script, {"text": "ä" * 200_000}, say=said.append)
    assert answer == {"answer": 42, "got": "ä" * 200_000, "ours": False}
    assert said == ["half way"]


@pytest.mark.parametrize(
    ("kind", "error"), [("corrupt", ModelCorruptError), ("kind", ModelKindError), ("option", SpecError)]
)
def test_a_refusal_is_an_error_of_ours(tiny: str, tmp_path: Path, kind: str, error: type[Exception]) -> None:
    script = write_script(tmp_path, f"raise talk.refusal({kind!r}, 'it does not work', 'do this')")
    with pytest.raises(error, match=r"(?s)it does not work.*do this"):
        toolchain.run(tiny, script, {})


@pytest.mark.parametrize(
    ("body", "error", "match"),
    [
        (
            "return {}['absent']",
            ModelError,
            r"script failed: KeyError: 'absent'\n  hint: last seen at File .*script.py",
        ),
        ("import os\nos.abort()", ModelError, "ended by signal 6"),
        ("import os\nos._exit(0)", ModelError, "failed: it said nothing"),
        ("raise MemoryError", DeviceError, "ran out of memory"),
        ("import errno\nraise OSError(errno.ENOSPC, 'no space')", DeviceError, r"script cannot write: .*no space"),
        (
            "try:\n    raise MemoryError\nexcept Exception as e:\n    raise talk.refusal('corrupt', 'x') from e",
            DeviceError,
            "ran out of memory",
        ),
    ],
)
def test_a_fault_of_a_converter_is_told(
    tiny: str, tmp_path: Path, body: str, error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        toolchain.run(tiny, write_script(tmp_path, body), {})


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux alone ends a child with its parent")
def test_a_converter_whose_parent_is_gone_does_nothing(tmp_path: Path) -> None:
    script = write_script(tmp_path, f"open({str(tmp_path / 'made')!r}, 'w').close()\nreturn {{}}")
    command = [sys.executable, "-I", str(CONVERTERS / "child.py"), str(script)]
    for parent, code, answered in ((os.getpid(), 0, True), (os.getpid() + 1, 1, False)):
        ended = subprocess.run([*command, str(parent)], input=b"{}", capture_output=True, timeout=60, check=False)
        assert (ended.returncode, b"answer" in ended.stdout, (tmp_path / "made").exists()) == (code, answered, answered)
        (tmp_path / "made").unlink(missing_ok=True)


def test_what_an_error_says_is_told_by_its_first_line_with_words(tiny: str, tmp_path: Path) -> None:
    body = "return {'said': [talk.reason(ValueError(one)) for one in ('', '\\n\\n  first\\nsecond')]}"
    assert toolchain.run(tiny, write_script(tmp_path, body), {}) == {"said": ["ValueError", "first"]}


def test_limits_of_time_and_memory_hold(tiny: str, tmp_path: Path) -> None:
    waits = "import subprocess, time\nsubprocess.Popen(['sleep', '600'])\ntalk.say('waiting')\ntime.sleep(600)"
    with pytest.raises(DeviceError, match=r"longer than 0\.7 s"):
        toolchain.run(tiny, write_script(tmp_path, waits), {}, time_limit_s=0.7)
    grows = "import time\nheld = bytearray(200_000_000)\ntime.sleep(600)"
    with pytest.raises(DeviceError, match="more than 100 MB"):
        toolchain.run(tiny, write_script(tmp_path, grows), {}, memory_limit_bytes=100_000_000)


def test_what_cannot_be_installed_is_told_in_the_words_of_pip_and_leaves_nothing(shelf: pytest.MonkeyPatch) -> None:
    with pytest.raises(DependencyError, match=r"(?s)No matching distribution found for no-such-package-of-ours==9\.9"):
        toolchain.provide("absent")
    assert not toolchain.place("absent").exists() and toolchain.find("absent") is None


def test_what_was_installed_but_does_not_work_is_not_kept(shelf: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_wheel(tmp_path, "import no_such_module_of_ours\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIP_FIND_LINKS", str(tmp_path))
        patch.setenv("SKERRY_CACHE", str(tmp_path / "cache"))
        with pytest.raises(DependencyError, match=r"(?s)does not work here.*no_such_module_of_ours"):
            toolchain.provide("tiny")
        assert not toolchain.place("tiny").exists()


def test_a_half_made_environment_is_never_used(shelf: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SKERRY_CACHE", str(tmp_path))
        folder = toolchain.place("tiny")
        toolchain.python_of(folder).parent.mkdir(parents=True)
        toolchain.python_of(folder).symlink_to(sys.executable)
        (folder / "left").write_text("by a process that was killed")
        assert toolchain.find("tiny") is None
        toolchain.provide("tiny")
        assert toolchain.find("tiny") is not None and not (folder / "left").exists()
        assert toolchain.remove("tiny") > 0 and toolchain.remove("tiny") == 0
        assert toolchain.find("tiny") is None


def test_a_full_disk_is_told_beforehand(shelf: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SKERRY_CACHE", str(tmp_path))
        patch.setattr(toolchain, "SPARE_BYTES", 10**18)
        with pytest.raises(DeviceError, match="too little space"):
            toolchain.provide("tiny")


def test_it_is_not_removed_under_a_converter_at_work(tiny: str, tmp_path: Path) -> None:
    started, release = threading.Event(), tmp_path / "release"
    body = (
        "import os, time\ntalk.say('at work')\nwhile not os.path.exists(request['until']): time.sleep(0.01)\nreturn {}"
    )
    script = write_script(tmp_path, body)
    worker = threading.Thread(
        target=toolchain.run, args=(tiny, script, {"until": str(release)}), kwargs={"say": lambda _: started.set()}
    )
    worker.start()
    assert started.wait(30)
    try:
        with pytest.raises(DeviceError, match="in use"):
            toolchain.remove(tiny)
    finally:
        release.touch()
        worker.join()


def test_an_interrupted_install_leaves_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # an index that takes connections and never answers
        code = (
            "import sys; from pathlib import Path; from skerry.build import toolchain as t\n"
            "t.PINS = Path(sys.argv[1]); t.SPARE_BYTES = 0\n"
            "t.TOOLCHAINS['tiny'] = t.Toolchain(purpose='', packages=(), modules=(), size_bytes=0)\n"
            "t.provide('tiny')"
        )
        (tmp_path / "tiny.txt").write_text("tiny_tool==1.0\n")
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        variables = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PIP_")},
            "SKERRY_CACHE": str(tmp_path / "cache"), "PIP_INDEX_URL": address, "PIP_CONFIG_FILE": os.devnull,
        }  # fmt: skip
        child = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)], env=variables, stderr=subprocess.PIPE, text=True
        )
        silent.settimeout(60)
        try:
            connection, _ = silent.accept()  # pip is at work
            with connection:
                assert len(list((tmp_path / "cache" / "toolchains").glob("tiny-*"))) == 1
                child.send_signal(signal.SIGINT)
                _, said = child.communicate(timeout=30)
        finally:
            child.kill()
            child.communicate()
    assert "KeyboardInterrupt" in said
    assert not list((tmp_path / "cache" / "toolchains").glob("tiny-*"))


def test_unknown_names_are_told(shelf: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"(?s)'tiney'.*tiny"):
        toolchain.provide("tiney")
    with pytest.raises(UsageError, match="no converter"):
        toolchain.run("tiny", "absent.py", {})


@pytest.mark.parametrize("name", sorted(TOOLCHAINS))
def test_pins_are_complete_and_free_of_cuda(name: str) -> None:
    text = (Path(toolchain.__file__).parent / "toolchains" / f"{name}.txt").read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line) for line in lines)
    names = [re.sub(r"[-_.]+", "-", line.partition("==")[0]).lower() for line in lines]
    assert len(set(names)) == len(names) and set(TOOLCHAINS[name].packages) <= set(names)
    assert not [one for one in names if one.startswith("nvidia") or "cuda" in one or "telemetry" in one]
