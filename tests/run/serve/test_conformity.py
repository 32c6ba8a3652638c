"""Conformity: answers have the schemas of the protocols, and the manifests of the page are ones that work."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

from skerry.cli.main import build_parser
from skerry.run.serve.datatypes import DTYPES
from skerry.run.serve.server import Server
from tests.run.serve.parts import Adder, ask, question, serving, text_model

PAGE = Path(__file__).parents[3] / "docs" / "serve.md"
DATATYPE = {"enum": list(DTYPES)}
TEXT = {"type": "string", "minLength": 1}


def strict(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    """Return the schema of an object without other keys."""
    return {
        "type": "object", "required": list(required), "properties": {**required, **optional},
        "additionalProperties": False,
    }  # fmt: skip


def many(items: dict[str, Any], least: int = 1) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": least}


# Of the Open Inference Protocol, version 2: rest_predict_v2.yaml.
METADATA_TENSOR = strict({"name": TEXT, "datatype": DATATYPE, "shape": many({"type": "integer", "minimum": -1}, 0)})
SERVER = strict({"name": TEXT, "version": TEXT, "extensions": many(TEXT, 0)})
MODEL = strict(
    {"name": TEXT, "platform": {"type": "string"}, "inputs": many(METADATA_TENSOR), "outputs": many(METADATA_TENSOR)},
    versions=many(TEXT),
)
OUTPUT = strict(
    {"name": TEXT, "shape": many({"type": "integer", "minimum": 0}, 0), "datatype": DATATYPE},
    data={"type": "array"}, parameters={"type": "object"},
)  # fmt: skip
INFERENCE = strict({"model_name": TEXT, "outputs": many(OUTPUT)}, model_version=TEXT, id=TEXT)
READY = strict({"ready": {"type": "boolean"}})
ERROR = strict({"error": TEXT})
# Of OpenAI's API reference.
EMBEDDING = strict(
    {"object": {"const": "embedding"}, "index": {"type": "integer"}, "embedding": {"type": ["array", "string"]}}
)
COUNT = {"type": "integer", "minimum": 0}
EMBEDDINGS = strict({
    "object": {"const": "list"}, "data": many(EMBEDDING), "model": TEXT,
    "usage": strict({"prompt_tokens": COUNT, "total_tokens": COUNT}),
})  # fmt: skip
OPENAI_ERROR = strict({
    "error": strict({"message": TEXT, "type": TEXT, "param": {"type": ["string", "null"]},
                     "code": {"type": ["string", "null"]}})
})  # fmt: skip

WORDS = {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["a b"]}]}
ASKED: list[tuple[str, Any, int, dict[str, Any]]] = [
    ("/v2", None, 200, SERVER),
    ("/v2/health/live", None, 200, strict({"live": {"type": "boolean"}})),
    ("/v2/health/ready", None, 200, READY),
    ("/v2/models/adder", None, 200, MODEL),
    ("/v2/models/words/versions/1", None, 200, MODEL),
    ("/v2/models/adder/ready", None, 200, strict({"name": TEXT, "ready": {"type": "boolean"}})),
    ("/v2/models/adder/infer", question([1, 2, 3, 4]), 200, INFERENCE),
    ("/v2/models/adder/infer", question([1, 2, 3, 4], id="7"), 200, INFERENCE),
    ("/v2/models/words/infer", WORDS, 200, INFERENCE),
    ("/v2/models/adder/infer", {"inputs": 1}, 400, ERROR),
    ("/v2/models/nobody", None, 404, ERROR),
    ("/v1/embeddings", {"model": "words", "input": "a"}, 200, EMBEDDINGS),
    ("/v1/embeddings", {"model": "words", "input": "a", "encoding_format": "base64"}, 200, EMBEDDINGS),
    ("/v1/embeddings", {"model": "words"}, 400, OPENAI_ERROR),
    ("/v1/models/nobody", None, 404, OPENAI_ERROR),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(Adder(), text_model(tmp_path_factory.mktemp("words"))) as found:
        yield found


@pytest.mark.parametrize(("path", "body", "status", "schema"), ASKED)
def test_answers_have_their_schema(server: Server, path: str, body: Any, status: int, schema: dict[str, Any]) -> None:
    answer = ask(server, path, body)
    assert answer.status == status
    Draft202012Validator(schema).validate(answer.json)


def manifests() -> list[Any]:
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return [YAML(typ="safe").load(block) for block in blocks]


@pytest.mark.parametrize("manifest", manifests(), ids=lambda manifest: manifest["kind"])
def test_the_manifests_of_the_page_start_this_server(manifest: Any) -> None:
    assert manifest["apiVersion"].startswith("serving.kserve.io/")
    spec = manifest["spec"]
    container = (spec.get("predictor") or spec)["containers"][0]
    assert container["name"] == "kserve-container"
    program, *words = [*container["command"], *container["args"]]
    assert program == "skerry"
    arguments = build_parser(only="serve").parse_args(words)
    assert (str(arguments.what), arguments.host, arguments.insecure) == ("/mnt/models", "0.0.0.0", True)
    assert container["ports"][0]["containerPort"] == 8080


def test_the_page_names_every_path_that_is_answered(server: Server) -> None:
    page = PAGE.read_text(encoding="utf-8")
    for path in ("/v2", "/v2/health/live", "/v2/health/ready", "/v1/models", "/metrics", "/healthz"):
        assert ask(server, path).status == 200
        assert f"`{path}`" in page or f"GET {path}`" in page
