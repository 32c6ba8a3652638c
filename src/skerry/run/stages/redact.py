"""Redact: take personal data out of texts, before anything is stored or sent."""

from __future__ import annotations

import functools
import hashlib
import hmac
import os
import re
from typing import Any, ClassVar, Literal

import msgspec

from skerry.run import pii
from skerry.spec.errors import SpecError, StageError
from skerry.spec.ports import Context, Options
from skerry.spec.record import Outcome, Record
from skerry.spec.words import did_you_mean

Kind = Literal["email", "iban", "card", "ip", "phone"]

ALL: tuple[Kind, ...] = ("email", "iban", "card", "ip", "phone")
"""In the order in which they are looked for: what is found first is not taken for something else after it."""
MIN_KEY = 16
"""Bytes of a key for pseudonyms: 128 bits cannot be searched."""
MAX_DEPTH = 32
"""How deep lists and mappings within a field are searched; no sane record is deeper."""
_DIGIT = re.compile(r"\d")


class RedactOptions(Options, frozen=True, kw_only=True):
    """What is taken out, and what is put in its place.

    Parameters
    ----------
    kinds:
        Which of ``email``, ``iban``, ``card``, ``ip``, ``phone``.
    custom:
        More kinds: a name and a Python regular expression each; they are looked for first.
    fields:
        Which fields are searched, texts as well as the texts in their lists and mappings; all when it is not given.
    hash:
        Puts ``[email:3f9a2b1c77]`` in place of ``[email]``: the same pseudonym for the same value (as it is written,
        but without spaces, dashes and case), so that one can count and join.
    key_env:
        The environment variable with the secret key of the pseudonyms, at least 16 bytes. Whoever has the key
        can test whether a pseudonym stands for a value they guess.
    loopback:
        Whether addresses of the machine itself (127.0.0.1, ::1) go too.
    """

    shorthand: ClassVar[str] = "kinds"

    kinds: list[Kind] = msgspec.field(default_factory=lambda: list(ALL))
    custom: dict[str, str] = msgspec.field(default_factory=dict)
    fields: list[str] | None = None
    hash: bool = False
    key_env: str = "SKERRY_REDACT_KEY"
    loopback: bool = False

    def __post_init__(self) -> None:
        if not (self.kinds or self.custom):
            raise ValueError("at least one kind, or a custom expression")


class RedactStage:
    """Replace personal data by its kind in square brackets. Numbers that are no text, and bytes, are left alone."""

    Options: ClassVar[type[RedactOptions]] = RedactOptions

    def __init__(self, options: RedactOptions) -> None:
        self._options = options
        self._custom = [(name, _compile(name, regex)) for name, regex in options.custom.items()]
        self._kinds = frozenset(options.kinds)
        self._key: bytes | None = None

    def open(self, context: Context) -> None:
        """Read the key; raises ``SpecError`` where pseudonyms are wanted and there is none."""
        if self._options.hash:
            self._key = _read_key(self._options.key_env)

    def process(self, record: Record) -> Outcome:
        """Replace in place; raises ``StageError`` for a value that is nested deeper than can be searched."""
        fields = record.fields
        for name in self._options.fields if self._options.fields is not None else list(fields):
            value = fields.get(name)
            if type(value) is str:
                fields[name] = self.redact(value)
            elif isinstance(value, str | list | tuple | dict):
                fields[name] = self._nested(value, 0)
        return record

    def close(self) -> None:
        """Forget the key."""
        self._key = None

    def redact(self, text: str) -> str:
        """Return ``text`` without personal data."""
        for name, pattern in self._custom:
            text = pattern.sub(functools.partial(self._replacement_of_match, name), text)
        kinds = self._kinds
        if "email" in kinds and "@" in text:
            text = self._replace(text, "email", pii.find_emails(text))
        if ("ip" in kinds and "::" in text) or _DIGIT.search(text) is not None:
            text = self._redact_numbers(text)
        return text

    def _redact_numbers(self, text: str) -> str:
        kinds = self._kinds
        if "iban" in kinds:
            text = self._replace(text, "iban", pii.find_ibans(text))
        if "card" in kinds:
            text = self._replace(text, "card", pii.find_cards(text))
        if "ip" in kinds and (text.count(".") > 2 or text.count(":") > 1):
            text = self._replace(text, "ip", pii.find_addresses(text, loopback=self._options.loopback))
        if "phone" in kinds:
            text = self._replace(text, "phone", pii.find_phones(text))
        return text

    def _replace(self, text: str, kind: str, spans: list[pii.Span]) -> str:
        for start, end in reversed(spans):
            text = text[:start] + self._replacement(kind, text[start:end]) + text[end:]
        return text

    def _replacement_of_match(self, name: str, match: re.Match[str]) -> str:
        return self._replacement(name, match[0]) if match[0] else ""

    def _replacement(self, kind: str, value: str) -> str:
        if self._key is None:
            return f"[{kind}]"
        plain = re.sub(r"[\s\u00a0()-]", "", value).casefold()
        digest = hmac.new(self._key, f"{kind}\0{plain}".encode(errors="surrogatepass"), hashlib.sha256)
        # Letters only: digits could be taken for a number by a stage after this one.
        return f"[{kind}:{digest.hexdigest()[:12].translate(_LETTERS)}]"

    def _nested(self, value: Any, depth: int) -> Any:
        """Return a copy of lists and mappings with their texts redacted; everything else is shared."""
        if depth > MAX_DEPTH:
            raise StageError(f"a field is nested more than {MAX_DEPTH} deep and cannot be searched")
        if isinstance(value, str):
            return self.redact(value)
        if isinstance(value, dict):
            return {key: self._nested(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list | tuple):
            items = [self._nested(item, depth + 1) for item in value]
            return tuple(items) if isinstance(value, tuple) else items
        return value


_LETTERS = str.maketrans("0123456789", "ghijkmnpqr")


def _compile(name: str, regex: str) -> re.Pattern[str]:
    try:
        return re.compile(regex)
    except (re.error, RecursionError, OverflowError) as error:
        raise SpecError(f"{regex!r} is not a regular expression: {error}", where=f"redact: custom.{name}") from error


def _read_key(variable: str) -> bytes:
    key = os.environ.get(variable, "").encode()
    if len(key) < MIN_KEY:
        close = did_you_mean(variable, [name for name in os.environ if name.startswith("SKERRY_")])
        raise SpecError(
            f"the environment variable {variable} " + ("is not set" if not key else f"has only {len(key)} bytes"),
            where="redact: hash",
            expected=f"a secret of at least {MIN_KEY} bytes",
            hint=close or f"export {variable}=$(head -c 32 /dev/urandom | base64)",
        )
    return key
