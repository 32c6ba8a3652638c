"""The evaluation set: sentences to report on when the user gives none; frozen, and never tuned on.

They are taken from Python's own language reference (``pydoc_data.topics``), which comes with every Python and is other
text than the docstrings that :func:`skerry.build.texts.own_texts` calibrates and selects by. Nothing of Skerry is
chosen by how it does on them: no technique, setting or default. Whoever changes this file changes what all reported
figures mean, so a test holds it to the digest that is noted here.

The reference is worded a little differently from one version of Python to the next, so the digest is noted by version;
figures of two versions are of sets that are nearly, not entirely, the same. To note another: ``python -m
skerry.build.evaluation``.
"""

from __future__ import annotations

import hashlib
import platform
import re
import sys
from collections.abc import Iterator
from typing import Literal

import msgspec

from skerry.build.splits import key
from skerry.build.texts import Texts, own_texts
from skerry.spec.errors import DependencyError

SIZE = 500
"""How many sentences: the interval of agreement@10 is then about ±0.01."""

DIGESTS = {
    "3.11.7": "sha256:f4ac11f873e5f65d000c3ae0f1a3a9906ed7be177b0dbe3ea869a725c286d8eb",
}
"""The digest of the set by version of Python."""

_SHORTEST, _LONGEST = 30, 400
"""Characters of a sentence: about 6 to 90 tokens."""

_LEAST_WORDS = 5
_SENTENCE = re.compile(r"(?:(?<=[a-z)\]][.!?])|(?<=[.!?]\))) +(?=[(A-Z])")
_MARKUP = re.compile(r"[\"*`|]+")
_BULLET = re.compile(r"^(?:[-*•]|\d+[.)]|[a-z][.)]) +")


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """The set, and whether it is the one that was noted for this version of Python.

    ``state`` is ``frozen`` when it is, ``unrecorded`` when none was noted, ``changed`` when another was: a distribution
    has then changed the reference, and figures are good for comparisons on this machine only.
    """

    texts: Texts
    state: Literal["frozen", "unrecorded", "changed"]


def evaluation_set() -> Evaluation:
    """Return the evaluation set.

    Raises
    ------
    DependencyError
        This Python comes without its reference.
    """
    version = platform.python_version()
    texts = Texts(origin=f"language reference of Python {version}", lines=tuple(_chosen()))
    noted = DIGESTS.get(version)
    if noted is None:
        return Evaluation(texts=texts, state="unrecorded")
    return Evaluation(texts=texts, state="frozen" if noted == texts.digest else "changed")


def _chosen() -> list[str]:
    """Return the sentences whose hashes are the least, so that those of two versions are mostly the same."""
    used = {key(line) for line in own_texts(most=sys.maxsize).lines}
    found = {key(sentence): sentence for topic in _topics() for sentence in _sentences(topic)}
    ranked = sorted(found.keys() - used, key=lambda shared: hashlib.sha256(shared.encode()).digest())
    return [found[shared] for shared in ranked[:SIZE]]


def _topics() -> list[str]:
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise DependencyError(
            "this Python comes without its language reference (pydoc_data)",
            hint="install the whole standard library, or name texts under `data: evaluate:`",
        ) from error
    return [topics[name] for name in sorted(topics)]


def _sentences(topic: str) -> Iterator[str]:
    """Yield the sentences of running text; grammar, examples and headings are none."""
    for paragraph in re.split(r"\n\s*\n", topic):
        lines = [_BULLET.sub("", line.strip()) for line in paragraph.splitlines()]
        text = " ".join(_MARKUP.sub("", " ".join(lines)).split())
        for sentence in _SENTENCE.split(text):
            if _SHORTEST <= len(sentence) <= _LONGEST and _is_prose(sentence):
                yield sentence


def _is_prose(sentence: str) -> bool:
    words = sentence.split()
    plain = sum(word.strip("(),.;:!?").isalpha() for word in words)
    return (
        len(words) >= _LEAST_WORDS
        and plain >= 0.8 * len(words)
        and sentence[0].isupper()
        and sentence.endswith((".", "?", "!"))
        and not re.search(r">>>|::|==|->", sentence)
    )


if __name__ == "__main__":
    print(f'    "{platform.python_version()}": "{evaluation_set().texts.digest}",')  # noqa: T201 - what it is for
