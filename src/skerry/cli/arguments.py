"""Arguments that several commands take: what a word becomes, and what is said of a wrong one."""

from __future__ import annotations

import argparse


def duration(text: str) -> float:
    """Return seconds of a text such as ``10s`` or ``5min``."""
    from skerry.spec.units import Duration

    try:
        return float(Duration.parse(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not {error}") from None
