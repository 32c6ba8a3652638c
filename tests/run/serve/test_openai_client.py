"""The unmodified ``openai`` client against ``/v1/embeddings``."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from skerry.run.serve.server import Server
from tests.run.serve.parts import Adder, ask, serving, text_model

openai = pytest.importorskip("openai")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(text_model(tmp_path_factory.mktemp("words")), Adder()) as found:
        yield found


@pytest.fixture
def client(server: Server) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as found:
        yield found


def test_a_text_and_several(client: Any) -> None:
    one = client.embeddings.create(model="words", input="hello there")
    many = client.embeddings.create(model="words", input=["hello there", "and you"])
    assert len(one.data[0].embedding) == 8
    assert one.usage.prompt_tokens == one.usage.total_tokens == 2
    assert [each.index for each in many.data] == [0, 1]
    np.testing.assert_allclose(many.data[0].embedding, one.data[0].embedding, rtol=1e-6)
    assert (many.model, many.object, many.data[0].object) == ("words", "list", "embedding")


def test_float_and_base64_are_the_same(client: Any, server: Server) -> None:
    floats = client.embeddings.create(model="words", input="hello", encoding_format="float").data[0].embedding
    packed = ask(server, "/v1/embeddings", {"model": "words", "input": "hello", "encoding_format": "base64"})
    raw = base64.b64decode(packed.json["data"][0]["embedding"])
    np.testing.assert_array_equal(np.frombuffer(raw, "<f4"), np.array(floats, dtype=np.float32))


def test_fewer_dimensions_have_length_one(client: Any) -> None:
    short = np.array(client.embeddings.create(model="words", input="hello", dimensions=3).data[0].embedding)
    whole = np.array(client.embeddings.create(model="words", input="hello").data[0].embedding)
    np.testing.assert_allclose(short, whole[:3] / np.linalg.norm(whole[:3]), rtol=1e-5)


def test_models_are_listed(client: Any) -> None:
    assert [model.id for model in client.models.list()] == ["words", "adder"]
    assert client.models.retrieve("words").owned_by == "skerry"
    with pytest.raises(openai.NotFoundError, match="nobody"):
        client.models.retrieve("nobody")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"input": [1, 2, 3]}, "token ids"),
        ({"input": [[1, 2], [3]]}, "token ids"),
        ({"input": []}, "1 to 2048"),
        ({"input": ""}, "empty text"),
        ({"input": ["a", None]}, "a text, or a list"),
        ({"input": "a", "dimensions": 9}, "1 to 8"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format"),
        ({"input": "a", "model": "adder"}, "no model of texts"),
    ],
)
def test_what_is_wrong_is_said_in_openais_form(server: Server, asked: dict[str, Any], said: str) -> None:
    answer = ask(server, "/v1/embeddings", {"model": "words", **asked})
    assert answer.status == 400
    error = answer.json["error"]
    assert error["type"] == "invalid_request_error" and said in error["message"]
    assert error.keys() == {"message", "type", "param", "code"}


def test_the_client_raises_its_own_errors(client: Any) -> None:
    with pytest.raises(openai.BadRequestError, match="token ids"):
        client.embeddings.create(model="words", input=[1, 2])
    with pytest.raises(openai.NotFoundError) as caught:
        client.embeddings.create(model="nobody", input="a")
    assert caught.value.code == "model_not_found"
