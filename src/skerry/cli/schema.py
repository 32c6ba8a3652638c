"""``skerry schema``: the JSON Schema of the pipeline file, so that an editor completes, explains and checks it."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    import msgspec

    from skerry.cli.typeschema import Schema, TypeSchemas
    from skerry.spec.plugins import Group

EXAMPLES = """\
The schema holds every source, stage and sink that is installed, those of other packages too.

examples:
  skerry schema > pipeline.schema.json

  and as the first line of pipeline.yaml, for editors with the YAML language server:
  # yaml-language-server: $schema=./pipeline.schema.json
"""
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add ``schema``, which takes no arguments."""
    commands.add_parser(
        "schema",
        help="print the JSON Schema of the pipeline file, for editors",
        description="Print the JSON Schema (2020-12) of the pipeline file.",
        epilog=EXAMPLES,
    )


def run(args: argparse.Namespace) -> int:
    """Print the schema; plugins that cannot be imported are named on stderr and left out."""
    import json

    def leave_out(name: str, why: str) -> None:
        print(f"skerry: left out {name}: {why}", file=sys.stderr)

    print(json.dumps(pipeline_schema(leave_out), indent=2, ensure_ascii=False))
    return 0


def pipeline_schema(leave_out: Callable[[str, str], None] = lambda _name, _why: None) -> Schema:
    """Return the schema of a pipeline file with every plugin that is installed.

    ``leave_out`` is told the name of each plugin that cannot be imported, and why.
    """
    from skerry.cli.typeschema import TypeSchemas, first_line
    from skerry.spec.pipeline import Pipeline

    types = TypeSchemas()
    properties, required = types.properties(Pipeline)
    definitions = {
        "source": _endpoint(types, "from", _options("skerry.sources", leave_out)),
        "stage": _stage(types, _options("skerry.stages", leave_out)),
        "sink": _endpoint(types, "to", _options("skerry.sinks", leave_out)),
    }
    properties["source"] = {"$ref": "#/$defs/source"}
    properties["sources"] = {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/source"}}
    properties["stages"] = {"type": "array", "items": {"$ref": "#/$defs/stage"}}
    properties["sinks"] = {"type": "array", "items": {"$ref": "#/$defs/sink"}}
    return {
        "$schema": DIALECT,
        "title": "Skerry pipeline",
        "description": first_line(Pipeline),
        "type": "object",
        "properties": properties,
        "required": required,
        "oneOf": [{"required": ["source"]}, {"required": ["sources"]}],
        "additionalProperties": False,
        "$defs": {**definitions, **types.definitions},
    }


def _options(group: Group, leave_out: Callable[[str, str], None]) -> dict[str, type[msgspec.Struct]]:
    """Return the options of every plugin of a group by its name."""
    from skerry.spec.errors import DependencyError
    from skerry.spec.plugins import load_plugin, plugins

    found: dict[str, type[msgspec.Struct]] = {}
    for name in plugins(group):
        try:
            found[name] = load_plugin(group, name).Options
        except (DependencyError, AttributeError) as error:
            leave_out(f"{group.removeprefix('skerry.').removesuffix('s')} {name}", str(error).split("\n")[0])
    return found


def _stage(types: TypeSchemas, stages: dict[str, type[msgspec.Struct]]) -> Schema:
    """Return the schema of one entry of ``stages``: a plain name, one kind with its options, or the user's function."""
    from skerry.cli.typeschema import first_line
    from skerry.spec.pipeline import Common

    common, _ = types.properties(Common)
    bare = [name for name, options in stages.items() if not types.properties(options)[1]]
    kinds = {name: _stage_value(types, options, common) for name, options in stages.items()}
    function = {"type": "string", "pattern": "^[^:]+:[^:]+$", "description": "a Python function, module:function"}
    return {
        "description": first_line(Common),
        "anyOf": [
            {"enum": bare},
            {
                "type": "object", "properties": kinds, "minProperties": 1, "maxProperties": 1,
                "additionalProperties": False,
            },
            {
                "type": "object",
                "properties": {"use": function, "with": {"description": "keywords for the function"}, **common},
                "required": ["use"],
                "additionalProperties": False,
            },
        ],
    }  # fmt: skip


def _stage_value(types: TypeSchemas, options: type[msgspec.Struct], common: dict[str, Schema]) -> Schema:
    """Return what may stand after the name of a stage: its options, their shorthand, or nothing."""
    from skerry.cli.typeschema import first_line

    properties, required = types.properties(options)
    mapping: Schema = {"type": "object", "properties": {**properties, **common}, "additionalProperties": False}
    if required:
        mapping["required"] = required
    forms: list[Schema] = [mapping]
    shorthand = getattr(options, "shorthand", "")
    # A mapping always stands for the options themselves, never for a shorthand.
    if shorthand and properties[shorthand].get("type") != "object":
        forms.append(properties[shorthand])
    if not required:
        forms.append({"type": "null"})
    return {"description": first_line(options), "anyOf": forms}


def _endpoint(types: TypeSchemas, verb: str, plugins: dict[str, type[msgspec.Struct]]) -> Schema:
    """Return the schema of a source or sink: a URI, or a mapping with it and options.

    No option is required here: it may stand in the query of the URI.
    """
    from skerry.cli.typeschema import first_line
    from skerry.spec.pipeline import Endpoint

    common, _ = types.properties(Endpoint)
    if verb == "from":
        del common["after"]
    schemes = "|".join(name.replace("+", r"\+") for name in plugins)
    forms: list[Schema] = [{"type": "string", "pattern": f"^({schemes})(:|$)", "examples": [f"{next(iter(plugins))}:"]}]
    for name, options in plugins.items():
        properties, _ = types.properties(options)
        # The scheme's own key comes last: `from` is also an option of some sources, by way of the URI only.
        uri = {"type": "string", "pattern": f"^{name.replace('+', chr(92) + '+')}(:|$)"}
        forms.append(
            {
                "type": "object", "description": first_line(options), "required": [verb],
                "properties": {**properties, **common, verb: uri}, "additionalProperties": False,
            }
        )  # fmt: skip
        forms.append({"type": "object", "properties": {name: {"type": "null"}}, "required": [name], "maxProperties": 1})
    return {"description": first_line(Endpoint), "anyOf": forms}
