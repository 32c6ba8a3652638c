"""Streams: the three that a body is written into, and read back from under a budget.

``control`` says how each column is written, ``texts`` holds strings and ``bits`` the codes of numbers. The first two
are compressed by zstd; the third has nothing left to compress.
"""

from __future__ import annotations

from typing import Final

from skerry.spec.errors import WireError
from skerry.wire.compression import compress, decompress
from skerry.wire.limits import Limits

END_OF_TEXT: Final = b"\xff"
"""Ends each string: no UTF-8 holds this byte."""
LEVEL: Final = 12


class Budget:
    """Counts values and characters of a batch, and stops what would exceed the limits.

    Writer and reader count the same at the same places, so that whatever was written can be read.
    """

    __slots__ = ("_limits", "characters", "values")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.values = limits.values
        self.characters = limits.unpacked

    def take_values(self, count: int) -> None:
        """Count so many more values; raises ``WireError`` when they are too many."""
        self.values -= count
        if self.values < 0:
            raise WireError("records of too many values", expected=f"at most {self._limits.values:,} in a batch")

    def take_characters(self, count: int) -> None:
        """Count so many more characters; raises ``WireError`` when they are too many."""
        self.characters -= count
        if self.characters < 0:
            raise WireError("records of too much text", expected=f"at most {self._limits.unpacked:,} characters")


class Writer:
    """Takes the three streams and packs them."""

    __slots__ = ("bits", "budget", "control", "texts")

    def __init__(self, limits: Limits) -> None:
        self.control = bytearray()
        self.texts: list[bytes] = []
        self.bits: list[str] = []
        self.budget = Budget(limits)

    def beside(self) -> Writer:
        """Return an empty writer for something that may be taken or not."""
        trial = Writer.__new__(Writer)
        trial.control, trial.texts, trial.bits = bytearray(), [], []
        trial.budget = self.budget
        return trial

    def take(self, trial: Writer) -> None:
        """Write what another writer was given."""
        self.control += trial.control
        self.texts += trial.texts
        self.bits += trial.bits

    def unsigned(self, value: int) -> None:
        """Write a number from 0 into ``control``, seven bits to a byte, the lowest first."""
        control = self.control
        while value > 127:
            control.append(value & 127 | 128)
            value >>= 7
        control.append(value)

    def signed(self, value: int) -> None:
        """Write any number into ``control``: 0, -1, 1, -2, … as 0, 1, 2, 3, …"""
        self.unsigned(value << 1 if value >= 0 else ~(value << 1))

    def pack(self, limits: Limits) -> bytes:
        """Return the length of the packed part, the packed part, and the bits.

        Raises ``WireError`` when the packed part would unpack to more than ``limits`` allow.
        """
        inner = self.beside()
        inner.unsigned(len(self.control))
        self.budget.take_values(len(self.texts))
        texts = b"".join([text + END_OF_TEXT for text in self.texts])
        unpacked = bytes(inner.control) + bytes(self.control) + texts
        if len(unpacked) > limits.unpacked:
            raise WireError(f"records of {len(unpacked):,} bytes", expected=f"at most {limits.unpacked:,} in a batch")
        packed = compress(unpacked, LEVEL)
        bits = "".join(self.bits)
        size = (len(bits) + 7) // 8
        tail = (int(bits, 2) << (8 * size - len(bits))).to_bytes(size, "big") if bits else b""
        inner.control = bytearray()
        inner.unsigned(len(packed))
        return bytes(inner.control) + packed + tail


class Reader:
    """Gives back what a :class:`Writer` took; every method raises ``WireError`` at the end of its stream."""

    __slots__ = ("bits", "budget", "control", "end", "place", "position", "texts")

    def __init__(self, data: bytes, limits: Limits) -> None:
        self.budget = Budget(limits)
        self.control, self.position = data[:10], 0
        size = self.unsigned()
        begin = self.position
        if begin + size > len(data):
            raise WireError("a batch that is cut short")
        unpacked = decompress(data[begin : begin + size], limits.unpacked)
        self.control, self.position = unpacked, 0
        end = self.unsigned() + self.position
        if end > len(unpacked):
            raise WireError("the body of a batch is damaged: its parts do not fit")
        self.control = unpacked[:end]
        count = unpacked.count(END_OF_TEXT, end)
        self.budget.take_values(count)
        self.texts = unpacked[end:].split(END_OF_TEXT)
        if self.texts.pop():
            raise WireError("the body of a batch is damaged: a text has no end")
        self.texts.reverse()
        tail = data[begin + size :]
        self.bits = bin(int.from_bytes(b"\1" + tail + b"\0", "big"))[3:]  # a byte more than there is, to look ahead
        self.place, self.end = 0, 8 * len(tail)

    def byte(self) -> int:
        """Read one byte of ``control``."""
        position = self.position
        if position >= len(self.control):
            raise WireError("the body of a batch is damaged: a column is missing")
        self.position = position + 1
        return self.control[position]

    def unsigned(self) -> int:
        """Read a number from 0 to below 2^77."""
        value = shift = 0
        while (byte := self.byte()) > 127:
            value |= (byte & 127) << shift
            shift += 7
            if shift > 70:
                raise WireError("the body of a batch is damaged: a number without end")
        return value | byte << shift

    def signed(self) -> int:
        """Read any number."""
        value = self.unsigned()
        return ~(value >> 1) if value & 1 else value >> 1

    def strings(self, count: int) -> list[str]:
        """Read so many strings."""
        if count > len(self.texts):
            raise WireError("the body of a batch is damaged: a text is missing")
        if not count:
            return []
        found = self.texts[: -count - 1 : -1]
        del self.texts[-count:]
        try:
            return [text.decode() for text in found]
        except UnicodeDecodeError as error:
            raise WireError("the body of a batch is damaged: a text is not UTF-8") from error

    def number(self, width: int) -> int:
        """Read so many bits as one number from 0."""
        end = self.place + width
        if end > self.end:
            raise WireError("the body of a batch is damaged: bits are missing")
        value = int(self.bits[self.place : end], 2) if width else 0
        self.place = end
        return value

    def finish(self) -> None:
        """Check that everything was read; raises ``WireError`` where something is left."""
        rest = self.bits[self.place :]
        if self.position != len(self.control) or self.texts or self.end - self.place > 7 or "1" in rest:
            raise WireError("the body of a batch is damaged: something is left over")
