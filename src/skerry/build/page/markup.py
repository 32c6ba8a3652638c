"""Markup: HTML that is made of elements; every text in it is escaped, because only this file makes markup of text."""

from __future__ import annotations

import html

from skerry.build.wording import visible

_VOID = frozenset({"br", "col", "meta"})


class Markup(str):
    """Text that is HTML already and is not escaped again."""

    __slots__ = ()


Child = str | None
Value = str | float | bool | None


def element(tag: str, *children: Child, **attributes: Value) -> Markup:
    """Return an element.

    Parameters
    ----------
    children:
        Text, which is escaped, or :class:`Markup`; ``None`` is left out.
    attributes:
        An underscore stands for a hyphen, one at the end (``class_``) for nothing. ``None`` and ``False`` leave an
        attribute out; floats are written with two digits, which is finer than a screen.
    """
    opened = f"<{tag}{''.join(_attribute(name, value) for name, value in attributes.items())}>"
    return Markup(opened if tag in _VOID else f"{opened}{joined(*children)}</{tag}>")


def joined(*children: Child) -> Markup:
    """Return texts and elements one after the other."""
    return Markup("".join(_escaped(child) for child in children if child is not None))


def _escaped(text: str) -> str:
    return text if isinstance(text, Markup) else html.escape(visible(text))


def _attribute(name: str, value: Value) -> str:
    if value is None or value is False:
        return ""
    name = name.rstrip("_").replace("_", "-")
    if value is True:
        return f" {name}"
    shown = value if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")
    return f' {name}="{_escaped(shown)}"'
