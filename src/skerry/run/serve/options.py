"""Options: where a server listens, and every limit that it keeps."""

from __future__ import annotations

from pathlib import Path

from skerry.spec.ports import Options
from skerry.spec.units import Duration, Size


class ServeOptions(Options, frozen=True, kw_only=True):
    """Where a server listens, and every limit that it keeps.

    Parameters
    ----------
    host, port:
        Where HTTP is answered; 0 takes any free port. 8080 is where KServe and Knative look.
    grpc_port:
        Where gRPC is answered; ``None`` for nowhere, so that nobody pays 15 MB of memory for a door that nobody uses.
    insecure:
        Whether plain text may leave this machine.
    certificate, key:
        Files in PEM for TLS; both or none.
    max_batch:
        The most rows (texts, or rows of tensors) of one run. 16, beyond which a small encoder gains nothing on a small
        device and each request waits for all of them.
    queue:
        The most rows that wait for a model; further requests are answered 429. 256 rows are 16 full batches: about a
        third of a second for an encoder of a millisecond, beyond which a client is better told to come back.
    max_rows:
        The most rows of one request: what somebody else may have to wait for. 2048 is what OpenAI takes.
    max_body:
        The most bytes of one request, unpacked; it bounds the memory that one client can take.
    max_head:
        The most bytes of a request's head; 64 KiB is what common proxies let through.
    patience:
        How long a client may take to send a request or to take its answer, all in all, so that slow ones cannot hold
        every connection.
    idle:
        How long a kept connection may say nothing; longer than the 60 s of common proxies, so that they close first.
    connections:
        The most HTTP connections, and calls of gRPC, at once; further ones are refused. Large bodies share four times
        ``max_body``, so that not every connection can hold one.
    linger:
        How long, after SIGTERM, requests are still taken while ``ready`` says no: load balancers look once a second.
    drain:
        How long after that the requests under way may take.
    finite:
        Whether floats that are no numbers (NaN, infinities) are refused in requests. A model that takes NaN for
        "missing" is the exception.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    grpc_port: int | None = None
    insecure: bool = False
    certificate: Path | None = None
    key: Path | None = None
    max_batch: int = 16
    queue: int = 256
    max_rows: int = 2048
    max_body: Size = Size(64e6)
    max_head: Size = Size(2**16)
    patience: Duration = Duration(30.0)
    idle: Duration = Duration(75.0)
    connections: int = 512
    linger: Duration = Duration(1.0)
    drain: Duration = Duration(10.0)
    finite: bool = True
