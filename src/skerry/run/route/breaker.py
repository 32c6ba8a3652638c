"""A circuit breaker: leaves a cloud alone that fails, and tries again now and then. Pure."""

from __future__ import annotations

import msgspec

from skerry.spec.cloud import Breaker


class Circuit(msgspec.Struct, frozen=True, kw_only=True):
    """Failures in a row, and since when and for how long nothing is asked; ``trying`` while one record tries."""

    failures: int = 0
    opened_s: float | None = None
    pause_s: float = 0.0
    trying: bool = False


def may_pass(circuit: Circuit, now_s: float) -> bool:
    """Tell whether a request may pass: the circuit is closed, or its pause is over and nobody else tries."""
    if circuit.opened_s is None:
        return True
    return not circuit.trying and now_s - circuit.opened_s >= circuit.pause_s


def passed(circuit: Circuit) -> Circuit:
    """Return the circuit after a request was let through: an open one is being tried now."""
    return circuit if circuit.opened_s is None else msgspec.structs.replace(circuit, trying=True)


def after(circuit: Circuit, succeeded: bool, now_s: float, limits: Breaker) -> Circuit:
    """Return the circuit after a request ended, in seconds of a clock that only grows."""
    if succeeded:
        return Circuit()
    failures = circuit.failures + 1
    if circuit.opened_s is None and failures < limits.failures:
        return msgspec.structs.replace(circuit, failures=failures)
    # Those that were under way when the circuit opened must not double its pause.
    if circuit.opened_s is not None and not circuit.trying:
        return msgspec.structs.replace(circuit, failures=failures)
    pause = min(2 * circuit.pause_s or float(limits.pause), float(limits.longest))
    return Circuit(failures=failures, opened_s=now_s, pause_s=pause)


def given_up(circuit: Circuit) -> Circuit:
    """Return the circuit after a request that was let through was not sent after all."""
    return msgspec.structs.replace(circuit, trying=False) if circuit.trying else circuit
