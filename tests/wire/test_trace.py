"""The frozen traces: small on the wire, the same afterwards. Bytes do not depend on the machine, so they are bounds."""

from __future__ import annotations

import pytest

from bench.sync_rows.wire import NullSigner, both_ways, header, json_document, json_requests, skerry
from bench.traces import HELD_OUT, NAMES, TELEMETRY_FIELDS, Name, in_batches, read_records
from skerry.wire.batch import decode, encode
from tests.wire.words import same


@pytest.mark.parametrize("name", [*NAMES, *HELD_OUT])
def test_a_trace_comes_back_to_the_last_bit(name: Name) -> None:
    records = read_records(name)
    assert len(records) == (900 if name == "heldout-telemetry" else 2000)
    for size in (1, 100, len(records)):
        for batch in list(in_batches(records, size))[:20]:
            came = decode(encode(header(batch), batch, NullSigner())).records
            assert all(map(same, came, batch))


def test_telemetry_has_thirteen_fields() -> None:
    assert {tuple(record.fields) for record in read_records("telemetry")} == {TELEMETRY_FIELDS}
    assert len(TELEMETRY_FIELDS) == 13


def test_batches_are_half_of_json_with_zstd_and_a_sixteenth_of_a_request_each() -> None:
    traces = [read_records(name) for name in NAMES]
    ours = sum(both_ways(records, skerry, 100) for records in traces)
    assert ours <= 0.5 * sum(both_ways(records, json_document, 100) for records in traces)
    assert ours <= sum(map(json_requests, traces)) / 16
