"""Standard output: one line per record, for people or for the next program in a pipe."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from skerry.run.encoding import ARRAY_ITEMS, Encoder
from skerry.run.sinks.whole import sink_error, write_whole
from skerry.run.template import Template
from skerry.spec.errors import SinkError, SinkUnavailableError, SpecError
from skerry.spec.ports import Address, Context, Options
from skerry.spec.record import Record
from skerry.spec.units import Duration


class StdoutOptions(Options, frozen=True, kw_only=True):
    """How a record is printed.

    Parameters
    ----------
    format:
        ``jsonl`` for one JSON object per line, ``text`` for ``name=value`` pairs, ``template`` for a line of your own.
    template:
        The line of ``format: template``, such as ``"{label:>8} {text}"``.
    array_items:
        The largest array that is written out, in numbers; default 64, so that an embedding does not fill the screen.
    timeout:
        How long a reader that takes nothing is waited for where standard output does not block; default 5 s, so
        that a stopped pager does not hold the pipeline for ever.
    """

    format: Literal["jsonl", "text", "template"] = "jsonl"
    template: str | None = None
    array_items: int = ARRAY_ITEMS
    timeout: Duration = Duration(5.0)


class StdoutSink:
    """Prints records; the lines of one call appear together."""

    Options: ClassVar[type[StdoutOptions]] = StdoutOptions
    blocking: ClassVar[bool] = False

    def __init__(self, address: Address, options: StdoutOptions) -> None:
        if (options.format == "template") != (options.template is not None):
            raise SpecError(
                "`format: template` and `template` belong together",
                where=address.text,
                expected='both, such as `format: template` with `template: "{label} {text}"`',
            )
        self._options = options
        self._encoder = Encoder(options.array_items)
        self._template = Template(options.template, where="template") if options.template is not None else None
        self._is_open = False

    def open(self, context: Context) -> None:
        """Get ready; raises ``SinkUnavailableError`` when the program was started without a standard output."""
        if sys.stdout is None:
            raise SinkUnavailableError("there is no standard output", where=context.name)
        self._is_open = True

    def write(self, records: Sequence[Record]) -> None:
        """Print the records.

        Raises ``SinkUnavailableError`` when the reader went away, ``SinkFullError`` when it is a file on a full disk,
        and ``SinkError`` when a field of the template is missing.
        """
        if not self._is_open:
            raise SinkUnavailableError("standard output is not open")
        data = b"".join(self._line(record.fields) for record in records)
        stream = sys.stdout
        try:
            stream.flush()
            if stream is sys.__stdout__ and stream is not None:
                write_whole(stream.fileno(), data, what="standard output", timeout_s=self._options.timeout)
            else:  # replaced by the live view, or by a test
                stream.write(data.decode())
                stream.flush()
        except (OSError, ValueError) as error:
            raise sink_error(OSError(getattr(error, "errno", None), str(error)), "standard output") from error

    def _line(self, fields: dict[str, Any]) -> bytes:
        if self._template is not None:
            return self._template.fill(fields, error=SinkError).encode("utf-8", "replace") + b"\n"
        if self._options.format == "text":
            return b" ".join(self._pair(name, value) for name, value in fields.items()) + b"\n"
        return self._encoder.encode(fields) + b"\n"

    def _pair(self, name: str, value: Any) -> bytes:
        """Return ``name=value``; text with blanks or signs in it is quoted, so that a line can be read back."""
        plain = isinstance(value, str) and value.isprintable() and value != "" and not set(value) & set(' "=')
        text = value.encode("utf-8", "replace") if plain else self._encoder.encode(value)
        return str(name).encode("utf-8", "replace") + b"=" + text

    def flush(self) -> None:
        """Make a file behind standard output durable; a terminal or a pipe has nothing to be made durable."""
        if self._is_open and sys.stdout is sys.__stdout__ and sys.stdout is not None:
            with contextlib.suppress(OSError, ValueError):  # what is no file refuses
                os.fsync(sys.stdout.fileno())

    def close(self) -> None:
        """Stop printing; standard output itself stays open, it belongs to the program."""
        self._is_open = False
