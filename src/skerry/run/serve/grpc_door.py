"""The gRPC door: the Open Inference Protocol, version 2, as ``inference.GRPCInferenceService``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from skerry import __version__
from skerry.run.serve import datatypes, inference
from skerry.run.serve.batcher import Batcher
from skerry.run.serve.inference import VERSION
from skerry.run.serve.job import Job
from skerry.run.serve.messages import CONTENTS, SERVICE, message_classes
from skerry.run.serve.options import ServeOptions
from skerry.run.serve.refusal import GRPC_CODES, Refusal, refusal_of
from skerry.spec.errors import DependencyError, UsageError
from skerry.spec.ports import Array

Answer = Callable[[Any, Any], Awaitable[Any]]


class GrpcDoor:
    """A gRPC server in the loop of the HTTP one.

    Parameters
    ----------
    batchers:
        The models, by name.
    options:
        Where to listen, and the limits.
    is_ready:
        Tells whether requests are welcome.

    Raises ``DependencyError`` where grpcio or protobuf is missing.
    """

    def __init__(self, batchers: Mapping[str, Batcher], options: ServeOptions, is_ready: Callable[[], bool]) -> None:
        try:
            import grpc
            import grpc.aio

            self._messages = message_classes()
        except ImportError as error:
            raise DependencyError(
                f"the gRPC door needs the packages grpcio and protobuf: {error}", hint="pip install 'skerry[serve]'"
            ) from error
        self._grpc: Any = grpc
        self._batchers = batchers
        self._options = options
        self._is_ready = is_ready
        limit = int(options.max_body)
        self._server: Any = grpc.aio.server(
            handlers=(self._handlers(),),
            maximum_concurrent_rpcs=options.connections,
            options=(
                ("grpc.max_receive_message_length", limit),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),
            ),
        )
        self.port = 0
        """Where it listens, from ``start`` on."""

    async def start(self) -> None:
        """Listen; raises ``UsageError`` where that is impossible."""
        options = self._options
        host = f"[{options.host}]" if ":" in options.host else options.host
        place = f"{host}:{options.grpc_port}"
        try:
            if options.certificate and options.key:
                pair = (options.key.read_bytes(), options.certificate.read_bytes())
                self.port = self._server.add_secure_port(place, self._grpc.ssl_server_credentials([pair]))
            else:
                self.port = self._server.add_insecure_port(place)
        except (OSError, RuntimeError) as error:
            raise UsageError(
                f"cannot listen on {place} for gRPC: {error}", expected="an address of this machine and a free port"
            ) from error
        await self._server.start()

    async def stop(self, patience_s: float) -> None:
        """Take no more requests, and give those under way some time."""
        await self._server.stop(patience_s)

    def _handlers(self) -> Any:
        answers: dict[str, Answer] = {
            "ServerLive": self._server_live,
            "ServerReady": self._server_ready,
            "ServerMetadata": self._server_metadata,
            "ModelReady": self._model_ready,
            "ModelMetadata": self._model_metadata,
            "ModelInfer": self._model_infer,
        }
        return self._grpc.method_handlers_generic_handler(
            SERVICE,
            {
                name: self._grpc.unary_unary_rpc_method_handler(
                    self._guarded(answer),
                    request_deserializer=self._messages[f"{name}Request"].FromString,
                    response_serializer=self._messages[f"{name}Response"].SerializeToString,
                )
                for name, answer in answers.items()
            },
        )

    def _guarded(self, answer: Answer) -> Answer:
        """Return an answer whose failures become the status of the call."""

        async def guarded(request: Any, context: Any) -> Any:
            try:
                return await answer(request, context)
            except Exception as error:  # noqa: BLE001 - whatever goes wrong with one call must not end the server
                refusal = refusal_of(error)
                wait = () if refusal.retry_after_s is None else (("retry-after", str(refusal.retry_after_s)),)
                code = getattr(self._grpc.StatusCode, GRPC_CODES[refusal.status])
            return await context.abort(code, refusal.message, wait)

        return guarded

    async def _server_live(self, request: Any, context: Any) -> Any:
        return self._messages["ServerLiveResponse"](live=True)

    async def _server_ready(self, request: Any, context: Any) -> Any:
        return self._messages["ServerReadyResponse"](ready=self._is_ready())

    async def _server_metadata(self, request: Any, context: Any) -> Any:
        return self._messages["ServerMetadataResponse"](name="skerry", version=__version__, extensions=[])

    async def _model_ready(self, request: Any, context: Any) -> Any:
        self._batcher(request.name, request.version)
        return self._messages["ModelReadyResponse"](ready=self._is_ready())

    async def _model_metadata(self, request: Any, context: Any) -> Any:
        found = inference.describe_model(self._batcher(request.name, request.version).servable)
        return self._messages["ModelMetadataResponse"](**found)

    async def _model_infer(self, request: Any, context: Any) -> Any:
        received = time.monotonic()
        batcher = self._batcher(request.model_name, request.model_version)
        status = 200
        try:
            return await self._inferred(request, context, batcher, received)
        except Exception as error:
            status = refusal_of(error).status
            raise
        except asyncio.CancelledError:
            status = 499
            raise
        finally:
            batcher.tally.count("grpc", status, time.monotonic() - received)

    async def _inferred(self, request: Any, context: Any, batcher: Batcher, received: float) -> Any:
        arrays = read_arrays(request)
        if self._options.finite:
            for name, array in arrays.items():
                datatypes.require_finite(name, array)
        asked = [(each.name, _parameters(each.parameters)) for each in request.outputs]
        wanted = inference.wanted_outputs(batcher.servable, asked, True)
        left_s = context.time_remaining()
        timeout = _parameters(request.parameters).get("timeout", 0)
        if timeout and isinstance(timeout, int):
            left_s = min(timeout / 1e6, left_s if left_s is not None else timeout / 1e6)
        deadline = 0.0 if left_s is None else received + left_s
        done: asyncio.Future[Job] = asyncio.get_running_loop().create_future()

        def settle(job: Job) -> None:
            if not done.done():
                done.set_result(job)

        job = Job(arrays, frozenset(wanted), received, settle, deadline)
        batcher.submit(job)
        try:
            await done
        except asyncio.CancelledError:  # the client left, or its deadline passed
            job.cancel()
            raise
        if job.refusal is not None:
            raise job.refusal
        return self._response(request, batcher, job, wanted)

    def _response(self, request: Any, batcher: Batcher, job: Job, wanted: Mapping[str, bool]) -> Any:
        response = self._messages["ModelInferResponse"](
            model_name=batcher.servable.name, model_version=VERSION, id=request.id
        )
        for name in wanted:
            array = job.outputs[name]
            response.outputs.add(name=name, datatype=inference.datatype_of(array), shape=array.shape)
            response.raw_output_contents.append(datatypes.to_bytes(array))
        return response

    def _batcher(self, name: str, version: str) -> Batcher:
        batcher = self._batchers.get(name)
        if batcher is None:
            raise Refusal(404, f"there is no model {name!r}; there is {', '.join(self._batchers)}")
        if version not in ("", VERSION):
            raise Refusal(404, f"{name} has no version {version!r}; it has {VERSION}")
        return batcher


def read_arrays(request: Any) -> dict[str, Array]:
    """Return the inputs of a ``ModelInferRequest``, which come in raw form or as typed contents, never both.

    Raises ``Refusal`` for what is wrong with them.
    """
    raws = request.raw_input_contents
    if raws and len(raws) != len(request.inputs):
        raise Refusal(400, f"there are {len(request.inputs)} inputs, and raw contents for {len(raws)}")
    arrays: dict[str, Array] = {}
    for place, tensor in enumerate(request.inputs):
        name, shape = tensor.name, list(tensor.shape)
        if name in arrays:
            raise Refusal(400, f"input {name!r} is there twice")
        if raws:
            if tensor.HasField("contents"):
                raise Refusal(400, f"input {name!r} has contents in raw form and in its own")
            arrays[name] = datatypes.from_bytes(name, tensor.datatype, shape, memoryview(raws[place]))
        else:
            arrays[name] = _from_contents(name, tensor.datatype, shape, tensor.contents)
    return arrays


def _from_contents(name: str, datatype: str, shape: list[int], contents: Any) -> Array:
    import numpy as np

    dtype = datatypes.dtype_of(name, datatype)
    count, _ = datatypes.checked_shape(name, shape)
    field = CONTENTS.get(datatype)
    if field is None:
        raise Refusal(400, f"input {name!r}: {datatype} travels in raw_input_contents only")
    elements = getattr(contents, field)
    if len(elements) != count:
        raise Refusal(400, f"input {name!r} has {len(elements)} elements in {field}; the shape {shape} takes {count}")
    if field == "bytes_contents":
        return datatypes.texts_of(name, elements).reshape(shape)
    try:
        return np.array(elements, dtype=dtype).reshape(shape)
    except OverflowError as error:
        raise Refusal(400, f"input {name!r} has a number that {datatype} cannot hold: {error}") from None


def _parameters(found: Any) -> dict[str, Any]:
    """Return parameters as plain values."""
    return {
        key: getattr(value, choice) for key, value in found.items() if (choice := value.WhichOneof("parameter_choice"))
    }
