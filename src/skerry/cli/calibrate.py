"""``skerry calibrate``: measures from which score on local answers may stand, and writes down the evidence."""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skerry.spec.errors import CalibrationError, UsageError
from skerry.spec.units import Share

if TYPE_CHECKING:
    from skerry.build.calibration.threshold import Certified
    from skerry.run.route.comparison import Comparison
    from skerry.run.route.evidence import Evidence
    from skerry.run.route.route import Plan
    from skerry.spec.reading import Project

EXAMPLES = """\
Each stage with `cloud:` is asked for all of its calibration texts, and so is the cloud. With a `label` in every line,
what the local answers lose is measured against the right answers; without, wherever the two disagree counts as a loss.
The texts come from `data:` of `cloud:`, or else from `data.calibrate` of the model; a few hundred are needed, and
thousands let more answers stay local. The threshold and what vouches for it go into
.skerry/<name>/calibration/<stage>.json.

examples:
  skerry calibrate triage                               with the loss and the certainty of the file
  skerry calibrate triage --loss 0.01 --certainty 95%   stricter than it
  skerry calibrate triage --json
"""


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add ``calibrate`` and its arguments."""
    parser = commands.add_parser(
        "calibrate",
        help="measure when a stage may answer without its cloud",
        description="Measure from which score on local answers may stand, and write down the evidence.",
        epilog=EXAMPLES,
    )
    parser.add_argument("target", metavar="PROJECT", type=Path, help="a project folder or a pipeline file")
    parser.add_argument(
        "--loss", metavar="SHARE", type=_share, help="the most that local answers may lose: 0.02 or 2%%"
    )
    parser.add_argument("--certainty", metavar="SHARE", type=_share, help="how sure that must be: 90%%")
    parser.add_argument("--stage", metavar="ID", help="only this stage")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _share(text: str) -> Share:
    try:
        share = Share.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not {error}") from error
    if not 0 < share < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not above 0 and below 1")
    return share


def run(args: argparse.Namespace) -> int:
    """Calibrate every stage with a cloud; what cannot be vouched for is raised, and nothing is written for it."""
    import msgspec

    from skerry.cli.run import project_at
    from skerry.spec.reading import read_project

    project = read_project(project_at(args.target))
    found = [_calibrated(project, node, args) for node in _routed(project, args.stage)]
    if args.json:
        print(msgspec.json.encode({"calibrated": found}).decode())
        return 0
    for evidence in found:
        print("\n".join(evidence_lines(evidence, project)))
    return 0


def _routed(project: Project, stage: str | None) -> list[Any]:
    """Return the stages that may ask a cloud; raises ``UsageError`` where there is none of them."""
    from skerry.run.assembly import make_nodes

    nodes = [node for node in make_nodes(project) if getattr(node, "route", None) is not None]
    chosen = [node for node in nodes if stage in {None, node.id}]
    if not chosen:
        raise UsageError(
            f"{project.path} has no stage {stage!r} with `cloud`" if stage else f"{project.path} has no `cloud`",
            expected=f"one of {', '.join(node.id for node in nodes)}" if nodes else "`cloud:` at a classify stage",
        )
    return chosen


def _calibrated(project: Project, node: Any, args: argparse.Namespace) -> Evidence:
    """Compare, certify and write; returns what was written."""
    import tempfile

    from skerry.build.calibration.threshold import certify
    from skerry.run.models import open_models, read_manifest
    from skerry.run.route.comparison import compare, read_examples
    from skerry.run.route.evidence import write_evidence

    plan: Plan = node.route.plan
    loss, certainty = _wanted(plan, args)
    if plan.data is None:
        raise CalibrationError(
            f"there are no texts to calibrate {plan.stage} on", where=plan.where,
            expected="`data: FILE` in `cloud`, or `data: {calibrate: FILE}` at its model",
        )  # fmt: skip
    examples = read_examples(project.home / plan.data, plan.subject.sent)
    models = open_models(project.release_folder, read_manifest(project.release_folder), project.pipeline.models)
    with contextlib.closing(models), tempfile.TemporaryDirectory() as folder:
        context = _context(project, node.id, Path(folder), models)
        print(f"{plan.stage}: asking both sides for {len(examples):,} texts", file=sys.stderr)
        comparison = compare(plan, node.make().local, context, examples, _progress)
        certified = certify(
            comparison.scores, comparison.losses, epsilon=float(loss), delta=1 - float(certainty),
            kind=comparison.kind,
        )  # fmt: skip
        evidence = _evidence(plan, context, comparison, certified, float(loss), float(certainty))
    write_evidence(plan.folder, evidence)
    return evidence


def _wanted(plan: Plan, args: argparse.Namespace) -> tuple[Share, Share]:
    """Return the loss and the certainty: those of the file, or stricter ones."""
    loss, certainty = args.loss or plan.cloud.max_quality_loss, args.certainty or plan.cloud.certainty
    if loss > plan.cloud.max_quality_loss or certainty < plan.cloud.certainty:
        raise UsageError(
            "the pipeline file demands more than that, and would not take this calibration",
            expected=f"--loss of at most {plan.cloud.max_quality_loss}, --certainty of at least {plan.cloud.certainty}",
            hint=f"or change `max_quality_loss` and `certainty` at {plan.where}",
        )
    return loss, certainty


def _context(project: Project, name: str, folder: Path, models: Any) -> Any:
    import logging
    import threading

    from skerry.spec.ports import Context

    return Context(
        name=name, home=project.home, state=folder, stop=threading.Event(), log=logging.getLogger("skerry"),
        insecure=project.pipeline.insecure, models=models,
    )  # fmt: skip


def _progress(done: int, count: int) -> None:
    if done == count or done % 320 == 0:
        print(f"  {done:,} of {count:,}", file=sys.stderr, flush=True)


def _evidence(
    plan: Plan, context: Any, comparison: Comparison, certified: Certified, loss: float, certainty: float
) -> Evidence:
    import datetime

    from skerry.run.route.evidence import Evidence, Step
    from skerry.run.route.identity import digests_in_use

    curve = [
        Step(threshold=point.threshold, local_share=point.local_share, loss=point.loss, held=point.held)
        for point in certified.curve
    ]
    digests = {**digests_in_use(plan.subject, plan.cloud, context, plan.data), "remote": comparison.remote}
    return Evidence(
        stage=plan.stage, made=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        threshold=certified.threshold, kind=certified.kind, count=certified.count, loss=certified.loss,
        bound=certified.bound, local_share=certified.local_share, max_quality_loss=loss, certainty=certainty,
        rank=plan.cloud.rank, agreement=comparison.agreement, digests=digests, curve=curve,
    )  # fmt: skip


def evidence_lines(evidence: Evidence, project: Project) -> list[str]:
    """Return the evidence as lines for people."""
    from skerry.run.route.evidence import file_of

    against = "the right answers" if evidence.kind == "signed" else "the cloud's answers"
    path = file_of(project.release_folder, evidence.stage)
    shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    told = f"(allowed {evidence.max_quality_loss:g}, certainty {evidence.certainty:.0%})"
    return [
        f"{evidence.stage}: local answers with a {evidence.rank} of at least {evidence.threshold:.3g} stand",
        f"  local    {evidence.local_share:.0%} of {evidence.count:,} texts; the cloud is asked for the rest",
        f"  loss     {evidence.loss:.4f} against {against}, at most {evidence.bound:.4f} {told}",
        f"  agree    {evidence.agreement:.0%} of all answers are the same on both sides",
        f"  written  {shown}",
    ]
