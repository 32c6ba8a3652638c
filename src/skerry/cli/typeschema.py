"""A type's JSON Schema (2020-12): what an editor needs to complete, explain and check a value of a ``msgspec`` type.

``msgspec.json.schema`` cannot write the defaults of values with units, nor say what a single key is for; this does.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import math
import re
import textwrap
from typing import Any

import msgspec
from msgspec import inspect as types

from skerry.spec.units import Bound, Quantity, Share

Schema = dict[str, Any]

_NUMBER = r"\+?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?"
_PLAIN: dict[type[Any], str] = {
    types.StrType: "string",
    types.BoolType: "boolean",
    types.NoneType: "null",
    types.IntType: "integer",
    types.FloatType: "number",
}


class TypeSchemas:
    """Writes schemas, and gathers in ``definitions`` those of structs and units, which are written once."""

    def __init__(self) -> None:
        self.definitions: dict[str, Schema] = {}
        self._names: dict[type[Any], str] = {}

    def properties(self, kind: type[msgspec.Struct]) -> tuple[dict[str, Schema], list[str]]:
        """Return the schema of each key of a struct, with its default and purpose, and the keys that must be there."""
        notes = key_notes(kind)
        properties, required = {}, []
        info = types.type_info(kind)
        assert isinstance(info, types.StructType)
        for field in info.fields:
            schema = self.of(field.type)
            note = notes.get(field.name) or notes.get(field.encode_name)
            if note:
                schema = {**schema, "description": note}
            if field.required:
                required.append(field.encode_name)
            else:
                made = field.default is msgspec.NODEFAULT
                default = plain_value(field.default_factory() if made else field.default)
                # `null` only says that a key may be left out, and an empty mapping repeats what the type says.
                schema = {**schema, **({} if default is None or default == {} else {"default": default})}
            properties[field.encode_name] = schema
        return properties, required

    def of(self, info: types.Type) -> Schema:
        """Return the schema of a type, as :mod:`msgspec.inspect` describes it; of an unknown one, that of anything."""
        if type(info) in _PLAIN:
            return {"type": _PLAIN[type(info)]}
        if isinstance(info, types.LiteralType):
            return {"enum": list(info.values)}
        if isinstance(info, types.UnionType):
            return {"anyOf": [self.of(part) for part in info.types]}
        if isinstance(info, types.StructType | types.CustomType):
            return self._named(info.cls)
        return self._collection(info)

    def _collection(self, info: types.Type) -> Schema:
        if isinstance(info, types.ListType | types.VarTupleType | types.SetType):
            return {"type": "array", "items": self.of(info.item_type)}
        if isinstance(info, types.TupleType):
            parts = [self.of(part) for part in info.item_types]
            return {"type": "array", "prefixItems": parts, "minItems": len(parts), "maxItems": len(parts)}
        if isinstance(info, types.DictType):
            return {"type": "object", "additionalProperties": self.of(info.value_type)}
        return self.of(info.type) if isinstance(info, types.Metadata) else {}

    def _named(self, kind: type[Any]) -> Schema:
        """Define a struct or a unit once, and return a reference to it."""
        if kind not in self._names:
            taken = kind.__name__ in self._names.values()
            self._names[kind] = f"{kind.__module__}.{kind.__name__}" if taken else kind.__name__
            schema = self._struct(kind) if issubclass(kind, msgspec.Struct) else unit_schema(kind)
            self.definitions[self._names[kind]] = schema
        return {"$ref": f"#/$defs/{self._names[kind]}"}

    def _struct(self, kind: type[msgspec.Struct]) -> Schema:
        properties, required = self.properties(kind)
        schema: Schema = {"type": "object", "description": first_line(kind), "properties": properties}
        if required:
            schema["required"] = required
        return {**schema, "additionalProperties": False}


def key_notes(kind: type[Any]) -> dict[str, str]:
    """Return what a class says of each key: in the numpy-style sections of its docstring, or right after the key.

    An entry such as ``on, off:`` explains both. What a class inherits is explained where it stands.
    """
    inherited = key_notes(kind.__mro__[1]) if issubclass(kind.__mro__[1], msgspec.Struct) else {}
    notes = _attribute_notes(kind)
    names: list[str] = []
    for line in inspect.cleandoc(kind.__doc__ or "").splitlines():
        entry = re.fullmatch(r"(\w+(?:, \w+)*):", line)
        if entry:
            names = entry[1].split(", ")
        elif line.startswith("    ") and names:
            for name in names:
                notes[name] = f"{notes.get(name, '')} {line.strip()}".strip()
        elif line.strip():
            names = []
    return inherited | {name: note.replace("``", "`") for name, note in notes.items()}


def _attribute_notes(kind: type[Any]) -> dict[str, str]:
    """Return the texts that stand right after the keys of a class; none where its source is not to be had."""
    try:
        body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    except (OSError, SyntaxError):
        return {}
    notes = {}
    for key, after in itertools.pairwise(body.body if isinstance(body, ast.ClassDef) else []):
        if not isinstance(key, ast.AnnAssign) or not isinstance(key.target, ast.Name):
            continue
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str):
            notes[key.target.id] = " ".join(after.value.value.split())
    return notes


def plain_value(value: Any) -> Any:
    """Return a default as a user would write it."""
    if isinstance(value, Share):
        return f"{float(value):.4%}".rstrip("%").rstrip("0").rstrip(".") + "%"
    if isinstance(value, Quantity):
        return quantity_text(value)
    if isinstance(value, Bound):
        return str(value)
    return msgspec.json.decode(msgspec.json.encode(value, enc_hook=plain_value))


def quantity_text(value: Quantity) -> str:
    """Write a quantity in the largest unit in which it is a whole number, or else in its base unit."""
    fitting = [
        (factor, unit)
        for unit, factor in value.factors.items()
        if factor and value >= factor and math.isclose(value / factor, round(value / factor), rel_tol=1e-9)
    ]
    factor, unit = max(fitting, key=lambda item: (item[0], -len(item[1])), default=(1.0, value.base))
    return f"{float(value) / factor:g}{unit}"


def first_line(kind: type[Any]) -> str:
    """Return what a class says it is, in one sentence."""
    return inspect.cleandoc(kind.__doc__ or "").split("\n")[0].replace("``", "`")


def unit_schema(kind: type[Any]) -> Schema:
    """Return the schema of a value with a unit: text by a pattern, with an example."""
    if issubclass(kind, Share):
        text = {"type": "string", "pattern": rf"^\s*{_NUMBER}\s*%?\s*$", "examples": [kind.example]}
        return {"anyOf": [text, {"type": "number", "minimum": 0, "maximum": 1}]}
    if issubclass(kind, Bound):
        pattern = rf"^\s*(>=|<=|==|>|<)\s*[+-]?{_NUMBER.removeprefix(chr(92) + '+?')}\s*$"
        return {"type": "string", "pattern": pattern, "examples": [kind.example]}
    if issubclass(kind, Quantity):
        units = "|".join(re.escape(unit) for unit in kind.factors)
        return {
            "type": "string",
            "pattern": rf"^\s*{_NUMBER}\s*({units})\s*$",
            "examples": [kind.example],
        }
    return {}
