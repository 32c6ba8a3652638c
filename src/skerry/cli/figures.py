"""Figures as people read them: counts, sizes, times and rates, each in a few characters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

BARS = "▁▂▃▄▅▆▇█"


def count(number: float) -> str:
    """Write a count: ``950``, ``12,345``, ``12.3M``."""
    if number < 1e7:
        return f"{number:,.0f}"
    return f"{number / 1e9:.2f}G" if number >= 1e9 else f"{number / 1e6:.1f}M"


def short(number: float) -> str:
    """Write a count in at most five characters: ``950``, ``12.3k``, ``1.23M``."""
    for unit in ("", "k", "M", "G"):
        if number < 999.5:
            return f"{number:.0f}" if not unit else f"{number:.3g}{unit}"
        number /= 1000
    return f"{number:.3g}T"


def rate(per_second: float) -> str:
    """Write a rate: ``0.25/s``, ``7.1/s``, ``1,024/s``."""
    if per_second >= 10 or per_second == 0:
        return f"{count(round(per_second))}/s"
    return f"{per_second:.2g}/s"


def milliseconds(value: float | None) -> str:
    """Write a latency in milliseconds: ``3 µs``, ``1.2 ms``, ``4.5 s``; a dash where nothing was measured."""
    if value is None:
        return "–"
    if value < 1:
        return f"{value * 1e3:.0f} µs"
    return f"{value:.3g} ms" if value < 1e3 else f"{value / 1e3:.3g} s"


def size(octets: float) -> str:
    """Write an amount of bytes: ``812 B``, ``64.0 MB``."""
    for unit in ("B", "kB", "MB"):
        if octets < 1000:
            return f"{octets:.0f} {unit}" if unit == "B" else f"{octets:.1f} {unit}"
        octets /= 1000
    return f"{octets:.1f} GB"


def clock(seconds: float) -> str:
    """Write a time span as a clock: ``00:12``, ``3:00:12``."""
    hours, rest = divmod(int(seconds), 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60:02}:{rest % 60:02}"


def bar(share: float, width: int) -> str:
    """Draw a share between 0 and 1 as a bar of ``width`` characters."""
    full = round(min(max(share, 0.0), 1.0) * width)
    return "█" * full + "░" * (width - full)


def spark(values: Sequence[float], width: int) -> str:
    """Draw the last ``width`` values as small bars under the highest of them."""
    shown = list(values)[-width:]
    top = max(shown, default=0.0) or 1.0
    return "".join(BARS[min(int(value / top * len(BARS)), len(BARS) - 1)] for value in shown)


def answer(fields: Mapping[str, object]) -> str:
    """Write one answer on one line, the short values first, because they say the most."""
    shown = {name: _value(value) for name, value in fields.items()}
    return "  ".join(f"{name}={text}" for name, text in sorted(shown.items(), key=lambda item: len(item[1]) > 24))


def _value(value: object) -> str:
    shape = getattr(value, "shape", None)
    if shape:  # an array or a frame; its numbers would tell nobody anything
        return f"[{'×'.join(str(length) for length in shape)}]"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, bytes | bytearray):
        return f"[{size(len(value))}]"
    # The user's data must not move the cursor or colour the screen.
    return "".join(letter if letter.isprintable() else " " for letter in str(value)[:400])
