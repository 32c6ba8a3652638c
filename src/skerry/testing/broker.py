"""A real MQTT broker on a free loopback port, for tests: mosquitto, started, killed and started again."""

from __future__ import annotations

import getpass
import shutil
import socket
import subprocess
import time
from pathlib import Path

PATIENCE_S = 20.0


def free_port() -> int:
    """Return a loopback port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


class Broker:
    """A mosquitto that keeps sessions and messages in ``folder`` over a restart; ``with`` ends it."""

    def __init__(self, executable: str, folder: Path, port: int, lines: tuple[str, ...]) -> None:
        self.port = port
        self._command = [executable, "-c", str(folder / "mosquitto.conf")]
        folder.mkdir(parents=True, exist_ok=True)
        settings = [
            f"listener {port} 127.0.0.1", *lines, "persistence true", f"persistence_location {folder}/",
            "autosave_on_changes true", "autosave_interval 1", "log_type error",
            # Started by root it would become another user, who may not read this folder.
            f"user {getpass.getuser()}",
        ]  # fmt: skip
        if not any(line.startswith("allow_anonymous") for line in lines):
            settings.append("allow_anonymous true")
        (folder / "mosquitto.conf").write_text("\n".join(settings) + "\n", encoding="utf-8")
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def start(cls, folder: Path, *, lines: tuple[str, ...] = (), port: int = 0) -> Broker:
        """Start a broker with further ``lines`` of configuration; the test is skipped when there is none."""
        executable = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
        if executable is None:
            import pytest

            pytest.skip("mosquitto is not installed: make system-deps")
        broker = cls(executable, folder, port or free_port(), lines)
        broker.restart()
        return broker

    def restart(self) -> None:
        """Start it (again) on the same port with what it kept."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        limit_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < limit_s and self._process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.02)
        raise RuntimeError(f"mosquitto did not come up on port {self.port}")

    def kill(self) -> None:
        """End it without a chance to say goodbye."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def publish(self, topic: str, *payloads: str | bytes, qos: int = 1, retain: bool = False) -> None:
        """Publish and wait until the broker has taken it."""
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion

        client = Client(CallbackAPIVersion.VERSION2)
        client.connect("127.0.0.1", self.port)
        client.loop_start()
        try:
            for payload in payloads:
                client.publish(topic, payload, qos, retain).wait_for_publish(PATIENCE_S)
        finally:
            client.disconnect()
            client.loop_stop()

    def __enter__(self) -> Broker:
        return self

    def __exit__(self, *reason: object) -> None:
        self.kill()
