"""The catalogue: common devices as data, so that one can plan for a device that one does not hold.

One file per device, ``<name>.toml``. Its ``[profile]`` has the words, in the shape of a ``DeviceProfile``; every number
stands under ``[figures]`` with how it came to be and from which of the ``[sources]``.
"""

from __future__ import annotations

import tomllib
from importlib.resources import files
from typing import Any

import msgspec

from skerry.spec.errors import DeviceError
from skerry.spec.profile import DeviceProfile, Measurement, Origin, unit_of
from skerry.spec.words import did_you_mean

_WHY = "only the device itself can tell"
_NOTE = "from the catalogue: what is not given here was not published, or differs from one such device to the next"


class Figure(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A number of the catalogue; ``source`` starts with a key of ``[sources]``, or says it all itself."""

    value: int | float
    how: Origin
    source: str


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file of the catalogue."""

    title: str
    sources: dict[str, str]
    profile: dict[str, Any]
    figures: dict[str, Figure]


def catalogue() -> tuple[str, ...]:
    """The names of all devices, sorted.

    >>> "raspberry-pi-5" in catalogue()
    True
    """
    found = (item.name for item in files(__package__).iterdir())
    return tuple(sorted(name.removesuffix(".toml") for name in found if name.endswith(".toml")))


def load_device(name: str) -> DeviceProfile:
    """The profile of a device of the catalogue.

    All its cores and memory count as usable. ``measurements`` has the origin of every number.

    Raises
    ------
    DeviceError
        There is no such device; the hint has the nearest name.
    """
    entry = load_entry(name)
    contents = entry.profile
    for path, figure in entry.figures.items():
        _put(contents, path.split("."), figure.value)
    _put(contents, ["cpu", "usable_cores"], contents["cpu"]["logical_cores"])
    _put(contents, ["memory", "usable_bytes"], contents["memory"]["total_bytes"])
    for accelerator in contents.get("accelerators", ()):
        accelerator["why"] = _WHY
    measurements = tuple(
        Measurement(
            figure=path,
            value=float(figure.value),
            unit=unit_of(path),
            how=figure.how,
            source=_resolve(entry, figure.source),
        )
        for path, figure in entry.figures.items()
    )
    profile = msgspec.convert(contents, DeviceProfile)
    return msgspec.structs.replace(
        profile,
        name=entry.title,
        origin="catalogue",
        quick=True,
        system="Linux",
        measurements=measurements,
        notes=(_NOTE,),
    )


def load_entry(name: str) -> Entry:
    """The file of a device as it is written; raises ``DeviceError`` as ``load_device`` does."""
    names = catalogue()
    if name not in names:
        spelled = name.lower().replace("_", "-").replace(" ", "-")
        hint = did_you_mean(spelled, names) or "list them with: skerry probe --list-devices"
        raise DeviceError(f"no device {name!r} in the catalogue", expected=", ".join(names), hint=hint)
    return msgspec.convert(tomllib.loads((files(__package__) / f"{name}.toml").read_text("utf-8")), Entry)


def _put(contents: dict[str, Any], path: list[str], value: float) -> None:
    """Set the number at ``path``; a part of digits is a place in a list."""
    place: Any = contents
    for part in path[:-1]:
        place = place[int(part)] if part.isdecimal() else place.setdefault(part, {})
    place[path[-1]] = value


def _resolve(entry: Entry, source: str) -> str:
    """Put the address for the key with which a source starts."""
    key, colon, rest = source.partition(":")
    return f"{entry.sources[key]}{colon}{rest}" if key in entry.sources else source
