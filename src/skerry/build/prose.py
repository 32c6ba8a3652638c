"""Prose: the running text in files that hold other things too, sentence by sentence."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator

_SHORTEST, _LONGEST = 15, 600
"""Characters of a sentence."""
_LEAST_WORDS = 3
_ALPHABETIC = 0.7
"""The share of a sentence's words that are made of letters: tables, code and paths are no running text."""

_DOCSTRING = re.compile(r'"""(.+?)"""', re.DOTALL)
_TAG = re.compile(r"<(script|style|pre)\b.*?</\1>|<[^>]*>", re.DOTALL | re.IGNORECASE)
_HTML_BLOCK = re.compile(r"<(?:p|li|td|th|h\d|div|dt|dd|br)\b[^>]*>", re.IGNORECASE)
_ROFF_FONT = re.compile(r"\\f(?:\[[^\]]*\]|\(..|.)|\\s[-+]?\d+")
_ROFF_SIGN = re.compile(r"\\(?:\((..)|\[([^\]]*)\]|(.))")
_ROFF_SIGNS = {"aq": "'", "cq": "'", "oq": "'", "lq": '"', "rq": '"', "-": "-", "e": "\\", " ": " ", "em": "-"}
_ROFF_WORDS = re.compile(r"^\.(?:B|I|BR|IR|RB|RI|BI|IB|Nm|Ar|Fl|Xr|Pa|Dv|Va|Em|Sy)\s+(.*)")
_POD_CODE = re.compile(r"[BCEFILSX]<+ ?([^<>]*?) ?>+")
_MARKUP = re.compile(r":[a-z]+(?::[a-z]+)?:(?=`)|[`*|#]+|!?\[([^\]]*)\]\([^)]*\)")
_BREAK = re.compile(r"\n\s*\n|\n(?=\s*(?:[-*•] |\d+[.)] |[\w`]+ ?:))")
_SENTENCE = re.compile(r"(?<=[a-z)\]\"'][.!?]) +(?=[A-Z\"'(])")
_EDGES = "\"'()[].,;:!?"


def sentences(text: str) -> Iterator[str]:
    """Yield the sentences and headings of a text; code, tables and lists of names are none.

    >>> list(sentences("It opens a file.  It may fail here.\\n\\n    x = 1 + y_2"))
    ['It opens a file.', 'It may fail here.']
    """
    for block in _BREAK.split(text):
        if ">>>" in block:
            continue
        line = " ".join(_MARKUP.sub(r"\1", block).split())
        for part in _SENTENCE.split(line):
            sentence = part.strip(" -•")
            if _SHORTEST <= len(sentence) <= _LONGEST and _is_running(sentence):
                yield sentence


def _is_running(sentence: str) -> bool:
    words = sentence.split()
    plain = sum(word.strip(_EDGES).replace("-", "").replace("'", "").isalpha() for word in words)
    return len(words) >= _LEAST_WORDS and plain >= _ALPHABETIC * len(words)


def docstrings(text: str) -> str:
    """Return what stands between triple quotes in a Python module."""
    return "\n\n".join(_DOCSTRING.findall(text))


def plain_text(text: str) -> str:
    """Return a text of no markup, or of little (Markdown, reStructuredText)."""
    return text


def web_page(text: str) -> str:
    """Return a web page without its tags."""
    return html.unescape(_TAG.sub(" ", _HTML_BLOCK.sub("\n\n", text)))


def manual_page(text: str) -> str:
    """Return a manual page without roff's requests: each begins a new block, save those for bold and the like."""
    found = []
    for line in text.splitlines():
        words = _ROFF_WORDS.match(line)
        if words:
            found.append(words[1].replace('"', ""))
        elif line.startswith((".", "'")):
            found.append("")
        else:
            found.append(line)
    bare = _ROFF_FONT.sub("", "\n".join(found))
    return _ROFF_SIGN.sub(lambda sign: _ROFF_SIGNS.get(sign[1] or sign[2] or sign[3] or "", ""), bare)


def perl_manual(text: str) -> str:
    """Return Perl's plain old documentation: the paragraphs after a command that are not indented."""
    found, inside = [], False
    for block in re.split(r"\n\s*\n", text):
        if block.startswith("="):
            inside = not block.startswith("=cut")
            found.append(re.sub(r"^=\w+ *", "", block) if inside else "")
        elif inside and not block.startswith((" ", "\t")):
            found.append(block)
    return _POD_CODE.sub(r"\1", "\n\n".join(found))


def package_descriptions(text: str) -> str:
    """Return the descriptions of a file of packages as dpkg or pip writes it."""
    found, inside = [], False
    for line in text.splitlines():
        if line.startswith(("Description:", "Summary:")):
            found += ["", line.split(":", 1)[1], ""]
            inside = True
        elif line.startswith(" "):
            found.append(("" if line.strip() == "." else line[1:]) if inside else "")
        else:
            inside = inside and not re.match(r"[A-Z][A-Za-z-]*:", line)
            found.append(line if inside else "")
    return "\n".join(found)


def reader_of(name: str) -> Callable[[str], str] | None:
    """Return what takes the running text out of a file of this name, or ``None`` for a file that has none."""
    bare = name.removesuffix(".gz")
    lower = bare.lower()
    if lower.startswith(("changelog", "copyright", "license", "authors", "copying")):
        return None  # names and dates, and the same words everywhere
    if bare in {"status", "METADATA", "PKG-INFO"}:
        return package_descriptions if bare == "status" else plain_text
    suffix = lower.rsplit(".", 1)[-1]
    if re.fullmatch(r"[1-8](?:[a-z]+)?", suffix):
        return manual_page
    kinds = {
        "py": docstrings, "md": plain_text, "rst": plain_text, "txt": plain_text, "html": web_page, "htm": web_page,
        "pod": perl_manual, "pm": perl_manual,
    }  # fmt: skip
    if suffix in kinds:
        return kinds[suffix]
    return plain_text if lower.startswith(("readme", "news", "todo", "faq")) else None
