"""Links: their kinds, who says that one is metered, and the measured rate over loopback."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from skerry.device.download import measure_link
from skerry.device.links import parse_nmcli, read_links
from skerry.device.probe import probe
from skerry.device.tree import Tree
from skerry.spec.errors import DeviceError, UsageError

from .conftest import Plant

BODY = bytes(4 << 20)


class Files(BaseHTTPRequestHandler):
    """`/file` is a file of 4 MiB, `/empty` an empty one, `/moved` a redirect."""

    def do_GET(self) -> None:
        status, body = {"/file?x=1": (200, BODY), "/empty": (200, b""), "/moved": (302, b"")}.get(self.path, (404, b""))
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Files) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{http.server_address[1]}"
        http.shutdown()
        thread.join()


def test_a_link_is_measured_against_the_users_url(server: str) -> None:
    rate = measure_link(f"{server}/file?x=1")
    assert 0 < rate.bytes_read <= len(BODY)
    assert rate.bits_per_s > 0
    assert rate.round_trip_s > 0
    assert rate.interface is not None


def test_a_measurement_stops_at_its_limit(server: str) -> None:
    assert measure_link(f"{server}/file?x=1", limit_bytes=1 << 20).bytes_read <= (1 << 20) + 65536


def test_the_probe_puts_the_rate_on_the_link(server: str) -> None:
    if not Path("/sys/class/net").is_dir():
        pytest.skip("this system does not list its network interfaces")
    profile = probe(quick=True, link_url=f"{server}/file?x=1")
    (measured,) = [link for link in profile.links if link.measured_bits_per_s is not None]
    assert measured.kind == "loopback"
    assert [item.figure.split(".")[-1] for item in profile.measurements] == ["measured_bits_per_s"]


@pytest.mark.parametrize(("path", "part"), [("/nothing", "404"), ("/moved", "302"), ("/empty", "too few")])
def test_a_server_that_does_not_help_is_an_error(server: str, path: str, part: str) -> None:
    with pytest.raises(DeviceError, match=part):
        measure_link(server + path)


def test_a_server_that_is_not_there_is_an_error() -> None:
    with pytest.raises(DeviceError, match="cannot be measured"):
        measure_link("http://127.0.0.1:1/file", limit_s=2)


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://host/x", "nonsense", "http://", "http://[::1", "http://h:x/"]
)
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(UsageError):
        measure_link(url)


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        ({"type": "1", "wireless/": ""}, "wifi"),
        ({"type": "1", "phy80211/": ""}, "wifi"),
        ({"type": "1", "bridge/": ""}, "bridge"),
        ({"type": "1", "device/": ""}, "ethernet"),
        ({"type": "1"}, "virtual"),
        ({"type": "1", "uevent": "DEVTYPE=wwan\n"}, "cellular"),
        ({"type": "65534", "uevent": "DEVTYPE=wireguard\n"}, "tunnel"),
        ({"type": "65534"}, "tunnel"),
        ({"type": "512"}, "cellular"),
        ({"type": "280"}, "can"),
        ({"type": "772"}, "loopback"),
        ({"type": "gibberish"}, "other"),
        ({"type": "9999"}, "other"),
    ],
)
def test_kinds(plant: Plant, files: dict[str, str], kind: str) -> None:
    tree = plant({f"/sys/class/net/link0/{name}": text for name, text in files.items()})
    assert [link.kind for link in read_links(tree)] == [kind]


def test_a_file_beside_the_interfaces_is_no_interface(plant: Plant) -> None:
    tree = plant({"/sys/class/net/bonding_masters": "\n", "/sys/class/net/lo/type": "772\n"})
    assert [link.name for link in read_links(tree)] == ["lo"]


def test_a_hint_for_a_link_that_is_not_there_is_a_note(plant: Plant) -> None:
    tree = plant({"/sys/class/net/lo/type": "772\n"})
    read_links(tree, {"wlan7": True})
    assert any("wlan7" in note for note in tree.notes)


def test_network_manager_is_asked_and_the_user_knows_better(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if not Path("/sys/class/net/lo").is_dir():
        pytest.skip("this system does not list its network interfaces")
    names = [link.name for link in read_links(Tree()) if link.kind != "loopback"]
    tool = tmp_path / "nmcli"
    lines = "".join(f"echo GENERAL.DEVICE:{name}; echo 'GENERAL.METERED:yes (guessed)'\n" for name in names)
    tool.write_text(f"#!/bin/sh\n{lines}")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    told = {link.name: link.metered for link in read_links(Tree(), ask_tools=True)}
    assert all(told[name] is True for name in names)
    hinted = read_links(Tree(), dict.fromkeys(names, False), ask_tools=True)
    assert not any(link.metered for link in hinted)


def test_nmcli_that_fails_is_a_note(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tool = tmp_path / "nmcli"
    tool.write_text("#!/bin/sh\nexit 8\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    tree = Tree()
    read_links(tree, ask_tools=True)
    assert any("nmcli" in note for note in tree.notes)


def test_what_nmcli_does_not_know_stays_unknown() -> None:
    text = "GENERAL.DEVICE:eth0\nGENERAL.METERED:unknown\n\nGENERAL.DEVICE:eth1\nGENERAL.METERED:no (guessed)\n"
    assert parse_nmcli(text) == {"eth1": False}
