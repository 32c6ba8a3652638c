"""The unmodified ``tritonclient`` against the server, over HTTP and gRPC."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from skerry.run.serve.messages import TABLE, message_classes
from skerry.run.serve.server import Server
from tests.run.serve.parts import PATIENCE_S, Adder, numbers, serving, text_model, wait_for

triton_http = pytest.importorskip("tritonclient.http")
triton_grpc = pytest.importorskip("tritonclient.grpc")
from tritonclient.utils import InferenceServerException  # noqa: E402


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """Let clients of gevent be collected here: in the server's thread they would complain."""
    gc.collect()
    yield
    gc.collect()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(Adder(), text_model(tmp_path_factory.mktemp("words")), grpc_port=0) as found:
        yield found


@pytest.fixture(params=["http", "grpc"])
def door(request: pytest.FixtureRequest, server: Server) -> Iterator[tuple[Any, Any]]:
    """Yield a module of tritonclient and a client of it."""
    module = triton_http if request.param == "http" else triton_grpc
    address = urlsplit(server.url).netloc if request.param == "http" else server.grpc_address
    client = module.InferenceServerClient(address)
    yield module, client
    client.close()


def test_health_and_metadata(door: tuple[Any, Any]) -> None:
    module, client = door
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("adder") and client.is_model_ready("adder", "1")
    as_dict = {"as_json": True} if module is triton_grpc else {}
    assert client.get_server_metadata(**as_dict)["name"] == "skerry"
    found = client.get_model_metadata("words", **as_dict)
    assert found["platform"] == "null"
    assert [(each["name"], each["datatype"]) for each in found["inputs"] + found["outputs"]] == [
        ("text", "BYTES"), ("embedding", "FP32"),
    ]  # fmt: skip
    assert [[int(size) for size in each["shape"]] for each in found["outputs"]] == [[-1, 8]]


def test_an_unknown_model_is_not_ready(door: tuple[Any, Any]) -> None:
    module, client = door
    if module is triton_http:
        assert not client.is_model_ready("nobody")
        return
    with pytest.raises(InferenceServerException, match="no model 'nobody'"):
        client.is_model_ready("nobody")


def test_numbers_come_back(door: tuple[Any, Any]) -> None:
    module, client = door
    tensor = module.InferInput("x", [3, 4], "FP32")
    tensor.set_data_from_numpy(numbers(3))
    answer = client.infer("adder", [tensor], request_id="seven", outputs=[module.InferRequestedOutput("y")])
    np.testing.assert_array_equal(answer.as_numpy("y"), numbers(3) + 1)
    response = answer.get_response()
    found = response if isinstance(response, dict) else {"id": response.id, "model_name": response.model_name}
    assert (found["id"], found["model_name"]) == ("seven", "adder")


def test_texts_come_back_as_vectors(door: tuple[Any, Any]) -> None:
    module, client = door
    tensor = module.InferInput("text", [2], "BYTES")
    tensor.set_data_from_numpy(np.array(["one text", "zwei wörter"], dtype=object))
    vectors = client.infer("words", [tensor]).as_numpy("embedding")
    assert vectors.shape == (2, 8) and vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_json_and_binary_give_the_same(server: Server, binary_in: bool, binary_out: bool) -> None:
    with triton_http.InferenceServerClient(urlsplit(server.url).netloc) as client:
        tensor = triton_http.InferInput("x", [2, 4], "FP32")
        tensor.set_data_from_numpy(numbers(), binary_data=binary_in)
        wanted = triton_http.InferRequestedOutput("y", binary_data=binary_out)
        answer = client.infer("adder", [tensor], outputs=[wanted])
        np.testing.assert_array_equal(answer.as_numpy("y"), numbers() + 1)
        texts = triton_http.InferInput("text", [1], "BYTES")
        texts.set_data_from_numpy(np.array(["ä"], dtype=object), binary_data=binary_in)
        assert client.infer("words", [texts]).as_numpy("embedding").shape == (1, 8)


@pytest.mark.parametrize("packing", ["gzip", "deflate"])
def test_packed_requests_are_unpacked(server: Server, packing: str) -> None:
    with triton_http.InferenceServerClient(urlsplit(server.url).netloc) as client:
        tensor = triton_http.InferInput("x", [2, 4], "FP32")
        tensor.set_data_from_numpy(numbers())
        answer = client.infer(
            "adder", [tensor], request_compression_algorithm=packing, response_compression_algorithm="gzip"
        )
        np.testing.assert_array_equal(answer.as_numpy("y"), numbers() + 1)


def wrong_input(module: Any, name: str, shape: list[int], dtype: str, array: Any) -> Any:
    tensor = module.InferInput(name, shape, dtype)
    tensor.set_data_from_numpy(array)
    return tensor


@pytest.mark.parametrize(
    ("model", "name", "shape", "dtype", "array", "said"),
    [
        ("words", "x", [1, 4], "FP32", numbers(1), "no input 'x'"),
        ("words", "text", [1], "INT64", np.array([1]), "dtype int64"),
        ("words", "text", [1, 1], "BYTES", np.array([["a"]], dtype=object), "2 axes"),
        ("words", "text", [0], "BYTES", np.array([], dtype=object), "holds no text"),
        ("adder", "x", [1, 4], "FP32", np.array([[1, np.nan, 2, 3]], dtype=np.float32), "not finite, at element 1"),
        ("nobody", "x", [1, 4], "FP32", numbers(1), "no model 'nobody'; there is adder, words"),
    ],
)
def test_what_is_wrong_is_said(
    door: tuple[Any, Any], model: str, name: str, shape: list[int], dtype: str, array: Any, said: str
) -> None:
    module, client = door
    with pytest.raises(InferenceServerException) as caught:
        client.infer(model, [wrong_input(module, name, shape, dtype, array)])
    assert said in caught.value.message()
    status = {"404": "StatusCode.NOT_FOUND", "400": "StatusCode.INVALID_ARGUMENT"}
    number = "404" if model == "nobody" else "400"
    assert caught.value.status() == (number if module is triton_http else status[number])


def test_an_unknown_output_and_version_are_refused(door: tuple[Any, Any]) -> None:
    module, client = door
    tensor = wrong_input(module, "x", [1, 4], "FP32", numbers(1))
    with pytest.raises(InferenceServerException, match="no output 'z'"):
        client.infer("adder", [tensor], outputs=[module.InferRequestedOutput("z")])
    with pytest.raises(InferenceServerException, match="no version '9'"):
        client.infer("adder", [tensor], model_version="9")


def test_grpc_takes_typed_contents(server: Server) -> None:
    import grpc
    from tritonclient.grpc import service_pb2

    request = service_pb2.ModelInferRequest(model_name="adder")
    tensor = request.inputs.add(name="x", datatype="FP32", shape=[1, 4])
    tensor.contents.fp32_contents.extend([1, 2, 3, 4])
    with grpc.insecure_channel(server.grpc_address) as channel:
        from tritonclient.grpc import service_pb2_grpc

        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        answer = stub.ModelInfer(request)
        assert np.frombuffer(answer.raw_output_contents[0], np.float32).tolist() == [2, 3, 4, 5]
        tensor.contents.fp32_contents.append(5)
        with pytest.raises(grpc.RpcError, match="5 elements in fp32_contents"):
            stub.ModelInfer(request)
        with pytest.raises(grpc.RpcError) as caught:
            stub.ModelStreamInfer(iter([request])).__next__()
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_the_deadline_of_grpc_drops_what_has_not_begun() -> None:
    adder = Adder()
    with serving(adder, grpc_port=0) as server:
        client = triton_grpc.InferenceServerClient(server.grpc_address)
        tensor = wrong_input(triton_grpc, "x", [1, 4], "FP32", numbers(1))
        adder.may_run.clear()
        first = threading.Thread(target=client.infer, args=("adder", [tensor]))
        first.start()
        assert adder.has_begun.wait(PATIENCE_S)
        with pytest.raises(InferenceServerException, match=r"[Dd]eadline"):
            client.infer("adder", [tensor], client_timeout=0.05)
        wait_for(server, "skerry_serve_in_flight", 1)
        adder.may_run.set()
        first.join(PATIENCE_S)
        client.infer("adder", [tensor])
        client.close()
    assert adder.runs == [1, 1]


def test_the_messages_are_those_of_tritonclient() -> None:
    from tritonclient.grpc import service_pb2

    for name, ours in message_classes().items():
        theirs: Any = service_pb2
        for part in name.split("."):
            theirs = getattr(theirs, part)
        public = {field.name: field for field in theirs.DESCRIPTOR.fields}
        for field in ours.DESCRIPTOR.fields:
            found = public[field.name]
            assert (field.number, field.type, field.is_repeated) == (found.number, found.type, found.is_repeated)
    assert len(TABLE) == 18


def test_the_door_of_grpc_can_be_shut(tmp_path: Path) -> None:
    with serving(Adder()) as server:
        assert server.grpc_address == ""
