"""The corpus: running text out of files of many kinds, the same each time, and never what is held out."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.build.corpus import machine_texts
from skerry.build.evaluation import evaluation_set
from skerry.build.prose import reader_of, sentences
from skerry.build.splits import key

MODULE = '''"""Reads the values of a sensor.

It keeps the last ten of them. A broken value is left out.
"""
x = {"not a sentence": 1}
'''
MANUAL = r""".TH TOOL 1
.SH DESCRIPTION
\fBtool\fP writes what it was given to a file\-descriptor.
.B Bold words
stay in their sentence.
"""
PAGE = (
    "<html><head><style>p { color: red }</style></head><p>A page about rivers &amp; lakes.</p><pre>x = 1</pre></html>"
)
POD = "package A;\n\n=head1 NAME\n\nA module that counts B<all> the words.\n\n  code here\n\n=cut\n\nmy $x = 1;\n"
STATUS = """Package: tool
Status: ok
Description: tools for small machines
 They measure what they need.
 .
 And more of it.
"""


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    manuals = tmp_path / "man"
    for name in ("man1", "de/man1"):
        (manuals / name).mkdir(parents=True)
        (manuals / name / "tool.1.gz").write_bytes(gzip.compress(MANUAL.replace("tool", name[:2]).encode()))
    (tmp_path / "module.py").write_text(MODULE)
    (tmp_path / "page.html").write_text(PAGE)
    (tmp_path / "Words.pm").write_text(POD)
    (tmp_path / "status").write_text(STATUS)
    (tmp_path / "LICENSE.txt").write_text("You may use this for whatever you like.")
    (tmp_path / "README.gz").write_bytes(gzip.compress(b"This one is whole and cut short.")[:20])
    (tmp_path / "latin.txt").write_bytes("Dieser Satz hat ein falsches \xfc darin.".encode("latin-1"))
    (tmp_path / "evaluation.txt").write_text("\n\n".join(evaluation_set().texts.lines[:20]))
    return tmp_path


def test_text_is_found_in_files_of_many_kinds(machine: Path) -> None:
    found = set(machine_texts(100, roots=[machine]))
    assert found == {
        "Reads the values of a sensor.", "It keeps the last ten of them.", "A broken value is left out.",
        "ma writes what it was given to a file-descriptor.", "Bold words stay in their sentence.",
        "A page about rivers & lakes.", "A module that counts all the words.", "tools for small machines",
        "They measure what they need.", "And more of it.",
    }  # fmt: skip


def test_the_same_files_give_the_same_texts(machine: Path) -> None:
    assert machine_texts(5, roots=[machine]) == machine_texts(5, roots=[machine])
    assert set(machine_texts(5, roots=[machine])) <= set(machine_texts(100, roots=[machine]))


def test_what_is_held_out_is_not_found(machine: Path) -> None:
    found = machine_texts(100, roots=[machine], forbidden={key("A  BROKEN value is left out.")})
    assert "A broken value is left out." not in found
    assert not {key(text) for text in found} & {key(text) for text in evaluation_set().texts.lines}


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("a.py", True), ("a.3pm.gz", True), ("README", True), ("METADATA", True), ("changelog.gz", False),
        ("a.so", False), ("copyright", False), ("a.json", False),
    ],
)  # fmt: skip
def test_which_files_are_read(name: str, read: bool) -> None:
    assert (reader_of(name) is not None) == read


@given(st.text(max_size=300))
def test_sentences_of_any_text_are_lines_with_words(text: str) -> None:
    for sentence in sentences(text):
        assert "\n" not in sentence and len(sentence.split()) >= 3
