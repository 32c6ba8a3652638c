"""A memory: the last answers by what was asked, bounded."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict

from skerry.run.route.protocol import Answer


class Memory:
    """Keeps the answers that were used last, by the digest of the text; safe from any thread.

    Parameters
    ----------
    most:
        How many are kept; 0 keeps none.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._answers: OrderedDict[bytes, Answer] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, text: str) -> Answer | None:
        """Return the answer to a text, if it is known."""
        if not self._most:
            return None
        key = _key(text)
        with self._lock:
            answer = self._answers.get(key)
            if answer is not None:
                self._answers.move_to_end(key)
            return answer

    def put(self, text: str, answer: Answer) -> None:
        """Keep an answer, and forget the one that was not asked for the longest."""
        if not self._most:
            return
        with self._lock:
            self._answers[_key(text)] = answer
            if len(self._answers) > self._most:
                self._answers.popitem(last=False)


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
