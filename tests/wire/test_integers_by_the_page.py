"""Integers, read by a second reader that follows the words of the page one by one and shares nothing with the first."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from bench.traces import TELEMETRY_FIELDS, read_records
from skerry.wire.integers import write_integers
from skerry.wire.limits import DEFAULT_LIMITS
from skerry.wire.streams import Writer


class PageReader:
    """Control and bits, each with a place in it."""

    def __init__(self, control: bytes, bits: str) -> None:
        self.control, self.bits = list(control), list(bits)

    def u(self) -> int:
        byte = self.control.pop(0)
        return byte if byte < 128 else byte - 128 + 128 * self.u()

    def s(self) -> int:
        number = self.u()
        return number // 2 if number % 2 == 0 else -(number + 1) // 2

    def number(self, width: int) -> int:
        taken, self.bits = self.bits[:width], self.bits[width:]
        return int("0" + "".join(taken), 2)

    def integers(self, count: int) -> list[int]:
        form = self.control.pop(0)
        packing, order, around, has_factor = form % 4, form // 4 % 4, form // 16 % 2, form // 32
        first = self.s()
        if form == 0:
            return [first] * count
        factor = self.u() if has_factor else 1
        second = self.s() if order == 2 else 0
        base = self.s()
        read = {1: self.rice, 2: self.classes, 3: self.planes}[packing]
        values = [base + (around_zero(d) if around else d) for d in read(count - order)]
        for start in [[], [0], [second, 0]][order]:
            sums = [start]
            for value in values:
                sums.append(sums[-1] + value)
            values = sums
        return [first + factor * offset for offset in values]

    def rice(self, count: int) -> list[int]:
        width = self.control.pop(0)
        numbers = []
        for _ in range(count):
            upper = 0
            while self.bits.pop(0) == "1":
                upper += 1
            numbers.append(upper * 2**width + self.number(width))
        return numbers

    def classes(self, count: int) -> list[int]:
        least, span = self.number(7), self.number(7)
        lengths = {least + place: self.number(3) for place in range(span + 1)} if span else {}
        words, code, before = {}, 0, 0
        for length, symbol in sorted((length, symbol) for symbol, length in lengths.items() if length):
            code *= 2 ** (length - before)
            words[format(code, f"0{length}b")] = symbol
            code, before = code + 1, length
        numbers = []
        for _ in range(count):
            word = ""
            while span and word not in words:
                word += self.bits.pop(0)
            size = words[word] if span else least
            numbers.append(2 ** (size - 1) + self.number(size - 1) if size else 0)
        return numbers

    def planes(self, count: int) -> list[int]:
        width = self.control.pop(0)
        planes = [[self.control.pop(0) for _ in range(count)] for _ in range(width)]
        return [sum(256**place * plane[number] for place, plane in enumerate(planes)) for number in range(count)]


def around_zero(distance: int) -> int:
    """Return a number with its sign: 0, -1, 1, -2, … for 0, 1, 2, 3, …"""
    return distance // 2 if distance % 2 == 0 else -(distance + 1) // 2


def check(numbers: list[int]) -> None:
    """Write numbers, and read them by the page."""
    writer = Writer(DEFAULT_LIMITS)
    write_integers(writer, numbers)
    reader = PageReader(bytes(writer.control), "".join(writer.bits))
    assert reader.integers(len(numbers)) == numbers
    assert not reader.control and not reader.bits


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=40)
    | st.lists(st.integers(-9, 9), min_size=1, max_size=90)
    | st.lists(st.sampled_from([0, 5, 2**40]), min_size=1, max_size=90)
)
def test_any_integers(numbers: list[int]) -> None:
    check(numbers)
    check(numbers * 8)


def test_those_of_a_trace() -> None:
    records = read_records("telemetry")
    for begin in range(0, 2000, 100):
        some = records[begin : begin + 100]
        check([record.mono_us for record in some])
        for field in TELEMETRY_FIELDS:
            check([round(100 * (record.fields[field] or 0)) for record in some])


def test_what_is_smooth() -> None:
    check([place**2 * 1000 - 7 * place for place in range(100)])
    check([5 * place for place in range(100)])
