"""Wording: what a plugin raised, in words that can always be printed."""

from __future__ import annotations


def told(error: BaseException) -> str:
    """Put an error into words; a third party's may have none, or break when it is asked for them."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 -- any __str__ may be broken
        return type(error).__name__
