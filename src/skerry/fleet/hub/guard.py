"""Guards: who may use an address."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from skerry.fleet.hub.access import Access, Caller
from skerry.fleet.hub.answers import Refusal

Guard = Callable[[Any, Any], None]


def known_caller(access: Access, scope: Any) -> Caller:
    """Return who asks; raises ``Refusal`` (401) for nobody, ``CertificateRefusedError`` for a wrong certificate."""
    caller = access.caller(scope)
    if caller.role == "nobody":
        raise Refusal(401, "a certificate of this fleet is asked for")
    return caller


def operators_only(access: Access) -> Guard:
    """Return a guard that lets in operators, and whoever is on this machine where the hub listens without TLS."""

    def guard(connection: Any, _handler: Any) -> None:
        if not known_caller(access, connection.scope).operates:
            raise Refusal(403, "this is for operators")

    return guard
