"""The status of an uplink: what it did so far, in counts, and what it waits for."""

from __future__ import annotations

from typing import Literal

import msgspec

State = Literal["idle", "sending", "waiting", "impostor", "refused", "distrusted", "closed"]
"""``impostor``: something that is no hub answers; ``refused``: the hub does not take us; ``distrusted``: it lies."""


class UplinkStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Counts since the start, and the present state.

    Parameters
    ----------
    state, why:
        What it does, and in words what it waits for or what went wrong last.
    link:
        The class of the link in use.
    batches, records, bytes:
        Sent, repeats included; bytes are those on the wire, both ways.
    acknowledged, dead:
        Records that the hub holds, and those that it or the wire will never take (kept as dead letters here).
    lost:
        Exchanges without an answer: reset, timed out, unreachable.
    put_off, refused:
        Answers 429 or 503, and any other answer of a hub that was no receipt.
    impostors:
        Answers of something that is no hub, such as a captive portal.
    distrusted:
        Receipts that were not believed.
    unanswered:
        Records of which a receipt said nothing.
    forks:
        New epochs, because another device (or a restored image of this one) had used our numbers.
    blobs, blob_bytes, blobs_lost:
        Files sent, their bytes that the hub confirmed, and files that cannot be sent (gone, changed, refused).
    in_flight, batch_records, spent:
        Batches on their way, records of the next one, bytes spent today by class of link.
    renewals:
        New certificates.
    """

    state: State = "idle"
    why: str = ""
    link: str = "unknown"
    batches: int = 0
    records: int = 0
    bytes: int = 0
    acknowledged: int = 0
    dead: int = 0
    lost: int = 0
    put_off: int = 0
    refused: int = 0
    impostors: int = 0
    distrusted: int = 0
    unanswered: int = 0
    forks: int = 0
    blobs: int = 0
    blob_bytes: int = 0
    blobs_lost: int = 0
    in_flight: int = 0
    batch_records: int = 0
    spent: dict[str, int] = {}
    renewals: int = 0
