"""A NATS server that offers no TLS is told nothing."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading

import pytest

from skerry.run.nats_client import connect


def test_nothing_is_said_in_plain_text_where_tls_was_asked_for() -> None:
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def pose() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b'INFO {"server_id":"x","version":"2.10.0","max_payload":1048576}\r\n')
                connection.settimeout(20)
                heard.append(connection.recv(4096))

        thread = threading.Thread(target=pose, daemon=True)
        thread.start()
        port = listener.getsockname()[1]
        with pytest.raises(ConnectionError, match="offers no TLS"):
            asyncio.run(connect("127.0.0.1", port, tls=ssl.create_default_context(), connect_timeout_s=5))
        thread.join(20)
    assert heard == [b""]
