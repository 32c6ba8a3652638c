"""Dead letters for operators: list them, try them again once the cause is mended, or drop them."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Request, get, post

from skerry.fleet.hub.answers import Refusal
from skerry.fleet.hub.guard import operators_only
from skerry.fleet.hub.ingest import replay
from skerry.fleet.hub.parts import Parts
from skerry.fleet.hub.record_routes import MOST, number_of
from skerry.fleet.hub.store import DeadLetter, Transaction
from skerry.wire.batch import decode
from skerry.wire.limits import Limits


class Chosen(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which dead letters are meant: those of ``ids``, or all (of one ``device``); ``reason`` is told when dropping."""

    ids: list[int] | None = None
    device: str | None = None
    reason: str = "dropped by an operator"


def handlers(parts: Parts) -> list[Any]:
    """Return the handlers."""
    operators = [operators_only(parts.access)]

    @get("/v1/dead", sync_to_thread=True, guards=operators)
    def dead(request: Request[Any, Any, Any]) -> dict[str, Any]:
        query = dict(request.query_params.items())
        after, limit = number_of(query, "after", 0, 2**62), number_of(query, "limit", 1000, MOST)
        found = parts.store.dead_letters(device=query.get("device"), after=after, limit=limit)
        return {"dead": [_view(each, parts.options.wire) for each in found], "next": found[-1].id if found else after}

    @post("/v1/dead/replay", status_code=200, guards=operators)
    async def replay_dead(request: Request[Any, Any, Any]) -> dict[str, Any]:
        """Try letters again; those that fail stay, with the reason of today in the answer."""
        failed: dict[str, str] = {}
        chosen = _chosen(parts, await _asked(request))
        for letter in chosen:
            if reason := await parts.write(_replay(parts, letter)):
                failed[str(letter.id)] = reason
        return {"replayed": len(chosen) - len(failed), "failed": failed}

    @post("/v1/dead/drop", status_code=200, guards=operators)
    async def drop_dead(request: Request[Any, Any, Any]) -> dict[str, int]:
        """Forget what letters said; their numbers are remembered, so that a device that asks is told."""
        asked = await _asked(request)
        chosen = _chosen(parts, asked)

        def drop(transaction: Transaction) -> None:
            for letter in chosen:
                transaction.drop_dead(letter.id, asked.reason)

        await parts.write(drop)
        return {"dropped": len(chosen)}

    @post("/v1/devices/{device:str}/forget-key", status_code=200, guards=operators)
    async def forget_key(request: Request[Any, Any, Any]) -> dict[str, int]:
        """Forget the key that was trusted at first use, so that the next one is: the device was set up anew."""
        device = request.path_params["device"]
        return {"forgotten": await parts.write(lambda transaction: transaction.forget_keys(device))}

    return [dead, replay_dead, drop_dead, forget_key]


async def _asked(request: Request[Any, Any, Any]) -> Chosen:
    """Return what the body asks for; raises ``Refusal`` (400) when it cannot be read."""
    try:
        return msgspec.json.decode(await request.body() or b"{}", type=Chosen)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise Refusal(400, f"the request cannot be read: {error}") from error


def _replay(parts: Parts, letter: DeadLetter) -> Any:
    return lambda transaction: replay(letter, parts.ingest, transaction)


def _chosen(parts: Parts, data: Chosen) -> list[DeadLetter]:
    found = parts.store.dead_letters(device=data.device, limit=MOST)
    return [each for each in found if data.ids is None or each.id in data.ids]


def _view(letter: DeadLetter, limits: Limits) -> dict[str, Any]:
    record = decode(letter.content, None, limits).records[0]
    return {
        "id": letter.id, "device": letter.device, "epoch": letter.epoch, "seq": letter.seq, "reason": letter.reason,
        "at_ms": letter.at_ms, "stream": record.stream, "fields": record.fields, "release": record.release,
    }  # fmt: skip
