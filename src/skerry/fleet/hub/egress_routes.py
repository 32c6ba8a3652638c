"""Egresses for operators: how far each one is, and how to forget one that will not come back."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Request, get, post

from skerry.fleet.hub.answers import Refusal
from skerry.fleet.hub.guard import operators_only
from skerry.fleet.hub.parts import Parts


class Named(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which egress is meant."""

    name: str


def handlers(parts: Parts) -> list[Any]:
    """Return the handlers."""
    operators = [operators_only(parts.access)]

    @get("/v1/egress", sync_to_thread=True, guards=operators)
    def egresses() -> dict[str, Any]:
        """Tell of every egress that ever ran how far it came, and of those at work how they fare."""
        last, at_work = parts.store.last_id(), {outlet.name: outlet.state() for outlet in parts.outlets}
        return {
            "egress": [
                {"name": name, "behind": max(0, last - position), "at_work": name in at_work,
                 **at_work.get(name, {}), "position": position}
                for name, position in sorted(parts.store.cursors().items())
            ]
        }  # fmt: skip

    @post("/v1/egress/forget", status_code=200, guards=operators)
    async def forget(request: Request[Any, Any, Any]) -> dict[str, bool]:
        """Forget how far an egress came, so that records need not be kept for it."""
        try:
            name = msgspec.json.decode(await request.body(), type=Named).name
        except msgspec.MsgspecError as error:
            raise Refusal(400, f"the request cannot be read: {error}") from error
        if any(outlet.name == name for outlet in parts.outlets):
            raise Refusal(409, f"{name} is at work: start the hub without it first")
        return {"forgotten": await parts.write(lambda transaction: transaction.forget_cursor(name))}

    return [egresses, forget]
