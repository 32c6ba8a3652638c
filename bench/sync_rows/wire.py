"""The wire: what a record costs on the link, both ways, beside what others would send, on frozen traces.

Every format carries the same: each record's number, time and fields, and once for each batch its stream, boot, clock
offset, release and sender. Only Skerry's is signed besides (72 bytes), and nobody else's pays for it. The receipt and
the heads of HTTP/1.1 are counted, those that our client and hub really send, for everybody; TLS is not, since it adds
the same to all. Nothing in the format was chosen by the traces that were held out.
"""

from __future__ import annotations

import argparse
import io
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import msgspec

from bench.measuring import interleaved
from bench.report import Report, table
from bench.sync_rows.heads import Heads, heads_around
from bench.traces import BOOT, HELD_OUT, NAMES, RELEASE, Name, in_batches, read_records
from skerry.wire.batch import Header, decode, encode
from skerry.wire.compression import zstd
from skerry.wire.receipt import Receipt, encode_receipt
from skerry.wire.record import WireRecord, record_digest

Pack = Callable[[Sequence[WireRecord]], bytes]
EPOCH = "9f3c2a7be1d04856"
LEVEL = 3
"""The level of zstd that peers use: its default."""
SIZES = (1, 10, 100, 1000)


class NullSigner:
    """Signs with nothing: the bytes of a signature without the time for one."""

    key_id = bytes(8)

    def sign(self, message: bytes) -> bytes:
        """Return 64 bytes."""
        return bytes(64)


def header(records: Sequence[WireRecord]) -> Header:
    """Return the header of a batch that is sent a tenth of a second after its last record was made."""
    last = records[-1]
    sent_us = last.mono_us + 100_000
    return Header(
        device="pump-17",
        epoch=EPOCH,
        boot=BOOT,
        sent_mono_us=sent_us,
        sent_wall_ms=last.moment.offset_ms + sent_us // 1000,
        synced=True,
        losses={},
    )


def skerry(records: Sequence[WireRecord]) -> bytes:
    """Return a signed batch."""
    return encode(header(records), records, NullSigner())


def envelope(records: Sequence[WireRecord]) -> dict[str, Any]:
    """Return what every format says once for a batch: the header, and what is the same for all of its records."""
    first = records[0]
    return {
        **msgspec.to_builtins(header(records)),
        "stream": first.stream,
        "offset_ms": first.moment.offset_ms,
        "priority": first.priority,
        "release": RELEASE,
    }


def flat(record: WireRecord) -> dict[str, Any]:
    """Return a record with the least around it."""
    return {"seq": record.seq, "mono_us": record.mono_us, **record.fields}


def json_document(records: Sequence[WireRecord]) -> bytes:
    """Return the batch as JSON, as it is: the header and the records with all that belongs to each."""
    return zstd_of(msgspec.json.encode({"header": header(records), "records": list(records)}))


def json_lean(records: Sequence[WireRecord]) -> bytes:
    """Return the batch as JSON, with what is the same for all records said once."""
    return zstd_of(msgspec.json.encode({**envelope(records), "records": list(map(flat, records))}))


def msgpack_lean(records: Sequence[WireRecord]) -> bytes:
    """Return the same as MessagePack."""
    return zstd_of(msgspec.msgpack.encode({**envelope(records), "records": list(map(flat, records))}))


def arrow(records: Sequence[WireRecord]) -> bytes:
    """Return the same as an Arrow stream whose buffers are compressed by zstd."""
    import pyarrow as pa
    from pyarrow import ipc

    rows = pa.Table.from_pylist(list(map(flat, records)))
    rows = rows.replace_schema_metadata({"skerry": msgspec.json.encode(envelope(records))})
    target = io.BytesIO()
    with ipc.new_stream(target, rows.schema, options=ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(rows)
    return target.getvalue()


def parquet(records: Sequence[WireRecord]) -> bytes:
    """Return the same as a Parquet file compressed by zstd, without the statistics that nobody would read."""
    import pyarrow as pa
    from pyarrow import parquet as pq

    rows = pa.Table.from_pylist(list(map(flat, records)))
    rows = rows.replace_schema_metadata({"skerry": msgspec.json.encode(envelope(records))})
    target = io.BytesIO()
    pq.write_table(rows, target, compression="zstd", write_statistics=False, store_schema=False)
    return target.getvalue()


def zstd_of(data: bytes) -> bytes:
    """Return data compressed as peers do it."""
    packed: bytes = zstd().compress(data, LEVEL)
    return packed


PEERS: dict[str, Pack] = {
    "JSON + zstd": json_document,
    "lean JSON + zstd": json_lean,
    "lean MessagePack + zstd": msgpack_lean,
    "Arrow + zstd": arrow,
    "Parquet + zstd": parquet,
}


def receipt(records: Sequence[WireRecord]) -> bytes:
    """Return the receipt of a batch."""
    total = sum(map(record_digest, records)) % 2**64
    spans = [(records[0].seq, records[-1].seq)]
    return encode_receipt(
        Receipt(
            epoch=EPOCH, committed=spans, count=records[-1].seq, checksum=total, hub_ms=header(records).sent_wall_ms
        )
    )


@cache
def heads() -> Heads:
    """Return the heads that our client and hub send."""
    one = read_records("telemetry")[:1]
    return heads_around(encode(header(one), one))


def around(records: Sequence[WireRecord], body: bytes) -> int:
    """Return the bytes of a request and its reply: two heads, the body, the receipt."""
    answer = receipt(records)
    return len(heads().request_of(len(body))) + len(body) + len(heads().reply_of(len(answer))) + len(answer)


def both_ways(records: list[WireRecord], pack: Pack, size: int) -> int:
    """Return the bytes of all batches of a size, both ways."""
    return sum(around(batch, pack(batch)) for batch in in_batches(records, size))


def json_requests(records: list[WireRecord]) -> int:
    """Return the bytes of a JSON request for each record, which says no more of it than the lean formats do."""
    return sum(around([record], msgspec.json.encode(flat(record))) for record in records)


def add_rows(report: Report, *, quick: bool) -> None:
    """Count bytes on both traces, check that nothing is lost, and time the coding."""
    traces = {name: read_records(name) for name in NAMES}
    report.note_versions({"zstd": zstd().zstd_version, "pyarrow": _pyarrow()})
    _add_ratios(report, traces)
    for name in HELD_OUT:
        _add_held_out(report, name, read_records(name))
    for name, records in traces.items():
        _add_sizes(report, name, records, sizes=(100,) if quick else SIZES)
        _add_times(report, name, records, repeats=5 if quick else 15)


def _add_ratios(report: Report, traces: dict[Name, list[WireRecord]]) -> None:
    """Add the figures with a bound: both traces together, then each of them."""
    ours = {name: both_ways(records, skerry, 100) for name, records in traces.items()}
    for peer, pack, must in (
        ("JSON + zstd of the same batch", json_document, "<= 0.5"),
        ("lean JSON + zstd of the same batch", json_lean, None),
    ):
        theirs = {name: both_ways(records, pack, 100) for name, records in traces.items()}
        report.add(f"wire bytes at 100 a batch, both ways, over {peer}", _share(ours, theirs), "×", must=must)
        for name in traces:
            report.add(f"the same, {name} alone", ours[name] / theirs[name], "×")
    single = {name: json_requests(records) for name, records in traces.items()}
    report.add("the same over a JSON request each", _share(ours, single), "×", must="<= 0.0625")
    whole = [batch for records in traces.values() for batch in in_batches(records)]
    kept = sum(decode(skerry(batch)).records == batch for batch in whole)
    report.add("batches that come back the same, to the last bit", kept / len(whole), "share", must=">= 1")


def _add_held_out(report: Report, name: Name, records: list[WireRecord]) -> None:
    """Add the same ratios for a trace that nothing was chosen by, without a bound: they are what they are."""
    ours = both_ways(records, skerry, 100)
    theirs = both_ways(records, json_document, 100)
    report.add(f"wire bytes at 100 a batch, both ways, over JSON + zstd, {name}", ours / theirs, "×")
    report.add(f"the same over a JSON request each, {name}", ours / (100 * (len(records) // 100)) / _each(records), "×")


def _each(records: list[WireRecord]) -> float:
    return json_requests(records) / len(records)


def _share(ours: dict[Name, int], theirs: dict[Name, int]) -> float:
    return sum(ours.values()) / sum(theirs.values())


def _add_sizes(report: Report, name: str, records: list[WireRecord], sizes: Sequence[int]) -> None:
    """Add bytes per record of every format, by the size of the batch."""
    for size in sizes:
        count = sum(len(batch) for batch in in_batches(records, size))
        peers = {peer: both_ways(records, pack, size) / count for peer, pack in PEERS.items()}
        peers["a JSON request each"] = json_requests(records) / len(records)
        value = both_ways(records, skerry, size) / count
        report.add(f"wire bytes per record, both ways, {name}, {size} a batch", value, "B", peers=peers)


def _add_times(report: Report, name: str, records: list[WireRecord], repeats: int) -> None:
    """Add what it costs to write and to read a record."""
    batches = list(in_batches(records))[:8]
    packed = [skerry(batch) for batch in batches]
    texts = [json_document(batch) for batch in batches]
    encoders: dict[str, Pack] = {"Skerry": skerry, **PEERS}
    writing = interleaved({peer: partial(_time, pack, batches) for peer, pack in encoders.items()}, repeats=repeats)
    reading = interleaved(
        {"Skerry": partial(_time, decode, packed), "JSON + zstd": partial(_time, _read_json, texts)}, repeats=repeats
    )
    for verb, taken in (("writing", writing), ("reading", reading)):
        ours = taken.pop("Skerry")
        report.add(f"{verb} a record, {name}, 100 a batch, no signature", ours, "µs", peers=taken)


def _time(call: Callable[[Any], object], arguments: Sequence[Any]) -> float:
    """Return the processor's microseconds for a record."""
    begin = time.process_time()
    for argument in arguments:
        call(argument)
    return (time.process_time() - begin) / len(arguments) / 100 * 1e6


def _read_json(data: bytes) -> object:
    return msgspec.json.decode(zstd().decompress(data))


def _pyarrow() -> str:
    import pyarrow as pa

    return str(pa.__version__)


def main() -> int:
    """Measure this part alone and print its rows."""
    parser = argparse.ArgumentParser(prog="python -m bench.sync_rows.wire", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="one size of batch, fewer repeats")
    report = Report("sync-wire")
    add_rows(report, quick=parser.parse_args().quick)
    print(table(report.rows))
    return 1 if report.broken() else 0


if __name__ == "__main__":
    sys.exit(main())
