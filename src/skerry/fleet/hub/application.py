"""The application: every address of a hub, its guards and its errors, as one ASGI application."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from skerry.fleet.hub import dead_routes, egress_routes, export_routes, health_routes, record_routes, stream_routes
from skerry.fleet.hub.answers import Refusal, refusal_of
from skerry.fleet.hub.batches import BatchesApp
from skerry.fleet.hub.blob_routes import PREFIX, BlobsApp
from skerry.fleet.hub.enrolment import PATHS, EnrolmentApp
from skerry.fleet.hub.parts import Parts
from skerry.spec.errors import DependencyError, SkerryError

try:
    from litestar import Litestar, Request, Response
except ImportError as error:
    raise DependencyError("a hub needs the package litestar", hint="pip install 'skerry[hub]'") from error

BATCHES = "/v1/batches"
ROUTES = (health_routes, record_routes, stream_routes, export_routes, dead_routes, egress_routes)
PROBLEM = "application/problem+json"


class HubApp:
    """Batches, blobs and enrolment go straight to their own applications; everything else to Litestar."""

    def __init__(self, parts: Parts) -> None:
        self._batches = BatchesApp(parts.reception, parts.access, parts.options, parts.counts)
        self._enrolment = EnrolmentApp(parts.access, parts.clock, parts.options.patience)
        self._blobs = BlobsApp(parts)
        self._others = litestar_app(parts)

    async def __call__(self, scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        """Answer one request."""
        path = scope["path"] if scope["type"] == "http" else ""
        if path == BATCHES:
            await self._batches(scope, receive, send)
        elif path in PATHS:
            await self._enrolment(scope, receive, send)
        elif path == PREFIX or path.startswith(f"{PREFIX}/"):
            await self._blobs(scope, receive, send)
        else:
            await self._others(scope, receive, send)  # type: ignore[arg-type]


def litestar_app(parts: Parts) -> Litestar:
    """Return the application of everything but batches."""

    def on_refusal(_request: Request[Any, Any, Any], refusal: Refusal) -> Response[bytes]:
        return Response(refusal.problem(), status_code=refusal.status, headers=refusal.headers, media_type=PROBLEM)

    def on_error(request: Request[Any, Any, Any], error: SkerryError) -> Response[bytes]:
        return on_refusal(request, refusal_of(error, parts.options.retry_after))

    return Litestar(
        route_handlers=[handler for routes in ROUTES for handler in routes.handlers(parts)],
        exception_handlers={Refusal: on_refusal, SkerryError: on_error},
        openapi_config=None,
        logging_config=None,
        request_max_body_size=1 << 20,
    )
