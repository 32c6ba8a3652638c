"""A hub with PostgreSQL: the same over HTTP, alone in its database, and alive after the server went away."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from skerry.fleet.hub.postgresql_store import PostgresqlStore
from skerry.fleet.hub.server import Hub
from skerry.spec.errors import HubError
from skerry.testing.postgresql import Cluster
from skerry.wire.receipt import decode_receipt
from tests.fleet.hub.devices import Device, record, records, request


def test_a_hub_with_postgresql_takes_batches(cluster: Cluster, start_hub: Callable[..., Hub]) -> None:
    hub, device = start_hub(database=cluster.url), Device()
    sent = [record(1), record(2, {"text": "nul \0 and \ud7ff"}, stream="s"), record(3, stream="nul \0")]
    receipt = decode_receipt(request(hub.port, "POST", "/v1/batches", device.pack(sent)).body)
    # Text of PostgreSQL holds no NUL: in a name of a stream it is poison, inside of JSON it is escaped.
    assert receipt.committed == [(1, 2)] and [seq for seq, _ in receipt.dead] == [3]
    listed = request(hub.port, "GET", "/v1/records").json()["records"]
    assert listed[1]["fields"] == {"text": "nul \0 and \ud7ff"}
    assert request(hub.port, "GET", "/v1/dead").json()["dead"][0]["stream"] == "nul \0"
    hub.close()
    again = start_hub(database=cluster.url)
    receipt = decode_receipt(request(again.port, "POST", "/v1/batches", device.pack(records(4, 5))).body)
    assert receipt.count == 4


def test_one_database_has_one_hub(cluster: Cluster) -> None:
    first = PostgresqlStore(cluster.url)
    with pytest.raises(HubError, match="another hub"):
        PostgresqlStore(cluster.url)
    first.close()
    PostgresqlStore(cluster.url).close()


def test_a_server_that_dies_and_comes_back_has_all_that_was_acknowledged(
    cluster: Cluster, start_hub: Callable[..., Hub]
) -> None:
    hub, device = start_hub(database=cluster.url), Device()
    assert request(hub.port, "POST", "/v1/batches", device.pack(records(1, 50))).status == 200
    cluster.stop("immediate")
    away = request(hub.port, "POST", "/v1/batches", device.pack(records(51, 60)))
    assert away.status == 503 and "retry-after" in away.headers
    assert request(hub.port, "GET", "/healthz").status == 503
    cluster.start()
    receipt = decode_receipt(request(hub.port, "POST", "/v1/batches", device.pack(records(41, 60))).body)
    assert receipt.committed == [(41, 60)] and receipt.count == 60
    assert request(hub.port, "GET", "/v1/dead").json()["dead"] == []


def test_a_database_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(HubError, match="cannot be opened"):
        PostgresqlStore(f"postgresql://hub@/postgres?host={tmp_path}")
