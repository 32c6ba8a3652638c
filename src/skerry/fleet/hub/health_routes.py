"""Health and metrics of a hub: ``/healthz`` for supervisors, ``/metrics`` in OpenMetrics for collectors."""

from __future__ import annotations

from typing import Any

from litestar import MediaType, Response, get

from skerry.fleet.hub.guard import operators_only
from skerry.fleet.hub.metrics import render
from skerry.fleet.hub.parts import Parts
from skerry.run.openmetrics import CONTENT_TYPE


def handlers(parts: Parts) -> list[Any]:
    """Return the handlers."""

    @get("/healthz", sync_to_thread=True, cache=False)
    def healthz() -> Response[dict[str, Any]]:
        """Answer 200 while the store can be read, else 503 (the error's handler)."""
        parts.store.last_id()
        stuck = [outlet.name for outlet in parts.outlets if outlet.state()["trouble"]]
        return Response({"status": "ok", "egress_in_trouble": len(stuck)})

    @get("/metrics", sync_to_thread=True, media_type=MediaType.TEXT, guards=[operators_only(parts.access)])
    def metrics() -> Response[str]:
        return Response(render(parts), headers={"content-type": CONTENT_TYPE})

    return [healthz, metrics]
