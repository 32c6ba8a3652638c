"""``skerry models``: small models for devices, and which of them are predicted to fit."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from skerry.spec.errors import UsageError

if TYPE_CHECKING:
    from skerry.build.catalogue import Figure, ModelEntry
    from skerry.build.catalogue.prediction import Prediction, Setting
    from skerry.build.catalogue.suggestion import Broken, Suggestion, Suggestions, Wish
    from skerry.spec.profile import DeviceProfile

_DESCRIPTION = """\
List and compare small models for devices: a catalogue with parameters, licences and published quality, each with its
source. Works offline. What fits is predicted here, from the shape of a model; `skerry build` measures it."""

_EXAMPLES = """\
examples:
  skerry models list --task embedding
  skerry models show all-minilm-l6-v2 --device raspberry-pi-5
  skerry models suggest --task embedding --memory 80MB
  skerry models suggest --task embedding --size 40MB --latency 30ms --device raspberry-pi-5
  skerry models suggest --task transcription --memory 500MB --language de --licence permissive --json
"""
_HERE = "this"
"""The word for the machine at hand, where a device is named."""
_NEAR = 5
"""Near misses that are shown, unless more are asked for: enough to see which limit to relax."""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "models",
        help="find a small model, by what is predicted to fit",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    actions = parser.add_subparsers(title="actions", metavar="ACTION", dest="action", required=True)
    listing = actions.add_parser("list", help="list the catalogue", allow_abbrev=False)
    listing.add_argument("--task", metavar="TASK", help="only the models of one task")
    listing.add_argument("--json", action="store_true", help="print a JSON list of entries instead of text")
    showing = actions.add_parser("show", help="tell all about one model", allow_abbrev=False)
    showing.add_argument("name", metavar="NAME", help="its name in the catalogue, or its id on the hub")
    _add_setting(showing)
    suggesting = actions.add_parser(
        "suggest", help="rank the models of a task that are predicted to fit", allow_abbrev=False
    )
    suggesting.add_argument("--task", metavar="TASK", required=True, help="what the model is for: see `models list`")
    suggesting.add_argument("--memory", metavar="SIZE", help="peak memory of the process at most, such as 80MB")
    suggesting.add_argument("--size", metavar="SIZE", help="weights and tokenizer on disk at most, such as 25MB")
    suggesting.add_argument("--latency", metavar="TIME", help="time of one item at most, such as 20ms")
    suggesting.add_argument("--language", metavar="CODE", help="a language it must know, such as de")
    suggesting.add_argument(
        "--licence", metavar="TERMS", default="any", help="permissive, commercial, any, or an SPDX id (default: any)"
    )
    suggesting.add_argument("--near", metavar="N", type=int, default=_NEAR, help=f"near misses (default: {_NEAR})")
    _add_setting(suggesting)
    for action in (listing, showing, suggesting):
        action.add_argument(
            "--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error"
        )


def _add_setting(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device", metavar="NAME", help=f"predict the time on a device of the catalogue, or on `{_HERE}` machine"
    )
    parser.add_argument("--runtime", metavar="NAME", help="only this runtime (onnxruntime, litert)")
    parser.add_argument("--tokens", metavar="N", type=int, default=32, help="tokens of a text (default: 32)")
    parser.add_argument(
        "--context", metavar="N", type=int, default=512, help="tokens before a written one (default: 512)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")


def run(args: argparse.Namespace) -> int:
    """List, show or suggest; the exit code is 0 even when nothing fits, since that too is an answer.

    Raises
    ------
    UsageError
        An unknown task or runtime, or a limit that is none.
    ModelMissingError
        An unknown model.
    DeviceError
        An unknown device.
    """
    actions = {"list": _list, "show": _show, "suggest": _suggest}
    return actions[args.action](args)


def _list(args: argparse.Namespace) -> int:
    from skerry.build.catalogue import catalogue, check_task

    task = None if args.task is None else check_task(args.task)
    models = [model for model in catalogue().values() if task is None or task in model.tasks]
    if args.json:
        return _print_json(models)
    rows = [(m.name, ", ".join(m.tasks), _millions(m.parameters), m.licence.id, m.title) for m in models]
    _print_table(("name", "task", "parameters", "licence", "model"), rows)
    return 0


def _show(args: argparse.Namespace) -> int:
    from skerry.build.catalogue import load_model
    from skerry.build.catalogue.prediction import item_of, predictions

    model = load_model(args.name)
    device, setting = _device(args.device), _setting(args)
    found = list(predictions(model, device, setting, runtime=_runtime(args.runtime)))
    if args.json:
        return _print_json({"model": model, "item": item_of(model, setting), "predicted": found})
    for label, value in _facts(model):
        print(f"{label:<12}  {value}")
    print(f"\npredicted, not measured; the time is for {item_of(model, setting)}{_where(device)}:")
    _print_table(_PREDICTED, [_predicted(one) for one in found])
    return 0


def _facts(model: ModelEntry) -> Iterable[tuple[str, str]]:
    from skerry.build.catalogue import tasks

    yield "model", f"{model.title} ({model.year})"
    yield "hub", model.hub
    yield "task", "; ".join(f"{name}: {tasks().tasks[name].title}" for name in model.tasks)
    if model.languages:
        yield "languages", f"{len(model.languages)}: {' '.join(model.languages)}"
    licence = model.licence
    yield "licence", f"{licence.id}; commercial use: {licence.commercial}{_origin(licence.source, licence.confirmed)}"
    figure = model.parameters
    yield "parameters", f"{figure.value:,.0f}, {figure.how}{_origin(figure.source, figure.confirmed)}"
    if model.embedding_parameters:
        share = model.embedding_parameters / figure.value
        yield "words", f"{model.embedding_parameters:,} of them are the table of words ({share:.0%})"
    shape = {name: value for name in model.shape.__struct_fields__ if (value := getattr(model.shape, name)) is not None}
    yield "shape", ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in shape.items())
    for quality in model.quality:
        metric = tasks().metrics[quality.metric]
        unit = "" if metric.unit == "share" else f" {metric.unit}"
        yield "quality", f"{metric.title}: {quality.value:g}{unit}{_origin(quality.source, quality.confirmed)}"
    if model.unconfirmed:
        yield "unconfirmed", ", ".join(model.unconfirmed)
    if model.note:
        yield "note", model.note


def _suggest(args: argparse.Namespace) -> int:
    from skerry.build.catalogue import catalogue, tasks
    from skerry.build.catalogue.suggestion import suggest

    wish, setting = _wish(args), _setting(args)
    if args.near < 0:
        raise UsageError(f"{args.near} near misses cannot be shown", where="--near", expected="0 or more")
    device = _device(_HERE if args.device is None and wish.latency_s is not None else args.device)
    found = suggest(catalogue().values(), wish, tasks(), device, setting)
    if args.json:
        return _print_json(_as_object(wish, setting, device, found, args.near))
    _print_fits(wish, setting, device, found)
    _print_near(found, args.near)
    return 0


def _wish(args: argparse.Namespace) -> Wish:
    from skerry.build.catalogue import check_task
    from skerry.build.catalogue.suggestion import Wish
    from skerry.spec.units import Duration, Size

    return Wish(
        task=check_task(args.task),
        memory_bytes=_limit("--memory", Size, args.memory),
        size_bytes=_limit("--size", Size, args.size),
        latency_s=_limit("--latency", Duration, args.latency),
        language=None if args.language is None else args.language.lower(),
        licence=_licence(args.licence),
        runtime=_runtime(args.runtime),
    )


def _limit(option: str, kind: Any, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return float(kind.parse(text))
    except ValueError as error:
        raise UsageError(f"{text!r} is not a limit", where=option, expected=str(error)) from error


def _licence(terms: str) -> str:
    from skerry.build.catalogue import catalogue
    from skerry.spec.words import did_you_mean

    known = ["any", "permissive", "commercial", *sorted({model.licence.id for model in catalogue().values()})]
    spelled = {name.lower(): name for name in known}.get(terms.lower())
    if spelled is None:
        hint = did_you_mean(terms, known)
        raise UsageError(f"no model has the licence {terms!r}", where="--licence", expected=", ".join(known), hint=hint)
    return spelled


def _runtime(name: str | None) -> Any:
    from skerry.build.catalogue.prediction import RUNTIMES
    from skerry.spec.words import did_you_mean

    if name is not None and name not in RUNTIMES:
        raise UsageError(
            f"nothing is known of the runtime {name!r}",
            where="--runtime",
            expected=", ".join(RUNTIMES),
            hint=did_you_mean(name, RUNTIMES),
        )
    return name


def _setting(args: argparse.Namespace) -> Setting:
    from skerry.build.catalogue.prediction import Setting

    for option, count in (("--tokens", args.tokens), ("--context", args.context)):
        if count < 1:
            raise UsageError(f"{count} is no length", where=option, expected="a number of tokens from 1 on")
    return Setting(tokens=args.tokens, context=args.context)


def _device(name: str | None) -> DeviceProfile | None:
    """The profile to predict for: none, one of the catalogue, or this machine's, which is measured in some seconds."""
    if name is None:
        return None
    if name != _HERE:
        from skerry.device.catalogue import load_device

        return load_device(name)
    from skerry.device.probe import probe

    return probe()


def _print_fits(wish: Wish, setting: Setting, device: DeviceProfile | None, found: Suggestions) -> None:
    from skerry.build.catalogue import tasks
    from skerry.build.catalogue.prediction import item_of

    task = tasks().tasks[wish.task]
    metric = tasks().metrics[task.metric]
    first = next(iter((*found.fits, *found.near)), None)
    item = "" if first is None else f"; the time is for {item_of(first.model, setting)}{_where(device)}"
    print(f"{len(found.fits)} fit: {task.title}")
    print(f"predicted from the shape, not measured{item if device is not None else ''}")
    if found.fits:
        print(f"ordered by: {metric.title}; those without that figure follow, the smallest first\n")
        _print_table(("model", *_PREDICTED, "quality", "licence"), [_row(one) for one in found.fits])


def _print_near(found: Suggestions, count: int) -> None:
    if found.near[:count]:
        print(f"\nnear misses ({min(count, len(found.near))} of {len(found.near)}):")
        for one in found.near[:count]:
            print(f"  {one.model.name} ({one.prediction.precision}, {one.prediction.runtime}): {_missed(one.breaks)}")
    left = [f"{number} for its {reason}" for reason, number in found.left_out.items() if number]
    if left:
        print(f"\nleft out: {', '.join(left)}")


def _as_object(
    wish: Wish, setting: Setting, device: DeviceProfile | None, found: Suggestions, near: int
) -> dict[str, Any]:
    from skerry.build.catalogue.prediction import item_of

    def line(one: Suggestion) -> dict[str, Any]:
        return {
            "name": one.model.name,
            "hub": one.model.hub,
            "licence": one.model.licence,
            "quality": one.quality,
            "item": item_of(one.model, setting),
            "predicted": one.prediction,
            "breaks": one.breaks,
        }

    return {
        "wish": wish,
        "setting": setting,
        "device": None if device is None else device.name,
        "measured": False,
        "fits": [line(one) for one in found.fits],
        "near": [line(one) for one in found.near[:near]],
        "left_out": found.left_out,
    }


_PREDICTED = ("precision", "runtime", "disk", "memory", "time")


def _predicted(one: Prediction) -> tuple[str, ...]:
    return one.precision, one.runtime, _bytes(one.size_bytes), _bytes(one.memory_bytes), _seconds(one.latency_s)


def _row(one: Suggestion) -> tuple[str, ...]:
    figure = one.quality
    quality = "-" if figure is None else f"{figure.value:g}{'' if figure.confirmed else ' (unconfirmed)'}"
    return one.model.name, *_predicted(one.prediction), quality, one.model.licence.id


def _missed(breaks: Sequence[Broken]) -> str:
    parts = []
    for one in breaks:
        shown = _seconds if one.limit == "latency" else _bytes
        if one.predicted is None:
            parts.append(f"{one.limit} cannot be predicted: the device does not tell its rates")
            continue
        factor = "" if one.over is None else f", {one.over:.3g} times the limit"
        parts.append(f"{one.limit} {shown(one.predicted)} against {shown(one.allowed)}{factor}")
    return "; ".join(parts)


def _origin(source: str, confirmed: bool) -> str:
    return f" [{source}{'' if confirmed else '; unconfirmed'}]"


def _where(device: DeviceProfile | None) -> str:
    return "" if device is None else f" on all cores of {device.name or 'this machine'}"


def _millions(figure: Figure) -> str:
    return f"{figure.value / 1e6:.1f} M"


def _bytes(value: float | None) -> str:
    from skerry.device.report import si

    return si(value, "B")


def _seconds(value: float | None) -> str:
    from skerry.device.report import si

    return "-" if value is None else si(value, "s")


def _print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    for row in (head, *rows):
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


def _print_json(value: object) -> int:
    import msgspec

    print(msgspec.json.format(msgspec.json.encode(value)).decode())
    return 0
