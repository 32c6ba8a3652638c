"""A client: asks one cloud for answers to texts, within a time limit, and believes only what is sound."""

from __future__ import annotations

import concurrent.futures
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from skerry.run.http_client import HttpClient, Reply, request_headers
from skerry.run.route.evidence import digest_of
from skerry.run.route.protocol import Answer, BadAnswerError, Form, form_of, parsed
from skerry.spec.address import parse_address, refuse_plain_text
from skerry.spec.cloud import Cloud
from skerry.spec.ports import Array

HEADER_BYTES = 500
"""What headers and framing take in both directions; their bytes cannot be seen from here."""
_LARGEST_REPLY = 16 << 20
_TOLD = ("label", "score")


class Traffic(msgspec.Struct):
    """What was sent and received so far."""

    requests: int = 0
    bytes: int = 0
    texts: int = 0
    """Questions in these requests; one that was asked twice counts twice, as whoever bills does."""


class CloudClient:
    """Asks a cloud; safe from several threads.

    Parameters
    ----------
    labels, field:
        See :func:`skerry.run.route.protocol.form_of`.
    home:
        Where certificate files start.
    traffic:
        Where bytes are counted on, after one that was closed.

    Raises
    ------
    SpecError
        The URL is none, is plain text beyond loopback, or a secret is not set.
    """

    def __init__(
        self,
        cloud: Cloud,
        labels: Sequence[str],
        *,
        field: str,
        home: Path,
        insecure: bool = False,
        where: str = "",
        traffic: Traffic | None = None,
    ) -> None:
        address, _ = parse_address(cloud.url, where=where)
        refuse_plain_text(address, insecure, where=where)
        self.host = address.host
        self._cloud, self._labels, self._field = cloud, tuple(labels), field
        self._url = cloud.url.rstrip("/")
        self._headers = request_headers(
            cloud.headers, content_type="application/json", token_env=cloud.token_env, where=where
        )
        ca, certificate, key = (None if file is None else home / file for file in _files(cloud))
        self._http = HttpClient(
            timeout_s=max(float(cloud.timeout), 0.001), connect_timeout_s=float(cloud.timeout), ca=ca,
            certificate=certificate, key=key, largest_reply=_LARGEST_REPLY,
        )  # fmt: skip
        self.traffic = traffic or Traffic()
        self.remote = ""
        """The digest of what the cloud says that its model is; empty where it says nothing or was not asked yet."""
        self._form: Form | None = None
        self._lock = threading.Lock()
        self._threads: concurrent.futures.ThreadPoolExecutor | None = None

    def ask(self, texts: Sequence[str], timeout_s: float) -> list[Answer]:
        """Return an answer for each text.

        Raises ``BadAnswerError`` for a reply that is none, ``OSError`` where none comes in time.
        """
        end = time.monotonic() + timeout_s
        texts = [text.encode("utf-8", "replace").decode() for text in texts]  # half a character is no JSON
        form = self._form or self._prepared(timeout_s)
        answers: list[Answer] = []
        for start in range(0, len(texts), form.at_once):
            part = texts[start : start + form.at_once]
            left = end - time.monotonic()
            if left <= 0:
                raise TimeoutError("no time is left")
            reply = self._post(self._url + form.path, form.body(part), left, len(part))
            answers += parsed(reply, form, len(part), self._labels)
        return answers

    def bytes_for(self, text: str) -> int:
        """Return about how many bytes it takes to ask for one text."""
        vectors = 0 if self._labels else 8000
        return HEADER_BYTES + 150 + len(text.encode("utf-8", "replace")) + vectors

    def close(self) -> None:
        """Close the connections."""
        self._http.close()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def _prepared(self, timeout_s: float) -> Form:
        """Ask an OIP server, once, what its model is and gives, so that no vector travels where a label will do."""
        outputs: list[str] = []
        if self._cloud.spoken == "oip":
            told = self._described(timeout_s)
            found = [output.get("name") for output in told.get("outputs", ()) if isinstance(output, Mapping)]
            if self._labels and "label" in found:
                outputs = [name for name in _TOLD if name in found]
            elif "embedding" in found:
                outputs = ["embedding"]
            self.remote = digest_of([told.get("name"), told.get("versions"), told.get("platform"), told.get("outputs")])
        self._form = form_of(self._cloud, self._labels, field=self._field, outputs=outputs)
        return self._form

    def _described(self, timeout_s: float) -> dict[str, Any]:
        reply = self._exchange("GET", self._url, b"", timeout_s)
        if reply.status in {404, 405, 501}:  # a server that only infers
            return {}
        form = Form("", 1, lambda _: b"", lambda data, _: [Answer("", None)])
        parsed(reply, form, 1, ())
        told: dict[str, Any] = msgspec.json.decode(reply.body)
        return told

    def _post(self, url: str, body: bytes, timeout_s: float, texts: int) -> Reply:
        hedge = self._cloud.hedge
        if hedge is None or float(hedge) >= timeout_s:
            return self._exchange("POST", url, body, timeout_s, texts)
        return self._hedged(url, body, timeout_s, float(hedge), texts)

    def _hedged(self, url: str, body: bytes, timeout_s: float, hedge_s: float, texts: int) -> Reply:
        """Send the same once more where no reply comes in ``hedge_s``; the first good one counts.

        Dean, Barroso: The Tail at Scale (2013).
        """
        end = time.monotonic() + timeout_s
        with self._lock:
            if self._threads is None:
                self._threads = concurrent.futures.ThreadPoolExecutor(8, "hedge")
        running = {self._threads.submit(self._exchange, "POST", url, body, timeout_s, texts)}
        concurrent.futures.wait(running, hedge_s)
        if not all(future.done() for future in running):
            running.add(
                self._threads.submit(self._exchange, "POST", url, body, max(0.001, end - time.monotonic()), texts)
            )  # fmt: skip
        failed: BaseException = TimeoutError("no reply in time")
        while running:
            done, running = concurrent.futures.wait(
                running, max(0.0, end - time.monotonic()), concurrent.futures.FIRST_COMPLETED
            )
            if not done:
                break
            for future in done:
                error = future.exception()
                if error is None and (future.result().is_success or not running):
                    return future.result()
                failed = error or failed
        raise failed

    def _exchange(self, method: str, url: str, body: bytes, timeout_s: float, texts: int = 0) -> Reply:
        sent = HEADER_BYTES + len(body)
        try:
            reply = self._http.send(method, url, body, self._headers, timeout_s=timeout_s)
            sent += len(reply.body)
            return reply
        finally:
            with self._lock:
                self.traffic.requests += 1
                self.traffic.bytes += sent
                self.traffic.texts += texts


class RemoteModel:
    """A text model (:class:`skerry.spec.ports.TextModel`) whose vectors a cloud computes."""

    takes_text = True
    generation = 0

    def __init__(self, client: CloudClient, timeout_s: float) -> None:
        self._client = client
        self.timeout_s = timeout_s
        self._dimension = 0

    @property
    def dimension(self) -> int:
        """How many numbers a vector has; asks for one where none came yet."""
        if not self._dimension:
            self.embed(("",))
        return self._dimension

    def embed(self, texts: Sequence[str]) -> Array:
        """Return the cloud's vectors: float32 of shape (len(texts), dimension); raises what asking raises."""
        import numpy as np

        vectors = [answer.vector for answer in self._client.ask(texts, self.timeout_s)]
        widths = {len(vector) if vector is not None else 0 for vector in vectors}
        wanted = self._dimension or max(widths)
        if widths != {wanted} or not wanted:
            raise BadAnswerError("dimension", f"vectors of {sorted(widths)} numbers, {wanted} expected")
        self._dimension = wanted
        return np.asarray(vectors, dtype=np.float32)

    def infer(self, texts: Sequence[str]) -> dict[str, list[Array]]:
        """Return the vectors under their name in OIP."""
        return {"embedding": list(self.embed(texts))}


def _files(cloud: Cloud) -> tuple[str | None, str | None, str | None]:
    return cloud.ca, cloud.certificate, cloud.key
