"""A cloud on loopback that answers as a test tells it, and a routed stage in front of it."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec

from skerry.run.route.evidence import Evidence, write_evidence
from skerry.run.route.identity import digests_in_use
from skerry.run.route.route import Plan, Route
from skerry.run.route.senses import Feeling
from skerry.run.route.stage import RevisingStage, RoutedStage
from skerry.run.route.subject import subject_of
from skerry.run.stages.classify import ClassifyOptions, ClassifyStage
from skerry.run.stages.embed import EmbedOptions, EmbedStage
from skerry.spec.cloud import Cloud
from skerry.spec.ports import Context
from skerry.spec.units import decode_unit
from skerry.testing.http_server import serving
from skerry.testing.sinks import a_context
from skerry.testing.words import BagOfWords, models_of

Reply = tuple[int, str, bytes]
LABELS = {"failure": "disk failed error", "login": "user logged session", "install": "package installed upgraded"}
SURE = "disk failed error"
HARD = "disk user package"


def as_json(data: Any, status: int = 200) -> Reply:
    """Return a JSON reply."""
    return status, "application/json", json.dumps(data).encode()


def labelled(label: str, score: float | None = 0.9) -> Callable[[str, Any], Reply]:
    """Return a cloud that always says the same, in plain JSON."""
    return lambda _path, _body: as_json({"label": label, "score": score})


@dataclass
class CloudServer:
    """What it answers, and what it was asked: the path and the JSON of each request."""

    answer: Callable[[str, Any], Reply] = field(default_factory=lambda: labelled("login"))
    port: int = 0
    pause_s: float = 0.0
    asked: list[tuple[str, Any]] = field(default_factory=list)

    def url(self, path: str = "/classify") -> str:
        """Return the URL of a path."""
        return f"http://127.0.0.1:{self.port}{path}"


@contextlib.contextmanager
def cloud_server() -> Iterator[CloudServer]:
    """Run a cloud on a free port of loopback until the block ends."""
    state = CloudServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 10
        wbufsize = 65536  # head and body in one packet: two would wait for each other's receipt

        def reply(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = json.loads(raw) if raw else None
            state.asked.append((self.path, body))
            time.sleep(state.pause_s)
            status, kind, content = state.answer(self.path, body)
            with contextlib.suppress(OSError):
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
                self.wfile.flush()

        do_GET = do_POST = reply  # noqa: N815 -- the names that http.server calls

        def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 -- the name that http.server gives it
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # a client that went away is what some tests are about

    server = Server(("127.0.0.1", 0), Handler)
    state.port = server.server_address[1]
    with serving(server):
        yield state


def a_cloud(url: str, **options: Any) -> Cloud:
    """Return the options of a cloud as the file would give them."""
    return msgspec.convert({"url": url, **options}, Cloud, dec_hook=decode_unit)


def context_of(home: Path, dimension: int = 256) -> Context:
    """Return a context with a model of words."""
    return msgspec.structs.replace(a_context(home), models=models_of(words=BagOfWords(dimension)))


def a_plan(home: Path, cloud: Cloud, privacy: Mapping[str, Any], *, embeds: bool = False) -> Plan:
    """Return the plan of a routed stage named ``sort``."""
    options: Any = EmbedOptions(model="words") if embeds else ClassifyOptions(model="words", labels=dict(LABELS))
    subject = subject_of("embed" if embeds else "classify", options, cloud)
    return Plan(stage="sort", cloud=cloud, subject=subject, privacy=privacy, folder=home / "build")


def evidence_for(plan: Plan, context: Context, threshold: float, **other: Any) -> Evidence:
    """Return evidence that fits what is in use."""
    found: dict[str, Any] = {
        "stage": plan.stage, "made": "2026-11-23", "threshold": threshold, "kind": "signed", "count": 500, "loss": 0.01,
        "bound": 0.02, "local_share": 0.5, "max_quality_loss": float(plan.cloud.max_quality_loss),
        "certainty": float(plan.cloud.certainty), "rank": plan.cloud.rank, "agreement": 0.8,
        "digests": digests_in_use(plan.subject, plan.cloud, context, plan.data),
    }  # fmt: skip
    return Evidence(**{**found, **other})


@contextlib.contextmanager
def routed_stage(
    home: Path, cloud: Cloud, *, threshold: float = 0.5, privacy: Mapping[str, Any] | None = None, embeds: bool = False,
    feeling: Feeling | None = None, alarm: Callable[[], bool] | None = None, dimension: int = 256, **evidence: Any,
) -> Iterator[Any]:  # fmt: skip
    """Open a routed stage with evidence at a threshold; it is closed when the block ends."""
    context = context_of(home, dimension)
    plan = a_plan(home, cloud, privacy if privacy is not None else {"text": "public"}, embeds=embeds)
    write_evidence(plan.folder, evidence_for(plan, context, threshold, **evidence))
    route = Route(plan)
    route.senses = lambda: feeling or Feeling()
    if alarm is not None:
        route.alarm = alarm
    kind = RevisingStage if cloud.offline == "queue" else RoutedStage
    options: Any = plan.subject.options
    stage = kind(EmbedStage(options) if embeds else ClassifyStage(options), route)
    stage.open(context)
    try:
        yield stage
    finally:
        stage.close()
