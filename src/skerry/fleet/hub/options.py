"""The options of a hub: every limit with its unit and the reason for its default."""

from __future__ import annotations

from skerry.spec.ports import Options
from skerry.spec.units import Duration, Size
from skerry.wire.limits import Limits


class HubOptions(Options, frozen=True, kw_only=True):
    """How much a hub takes at once, from whom, and how long it waits.

    Parameters
    ----------
    max_body:
        The most bytes of one batch as sent; 8 MiB is 600,000 ordinary records, far more than an uplink sends at once.
    max_decoded:
        The most bytes that one batch may become, which makes a zip bomb harmless: one batch is unpacked at a time.
    max_records:
        The most records of one batch; what is committed together is also answered together.
    in_flight:
        The most bytes of batches that are held while they wait; beyond, devices are told to come back (503).
    per_device:
        How many batches of one device may wait; an uplink has 2 to 4 on their way, and nobody crowds out others (429).
    group:
        The most batches in one commit; beyond it a commit costs little less for each.
    retry_after:
        What a device is told to wait; a second empties the queue of most disks.
    patience:
        How long a sender may take for its body, so that slow ones cannot hold memory for ever.
    connections:
        How many connections may be open at once; each costs some tens of kB with TLS, so these some 200 MB.
    keep_alive:
        How long a connection without a request is kept; a device that reports every minute need not make it anew.
    streams:
        How many live streams may be open; each reads the store at every commit.
    max_blob:
        The largest blob: a long video of a camera; a disk is not filled by one device's mistake.
    max_uploads:
        How many blobs of one device may be under way at once.
    upload_life:
        How long an unfinished upload is kept; a device that is away for a week starts again.
    free_space:
        Where less is free on the disk, no blob is taken, so that records still are.
    keep:
        Records that are older are deleted once every egress has them; 0 keeps them for ever, since only the operator
        knows what they are worth.
    keep_size:
        The oldest records go where all of them are about more than that, likewise; 0 sets no bound.
    """

    max_body: Size = Size(8 * 2**20)
    max_decoded: Size = Size(32 * 2**20)
    max_records: int = 10_000
    in_flight: Size = Size(64e6)
    per_device: int = 8
    group: int = 64
    retry_after: Duration = Duration(1.0)
    patience: Duration = Duration(60.0)
    connections: int = 4096
    keep_alive: Duration = Duration(75.0)
    streams: int = 32
    max_blob: Size = Size(2e9)
    max_uploads: int = 16
    upload_life: Duration = Duration(7 * 86400.0)
    free_space: Size = Size(256e6)
    keep: Duration = Duration(0.0)
    keep_size: Size = Size(0)

    @property
    def wire(self) -> Limits:
        """The limits of one batch as its reader takes them."""
        return Limits(packed=int(self.max_body), unpacked=int(self.max_decoded), records=self.max_records)
