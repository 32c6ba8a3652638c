"""Embeddings in OpenAI's form: ``POST /v1/embeddings`` and the list of models, with errors in that form as well.

Source: OpenAI's API reference, "Create embeddings" and "Models".
"""

from __future__ import annotations

import base64
from typing import Any, Literal

import msgspec

from skerry.run.serve.refusal import Refusal
from skerry.run.serve.servable import TOKENS, Outputs
from skerry.run.serve.texts import EMBEDDING, INPUT
from skerry.spec.ports import Array

MOST_TEXTS = 2048
WANTED = frozenset({EMBEDDING, TOKENS})


class EmbeddingsRequest(msgspec.Struct, gc=False):
    """The body of a request; other keys, such as ``user``, change nothing here."""

    input: Any
    model: str
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None


_decode = msgspec.json.Decoder(EmbeddingsRequest).decode
_encode = msgspec.json.Encoder().encode


def read_request(body: bytes) -> EmbeddingsRequest:
    """Read a request's body; raises ``Refusal`` for what is wrong with it."""
    try:
        return _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refusal(400, f"the request is not read: {error}") from None


def inputs_of(request: EmbeddingsRequest, dimension: int) -> dict[str, Array]:
    """Return what the model takes; raises ``Refusal`` for token ids, empty texts and dimensions that are too many."""
    import numpy as np

    texts = [request.input] if isinstance(request.input, str) else request.input
    if not isinstance(texts, list) or not texts or len(texts) > MOST_TEXTS:
        raise Refusal(400, f"'input' is a text, or a list of 1 to {MOST_TEXTS} texts")
    if any(isinstance(each, int | list) for each in texts):
        raise Refusal(
            400, "'input' holds token ids, which are another model's numbers: send text, which this server tokenizes"
        )
    if not all(isinstance(each, str) for each in texts):
        raise Refusal(400, "'input' is a text, or a list of texts")
    if not all(texts):
        raise Refusal(400, "'input' holds an empty text")
    wanted = request.dimensions
    if wanted is not None and not 1 <= wanted <= dimension:
        raise Refusal(400, f"'dimensions' is {wanted}; {request.model} gives 1 to {dimension}")
    return {INPUT: np.array(texts, dtype=object)}


def write_answer(request: EmbeddingsRequest, outputs: Outputs) -> bytes:
    """Return the body of an answer.

    With ``dimensions`` a vector is cut and brought to length 1 again, which keeps its meaning where the model was
    trained for that (Kusupati et al.: Matryoshka Representation Learning, 2022).
    """
    vectors = outputs[EMBEDDING]
    if request.dimensions is not None and request.dimensions < vectors.shape[1]:
        from skerry.run.pooling import normalized

        vectors = normalized(vectors[:, : request.dimensions]).astype("float32")
    if request.encoding_format == "base64":
        found: list[Any] = [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in vectors]
    else:
        found = vectors.tolist()
    tokens = int(outputs[TOKENS].sum())
    return _encode(
        {
            "object": "list",
            "data": [{"object": "embedding", "index": place, "embedding": each} for place, each in enumerate(found)],
            "model": request.model,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
    )


def describe_model(name: str, created: int) -> dict[str, Any]:
    """Return one entry of the list of models; ``created`` in seconds since 1970."""
    return {"id": name, "object": "model", "created": created, "owned_by": "skerry"}


def write_refusal(refusal: Refusal) -> bytes:
    """Return a refusal in OpenAI's form."""
    kind = {404: "invalid_request_error", 429: "rate_limit_error"}.get(
        refusal.status, "invalid_request_error" if refusal.status < 500 else "server_error"
    )
    code = {404: "model_not_found", 429: "rate_limit_exceeded"}.get(refusal.status)
    return _encode({"error": {"message": refusal.message, "type": kind, "param": None, "code": code}})
