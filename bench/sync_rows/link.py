"""A thin link: records a second over 64 kbit/s and 300 ms of round trip, each one acknowledged by the hub's commit.

The peer is what is usually done: MQTT with QoS 1, one message a record, through the same link to a real mosquitto,
counted by its acknowledgements. It has the advantages: no TLS, no signature, and an acknowledgement before anything is
durable.
"""

from __future__ import annotations

import itertools
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import msgspec

from bench.measuring import interleaved
from bench.report import Report
from bench.sync_rows.world import SyncWorld, sync_world
from bench.traces import read_lines
from skerry.run.outbox.item import Item
from skerry.run.outbox.outbox import Outbox
from skerry.run.uplink.options import UplinkOptions
from skerry.testing.shaped_link import ShapedLink
from skerry.trust.identity import Identity

RATE_BITS_PER_S, ROUND_TRIP_S = 64_000.0, 0.3
WINDOW_S, QUICK_WINDOW_S = 30.0, 12.0
REPEATS, QUICK_REPEATS = 3, 1
MUST, MUST_RATIO = ">= 200", ">= 5"
_PREPARED = 2000  # records a second of the window that wait at its beginning: more than the link can take


def add_rows(report: Report, *, quick: bool = False) -> None:
    """Measure records a second over the thin link, beside MQTT."""
    window_s = QUICK_WINDOW_S if quick else WINDOW_S
    with sync_world() as world:
        hub = world.hub()
        try:
            runs = Runs(world, world.enrol("pump-1"), window_s)
            measures = {"skerry": runs.skerry, "mqtt": runs.mqtt}
            if reason := runs.why_no_broker():
                measures.pop("mqtt")
            found = interleaved(measures, repeats=QUICK_REPEATS if quick else REPEATS, warm_up=0)
        finally:
            hub.close()
    figure = "records a second at 64 kbit/s, 300 ms, acknowledged by the hub's commit"
    peer: Any = found.get("mqtt", reason)
    report.add(figure, found["skerry"], "1/s", must=MUST, peers={"MQTT QoS 1": peer})
    ratio = "the same, over MQTT QoS 1 with a message for each record"
    if "mqtt" in found:
        report.add(ratio, found["skerry"].over(found["mqtt"]), "x", must=MUST_RATIO)
    else:
        report.missing(ratio, "x", reason, must=MUST_RATIO)
    report.add("bytes on the wire for each of these records, TLS and both directions", runs.bytes_per_record, "B")


class Runs:
    """Sends for a while and counts what was acknowledged, by either way.

    Parameters
    ----------
    world:
        With a hub that runs.
    identity:
        The device.
    window_s:
        Seconds of one run, the connection included.
    """

    def __init__(self, world: SyncWorld, identity: Identity, window_s: float) -> None:
        self._world, self._identity, self._window_s = world, identity, window_s
        self._fields = [line.fields for line in read_lines("telemetry")]
        self._turn = itertools.count()
        self.bytes_per_record = 0.0

    def skerry(self) -> float:
        """Return records a second by outbox and uplink."""
        wanted = int(_PREPARED * self._window_s)
        folder = Path(tempfile.mkdtemp(dir=self._world.folder))
        outbox = Outbox(folder, device=self._identity.device)
        items = [Item(stream="telemetry", fields=fields) for fields in self._some(wanted)]
        for start in range(0, wanted, 1000):
            outbox.put(items[start : start + 1000])
        hub = ("127.0.0.1", self._world.port)
        with ShapedLink(hub, rate_bits_per_s=RATE_BITS_PER_S, round_trip_s=ROUND_TRIP_S) as link:
            uplink = self._world.uplink(outbox, self._identity, link.port, UplinkOptions())
            time.sleep(self._window_s)
            count = uplink.status().acknowledged
            carried = link.sent + link.received
            uplink.close()
        outbox.close()
        self.bytes_per_record = carried / max(count, 1)
        return count / self._window_s

    def _some(self, count: int) -> list[dict[str, Any]]:
        """Return that many different fields: the trace again and again, an hour later each time."""
        found = []
        for number in range(count):
            lap, place = divmod(number, len(self._fields))
            fields = dict(self._fields[place])
            if lap and isinstance(fields.get("time"), int | float):
                fields["time"] += 3600 * lap
            found.append(fields)
        return found

    def why_no_broker(self) -> str:
        """Return why the peer cannot be measured, or nothing."""
        import shutil

        try:
            import paho.mqtt.client  # noqa: F401 -- only whether it is there
        except ImportError:
            return "paho-mqtt is not installed"
        return "" if shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin") else "no mosquitto"

    def mqtt(self) -> float:
        """Return records a second by MQTT, QoS 1, one message for each."""
        from paho.mqtt.client import Client, MQTTv5
        from paho.mqtt.enums import CallbackAPIVersion

        from skerry.testing.broker import Broker

        acknowledged, full = 0, threading.Semaphore(20)  # paho's own limit of messages in flight

        def on_publish(*_: Any) -> None:
            nonlocal acknowledged
            acknowledged += 1
            full.release()

        fields = iter(self._some(int(200 * self._window_s)))
        folder = self._world.folder / f"broker-{next(self._turn)}"
        with Broker.start(folder) as broker:
            place = ("127.0.0.1", broker.port)
            with ShapedLink(place, rate_bits_per_s=RATE_BITS_PER_S, round_trip_s=ROUND_TRIP_S) as link:
                client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTv5)
                client.on_publish = on_publish
                begin = time.monotonic()
                client.connect("127.0.0.1", link.port)
                client.loop_start()
                while (left := begin + self._window_s - time.monotonic()) > 0:
                    if full.acquire(timeout=left):
                        client.publish("telemetry/pump-1", msgspec.json.encode(next(fields)), qos=1)
                count = acknowledged
                client.disconnect()
                client.loop_stop()
        return count / self._window_s
