"""Building a routed stage: from what the pipeline file says to what makes its workers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from skerry.run.route.privacy import check_origin, check_privacy
from skerry.run.route.route import Plan, Route
from skerry.run.route.stage import RevisingStage, RoutedStage
from skerry.run.route.subject import subject_of
from skerry.spec.address import parse_address, refuse_plain_text
from skerry.spec.cloud import Cloud
from skerry.spec.errors import SpecError
from skerry.spec.pipeline import StageEntry
from skerry.spec.ports import Options
from skerry.spec.reading import Project


def routed(
    entry: StageEntry, plugin: Any, options: Options, cloud: Cloud, project: Project
) -> tuple[Callable[[], RoutedStage], Route]:
    """Return what makes a worker of a stage with a cloud, and the route that all of them share.

    Raises ``SpecError``, placed in the file: for a stage that cannot ask, a field that may not leave, or a URL that is
    none or plain text beyond loopback.
    """
    route = Route(plan_of_route(entry, options, cloud, project))
    subject = route.plan.subject
    kind = RevisingStage if cloud.offline == "queue" else RoutedStage
    return lambda: kind(plugin(subject.options), route), route


def plan_of_route(entry: StageEntry, options: Options, cloud: Cloud, project: Project) -> Plan:
    """Return what a pipeline file says of a route; raises what :func:`routed` does."""
    document, keys = project.document, (*entry.path, "cloud")
    where = document.place_of_key(keys)
    if entry.common.process:
        raise SpecError(
            f"{entry.id} runs in a process of its own, and cannot share what is spent on a cloud", where=where,
            expected="no `process`",
        )  # fmt: skip
    subject = subject_of(entry.kind, options, cloud, where=where)
    check_privacy(document, entry.path, cloud, subject.sent, project.pipeline.privacy)
    before = project.stages[: project.stages.index(entry)]
    check_origin(document, entry.path, before, subject.sent, project.pipeline.privacy)
    address, _ = parse_address(cloud.url, where=document.place((*keys, "url")))
    if address.scheme not in {"http", "https"}:
        raise SpecError(
            f"{address.scheme}:// is no way to ask a cloud", where=document.place((*keys, "url")),
            expected="https://…, or http:// on this machine",
        )  # fmt: skip
    refuse_plain_text(address, project.pipeline.insecure, where=document.place((*keys, "url")))
    model = project.pipeline.models.get(subject.model)
    return Plan(
        stage=entry.id, cloud=cloud, subject=subject, privacy=project.pipeline.privacy, folder=project.release_folder,
        data=cloud.data or (model.data.calibrate if model is not None else None), where=where,
    )  # fmt: skip
