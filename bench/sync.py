"""The sync: what it costs to keep a record, to send it, and what is lost when power, processes and links fail.

``make bench-sync`` takes about an hour, most of it the thousand rounds of ``crash``; ``python -m bench.sync --quick``
a few minutes, with fewer repeats and rounds, and ``--only enqueue,wire`` measures some of the subjects.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from bench.subjects import measure
from bench.sync_rows import blob, cascade, crash, enqueue, ingest, link, power, wire

SUBJECTS: dict[str, Callable[..., None]] = {
    "enqueue": enqueue.add_rows,
    "wire": wire.add_rows,
    "ingest": ingest.add_rows,
    "link": link.add_rows,
    "blob": blob.add_rows,
    "cascade": cascade.add_rows,
    "power": power.add_rows,
    "crash": crash.add_rows,
}
PACKAGES = ("apsw", "backports.zstd", "cryptography", "litestar", "msgspec", "paho-mqtt", "uvicorn")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what was asked for, print and write the report; return 1 when a bound is broken."""
    return measure("sync", __doc__, SUBJECTS, PACKAGES, arguments)


if __name__ == "__main__":
    sys.exit(main())
