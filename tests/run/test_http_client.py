"""The HTTP client's time limit is for the whole exchange, however slowly a server sends."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from skerry.run.http_client import HttpClient

HEAD = b"HTTP/1.1 200 OK\r\n"


@contextlib.contextmanager
def dripping(first: bytes, drop: bytes) -> Iterator[str]:
    """Run a server that sends its beginning at once and then a drop now and then, until the block ends."""
    over = threading.Event()

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            connection.recv(65536)
            connection.sendall(first)
            while not over.wait(0.02):
                connection.sendall(drop)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        over.set()
        thread.join()


@pytest.mark.parametrize(
    ("first", "drop"),
    [
        (HEAD, b"X-Slow: yes\r\n"),
        (HEAD + b"Content-Length: 60000\r\n\r\n", b"x"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    ],
    ids=["head", "body", "chunks"],
)
def test_a_reply_that_never_ends_is_given_up_in_time(first: bytes, drop: bytes) -> None:
    client = HttpClient(timeout_s=0.3, connect_timeout_s=0.3)
    with dripping(first, drop) as url, contextlib.closing(client):
        caught: list[Exception] = []

        def ask() -> None:
            try:
                client.send("GET", url, b"", {})
            except OSError as error:
                caught.append(error)

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        thread.join(20)
        assert not thread.is_alive(), "it is still being waited for"
        assert caught and ("imed out" in str(caught[0]) or "in time" in str(caught[0]))


def test_what_is_left_of_the_limit_does_not_outlive_the_exchange() -> None:
    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            for _ in range(2):
                connection.recv(65536)
                time.sleep(0.1)
                connection.sendall(HEAD + b"Content-Length: 2\r\n\r\nok")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        with contextlib.closing(HttpClient(timeout_s=20, connect_timeout_s=20)) as client:
            assert client.send("GET", url, b"", {}, timeout_s=5).body == b"ok"
            assert client.send("GET", url, b"", {}).body == b"ok"  # on the same connection
        thread.join()
