"""A refusal: why a request gets no answer, by a status that HTTP and gRPC both have a word for."""

from __future__ import annotations

from skerry.spec.errors import ModelError, SkerryError, TensorError

GRPC_CODES: dict[int, str] = {
    400: "INVALID_ARGUMENT",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    408: "DEADLINE_EXCEEDED",
    413: "RESOURCE_EXHAUSTED",
    415: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    431: "INVALID_ARGUMENT",
    499: "CANCELLED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
"""The name of the gRPC status for each HTTP status that is used here."""


class Refusal(Exception):  # noqa: N818 - a refusal is an answer, not a fault
    """A request that is not answered, and why.

    Parameters
    ----------
    status:
        A key of ``GRPC_CODES``.
    message:
        What is wrong and what would be right, for the person who wrote the client.
    retry_after_s:
        When it is worth asking again; ``None`` where it never is.
    allow:
        The method that would have been right, for 405.
    close:
        Whether the connection cannot be used any more.
    """

    def __init__(
        self, status: int, message: str, *, retry_after_s: int | None = None, allow: str = "", close: bool = False
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.retry_after_s = retry_after_s
        self.allow = allow
        self.close = close


def refusal_of(error: Exception) -> Refusal:
    """Return what a client is told of an error: its own fault in words, ours without details of this machine."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, TensorError):
        expected = f"; expected: {error.expected}" if error.expected else ""
        hint = f" ({error.hint})" if error.hint else ""
        return Refusal(400, f"{error.message}{expected}{hint}")
    if isinstance(error, ModelError | SkerryError):
        return Refusal(500, error.message)
    return Refusal(500, f"the model failed: {type(error).__name__}")
