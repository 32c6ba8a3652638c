"""The protocols: what is asked, what is understood, and that nothing else is taken for an answer."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.run.http_client import Reply
from skerry.run.route.protocol import Answer, BadAnswerError, form_of, parsed

from .cloud import a_cloud

NAMES = ("failure", "login")
OIP = "https://cloud.example/v2/models/sorter"
URLS = {
    "oip": OIP,
    "embeddings": "https://x/v1/embeddings",
    "chat": "https://x/v1/chat/completions",
    "json": "https://x/sort",
}


def reply(data: Any, status: int = 200, kind: str = "application/json") -> Reply:
    return Reply(status, data if isinstance(data, bytes) else json.dumps(data).encode(), kind)


def answers(protocol: str, data: Any, count: int = 1, labels: tuple[str, ...] = NAMES) -> list[Answer]:
    form = form_of(a_cloud(URLS[protocol]), labels, field="text")
    return parsed(data if isinstance(data, Reply) else reply(data), form, count, labels)


def oip(*outputs: tuple[str, str, list[int], list[Any]]) -> dict[str, Any]:
    names = ("name", "datatype", "shape", "data")
    return {"model_name": "sorter", "outputs": [dict(zip(names, output, strict=True)) for output in outputs]}


@pytest.mark.parametrize(("protocol", "url"), URLS.items())
def test_the_url_tells_the_protocol(protocol: str, url: str) -> None:
    assert a_cloud(url).spoken == protocol
    assert a_cloud(url, protocol="chat").spoken == "chat"


def test_bodies_are_as_the_protocols_have_them() -> None:
    cloud = {name: a_cloud(url, model="m") for name, url in URLS.items()}
    asked = json.loads(form_of(cloud["oip"], NAMES, field="text", outputs=("label",)).body(["a", "b"]))
    assert asked["inputs"] == [{"name": "text", "shape": [2], "datatype": "BYTES", "data": ["a", "b"]}]
    assert asked["outputs"] == [{"name": "label"}]
    assert json.loads(form_of(cloud["embeddings"], (), field="text").body(["a"])) == {"model": "m", "input": ["a"]}
    chat = json.loads(form_of(cloud["chat"], NAMES, field="text").body(["a"]))
    assert chat["temperature"] == 0 and "failure, login" in chat["messages"][0]["content"]
    assert json.loads(form_of(cloud["json"], NAMES, field="line").body(["a"])) == {"line": "a"}


def test_good_answers_are_understood() -> None:
    labels = oip(("label", "BYTES", [2], ["login", "failure"]), ("score", "FP32", [2], [0.5, 1.0]))
    assert answers("oip", labels, 2) == [Answer("login", 0.5), Answer("failure", 1.0)]
    vectors = oip(("embedding", "FP32", [2, 2], [1, 2, 3, 4]))
    assert [answer.vector for answer in answers("oip", vectors, 2, ())] == [(1.0, 2.0), (3.0, 4.0)]
    listed = {"data": [{"index": 1, "embedding": [3]}, {"index": 0, "embedding": [1]}]}
    assert [answer.vector for answer in answers("embeddings", listed, 2, ())] == [(1.0,), (3.0,)]
    assert answers("chat", {"choices": [{"message": {"content": " Login. ".lower()}}]}) == [Answer("login")]
    assert answers("json", {"label": "login"}) == [Answer("login")]
    assert answers("json", {"embedding": [1, 2]}, 1, ()) == [Answer(vector=(1.0, 2.0))]


BAD: dict[str, tuple[str, Any, str]] = {
    "captive portal": ("json", reply(b"<html><body>Please log in</body>", 200, "text/html"), "html"),
    "portal without a type": ("json", reply(b"  <!DOCTYPE html>", 200, "application/json"), "html"),
    "not JSON": ("json", reply(b"hello"), "no_json"),
    "cut short": ("oip", reply(b'{"outputs": ['), "no_json"),
    "without end": ("json", reply(b"[" * 200_000), "no_json"),
    "empty": ("json", reply(b""), "no_json"),
    "a list": ("json", [1], "shape"),
    "200 with an error": ("oip", {"error": "out of memory"}, "error"),
    "OpenAI's error": ("chat", {"error": {"message": "quota"}}, "error"),
    "500": ("json", reply({"label": "login"}, 500), "status_500"),
    "a redirect": ("json", reply({"label": "login"}, 302), "status_302"),
    "no label": ("json", {"score": 1}, "shape"),
    "a label that is none of ours": ("json", {"label": "holiday"}, "label"),
    "a label that is a number": ("json", {"label": 3}, "shape"),
    "a score beyond one": ("json", {"label": "login", "score": 7}, "nan"),
    "a score that is text": ("json", {"label": "login", "score": "high"}, "shape"),
    "too few": ("oip", oip(("label", "BYTES", [0], [])), "shape"),
    "scores and labels of other lengths": (
        "oip", oip(("label", "BYTES", [1], ["login"]), ("score", "FP32", [2], [0.1, 0.2])), "shape",
    ),
    "a shape that is a lie": ("oip", oip(("embedding", "FP32", [1, 5], [1.0])), "shape"),
    "a huge shape": ("oip", oip(("embedding", "FP32", [1, 10**12], [1.0])), "shape"),
    "a null in a vector": ("embeddings", {"data": [{"index": 0, "embedding": [1.0, None]}]}, "nan"),
    "other indexes": ("embeddings", {"data": [{"index": 3, "embedding": [1.0]}]}, "shape"),
    "an empty vector": ("embeddings", {"data": [{"index": 0, "embedding": []}]}, "shape"),
    "an infinite number": ("embeddings", reply(b'{"data": [{"index": 0, "embedding": [1e999]}]}'), "no_json"),
    "a talkative chat": ("chat", {"choices": [{"message": {"content": "I think it is login"}}]}, "label"),
    "no choices": ("chat", {"choices": []}, "shape"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_answer_is_refused_and_named(case: str) -> None:
    protocol, data, reason = BAD[case]
    with pytest.raises(BadAnswerError) as caught:
        answers(protocol, data, 1, () if protocol == "embeddings" else NAMES)
    assert caught.value.reason in {reason, "nan"} if case == "an infinite number" else caught.value.reason == reason


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["outputs", "data", "label", "score", "embedding", "index", "choices", "name", "shape"]), inner,
        max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip


@given(st.sampled_from(sorted(URLS)), json_values)
def test_no_reply_whatever_breaks_anything(protocol: str, data: Any) -> None:
    try:
        found = answers(protocol, data)
    except BadAnswerError:
        return
    assert len(found) == 1
