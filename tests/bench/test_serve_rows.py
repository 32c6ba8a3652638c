"""The load of ``bench-serve``: every request is answered once and counted once, whatever pieces answers come in."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from bench.serve_rows.load import Wire, one_at_a_time, post, together


@pytest.fixture
def port() -> Iterator[int]:
    """Answer each request with its own body, in pieces; a body ``no`` with 500."""
    listener = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []

    def serve(client: socket.socket) -> None:
        with client:
            data = b""
            while part := client.recv(4096):
                data += part
                head, found, body = data.partition(b"\r\n\r\n")
                size = int(head.lower().partition(b"content-length: ")[2].split(b"\r")[0]) if found else -1
                if size < 0 or len(body) < size:
                    continue
                data = body[size:]
                status = b"500 Wrong" if body[:size] == b"no" else b"200 OK"
                answer = b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, size, body[:size])
                for start in range(0, len(answer), 7):
                    client.sendall(answer[start : start + 7])

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=serve, args=(client,)))
            threads[-1].start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    for thread in (accepting, *threads):
        thread.join(10)


def test_every_request_is_counted_once(port: int) -> None:
    requests = [post("/x", b"hello" * number) for number in range(20)]
    wires = [Wire(port) for _ in range(4)]
    assert len(one_at_a_time(wires[0], requests).latencies_s) == 20
    load = together(wires, requests)
    assert len(load.latencies_s) == 20 and all(0 < each <= load.whole_s for each in load.latencies_s)
    assert load.per_second == pytest.approx(20 / load.whole_s)
    wires[0].socket.shutdown(socket.SHUT_RDWR)  # as one that the server has closed
    assert len(together(wires, requests).latencies_s) == 20
    for wire in wires:
        wire.close()


def test_a_failure_is_no_answer(port: int) -> None:
    wire = Wire(port)
    with pytest.raises(OSError, match="500 Wrong"):
        wire.ask(post("/x", b"no"))
    wire.close()
