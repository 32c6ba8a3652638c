"""The listing of runtimes: which are usable here, and why the rest is not."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from importlib.util import find_spec
from typing import Any

import msgspec

from skerry.spec.errors import SkerryError
from skerry.spec.plugins import load_plugin, plugins
from skerry.spec.ports import Availability

NOT_BUILT_YET: Mapping[str, tuple[str, ...]] = {
    "llamacpp": ("llama_cpp",),
}
"""Inference engines that Skerry knows but has no runtime for yet, with the modules that show that one is installed."""


class RuntimeReport(msgspec.Struct, frozen=True, kw_only=True):
    """One runtime as found here.

    Attributes
    ----------
    name:
        Its name in pipeline files.
    package:
        The distribution that it comes from.
    usable:
        Whether models can be loaded with it on this machine.
    version, devices, suffixes:
        The engine's version, the devices it offers, the file endings it takes.
    reason, hint:
        Why it is not usable, and what to do about it.
    lacks:
        The devices that the engine knows and that are not here, each with what it would take.
    """

    name: str
    package: str = ""
    usable: bool = False
    version: str = ""
    devices: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()
    reason: str = ""
    hint: str = ""
    lacks: dict[str, str] = {}


def survey() -> list[RuntimeReport]:
    """Return every runtime that is installed, by name, then the engines that are here without a runtime.

    Never raises for a broken plugin: its report says what is wrong with it.
    """
    found = [_report(name, entry.dist.name if entry.dist else "") for name, entry in plugins("skerry.runtimes").items()]
    known = {report.name for report in found}
    return found + [_unbuilt(name, module) for name, module in _engines_without_runtime() if name not in known]


def _report(name: str, package: str) -> RuntimeReport:
    try:
        runtime = load_plugin("skerry.runtimes", name)
        availability: Availability = runtime.availability()
        return RuntimeReport(
            name=name, package=package, suffixes=tuple(runtime.suffixes), **msgspec.structs.asdict(availability)
        )
    except SkerryError as error:
        return RuntimeReport(name=name, package=package, reason=error.message, hint=error.hint)
    except Exception as error:  # noqa: BLE001 - a third party's module may raise anything; the others must still be listed
        reason = f"the plugin is broken: {type(error).__name__}: {error}"
        return RuntimeReport(name=name, package=package, reason=reason)


def _engines_without_runtime() -> list[tuple[str, str]]:
    """Return (name, module) of the known engines whose module is installed; none of them is imported."""
    found = []
    for name, modules in NOT_BUILT_YET.items():
        module = next((module for module in modules if _is_installed(module)), None)
        if module is not None:
            found.append((name, module))
    return found


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):  # a half-removed package
        return False


def _unbuilt(name: str, module: str) -> RuntimeReport:
    package = _distributions().get(module, [""])[0]
    try:
        installed = version(package) if package else ""
    except PackageNotFoundError:
        installed = ""
    return RuntimeReport(
        name=name, package=package, version=installed,
        reason="not built yet in this version of Skerry",
        hint=f"the module {module} is installed, but no runtime of Skerry uses it yet",
    )  # fmt: skip


@functools.cache
def _distributions() -> Mapping[str, Any]:
    return packages_distributions()
