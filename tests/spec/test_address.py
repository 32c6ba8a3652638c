"""Addresses: URIs taken apart, and plain text kept off the network."""

from __future__ import annotations

import pytest

from skerry.spec.address import is_loopback, parse_address, refuse_plain_text
from skerry.spec.errors import SpecError


@pytest.mark.parametrize(
    ("text", "scheme", "host", "port", "path"),
    [
        ("tail:///var/log/x", "tail", "", None, "/var/log/x"),
        ("tail://x", "tail", "", None, "x"),
        ("stdout:", "stdout", "", None, ""),
        ("sqlite:////var/x.db", "sqlite", "", None, "//var/x.db"),
        ("mqtt://localhost:1883/a/b", "mqtt", "localhost", 1883, "/a/b"),
        ("http+listen://[::1]:0/in", "http+listen", "::1", 0, "/in"),
        ("file://a%20b/*.jsonl", "file", "", None, "a b/*.jsonl"),
        ("file://da[ta]/x?.log", "file", "", None, "da[ta]/x?.log"),
        ("tail://x#y", "tail", "", None, "x#y"),
        ("mqtt://h/a/#", "mqtt", "h", None, "/a/#"),
    ],
)
def test_a_uri_is_taken_apart(text: str, scheme: str, host: str, port: int | None, path: str) -> None:
    address, options = parse_address(text)
    assert (address.scheme, address.host, address.port, address.path, options) == (scheme, host, port, path, {})


def test_a_query_becomes_options() -> None:
    address, options = parse_address("mqtts://me:secret@host/t?qos=1&clean=")
    assert options == {"qos": "1", "clean": ""}
    assert parse_address("tail://x#y?.log?from=start")[1] == {"from": "start"}
    assert parse_address("mqtt://h/a/#?qos=1")[1] == {"qos": "1"}
    assert (address.username, address.password) == ("me", "secret")


@pytest.mark.parametrize("text", ["plain", "mqtt:///topic", "http://host:99999/", "://x"])
def test_what_is_no_uri_is_refused(text: str) -> None:
    with pytest.raises(SpecError):
        parse_address(text)


def test_plain_text_stays_on_this_machine() -> None:
    assert is_loopback("127.0.0.1")
    assert is_loopback("::1")
    assert not is_loopback("10.0.0.1")
    refuse_plain_text(parse_address("http://localhost/x")[0], insecure=False)
    refuse_plain_text(parse_address("https://example.org/x")[0], insecure=False)
    refuse_plain_text(parse_address("mqtt://broker/x")[0], insecure=True)
    with pytest.raises(SpecError, match="insecure: true"):
        refuse_plain_text(parse_address("mqtt://broker/x")[0], insecure=False)
